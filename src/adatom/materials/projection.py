"""Projection of a crystal along a zone axis: its two-dimensional cell and its atomic columns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from math import gcd, hypot

import numpy as np
from ase import Atoms
from ase.formula import Formula
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray
from adatom.core.crystal import Crystal
from adatom.errors import BadInput
from adatom.materials.depth import in_depth

# Å: atoms closer than this in projection are one column; STEM does not resolve them
_MERGE_A = 0.35
_SAMPLE = 32  # columns with which a translation is tested before all of them are
_HIGHEST_INDEX = 99  # of a zone axis
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
    crystal
        The atoms in three dimensions, in the same axes; None where heights are not known. Its cell
        may be larger than the projected one.
    """

    cell: FloatArray
    basis: FloatArray
    labels: tuple[str, ...]
    crystal: Crystal | None = None


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
    if max(abs(i) for i in zone_axis) > _HIGHEST_INDEX:
        raise BadInput(
            f"zone axis {zone_axis}", expected=f"indices up to {_HIGHEST_INDEX}",
            got=str(max(abs(i) for i in zone_axis)), todo="Give a simpler zone axis.",
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
    seen = _primitive(_columns(flat, fractional % 1.0, list(atoms.get_chemical_symbols())))
    axes = np.column_stack([plane, along])
    vectors = _over(flat, cell @ axes, float(np.linalg.norm(period)))
    symbols = list(atoms.get_chemical_symbols())
    return replace(seen, crystal=in_depth(vectors, atoms.positions @ axes, symbols, seen.cell))


def _over(flat: FloatArray, vectors: FloatArray, period_A: float) -> FloatArray:
    """Lattice vectors, shape (3, 3), Å, over the two of a projected cell, and the period."""
    k = np.array(list(product(range(-_REACH, _REACH + 1), repeat=3)))
    points = k @ vectors
    points[:, 2] -= period_A * np.round(points[:, 2] / period_A)
    nearest = [int(np.argmin(np.linalg.norm(points[:, :2] - row, axis=1))) for row in flat]
    return np.array([*points[nearest], (0.0, 0.0, period_A)])


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
    """Reduce to the primitive cell: a centred one would have reflections that do not exist.

    Translations that map the crystal onto itself form a group, and the number of columns of each
    kind is a multiple of its order. The cell is therefore divided by the prime factors of these
    numbers as long as possible: time grows with the number of columns, and not with its square.
    """
    smaller: Projection | None = seen
    while smaller is not None:
        seen = smaller
        common = gcd(*Counter(seen.labels).values())
        smaller = next((s for p in _primes_of(common) if (s := _divided(seen, p))), None)
    return seen


def _primes_of(number: int) -> list[int]:
    primes, p = [], 2
    while number > 1:
        if number % p == 0:
            primes.append(p)
            while number % p == 0:
                number //= p
        p = p + 1 if p * p < number else max(number, p + 1)
    return primes


def _divided(seen: Projection, prime: int) -> Projection | None:
    """Give the crystal in a cell smaller by a prime factor; None if there is no such cell."""
    places = _Places(seen)
    # Every group of this order is generated by (1, j) or (0, 1) over the prime.
    for first, second in [*((1, j) for j in range(prime)), (0, 1)]:
        step = np.array([first, second]) / prime
        if not all(places.repeat(k * step, sample=True) for k in range(1, prime)):
            continue
        if not (places.repeat(step) and places.repeat(prime // 2 * step)):
            continue
        k = np.array(list(product(range(-3, 4), repeat=2)))
        points = np.concatenate([(k + i * step % 1.0) @ seen.cell for i in range(prime)])
        area = float(np.linalg.det(seen.cell)) / prime
        cell = _shortest_of(points, area, "the projected cell")
        fractional = seen.basis @ seen.cell @ np.linalg.inv(cell) % 1.0
        of = _grouped(cell, fractional)
        keep = np.unique(of, return_index=True)[1]
        return Projection(cell, fractional[keep], tuple(seen.labels[i] for i in keep))
    return None


class _Places:
    """The columns of a cell, to test whether a translation maps the crystal onto itself."""

    def __init__(self, seen: Projection) -> None:
        self._seen = seen
        kinds = {label: i for i, label in enumerate(dict.fromkeys(seen.labels))}
        self._kind = np.array([kinds[label] for label in seen.labels])
        basis = seen.basis % 1.0
        around = np.array(list(product((-1, 0, 1), repeat=2)))
        images = (basis[:, None] + around).reshape(-1, 2)
        reach = _MERGE_A / _heights(seen.cell)
        near = np.all((images > -reach) & (images < 1.0 + reach), axis=1)
        self._images = np.repeat(self._kind, len(around))[near]
        self._tree = cKDTree(images[near] @ seen.cell)
        self._basis = basis
        every = max(len(basis) // _SAMPLE, 1)
        self._some = np.arange(0, len(basis), every)

    def repeat(self, step: FloatArray, *, sample: bool = False) -> bool:
        """Tell whether every column, or of a sample every one, has its like a step away."""
        whole = (step - np.round(step)) @ self._seen.cell
        if float(np.linalg.norm(whole)) < _MERGE_A:  # every column is its own like
            return False
        which = self._some if sample else slice(None)
        moved = (self._basis[which] + step) % 1.0 @ self._seen.cell
        distance, at = self._tree.query(moved, distance_upper_bound=_MERGE_A)
        found = np.isfinite(distance)
        return bool(found.all() and (self._images[at] == self._kind[which]).all())


def _heights(cell: FloatArray) -> FloatArray:
    """Distances of opposite edges of a plane cell, Å."""
    out: FloatArray = abs(np.linalg.det(cell)) / np.linalg.norm(cell, axis=1)[::-1]
    return out


def _grouped(cell: FloatArray, fractional: FloatArray) -> NDArray[np.int64]:
    """Number the places of atoms, shape (atom,); atoms nearer than the limit share a place.

    Atoms are sorted into squares of about the limit's edge, so that each is compared with those of
    nine squares only.
    """
    squares = np.maximum((_heights(cell) / _MERGE_A).astype(int), 1)
    at = (fractional * squares).astype(int) % squares
    (a, b), (c, d) = cell.tolist()
    known: dict[tuple[int, int], list[int]] = {}
    places: list[tuple[float, float]] = []
    out = np.empty(len(fractional), dtype=np.int64)
    rows, cols = (int(n) for n in squares)
    for i, ((x, y), (row, col)) in enumerate(zip(fractional.tolist(), at.tolist(), strict=True)):
        around = {((row + k) % rows, (col + m) % cols) for k in (-1, 0, 1) for m in (-1, 0, 1)}
        for k in sorted(k for square in around for k in known.get(square, ())):
            u, v = x - places[k][0], y - places[k][1]
            u, v = u - round(u), v - round(v)
            if hypot(u * a + v * c, u * b + v * d) < _MERGE_A:
                out[i] = k
                break
        else:
            known.setdefault((row, col), []).append(len(places))
            out[i] = len(places)
            places.append((x, y))
    return out


def _columns(cell: FloatArray, fractional: FloatArray, symbols: list[str]) -> Projection:
    """Merge atoms of one projected position into columns, labelled with the atoms of one period."""
    of = _grouped(cell, fractional)
    first = np.unique(of, return_index=True)[1]
    members: list[Counter[str]] = [Counter() for _ in first]
    for place, symbol in zip(of.tolist(), symbols, strict=True):
        members[place][symbol] += 1
    # The cell may hold several periods of each column: reduce the labels to one period.
    common = gcd(*(sum(m.values()) for m in members))
    labels = tuple(_label(m, common) for m in members)
    return Projection(cell, fractional[first], labels)


def _label(members: Counter[str], periods: int) -> str:
    """Formula of a column's atoms in one period, if each occurs as often in all of them."""
    whole = all(n % periods == 0 for n in members.values())
    count = {s: n // (periods if whole else 1) for s, n in sorted(members.items())}
    return str(Formula.from_dict(count).format("metal"))
