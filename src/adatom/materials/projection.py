"""Projection of a crystal along a zone axis: its two-dimensional cell and its atomic columns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import gcd

import numpy as np
from ase import Atoms
from ase.formula import Formula

from adatom.core.arrays import FloatArray
from adatom.errors import BadInput

# Å: atoms closer than this in projection are one column; STEM does not resolve them
_MERGE_A = 0.35
_REACH = 5  # largest coefficient, a count, in the combinations searched for short lattice vectors


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A projected crystal.

    Parameters
    ----------
    cell
        Two lattice vectors as rows, Å, right-handed.
    basis
        Fractional coordinates of the columns, shape (column, 2).
    labels
        Label of each column: the chemical symbol or formula of its atoms in one period.
    """

    cell: FloatArray
    basis: FloatArray
    labels: tuple[str, ...]


def project(atoms: Atoms, zone_axis: tuple[int, int, int]) -> Projection:
    """Project a periodic crystal along a lattice direction.

    The projections of the three lattice vectors generate a plane lattice. The area of its cell is
    the volume of the crystal's cell over the period along the axis. The shortest two vectors that
    span this area are the cell.

    Parameters
    ----------
    atoms
        Periodic, with three lattice vectors.
    zone_axis
        Lattice direction of the beam, three integers in units of the lattice vectors.

    Returns
    -------
    The smallest projected cell with its columns.

    Raises
    ------
    BadInput
        If the zone axis is zero, or its index is so high that no short cell was found.

    Examples
    --------
    >>> from ase.build import bulk
    >>> seen = project(bulk("NaCl", "rocksalt", a=5.64, cubic=True), (0, 0, 1))
    >>> abs(seen.cell).round(2).max(), seen.labels
    (np.float64(2.82), ('NaCl',))
    """
    cell = np.asarray(atoms.cell[:], dtype=np.float64)
    if not any(zone_axis):
        raise BadInput(
            "zone axis", expected="a lattice direction such as 1 1 0", got="0 0 0",
            todo="Name the direction of the beam.",
        )  # fmt: skip
    divisor = gcd(*(abs(i) for i in zone_axis))
    period = (np.asarray(zone_axis) // divisor) @ cell
    along = period / np.linalg.norm(period)
    side = np.eye(3)[int(np.argmin(np.abs(along)))]
    first = np.cross(side, along)
    first /= np.linalg.norm(first)
    plane = np.stack([first, np.cross(along, first)], axis=1)  # (3, 2), right-handed from above
    area = abs(np.linalg.det(cell)) / float(np.linalg.norm(period))
    flat = _shortest_cell(cell @ plane, area, zone_axis)
    fractional = atoms.positions @ plane @ np.linalg.inv(flat)
    return _primitive(_columns(flat, fractional % 1.0, list(atoms.get_chemical_symbols())))


def _shortest_cell(vectors: FloatArray, area: float, zone_axis: tuple[int, int, int]) -> FloatArray:
    k = np.array(list(product(range(-_REACH, _REACH + 1), repeat=3)))
    return _shortest_of(k @ vectors, area, f"zone axis {zone_axis}")


def _shortest_of(points: FloatArray, area: float, subject: str) -> FloatArray:
    """Find the shortest lattice vector, and the shortest that spans the cell's area with it."""
    length = np.linalg.norm(points, axis=1)
    points = points[np.argsort(length)]
    points = points[np.linalg.norm(points, axis=1) > 0.3]
    first = points[0]
    cross = first[0] * points[:, 1] - first[1] * points[:, 0]
    fits = np.flatnonzero(np.abs(cross - area) < 0.01 * area)
    if not len(fits):
        raise BadInput(
            subject,
            expected="a direction of low index",
            got="one whose projected cell is longer than five lattice vectors",
            todo="Give a simpler zone axis.",
        )
    return np.stack([first, points[fits[0]]])


def _primitive(seen: Projection) -> Projection:
    """Reduce to the primitive cell: a centred one would have reflections that do not exist."""
    shifts = [np.zeros(2)]
    for other, label in zip(seen.basis[1:], seen.labels[1:], strict=True):
        shift = other - seen.basis[0]
        if label == seen.labels[0] and _repeats(seen, shift):
            shifts.append(shift)
    if len(shifts) == 1:
        return seen
    k = np.array(list(product(range(-3, 4), repeat=2)))
    points = np.concatenate([(k + t) @ seen.cell for t in shifts])
    area = float(np.linalg.det(seen.cell)) / len(shifts)
    cell = _shortest_of(points, area, "the projected cell")
    places = seen.basis @ seen.cell @ np.linalg.inv(cell) % 1.0
    keep: list[int] = []
    for i, place in enumerate(places):
        gaps = [(place - places[j] + 0.5) % 1.0 - 0.5 for j in keep]
        if all(np.linalg.norm(g @ cell) > _MERGE_A for g in gaps):
            keep.append(i)
    return Projection(cell, places[keep], tuple(seen.labels[i] for i in keep))


def _repeats(seen: Projection, shift: FloatArray) -> bool:
    """Tell whether a translation maps every column onto one with the same label."""
    for place, label in zip(seen.basis, seen.labels, strict=True):
        gaps = ((seen.basis - place - shift + 0.5) % 1.0 - 0.5) @ seen.cell
        near = np.linalg.norm(gaps, axis=1) < _MERGE_A
        if not any(seen.labels[i] == label for i in np.flatnonzero(near)):
            return False
    return True


def _columns(cell: FloatArray, fractional: FloatArray, symbols: list[str]) -> Projection:
    """Merge atoms of one projected position into columns, labelled with the atoms of one period."""
    places: list[FloatArray] = []
    members: list[list[str]] = []
    for place, symbol in zip(fractional, symbols, strict=True):
        for k, other in enumerate(places):
            d = place - other
            d -= np.round(d)
            if np.linalg.norm(d @ cell) < _MERGE_A:
                members[k].append(symbol)
                break
        else:
            places.append(place)
            members.append([symbol])
    labels = [Formula("".join(sorted(m))).format("metal") for m in members]
    # The cell may hold several periods of each column: reduce the labels to one period.
    counts = [sum(Formula(label).count().values()) for label in labels]
    common = gcd(*counts)
    if common > 1:
        labels = [_divide(label, common) for label in labels]
    return Projection(cell, np.array(places), tuple(labels))


def _divide(label: str, by: int) -> str:
    count = Formula(label).count()
    if any(n % by for n in count.values()):
        return label
    return Formula.from_dict({s: n // by for s, n in count.items()}).format("metal")
