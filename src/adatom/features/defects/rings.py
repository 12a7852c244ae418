"""Rings of a bond graph, and how probable each is under the atoms' uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.special import ndtr

from adatom.core import Rings, StoneWales
from adatom.core.arrays import FloatArray, IntArray
from adatom.core.defect_kind import kind_of_rings
from adatom.features.defects.bonds import BondGraph
from adatom.features.neighbours import groups


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
    around = _neighbours_by_angle(graph)
    after = {
        (b, a): (a, ring[(i - 1) % len(ring)])
        for a, ring in enumerate(around)
        for i, b in enumerate(ring)
    }
    found = []
    unused = dict.fromkeys(after)
    while unused:
        start, _ = unused.popitem()
        walk = [start[0]]
        step = after[start]
        while step != start:
            unused.pop(step)
            walk.append(step[0])
            step = after[step]
        if 3 <= len(walk) <= largest and len(set(walk)) == len(walk):
            x, y = graph.xy[walk].T
            if np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) > 0.0:
                first = walk.index(min(walk))
                found.append(tuple(walk[first:] + walk[:first]))
    return tuple(sorted(found))


def _neighbours_by_angle(graph: BondGraph) -> list[list[int]]:
    """List the neighbours of every atom by angle, without chains that have a free end."""
    sets = [set(n.tolist()) for n in graph.neighbours()]
    loose = [a for a, n in enumerate(sets) if len(n) == 1]
    while loose:
        a = loose.pop()
        for b in sets[a]:
            sets[b].discard(a)
            if len(sets[b]) == 1:
                loose.append(b)
        sets[a] = set()
    out = []
    for a, n in enumerate(sets):
        members = sorted(n)
        d = graph.xy[members] - graph.xy[a] if members else np.zeros((0, 2))
        out.append([members[i] for i in np.argsort(np.arctan2(d[:, 1], d[:, 0]))])
    return out


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
) -> list[tuple[float, Rings | StoneWales, IntArray]]:
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
