"""Lay a known structure onto another one of the same defect, however each lies in its cell."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import ase
import numpy as np
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from adatom.core.arrays import FloatArray

_SAME_CELL = 1e-3  # relative difference of the metric below which a cell is the same
_CORE_A = 5.0  # Å: atoms this near to the middle of the cell are compared
_GOOD_A2 = 0.09  # Å²: mean square distance below which no other way is tried
_BOND_SCALE = 1.2  # bond length over the sum of covalent radii below which two atoms are bonded
_FOREIGN = 0.1  # share of the atoms below which an element is foreign
_START_A = 4.0  # Å: the atom that fixes the translation is that near to the middle


@dataclass(frozen=True, slots=True, eq=False)
class Laid:
    """A known structure laid onto a given one.

    Parameters
    ----------
    positions
        Shape (atom, 3), Å: those of the known one, in the order and the cell of the given one.
    rms_A, farthest_A
        Root mean square and largest distance of its atoms near the middle of the cell.
    """

    positions: FloatArray
    rms_A: float
    farthest_A: float


def lay_onto(known: ase.Atoms, given: ase.Atoms) -> Laid | None:
    """Turn, mirror and shift a sheet so that it fits another one best.

    Parameters
    ----------
    known, given
        Sheets with the defect near the middle of the same cell, z along the normal.

    Returns
    -------
    None where cells or compositions differ.

    Examples
    --------
    >>> from ase.build import graphene
    >>> given = graphene(size=(7, 7, 1), a=2.46, vacuum=10.0)
    >>> del given[48]
    >>> turned = given.copy()
    >>> turned.rotate(60, "z", center=given.cell.sum(axis=0) / 2)
    >>> turned.wrap(pbc=(True, True, False))
    >>> round(lay_onto(turned, given).rms_A, 6)
    0.0
    """
    cell = given.cell.array
    if sorted(known.numbers) != sorted(given.numbers):
        return None
    if not np.allclose(known.cell.array, cell, atol=_SAME_CELL * np.abs(cell).max()):
        return None
    own, other = (_centred(a, cell) for a in (known, given))
    core = np.flatnonzero(np.linalg.norm(other[:, :2], axis=1) <= _CORE_A)
    turns = _operations(cell)
    centres = [_odd_centre(a, xyz) for a, xyz in zip((known, given), (own, other), strict=True)]
    best: tuple[float, FloatArray] | None = None
    if centres[0] is not None and centres[1] is not None:
        shifts = [[centres[1] - turn @ centres[0]] for turn in turns]
        best = _best(own, other, core, known, given, turns, shifts)
    if best is None or best[0] > _GOOD_A2:  # the defect has no odd atoms, or noise made some
        start = _start(known, own)
        near = np.linalg.norm(other[:, :2], axis=1) <= _START_A + 2.5
        goals = np.flatnonzero(near & (given.numbers == known.numbers[start]))
        shifts = [[*(other[goals] - turn @ own[start])] for turn in turns]
        best = _best(own, other, core, known, given, turns, shifts)
    apart = _paired(best[1], known.numbers, other, given.numbers, cell)
    distance = np.linalg.norm(apart[core], axis=1)
    return Laid(
        given.positions + apart,
        float(np.sqrt(np.mean(distance**2))),
        float(distance.max()),
    )


def _best(
    own: FloatArray,
    other: FloatArray,
    core: NDArray[np.int64],
    known: ase.Atoms,
    given: ase.Atoms,
    turns: Sequence[FloatArray],
    shifts: Sequence[Sequence[FloatArray]],
) -> tuple[float, FloatArray]:
    """Mean square distance and positions of the best of all turns with their shifts."""
    best = (np.inf, own)
    for turn, tried in zip(turns, shifts, strict=True):
        for shift in tried:
            moved = own @ turn.T + shift * (1.0, 1.0, 0.0)
            cost = _misfit(moved, known.numbers, other[core], given.numbers[core], given.cell.array)
            if cost < best[0]:
                best = (cost, moved)
    return best


def _odd_centre(atoms: ase.Atoms, centred: FloatArray) -> FloatArray | None:
    """Mean place of the atoms near the middle that are foreign or not bonded as most are."""
    radii = covalent_radii[atoms.numbers] * _BOND_SCALE
    count = np.bincount(neighbor_list("i", atoms, list(radii)), minlength=len(atoms))
    odd = np.zeros(len(atoms), dtype=np.bool_)
    for number in set(atoms.numbers.tolist()):
        same = atoms.numbers == number
        odd |= same & (count != np.bincount(count[same]).argmax())
        odd |= same if same.mean() < _FOREIGN else False
    odd &= np.linalg.norm(centred[:, :2], axis=1) <= _CORE_A
    return centred[odd].mean(axis=0) if odd.any() else None


def _centred(atoms: ase.Atoms, cell: FloatArray) -> FloatArray:
    """Positions from the middle of the cell in the plane, and of the sheet across it."""
    out = atoms.positions - 0.5 * (cell[0] + cell[1])
    out[:, 2] = atoms.positions[:, 2] - np.median(atoms.positions[:, 2])
    return _nearest(out, cell)


def _nearest(vectors: FloatArray, cell: FloatArray) -> FloatArray:
    """Translate vectors (..., 3) in the plane to about the shortest."""
    share = vectors[..., :2] @ np.linalg.inv(cell[:2, :2])
    out = vectors.copy()
    out[..., :2] -= np.round(share) @ cell[:2, :2]
    return out


def _start(atoms: ase.Atoms, centred: FloatArray) -> int:
    """The atom that fixes the translation: the rarest element near the middle."""
    away = np.linalg.norm(centred[:, :2], axis=1)
    rare = np.array([np.count_nonzero(atoms.numbers == n) for n in atoms.numbers])
    inside = np.flatnonzero(away <= max(_START_A, float(away.min())))
    return int(min(inside, key=lambda i: (rare[i], away[i])))


def _operations(cell: FloatArray) -> list[FloatArray]:
    """Turns and mirrors, shape (3, 3), that map the plane's lattice onto itself; both faces."""
    plane = cell[:2, :2]
    metric = plane @ plane.T
    out = []
    for entries in itertools.product((-1, 0, 1), repeat=4):
        m = np.array(entries).reshape(2, 2)
        if abs(round(np.linalg.det(m))) != 1:
            continue
        if not np.allclose(m @ metric @ m.T, metric, rtol=_SAME_CELL, atol=_SAME_CELL):
            continue
        turn = np.eye(3)
        turn[:2, :2] = (np.linalg.inv(plane) @ m @ plane).T
        out += [turn, turn @ np.diag([1.0, 1.0, -1.0])]
    return out


def _misfit(
    xyz: FloatArray, numbers: NDArray[np.int64], goal: FloatArray, wanted: NDArray[np.int64],
    cell: FloatArray,
) -> float:  # fmt: skip
    """Mean square distance of each wanted atom from the nearest one of its element."""
    square = np.sum(_nearest(goal[:, None] - xyz[None], cell) ** 2, axis=2)
    square[wanted[:, None] != numbers[None]] = _CORE_A**2
    return float(square.min(axis=1).mean())


def _paired(
    xyz: FloatArray, numbers: NDArray[np.int64], goal: FloatArray, wanted: NDArray[np.int64],
    cell: FloatArray,
) -> FloatArray:  # fmt: skip
    """Pair the atoms one to one; the vector from each goal to its atom, shape (atom, 3)."""
    apart = _nearest(xyz[None] - goal[:, None], cell)
    square = np.sum(apart**2, axis=2)
    square[wanted[:, None] != numbers[None]] = 1e6
    _, order = linear_sum_assignment(square)
    out: FloatArray = apart[np.arange(len(goal)), order]
    return out
