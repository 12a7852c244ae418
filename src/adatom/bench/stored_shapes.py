"""Make the file of stored shapes: ``python -m adatom.bench.stored_shapes FILE``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import graphene
from scipy.spatial import cKDTree

from adatom.bench.relaxed_cells import relaxed_cell
from adatom.core import GRAPHENE
from adatom.core.arrays import FloatArray

_ENGINE, _CELLS = "gfn1-xtb", 8
_ADDED_CELLS = 6  # an ad-atom moves few atoms
_REACH_A, _ADDED_REACH_A = 7.5, 5.6  # Å: atoms with sites this near to the middle are stored
_FAR_SHARE = 0.93  # of it: atoms beyond show how the cell as a whole has moved
_THIRD = np.array([[-0.5, 0.75**0.5], [-(0.75**0.5), -0.5]])  # a turn by 120 degrees
_SOURCE = (
    "GFN1-xTB (Grimme, Bannwarth and Shushkov, J. Chem. Theory Comput. 13, 1989 (2017)), one "
    "defect in 8 x 8 cells, ad-atoms in 6 x 6, seen from above, by adatom.bench.stored_shapes; "
    "scaled to a lattice constant of 2.46 Å, without the shift of the far atoms. The first V1 is "
    "bare: engines differ in the sign of its relaxation, so its atoms are on their sites. So are "
    "those under Si and under C in a hollow: Si moves its neighbours by 0.02 Å, and C leaves it. "
    "The first Si1C3 is on its site in such a sheet."
)
# Name of the kind, cell, origin of its axes, prior share of sites or bonds, and how it
# differs by direction. Priors of vacancies and rotated bonds are those of `DefectOptions`; half of
# the vacancies are reconstructed, and divacancies and their rotated form are rarer. Si is rather
# in the place of one atom than of two, and seldom on top (`sites.replaceable_sites`).
_SHAPES: tuple[dict[str, Any], ...] = (
    {"kind": "Stone-Wales", "cell": "Stone-Wales", "origin": "bond", "prior": 1e-4},
    {"kind": "V2", "cell": "V2", "origin": "bond", "prior": 1e-3},
    {
        "kind": "V2-555-777",
        "cell": "V2 555-777",
        "origin": "ring",
        "prior": 3e-4,
        "both_ways": True,
    },
    {
        "kind": "V1",
        "cell": "V1 drawn together",
        "origin": "site",
        "prior": 5e-3,
        "flat": True,
        "breathes_A": 0.12,
    },
    {"kind": "V1", "cell": "V1 drawn together", "origin": "site", "prior": 5e-3, "turns": True},
    {"kind": "ad-C-hollow", "cell": "", "origin": "ring", "prior": 5e-4, "added": ["C"]},
    {"kind": "ad-C-bridge", "cell": "C bridge", "origin": "bond", "prior": 5e-4, "added": ["C"]},
    {"kind": "ad-C-top", "cell": "C top", "origin": "site", "prior": 5e-4, "added": ["C"]},
    {"kind": "ad-Si-hollow", "cell": "", "origin": "ring", "prior": 6e-5, "added": ["Si"]},
    {"kind": "ad-Si-bridge", "cell": "", "origin": "bond", "prior": 6e-5, "added": ["Si"]},
    {"kind": "ad-Si-top", "cell": "", "origin": "site", "prior": 9e-5, "added": ["Si"]},
    # Si whose neighbours have not given way, as in simulated sheets: without it, an ad-atom on a
    # sheet that stays as it is would explain such a frame best, against its brightness.
    {
        "kind": "Si1C3",
        "cell": "Si1C3",
        "origin": "site",
        "prior": 1e-4,
        "added": ["Si"],
        "flat": True,
    },
    {
        "kind": "Si1C3",
        "cell": "Si1C3",
        "origin": "site",
        "prior": 3.5e-3,
        "added": ["Si"],
        "breathes_A": 0.06,
    },
    {
        "kind": "Si1C4",
        "cell": "Si1C4",
        "origin": "bond",
        "prior": 1.5e-3,
        "added": ["Si"],
        "breathes_A": 0.06,
    },
)


def stored_shapes() -> dict[str, Any]:
    """Relax the cells and cut out the shapes; the content of the file."""
    return {"source": _SOURCE, "shapes": [stored_shape(**one) for one in _SHAPES]}


def stored_shape(
    kind: str,
    cell: str,
    *,
    origin: str,
    prior: float,
    flat: bool = False,
    added: Sequence[str] = (),
    breathes_A: float = 0.0,
    **differs: bool,
) -> dict[str, Any]:
    """Relax one cell and cut out its shape.

    Parameters
    ----------
    kind
        Name of the kind.
    cell
        Cell of `relaxed_cell`; empty for an ad-atom on a sheet that stays as it is.
    origin, prior, added, breathes_A
        As of `adatom.features.defects.shapes.Shape`.
    flat
        Leave the atoms of the sheet on their sites.
    differs
        The other fields of `Shape`.
    """
    on_top = kind.startswith("ad-")
    cells, reach = (_ADDED_CELLS, _ADDED_REACH_A) if on_top else (_CELLS, _REACH_A)
    perfect = graphene(size=(cells, cells, 1), a=GRAPHENE.lattice_constant_A, vacuum=8.0)
    sheet = perfect.positions[:, :2]
    if cell:
        made = relaxed_cell(cell, _ENGINE, cells)
        xy, old, centre, axis = made.xy, made.sites, made.centre, made.axis
    else:
        centre = _place(sheet, origin)
        xy = old = np.concatenate([sheet, centre[None]])
    if origin == "ring" and not added:
        # Its three-fold axis is in the middle of the ring whose bond has turned.
        centre = _three_fold(xy, centre)
        rings = sheet[np.argsort(np.hypot(*(sheet - centre).T))[:6]]
        centre = rings.mean(axis=0)
    if on_top or origin == "ring":
        axis = _axis(sheet, centre, origin)
    along = axis / np.linalg.norm(axis)
    axes = np.stack([along, [-along[1], along[0]]], axis=1)
    sites, moved = (old - centre) @ axes, (xy - old) @ axes
    away = np.hypot(*sites.T)
    own = np.arange(len(away)) < len(away) - len(added)
    moved = moved - np.median(moved[own & (away > _FAR_SHARE * reach)], axis=0)
    if flat:
        moved = np.zeros_like(moved)
    moved[~own] = 0.0  # by symmetry
    near = away < reach
    kept = (sheet - centre) @ axes
    return {
        "kind": kind,
        "origin": origin,
        "prior": prior,
        "added": list(added),
        "breathes_A": breathes_A,
        **{name: differs.get(name, False) for name in ("mirrored", "both_ways", "turns")},
        "xy_A": (sites + moved)[near].round(3).tolist(),
        "sites_A": kept[np.hypot(*kept.T) < reach].round(3).tolist(),
    }


def _three_fold(xy: FloatArray, near: FloatArray) -> FloatArray:
    """Find the atom within 3 Å of a place around which the others lie most like a triangle."""
    tree = cKDTree(xy)
    chosen = xy[np.hypot(*(xy - near).T) < 3.0]

    def misfit(middle: FloatArray) -> float:
        around = xy[np.hypot(*(xy - middle).T) < 4.5] - middle
        return float(tree.query(middle + around @ _THIRD)[0].max())

    return np.asarray(min(chosen, key=misfit))


def _place(sheet: FloatArray, origin: str) -> FloatArray:
    """Give a place near the middle of a sheet, shape (2,), Å."""
    first = int(np.argmin(np.hypot(*(sheet - sheet.mean(axis=0)).T)))
    bonded = int(np.argsort(np.hypot(*(sheet - sheet[first]).T))[1])
    axis = sheet[bonded] - sheet[first]
    return np.asarray(sheet[first] + {"site": 0.0, "bond": 0.5, "ring": -1.0}[origin] * axis)


def _axis(sheet: FloatArray, centre: FloatArray, origin: str) -> FloatArray:
    """Vector of the bond that gives a place its axes, Å."""
    first, second = np.argsort(np.hypot(*(sheet - centre).T))[:2]
    if origin == "ring":
        return np.asarray(sheet[first] - centre)
    return np.asarray(sheet[second] - sheet[first])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(stored_shapes()) + "\n", encoding="utf-8")
