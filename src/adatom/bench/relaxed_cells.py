"""Relaxed cells of graphene with one defect each: the truth of benchmarks, and stored shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ase
import numpy as np
from ase.build import graphene

from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.core.arrays import FloatArray, IntArray
from adatom.errors import BadInput
from adatom.features.defects.bonds import bond_graph
from adatom.features.defects.rings import rings
from adatom.simulation.energies import place_adatom
from adatom.simulation.options import RelaxOptions
from adatom.simulation.relaxation import relax

KINDS = ("V1", "V1 drawn together", "V2", "V2 555-777", "Stone-Wales")
_SITES: tuple[Literal["top", "bridge", "hollow"], ...] = ("top", "bridge", "hollow")
_CACHE = Path.home() / ".cache" / "adatom" / "cells"
_A = GRAPHENE.lattice_constant_A
_SHORT = 1.32 / 1.42  # length of a rotated bond over that of others, to start from
_REPLACED = {"Si1C3": 1, "Si1C4": 2}  # carbon atoms that one Si replaces
_RAISED_A = 0.5  # Å: Si with three bonds stands out of the sheet
_NOISE_A = 0.03  # Å across the sheet: a flat start stays flat


@dataclass(frozen=True, slots=True, eq=False)
class RelaxedCell:
    """A periodic cell of graphene with one defect, scaled to graphene's lattice constant.

    Parameters
    ----------
    xy
        Positions, shape (atom, 2), Å; an ad-atom is the last.
    species
        0 for C, 1 for Si, shape (atom,).
    sites
        Site of the perfect sheet that each atom comes from, shape (atom, 2), Å; for an ad-atom its
        own place.
    centre, axis
        Middle of the defect before relaxation and vector of its bond, shape (2,), Å.
    cell
        Lattice vectors as rows, shape (2, 2), Å.
    """

    xy: FloatArray
    species: IntArray
    sites: FloatArray
    centre: FloatArray
    axis: FloatArray
    cell: FloatArray


def relaxed_cell(kind: str, engine: str, cells: int) -> RelaxedCell:
    """Relax a cell with a defect; results are kept on disk.

    Parameters
    ----------
    kind
        One of `KINDS`, or such as ``C bridge``: an ad-atom and its site. ``Si1C3`` and ``Si1C4``
        are Si in the place of one atom and of two.
    engine
        Engine of `adatom.simulation`.
    cells
        Cells of graphene along each vector.
    """
    kept = _CACHE / f"{kind.replace(' ', '-')}_{engine}_{cells}.npz"
    if not kept.exists():
        made = _relaxed(kind, engine, cells)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **{name: getattr(made, name) for name in RelaxedCell.__dataclass_fields__})
    with np.load(kept) as stored:
        return RelaxedCell(**{name: stored[name] for name in RelaxedCell.__dataclass_fields__})


def _relaxed(kind: str, engine: str, cells: int) -> RelaxedCell:
    sheet = graphene(size=(cells, cells, 1), a=_A, vacuum=8.0)
    sheet.pbc = True
    perfect = sheet.positions.copy()
    middle = sheet.cell.array[:2].sum(axis=0) / 2.0
    first = int(np.argmin(np.hypot(*(perfect - middle)[:, :2].T)))
    around = np.hypot(*(perfect - perfect[first])[:, :2].T)
    bonded = sorted(np.argsort(around)[1:4], key=lambda k: -abs(perfect[k, 0] - perfect[first, 0]))
    pair = (first, int(bonded[0]))
    axis, centre = perfect[pair[1]] - perfect[first], perfect[list(pair)].mean(axis=0)
    kept = np.arange(len(sheet))
    if kind == "Stone-Wales":
        _rotate(sheet, *pair)
    elif kind in _REPLACED:
        replaced = list(pair[: _REPLACED[kind]])
        centre = perfect[replaced].mean(axis=0)
        sheet.append(ase.Atom("Si", centre + [0.0, 0.0, _RAISED_A]))
        perfect = np.concatenate([perfect, centre[None]])
        kept = np.delete(np.arange(len(sheet)), replaced)
    elif kind.startswith("V2"):
        kept = np.delete(kept, pair)
        for gone in pair:
            _draw_together(sheet, *_bonded(sheet, gone, pair))
        if "555-777" in kind:
            _rotate(sheet, *_bond_to_rotate(sheet, kept, centre))
    elif kind.startswith("V1"):
        kept, centre = np.delete(kept, first), perfect[first]
        if "together" in kind:
            _draw_together(sheet, *_bonded(sheet, first, pair))
    else:
        symbol, site = kind.split()
        chosen = _SITES[[str(s) for s in _SITES].index(site)]
        made = place_adatom(Structure.from_ase(sheet), symbol, chosen, (middle[0], middle[1]))
        sheet = made.to_ase()
        kept, centre = np.arange(len(sheet)), sheet.positions[-1]
        perfect = np.concatenate([perfect, centre[None]])
    start = sheet if len(kept) == len(sheet) else sheet[kept]
    start.positions[:, 2] += np.random.default_rng(1).normal(0.0, _NOISE_A, len(start))
    final = _minimum(start, engine)
    return RelaxedCell(
        final.positions[:, :2] * (_A * cells / np.linalg.norm(final.cell.array[0])),
        (final.numbers == 14).astype(np.int64),
        perfect[kept, :2],
        centre[:2],
        axis[:2],
        sheet.cell.array[:2, :2].copy(),
    )


def _minimum(atoms: ase.Atoms, engine: str) -> ase.Atoms:
    task = SimulationTask(Structure.from_ase(atoms), "relax", engine, material=GRAPHENE)
    return relax(task, RelaxOptions()).trajectory[-1]


def _bonded(atoms: ase.Atoms, i: int, but: tuple[int, int]) -> list[int]:
    """Find the atoms bonded to an atom, but for some."""
    away = np.linalg.norm(atoms.positions - atoms.positions[i], axis=1)
    return [int(k) for k in np.argsort(away)[1:4] if k not in but]


def _draw_together(atoms: ase.Atoms, i: int, j: int) -> None:
    step = 0.2 * (atoms.positions[j] - atoms.positions[i])
    atoms.positions[i] += step
    atoms.positions[j] -= step


def _rotate(atoms: ase.Atoms, i: int, j: int) -> None:
    middle = (atoms.positions[i] + atoms.positions[j]) / 2.0
    half = (atoms.positions[j] - atoms.positions[i]) / 2.0 * _SHORT
    turned = np.array([-half[1], half[0], 0.0])
    atoms.positions[i], atoms.positions[j] = middle - turned, middle + turned


def _bond_to_rotate(sheet: ase.Atoms, kept: IntArray, centre: FloatArray) -> tuple[int, int]:
    """Find the bond whose rotation makes three rings of five and three of seven atoms."""
    near = [int(k) for k in kept if np.hypot(*(sheet.positions[k] - centre)[:2]) < 4.5]
    for i in near:
        for j in near:
            if i >= j or np.linalg.norm(sheet.positions[i] - sheet.positions[j]) > 1.6:
                continue
            trial = sheet.copy()
            _rotate(trial, i, j)
            try:
                xy = _minimum(trial[kept], "lammps").positions[:, :2]
            except BadInput:  # this rotation leaves an atom alone
                continue
            sizes = [
                len(r) for r in rings(bond_graph(xy, ["C"] * len(xy)))
                if len(r) != 6 and np.hypot(*(xy[list(r)].mean(axis=0) - centre[:2])) < 6.0
            ]  # fmt: skip
            if sorted(sizes) == [5, 5, 5, 7, 7, 7]:
                return i, j
    raise RuntimeError("no bond makes a 555-777 divacancy")
