"""Bonds between atoms by their distance, limited by the coordination of the crystal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from adatom.core.arrays import BoolArray, FloatArray, IntArray
from adatom.errors import BadInput

# Alvarez radii (ase.data; Cordero et al., Dalton Trans. 2008, 2832) give C-C 1.52, Si-C 1.87 and
# Si-Si 2.22 Å; graphene's second neighbours lie at 2.46 Å, so C-C must be cut below about 1.9 Å.
BOND_FACTOR = 1.2

# Noise may stretch a bond beyond the cut-off: an atom with a free valence reaches this factor
# further. Chosen so that noise of 0.15 Å rarely breaks a ring.
REACH = 1.13


@dataclass(frozen=True, slots=True, eq=False)
class BondGraph:
    """Atoms of one frame and the bonds between them.

    Parameters
    ----------
    xy
        Positions, shape (atom, 2), Å, undistorted axes.
    bonds
        Pairs of atoms, shape (bond, 2), each pair once, the smaller index first.
    near_border
        Shape (atom,): True where the frame's border is too near to judge the neighbours.
    """

    xy: FloatArray
    bonds: IntArray
    near_border: BoolArray

    def neighbours(self) -> list[IntArray]:
        """List the bonded atoms of every atom."""
        out: list[list[int]] = [[] for _ in range(len(self.xy))]
        for a, b in self.bonds:
            out[a].append(int(b))
            out[b].append(int(a))
        return [np.array(sorted(n), dtype=np.int64) for n in out]

    def coordination(self) -> IntArray:
        """Count the bonds of every atom, shape (atom,)."""
        return np.bincount(self.bonds.ravel(), minlength=len(self.xy)).astype(np.int64)

    def lengths(self) -> FloatArray:
        """Lengths of the bonds, shape (bond,), Å."""
        d = self.xy[self.bonds[:, 0]] - self.xy[self.bonds[:, 1]]
        return np.hypot(d[:, 0], d[:, 1])


def bond_cutoff(first: str, second: str, factor: float = BOND_FACTOR) -> float:
    """Longest bond of a pair of elements, Å: the sum of their covalent radii times `factor`.

    Raises
    ------
    BadInput
        If one of them is not a chemical symbol.
    """
    for symbol in (first, second):
        if symbol not in atomic_numbers:
            raise BadInput(
                "element",
                expected="a chemical symbol such as C or Si",
                got=repr(symbol),
                todo="Check the element column of the atom table.",
            )
    radii = covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]]
    return float(radii) * factor


def bond_graph(
    xy: FloatArray,
    elements: Iterable[str],
    *,
    border_distance_A: FloatArray | None = None,
    border_A: float = 2.5,
    factor: float = BOND_FACTOR,
    coordination: int | None = None,
    host: str | None = None,
) -> BondGraph:
    """Bond the atoms of one frame by distance.

    Without `coordination`, every pair within its cut-off is bonded. With it, pairs are accepted in
    the order of their length relative to the cut-off. An atom takes at most `coordination` bonds
    (one more where it is not `host`), triangles are not closed, and an atom with a free valence
    may reach 13 % further.

    Parameters
    ----------
    xy
        Positions, shape (atom, 2), Å, undistorted axes.
    elements
        Chemical symbols, one an atom.
    border_distance_A, border_A
        Distance of every atom from the frame's border, shape (atom,), Å; atoms nearer than
        `border_A`, Å, are marked.
    factor
        Cut-off over the sum of the covalent radii.
    coordination
        Bonds of an atom in the perfect crystal.
    host
        Element of the perfect crystal.

    Raises
    ------
    BadInput
        If the shapes do not agree.
    """
    positions = np.asarray(xy, dtype=np.float64)
    symbols = list(elements)
    if positions.ndim != 2 or positions.shape[1:] != (2,) or len(symbols) != len(positions):
        raise BadInput(
            "bond graph",
            expected="positions of shape (atom, 2) and one element an atom",
            got=f"shape {positions.shape} and {len(symbols)} elements",
            todo="Give the undistorted positions of one frame with their elements.",
        )
    near = np.zeros(len(positions), dtype=np.bool_)
    if border_distance_A is not None:
        near = np.asarray(border_distance_A) < border_A
    kinds = sorted(set(symbols))
    table = np.array([[bond_cutoff(a, b, factor) for b in kinds] for a in kinds])
    kind = np.array([kinds.index(s) for s in symbols], dtype=np.int64)
    if len(positions) < 2:
        return BondGraph(positions, np.zeros((0, 2), dtype=np.int64), near)
    reach = 1.0 if coordination is None else REACH
    pairs = cKDTree(positions).query_pairs(float(table.max()) * reach, output_type="ndarray")
    pairs = np.sort(pairs.reshape(-1, 2).astype(np.int64), axis=1)
    d = positions[pairs[:, 0]] - positions[pairs[:, 1]]
    ratio = np.hypot(d[:, 0], d[:, 1]) / table[kind[pairs[:, 0]], kind[pairs[:, 1]]]
    order = np.argsort(ratio, kind="stable")
    order = order[ratio[order] <= reach]
    if coordination is not None:
        room = np.array([coordination + (s != (host or s)) for s in symbols], dtype=np.int64)
        order = _saturate(pairs, order, room)
    return BondGraph(positions, pairs[np.sort(order)], near)


def _saturate(pairs: IntArray, order: IntArray, room: IntArray) -> IntArray:
    """Accept pairs in order while both atoms have room and no triangle closes."""
    sure = _uncontested(pairs, order, room)
    room = room.copy()
    bonded: list[set[int]] = [set() for _ in room]
    taken = order[sure].tolist()
    np.subtract.at(room, pairs[order[sure]], 1)
    for k in order[~sure]:
        a, b = int(pairs[k, 0]), int(pairs[k, 1])
        if room[a] > 0 and room[b] > 0 and not bonded[a] & bonded[b]:
            room[a] -= 1
            room[b] -= 1
            bonded[a].add(b)
            bonded[b].add(a)
            taken.append(k)
    return np.array(taken, dtype=np.int64)


def _uncontested(pairs: IntArray, order: IntArray, room: IntArray) -> BoolArray:
    """Which pairs are bonded in any order, shape (order,).

    Both atoms have room for all their pairs, and no third atom is paired with both.
    """
    near = pairs[order]
    n = len(room)
    degree = np.bincount(near.ravel(), minlength=n)
    both = np.concatenate([near, near[:, ::-1]]).T
    paired = csr_array((np.ones(both.shape[1], dtype=np.int32), both), shape=(n, n))
    third = (paired[near[:, 0]] * paired[near[:, 1]]).sum(axis=1)
    out: BoolArray = (degree <= room)[near].all(axis=1) & (np.asarray(third).ravel() == 0)
    return out
