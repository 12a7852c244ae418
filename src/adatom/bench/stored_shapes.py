"""Make the file of stored shapes: ``python -m adatom.bench.stored_shapes FILE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import graphene

from adatom.bench.relaxed_cells import relaxed_cell
from adatom.core import GRAPHENE

_ENGINE, _CELLS = "gfn1-xtb", 8
_REACH_A = 7.5  # Å: atoms with sites this near to the middle are stored
_FAR_A = 7.0  # Å: atoms beyond show how the cell as a whole has moved
_SOURCE = (
    "GFN1-xTB (Grimme, Bannwarth and Shushkov, J. Chem. Theory Comput. 13, 1989 (2017)), one "
    "defect in 8 x 8 cells seen from above, by adatom.bench.stored_shapes; scaled to a lattice "
    "constant of 2.46 Å, without the shift of the far atoms. The first V1 is bare: engines differ "
    "in the sign of its relaxation, so its atoms are on their sites."
)
# Name of the kind, cell, whether its middle is a site, prior share of sites or bonds, and how it
# differs by direction. Priors of vacancies and rotated bonds are those of `DefectOptions`; half of
# the vacancies are reconstructed, and divacancies and their rotated form are rarer.
_SHAPES: tuple[dict[str, Any], ...] = (
    {"kind": "Stone-Wales", "cell": "Stone-Wales", "at_site": False, "prior": 1e-4},
    {"kind": "V2", "cell": "V2", "at_site": False, "prior": 1e-3},
    {"kind": "V1", "cell": "V1 drawn together", "at_site": True, "prior": 5e-3, "bare": True},
    {"kind": "V1", "cell": "V1 drawn together", "at_site": True, "prior": 5e-3, "turns": True},
)


def stored_shapes() -> dict[str, Any]:
    """Relax the cells and cut out the shapes; the content of the file."""
    return {"source": _SOURCE, "shapes": [_shape(**one) for one in _SHAPES]}


def _shape(
    kind: str, cell: str, *, at_site: bool, prior: float, bare: bool = False, **differs: bool
) -> dict[str, Any]:
    made = relaxed_cell(cell, _ENGINE, _CELLS)
    along = made.axis / np.linalg.norm(made.axis)
    axes = np.stack([along, [-along[1], along[0]]], axis=1)
    lattice_A = GRAPHENE.lattice_constant_A
    sheet = graphene(size=(_CELLS, _CELLS, 1), a=lattice_A, vacuum=8.0).positions[:, :2]
    sites, perfect = (made.sites - made.centre) @ axes, (sheet - made.centre) @ axes
    moved = (made.xy - made.sites) @ axes
    away = np.hypot(*sites.T)
    moved = moved - np.median(moved[away > _FAR_A], axis=0)
    if bare:
        moved = np.zeros_like(moved)
    near = away < _REACH_A
    return {
        "kind": kind,
        "at_site": at_site,
        "prior": prior,
        **{name: differs.get(name, False) for name in ("mirrored", "both_ways", "turns")},
        "xy_A": (sites + moved)[near].round(3).tolist(),
        "sites_A": perfect[np.hypot(*perfect.T) < _REACH_A].round(3).tolist(),
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(stored_shapes()) + "\n", encoding="utf-8")
