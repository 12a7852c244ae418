"""Lattice sites of one frame: which atom stands on which, and which are empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import Lattice
from adatom.core.arrays import FloatArray, IntArray
from adatom.features.neighbours import border_distance, within


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
