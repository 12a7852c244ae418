"""Name foreign atoms by the sites that they replace; without a lattice, by bond lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
from scipy.special import ndtr

from adatom.core import Adatom, Cluster, Material
from adatom.core.arrays import IntArray
from adatom.features.defects.base import DefectOptions
from adatom.features.defects.bonds import bond_cutoff
from adatom.features.defects.frame_atoms import FrameAtoms, NamedDefect, defect_of_atoms
from adatom.features.defects.sites import (
    OccupiedSites,
    ReplacedSites,
    bonded_sites,
    enclosed_sites,
    replaceable_sites,
    site_log_likelihood,
    site_scores,
)
from adatom.features.neighbours import groups, touching

_MOST_WAYS = 3000  # combinations of replaced sites to weigh for one cluster; limits its time
_KEPT_WAYS = 40  # the likeliest of them that count for the probability of the name
_MOST_DOUBTFUL = 4  # bonded atoms of a cluster that may be there or not; limits its time
_IS_BONDED = 0.5  # a bonded atom at least this probable is listed with the defect
_LEAST_TOLD = 0.01  # alternatives less probable than this are not told
# Å: shortest bond of a host atom to a foreign one as seen from above, and how much it varies. Si in
# graphene mostly has 1.42 to 1.75: it stands out of the sheet.
_SHORTEST_BOND_A, _BOND_SPREAD_A = 1.25, 0.08
_REACH_A = 2.4  # sites this near to a foreign atom are compared: up to second neighbours, Å


_Weighed = tuple[list[tuple[float, ReplacedSites]], IntArray]  # probability and sites; the atoms


def name_clusters(
    view: FrameAtoms, crystal: OccupiedSites, material: Material, options: DefectOptions
) -> list[NamedDefect]:
    """Name clusters of foreign atoms; clusters with a common bonded neighbour are one defect."""
    foreign = np.flatnonzero(view.foreign)
    nearest = crystal.sites.tree.query(view.xy[foreign])[1]
    found = name_clusters_by_bonds(view, foreign[~crystal.trusted[nearest]], material, options)
    foreign = foreign[crystal.trusted[nearest]]
    pieces = touching(view.xy[foreign], options.cluster_distance_A)
    weighed = [_weigh_sites(view, crystal, foreign[g], options) for g in pieces]
    best = [ways[0][1] for ways, _ in weighed]
    reach = [
        {s for own in replaced for s in own} | set(bonded_sites(crystal, replaced))
        for replaced in best
    ]
    shared = [(i, j) for i in range(len(reach)) for j in range(i) if reach[i] & reach[j]]
    for group in groups(len(weighed), shared):
        members = np.concatenate([weighed[g][1] for g in group])
        if view.border[members].min() < options.border_A:
            continue
        alone = len(group) == 1
        one = weighed[group[0]] if alone else _weigh_sites(view, crystal, members, options)
        found.append(_name_cluster(view, crystal, one, options))
    return found


def _weigh_sites(
    view: FrameAtoms, crystal: OccupiedSites, members: IntArray, options: DefectOptions
) -> _Weighed:
    """Weigh the combinations of sites that a cluster's atoms may replace; likeliest first.

    An atom replaces one site, two neighbouring sites (it is then between them, as Si in a
    divacancy) or none (an ad-atom). The score of a combination is the log-likelihood of the atoms'
    distances from the positions that it implies, and of the host atoms that are seen around.
    """
    xy = view.xy[members]
    s2 = view.sigma[members] ** 2 + options.relaxation_A**2
    choices = [replaceable_sites(crystal.sites, *where) for where in zip(xy, s2, strict=True)]
    while prod(len(c) for c in choices) > _MOST_WAYS:
        max(choices, key=len).pop()
    around = crystal.sites.near(xy, _REACH_A)
    scores = site_scores(crystal, around, options.seen_share, options.false_share)
    ways = []
    for way in product(*choices):
        flat = [s for _, own in way for s in own]
        if len(set(flat)) == len(flat):
            replaced = tuple(own for _, own in way)
            score = sum(c[0] for c in way) + site_log_likelihood(crystal, replaced, scores)
            ways.append((score, replaced))
    ways = ways or [(0.0, tuple(() for _ in members))]  # more atoms than sites: ad-atoms
    top = max(w[0] for w in ways)
    total = sum(np.exp(w[0] - top) for w in ways)
    ranked = [(float(np.exp(score - top) / total), own) for score, own in ways]
    return sorted(ranked, key=lambda r: -r[0])[:_KEPT_WAYS], members


def _name_cluster(
    view: FrameAtoms, crystal: OccupiedSites, weighed: _Weighed, options: DefectOptions
) -> NamedDefect:
    """Name a cluster by the sites it replaces and the host atoms bonded to it.

    Several combinations of sites, and of bonded atoms that may be none, lead to the same kind: its
    probability is their sum.
    """
    ways, members = weighed
    shares: dict[Adatom | Cluster, float] = {}
    for weight, replaced in ways:
        near = bonded_sites(crystal, replaced) if any(replaced) else []
        for share, kept in _bonded_sets(view, crystal, members, near, options):
            kind = _kind(view, members, [crystal.sites.species[s] for s in kept])
            shares[kind] = shares.get(kind, 0.0) + weight * share
    there = float(np.prod(view.p[members] * view.p_element[members]))
    way = ways[0][1]
    bonded = bonded_sites(crystal, way)
    p_bonded = [_p_bonded(view, crystal, members, s, options) for s in bonded]
    seen = [
        int(crystal.occupant[s]) for s, p in zip(bonded, p_bonded, strict=True)
        if crystal.occupant[s] >= 0 and p > _IS_BONDED
    ]  # fmt: skip
    likeliest = [s for s, p in zip(bonded, p_bonded, strict=True) if p > _IS_BONDED]
    # The likeliest sites with the likeliest bonds, even if rarer ones lead to one kind together.
    best = _kind(view, members, [crystal.sites.species[s] for s in likeliest if any(way)])
    gone = tuple({s for own in way for s in own} | set(enclosed_sites(crystal, way)))
    named = defect_of_atoms(best, view, members, shares[best] * there, seen, sites=(*gone, *bonded))
    others = sorted(((p * there, str(k)) for k, p in shares.items() if k != best), reverse=True)
    told = ", ".join(f"{name} {p:.2f}" for p, name in others if p >= _LEAST_TOLD)
    return replace(named, alternatives=told)


def _bonded_sets(
    view: FrameAtoms,
    crystal: OccupiedSites,
    members: IntArray,
    near: Sequence[int],
    options: DefectOptions,
) -> list[tuple[float, list[int]]]:
    """List the sets of sites that may hold bonded host atoms, with their probabilities."""
    p = [_p_bonded(view, crystal, members, s, options) for s in near]
    seen = [k for k in range(len(near)) if crystal.occupant[near[k]] >= 0]
    doubtful = sorted(seen, key=lambda k: abs(p[k] - 0.5))[:_MOST_DOUBTFUL]
    out = []
    for there in product((True, False), repeat=len(doubtful)):
        is_there = dict(zip(doubtful, there, strict=True))
        kept = [k for k in range(len(near)) if is_there.get(k, p[k] > _IS_BONDED)]
        share = prod(p[k] if is_there.get(k, p[k] > _IS_BONDED) else 1.0 - p[k]
                     for k in range(len(near)))  # fmt: skip
        out.append((share, [near[k] for k in kept]))
    return out


def _p_bonded(
    view: FrameAtoms, crystal: OccupiedSites, members: IntArray, site: int, options: DefectOptions
) -> float:
    """Probability that a site beside a cluster holds a host atom.

    An atom nearer to a foreign one than any bond is an alternative to it. A site in the frame
    without an atom must hold one that was missed, and not be empty.
    """
    atom = int(crystal.occupant[site])
    if atom < 0:
        if crystal.sites.border_A[site] <= 0.0:
            return 1.0
        missed = (1.0 - options.seen_share) * (1.0 - options.vacancy_share)
        vacant = options.vacancy_share * (1.0 - options.false_share)
        return missed / (missed + vacant)
    away = np.hypot(*(view.measured[members] - view.measured[atom]).T)
    own = int(members[np.argmin(away)])
    spread = np.hypot(np.hypot(view.sigma[atom], view.sigma[own]), _BOND_SPREAD_A)
    too_near = max(_SHORTEST_BOND_A - float(away.min()), 0.0) / spread
    fits = float(np.exp(-0.5 * too_near**2))
    p = float(view.p[atom])
    return p * fits / max(p * fits + 1.0 - p, 1e-12)


def _kind(view: FrameAtoms, members: IntArray, bonded: Sequence[str]) -> Adatom | Cluster:
    elements = [view.element[i] for i in members]
    return Cluster.of(elements, bonded) if bonded else Adatom.of(elements)


def name_clusters_by_bonds(
    view: FrameAtoms, foreign: IntArray, material: Material, options: DefectOptions
) -> list[NamedDefect]:
    """Name clusters of foreign atoms by bond lengths alone, where no lattice holds.

    Parameters
    ----------
    view
        The atoms.
    foreign
        Which of them to name, shape (foreign,).
    material
        The crystal.
    options
        Thresholds.
    """
    hosts = np.flatnonzero(view.host)
    found = []
    for group in touching(view.xy[foreign], options.cluster_distance_A):
        members = foreign[group]
        bonded: set[int] = set()
        p = float(np.prod(view.p[members] * view.p_element[members]))
        for i in members:
            limit = np.array([bond_cutoff(view.element[i], view.element[h]) for h in hosts])
            gap = np.hypot(*(view.xy[hosts] - view.xy[i]).T) - limit
            first = np.argsort(gap)[: material.coordination + 1]
            bonded |= {int(h) for h in hosts[first[gap[first] < 0.0]]}
            spread = np.hypot(view.sigma[hosts], view.sigma[i])
            p *= float(ndtr(np.abs(gap / spread)).min(initial=1.0))
        if view.border[members].min() >= options.border_A:
            kind = _kind(view, members, [view.element[h] for h in bonded])
            found.append(defect_of_atoms(kind, view, members, p, sorted(bonded)))
    return found
