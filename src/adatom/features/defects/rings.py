"""Rings of a bond graph, and how probable each is under the atoms' uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtr

from adatom.core import Rings, StoneWales, Vacancy
from adatom.core.arrays import FloatArray, IntArray
from adatom.core.defect_kind import kind_of_rings
from adatom.features.defects.bonds import BondGraph
from adatom.features.neighbours import groups

_SMALLEST = 3  # atoms of a ring


def rings(graph: BondGraph, largest: int = 12) -> tuple[tuple[int, ...], ...]:
    """Find the rings: the faces of the bond graph in the plane.

    Each bond is followed in both directions, and at each atom the next bond by angle is taken. Each
    closed walk is one face (half-edge traversal of a planar embedding, de Berg et al.,
    Computational Geometry, ch. 2). The outer face is left out, and so are chains with a free end.

    Parameters
    ----------
    graph
        Atoms and bonds.
    largest
        Leave out rings of more atoms than this.

    Returns
    -------
    Atoms of every ring, in order along it.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.features.defects.bonds import bond_graph
    >>> angle = np.arange(6) * np.pi / 3
    >>> hexagon = 1.42 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    >>> rings(bond_graph(hexagon, ["C"] * 6))
    ((0, 1, 2, 3, 4, 5),)
    """
    bonds = _closed_bonds(graph)
    if not len(bonds):
        return ()
    tail, head, step = _half_edges(graph.xy, bonds)
    count, face = connected_components(csr_array(_links(step)), directed=False)
    size = np.bincount(face, minlength=count)
    x, y = graph.xy[tail].T
    x_next, y_next = graph.xy[head].T
    area = np.bincount(face, weights=x * y_next - y * x_next, minlength=count)
    # A face starts at its first atom; ties are walks that pass an atom twice, left out below.
    order = np.lexsort((tail, face))
    first = order[np.concatenate([[0], np.cumsum(size)[:-1]])]
    wanted = (size >= _SMALLEST) & (size <= largest) & (area > 0.0)
    at, length = first[wanted], size[wanted]
    walk = np.empty((len(at), int(length.max(initial=0))), dtype=np.int64)
    for k in range(walk.shape[1]):
        walk[:, k] = np.where(k < length, tail[at], -1 - k)  # negative numbers fill short rows
        at = step[at]
    ordered = np.sort(walk, axis=1)
    simple = (np.diff(ordered, axis=1) > 0).all(axis=1)
    pairs = zip(walk[simple].tolist(), length[simple].tolist(), strict=True)
    return tuple(sorted(tuple(members[:n]) for members, n in pairs))


def _closed_bonds(graph: BondGraph) -> IntArray:
    """Bonds (bond, 2) without the chains that have a free end."""
    bonds = graph.bonds
    while len(bonds):
        degree = np.bincount(bonds.ravel(), minlength=len(graph.xy))
        closed = (degree[bonds] > 1).all(axis=1)
        if closed.all():
            break
        bonds = bonds[closed]
    return bonds


def _half_edges(xy: FloatArray, bonds: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Each bond in both directions: from, to, and the half-edge that follows along the face."""
    both = np.concatenate([bonds, bonds[:, ::-1]])
    d = xy[both[:, 1]] - xy[both[:, 0]]
    angle = np.arctan2(d[:, 1], d[:, 0])
    order = np.lexsort((both[:, 1], angle, both[:, 0]))
    tail, head = both[order].T
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    n = len(bonds)
    reverse = np.concatenate([rank[n:], rank[:n]])[order]
    degree = np.bincount(tail, minlength=len(xy))
    start = np.cumsum(degree) - degree
    # At the atom that a half-edge leads to, the next bond by angle before the one it came by.
    own = start[head]
    step: IntArray = own + (reverse - own - 1) % degree[head]
    return tail, head, step


def _links(step: IntArray) -> coo_array:
    n = len(step)
    return coo_array((np.ones(n, dtype=np.int8), (np.arange(n), step)), shape=(n, n))


def ring_probability(graph: BondGraph, ring: Sequence[int], sigma_A: FloatArray) -> float:
    """Probability that a ring exists, given the uncertainty of its atoms' positions.

    Each side must be shorter and each diagonal longer than a limit halfway between first and second
    neighbours of a hexagon, 1 and sqrt(3) median bonds. The least certain of these decisions counts
    and not their product, because they share their atoms.

    Parameters
    ----------
    graph
        Atoms and bonds.
    ring
        Its atoms, in order.
    sigma_A
        Shape (atom,): standard deviation of every position per axis, Å.
    """
    limit = float(np.median(graph.lengths())) * (1.0 + 3.0**0.5) / 2.0
    members, n = np.array(ring), len(ring)
    i, j = np.triu_indices(n, 1)
    a, b = members[i], members[j]
    gap = np.hypot(*(graph.xy[a] - graph.xy[b]).T) - limit
    side = (j - i == 1) | (j - i == n - 1)
    spread = np.hypot(sigma_A[a], sigma_A[b]) + 1e-9
    return float(ndtr(np.where(side, -gap, gap) / spread).min())


def ring_groups(
    graph: BondGraph, odd: Sequence[tuple[int, ...]], sigma_A: FloatArray, minimum_p: float
) -> list[tuple[float, Rings | StoneWales | Vacancy, IntArray]]:
    """Group odd rings that share bonds.

    Parameters
    ----------
    graph
        Atoms and bonds.
    odd
        Rings that are not the crystal's own.
    sigma_A
        Shape (atom,): standard deviation of every position per axis, Å.
    minimum_p
        Leave out rings less certain than this.

    Returns
    -------
    For every group the probability of its least certain ring, its kind, and its atoms.
    """
    p = {r: ring_probability(graph, r, sigma_A) for r in odd}
    odd = [r for r in odd if p[r] >= minimum_p]
    touch = [
        (i, j) for i, j in combinations(range(len(odd)), 2) if len(set(odd[i]) & set(odd[j])) >= 2
    ]
    out = []
    for group in groups(len(odd), touch):
        members = [odd[k] for k in group]
        kind = kind_of_rings(len(r) for r in members)
        atoms = np.unique(np.concatenate(members)).astype(np.int64)
        out.append((min(p[r] for r in members), kind, atoms))
    return out
