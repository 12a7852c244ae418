"""Bonds, rings and lattice sites: who is whose neighbour in one frame.

Everything here works in undistorted axes, so that one bond length holds in every direction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import ndtr

from adatom.core import Lattice
from adatom.errors import BadInput
from adatom.features.link import border_distance, groups, within

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Alvarez radii (ase.data; Cordero et al., Dalton Trans. 2008, 2832) give C-C 1.52, Si-C 1.87 and
# Si-Si 2.22 Å; graphene's second neighbours lie at 2.46 Å, so C-C must be cut below about 1.9 Å.
BOND_FACTOR = 1.2
# Noise moves a true bond beyond the cut-off; a free valence may reach this much further.
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
    near_border: NDArray[np.bool_]

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

    Without `coordination`, every pair within its cut-off is bonded. With it, the pairs are taken
    from the shortest (relative to their cut-off) up, each atom takes at most that many bonds (one
    more where it is not `host`), no triangle is closed, and an atom with a free valence may reach
    13 % further: noise of 0.15 Å then rarely breaks a ring.

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
    room = room.copy()
    bonded: list[set[int]] = [set() for _ in room]
    taken = []
    for k in order:
        a, b = int(pairs[k, 0]), int(pairs[k, 1])
        if room[a] > 0 and room[b] > 0 and not bonded[a] & bonded[b]:
            room[a] -= 1
            room[b] -= 1
            bonded[a].add(b)
            bonded[b].add(a)
            taken.append(k)
    return np.array(taken, dtype=np.int64)


def rings(graph: BondGraph, largest: int = 12) -> tuple[tuple[int, ...], ...]:
    """Find the rings: the faces of the bond graph as it is drawn in the plane.

    Every bond is walked in both directions, turning at each atom to the next bond by angle; each
    closed walk is one face (half-edge traversal of a planar embedding, de Berg et al.,
    Computational Geometry, ch. 2). Walks round the outside and round dangling chains are left out.

    Parameters
    ----------
    graph
        Atoms and bonds.
    largest
        Leave out rings of more atoms than this.

    Returns
    -------
    Atoms of every ring, in order along it.
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
    """Neighbours of every atom by angle, without chains that end nowhere."""
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
    """Probability that a ring is what it looks like, given how well its atoms are placed.

    Every side must be a bond and no pair across may be one; the limit between the two lies halfway
    between a hexagon's first and second neighbours, 1 and sqrt(3) median bonds. The least certain
    of these decisions counts, because they share their atoms.

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


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """Lattice sites of one frame in undistorted axes, and who is next to whom.

    Parameters
    ----------
    xy
        Shape (site, 2), Å, undistorted.
    measured_xy
        Shape (site, 2), Å, measured axes.
    species
        Element of the perfect crystal at every site.
    neighbours
        Nearest sites of every site.
    border_A
        Shape (site,): distance from the frame's border, Å, negative outside.
    """

    xy: FloatArray
    measured_xy: FloatArray
    species: tuple[str, ...]
    neighbours: tuple[tuple[int, ...], ...]
    border_A: FloatArray

    def bonds(self, chosen: NDArray[np.bool_]) -> IntArray:
        """List the pairs of neighbouring sites, shape (pair, 2), both of them chosen (site,)."""
        pairs = [(a, b) for a, near in enumerate(self.neighbours) for b in near if a < b]
        out = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return out[chosen[out].all(axis=1)]


def lattice_sites(lattice: Lattice, extent_xy_A: tuple[float, float]) -> Sites:
    """List the sites in the frame and one bond around it, with their neighbours."""
    bond = lattice.material.bond_length_A
    index, measured = lattice.sites_within(extent_xy_A, margin_A=-1.6 * bond)
    xy = lattice.site_xy(index)
    around: list[list[int]] = [[] for _ in range(len(xy))]
    if len(xy) > 1:
        for a, b in cKDTree(xy).query_pairs(1.25 * bond):
            around[a].append(int(b))
            around[b].append(int(a))
    return Sites(
        xy=xy,
        measured_xy=measured,
        species=tuple(lattice.material.site_species[int(k)] for k in index[:, 2]),
        neighbours=tuple(tuple(sorted(n)) for n in around),
        border_A=border_distance(measured, extent_xy_A),
    )


def ring_groups(
    graph: BondGraph, odd: Sequence[tuple[int, ...]], sigma_A: FloatArray, minimum_p: float
) -> list[tuple[float, str, IntArray]]:
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
    For every group the probability of its least certain ring, its name (``rings 55-77``, or
    ``Stone-Wales`` for two rings of 5 and two of 7), and its atoms.
    """
    p = {r: ring_probability(graph, r, sigma_A) for r in odd}
    odd = [r for r in odd if p[r] >= minimum_p]
    touch = [
        (i, j) for i, j in combinations(range(len(odd)), 2) if len(set(odd[i]) & set(odd[j])) >= 2
    ]
    out = []
    for group in groups(len(odd), touch):
        members = [odd[k] for k in group]
        sizes = sorted(len(r) for r in members)
        parts = [str(n) * sizes.count(n) for n in sorted(set(sizes))]
        kind = "Stone-Wales" if sizes == [5, 5, 7, 7] else "rings " + "-".join(parts)
        atoms = np.unique(np.concatenate(members)).astype(np.int64)
        out.append((min(p[r] for r in members), kind, atoms))
    return out


def turned(straight: FloatArray, seen: FloatArray, spread_A: FloatArray) -> FloatArray:
    """Log-likelihood ratio that bonds are turned by 90 degrees rather than in place.

    Parameters
    ----------
    straight, seen
        Bond vectors of the lattice and of the atoms on its sites, shape (bond, 2), Å.
    spread_A
        Shape (bond,): standard deviation of the seen ones per axis, Å.
    """
    # The turned bond is 1.32-1.35 Å long; atoms relax by about 0.1 Å each.
    turn = 0.95 * np.stack([-straight[:, 1], straight[:, 0]], axis=1)
    miss = np.minimum(((seen - turn) ** 2).sum(axis=1), ((seen + turn) ** 2).sum(axis=1))
    out: FloatArray = ((seen - straight) ** 2).sum(axis=1) - miss
    return out / (2.0 * (spread_A**2 + 2.0 * 0.1**2))


def replaceable(sites: Sites, xy: FloatArray, s2: float) -> list[tuple[float, tuple[int, ...]]]:
    """List the sites that one foreign atom may replace, with log-densities: the six likeliest.

    Parameters
    ----------
    sites
        The lattice.
    xy
        Position, shape (2,), Å, undistorted.
    s2
        Variance per axis of its distance from the place that the replaced sites imply, Å².
    """
    near = [int(a) for a in within(sites.xy, xy[None], 1.6)[0]]
    owned: list[tuple[int, ...]] = [(a,) for a in near]
    owned += [(a, b) for a in near for b in sites.neighbours[a] if a < b]
    # Shares before looking: one site 0.7, two sites 0.3, none 0.05 (anywhere in a site's area).
    out: list[tuple[float, tuple[int, ...]]] = [(float(np.log(0.05 / 2.6)), ())]
    for own in owned:
        d = xy - sites.xy[list(own)].mean(axis=0)
        prior = np.log((0.7, 0.3)[len(own) - 1] / (2.0 * np.pi * s2))
        out.append((float(prior - d @ d / (2.0 * s2)), own))
    return sorted(out, key=lambda c: -c[0])[:6]


Owned = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Crystal:
    """Lattice sites with what occupies them.

    Parameters
    ----------
    sites
        The lattice.
    occupant
        Shape (site,): host atom on every site, -1 for none.
    p_empty
        Shape (site,): probability to be empty from the counts, NaN where it was not tested.
    trusted
        Shape (site,): True where the lattice holds.
    """

    sites: Sites
    occupant: IntArray
    p_empty: FloatArray
    trusted: NDArray[np.bool_]


def enclosed(crystal: Crystal, owned: Owned) -> dict[int, float]:
    """Unseen sites with two or three replaced neighbours, and how likely each is to be empty."""
    flat = {s for own in owned for s in own}
    count = Counter(n for s in flat for n in crystal.sites.neighbours[s] if n not in flat)
    return {
        s: 0.5 if c == len(crystal.sites.neighbours[s]) else 0.05
        for s, c in count.items()
        if c >= 2 and crystal.occupant[s] < 0
    }


def bonded_sites(crystal: Crystal, owned: Owned) -> list[int]:
    """Host sites next to the replaced ones, those known to be empty left out."""
    flat = {s for own in owned for s in own}
    near = {n for s in flat for n in crystal.sites.neighbours[s]} - flat
    near -= set(enclosed(crystal, owned))
    empty = (crystal.occupant < 0) & (np.nan_to_num(crystal.p_empty) >= 0.9)
    return sorted(s for s in near if not empty[s])


def site_likelihood(
    crystal: Crystal, owned: Owned, around: Sequence[int], seen_share: float, false_share: float
) -> float:
    """Log-likelihood of which sites around show a host atom, if those owned are replaced."""
    inner = enclosed(crystal, owned)
    gone = {s for own in owned for s in own} | set(inner)
    score = float(np.log(list(inner.values())).sum())
    for s in around:
        if crystal.sites.border_A[s] < 0.0:
            continue
        seen = crystal.occupant[s] >= 0
        rate = false_share if s in gone else seen_share
        score += float(np.log(rate if seen else 1.0 - rate))
        if not seen and np.isfinite(crystal.p_empty[s]):
            # A neighbour's tail disturbs the test of a site: never trust it beyond 9 to 1.
            e = float(np.clip(crystal.p_empty[s], 0.1, 0.9))
            score += float(np.log(e if s in gone else 1.0 - e))
    return score
