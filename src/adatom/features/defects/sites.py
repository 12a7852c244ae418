"""Lattice sites of one frame: which atom is on which, and which are empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from scipy.spatial import cKDTree

from adatom.core import Lattice
from adatom.core.arrays import BoolArray, FloatArray, IntArray
from adatom.features.neighbours import border_distance

ReplacedSites = tuple[tuple[int, ...], ...]  # for each foreign atom, the sites that it replaces

_MARGIN_BONDS = 1.6  # sites this far outside of the frame are listed: the next neighbours
_NEIGHBOUR_BONDS = 1.25  # sites nearer than this are neighbours; second neighbours are at 1.73
_ROTATED_LENGTH = 0.95  # a rotated bond is 1.32 to 1.35 Å long, not 1.42 Å
_RELAXED_A = 0.1  # standard deviation, Å, of the shifts of both atoms in that relaxation
_REPLACED_A = 1.6  # a foreign atom replaces sites this near, in graphene with at most 1.42 Å
# Prior that a foreign atom replaces one site, two sites, or none: ad-atoms are rare. The last is
# spread over the area of a site, Å², since an ad-atom may be anywhere in it.
_PRIOR_ONE, _PRIOR_TWO, _PRIOR_NONE = 0.7, 0.3, 0.05
_SITE_AREA_A2 = 2.6
_KEPT_CHOICES = 6  # likeliest choices of an atom that are combined with those of its neighbours
# Prior that a site between replaced ones is empty: all of its neighbours replaced, or two of three.
_ENCLOSED_ALL, _ENCLOSED_SOME = 0.5, 0.05
_SURELY_EMPTY = 0.9  # a site at least this probably empty has no atom to be bonded
_TEST_LIMITS = 0.1, 0.9  # a neighbour's intensity disturbs the test of a site: never trust it more


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """Lattice sites of one frame in undistorted axes, and their neighbours.

    Parameters
    ----------
    xy
        Shape (site, 2), Å, undistorted.
    measured_xy
        Shape (site, 2), Å, measured axes.
    species
        Label of the perfect crystal at every site.
    neighbours
        Indices of the nearest sites of every site.
    pairs
        The same as pairs of sites, shape (pair, 2), each once, the smaller index first.
    border_A
        Shape (site,): distance from the frame's border, Å, negative outside.
    tree
        The sites by their place.
    """

    xy: FloatArray
    measured_xy: FloatArray
    species: tuple[str, ...]
    neighbours: tuple[tuple[int, ...], ...]
    pairs: IntArray
    border_A: FloatArray
    tree: cKDTree

    def bonds(self, chosen: BoolArray) -> IntArray:
        """List the pairs of neighbouring sites, shape (pair, 2), both of them chosen (site,)."""
        return self.pairs[chosen[self.pairs].all(axis=1)]

    def near(self, xy: FloatArray, radius_A: float) -> list[int]:
        """List the sites within a radius, Å, of any of the points (N, 2), in ascending order."""
        found = self.tree.query_ball_point(xy, radius_A)
        return sorted({int(s) for each in found for s in each})


def lattice_sites(lattice: Lattice, extent_xy_A: tuple[float, float]) -> Sites:
    """List the sites in the frame and one bond around it, with their neighbours."""
    bond = lattice.material.bond_length_A
    index, measured = lattice.sites_within(extent_xy_A, margin_A=-_MARGIN_BONDS * bond)
    xy = lattice.site_xy(index)
    tree = cKDTree(xy.reshape(-1, 2))
    pairs = np.sort(tree.query_pairs(_NEIGHBOUR_BONDS * bond, output_type="ndarray"), axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].astype(np.int64)
    label = np.array(lattice.material.site_species)[index[:, 2]]
    return Sites(
        xy=xy,
        measured_xy=measured,
        species=tuple(label.tolist()),
        neighbours=_neighbours(pairs, len(xy)),
        pairs=pairs,
        border_A=border_distance(measured, extent_xy_A),
        tree=tree,
    )


def _neighbours(pairs: IntArray, count: int) -> tuple[tuple[int, ...], ...]:
    """Neighbours of each of some sites, in ascending order."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    end = np.cumsum(np.bincount(both[:, 0], minlength=count)).tolist()
    second = both[:, 1].tolist()
    return tuple(tuple(second[a:b]) for a, b in zip([0, *end], end, strict=False))


def rotated_bond_log_odds(
    straight: FloatArray, measured: FloatArray, sigma_A: FloatArray
) -> FloatArray:
    """Log-likelihood ratio of bonds rotated by 90 degrees to bonds in place.

    Both hypotheses are normal distributions of the bond vector with the same variance.

    Parameters
    ----------
    straight
        Bond vectors of the lattice, shape (bond, 2), Å.
    measured
        Bond vectors of the atoms on these sites, shape (bond, 2), Å.
    sigma_A
        Standard deviation of the measured vectors per axis, shape (bond,), Å.

    Returns
    -------
    Shape (bond,); positive where the rotated bond is likelier.
    """
    rotated = _ROTATED_LENGTH * np.stack([-straight[:, 1], straight[:, 0]], axis=1)
    misfit = np.minimum(
        ((measured - rotated) ** 2).sum(axis=1), ((measured + rotated) ** 2).sum(axis=1)
    )
    out: FloatArray = ((measured - straight) ** 2).sum(axis=1) - misfit
    return out / (2.0 * (sigma_A**2 + 2.0 * _RELAXED_A**2))


def replaceable_sites(
    sites: Sites, xy: FloatArray, s2: float
) -> list[tuple[float, tuple[int, ...]]]:
    """List the sites that one foreign atom may replace, with log-densities; likeliest first.

    Parameters
    ----------
    sites
        The lattice.
    xy
        Position, shape (2,), Å, undistorted.
    s2
        Variance per axis of its distance from the mean of the replaced sites, Å².
    """
    near = sites.near(xy[None], _REPLACED_A)
    owned: list[tuple[int, ...]] = [(a,) for a in near]
    owned += [(a, b) for a in near for b in sites.neighbours[a] if a < b]
    none = float(np.log(_PRIOR_NONE / _SITE_AREA_A2))
    out: list[tuple[float, tuple[int, ...]]] = [(none, ())]
    for own in owned:
        d = xy - sites.xy[list(own)].mean(axis=0)
        prior = np.log((_PRIOR_ONE, _PRIOR_TWO)[len(own) - 1] / (2.0 * np.pi * s2))
        out.append((float(prior - d @ d / (2.0 * s2)), own))
    return sorted(out, key=lambda c: -c[0])[:_KEPT_CHOICES]


@dataclass(frozen=True, slots=True, eq=False)
class OccupiedSites:
    """Lattice sites with the atoms on them.

    Parameters
    ----------
    sites
        The lattice.
    occupant
        Index of the host atom on every site, shape (site,); -1 for none.
    p_empty
        Probability that the site is empty, shape (site,); NaN where it was not tested.
    trusted
        Shape (site,): True where the lattice holds.
    """

    sites: Sites
    occupant: IntArray
    p_empty: FloatArray
    trusted: BoolArray


def enclosed_sites(crystal: OccupiedSites, replaced: ReplacedSites) -> dict[int, float]:
    """Give the prior to be empty of each unoccupied site with two or more replaced neighbours."""
    flat = {s for own in replaced for s in own}
    count = Counter(n for s in flat for n in crystal.sites.neighbours[s] if n not in flat)
    return {
        s: _ENCLOSED_ALL if c == len(crystal.sites.neighbours[s]) else _ENCLOSED_SOME
        for s, c in count.items()
        if c >= 2 and crystal.occupant[s] < 0
    }


def bonded_sites(crystal: OccupiedSites, replaced: ReplacedSites) -> list[int]:
    """List the host sites next to the replaced ones, without those that are surely empty."""
    flat = {s for own in replaced for s in own}
    near = {n for s in flat for n in crystal.sites.neighbours[s]} - flat
    near -= set(enclosed_sites(crystal, replaced))
    at, p = crystal.occupant, crystal.p_empty
    return sorted(s for s in near if not (at[s] < 0 and p[s] >= _SURELY_EMPTY))


@dataclass(frozen=True, slots=True)
class SiteScores:
    """Log-likelihood of the host atoms seen on some sites.

    Parameters
    ----------
    kept
        If no site is replaced.
    change
        What is added to it where a site is replaced or enclosed, by site.
    """

    kept: float
    change: dict[int, float]


def site_scores(
    crystal: OccupiedSites, around: Sequence[int], seen_share: float, false_share: float
) -> SiteScores:
    """Weigh the host atoms seen on the sites around a cluster.

    Parameters
    ----------
    crystal
        Sites with the atoms on them.
    around
        Sites to compare; those beyond the border of the frame say nothing.
    seen_share, false_share
        Probability that a host atom is found, and that one is found where none is.
    """
    kept, change = 0.0, {}
    for s in around:
        if crystal.sites.border_A[s] < 0.0:
            continue
        seen = crystal.occupant[s] >= 0
        if_kept = log(seen_share if seen else 1.0 - seen_share)
        if_gone = log(false_share if seen else 1.0 - false_share)
        if not seen and np.isfinite(crystal.p_empty[s]):
            e = min(max(float(crystal.p_empty[s]), _TEST_LIMITS[0]), _TEST_LIMITS[1])
            if_kept += log(1.0 - e)
            if_gone += log(e)
        kept += if_kept
        change[s] = if_gone - if_kept
    return SiteScores(kept, change)


def site_log_likelihood(
    crystal: OccupiedSites, replaced: ReplacedSites, scores: SiteScores
) -> float:
    """Log-likelihood of the host atoms seen on the sites around, given the replaced sites.

    Parameters
    ----------
    crystal
        Sites with the atoms on them.
    replaced
        Sites that each foreign atom replaces.
    scores
        The sites around, from `site_scores`.
    """
    inner = enclosed_sites(crystal, replaced)
    gone = {s for own in replaced for s in own} | set(inner)
    enclosed = sum(log(p) for p in inner.values())
    return scores.kept + enclosed + sum(scores.change.get(s, 0.0) for s in gone)
