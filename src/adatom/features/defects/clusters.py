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
_IS_BONDED = 0.5  # a bonded atom at least this probable is there, where not both are weighed
_LEAST_TOLD = 0.01  # alternatives less probable than this are not told
# Å: shortest bond of a host atom to a foreign one as seen from above, and how much it varies. Si in
# graphene mostly has 1.42 to 1.75: it stands out of the sheet.
_SHORTEST_BOND_A, _BOND_SPREAD_A = 1.25, 0.08
# Least and largest usual number of bonds of elements in a sheet, and how rare each one less or more
# is. Published frames of Si in graphene show three and four; pyridinic N has two. Metals have none.
_FEWEST_BONDS = {"B": 3, "Al": 3, "C": 3, "Si": 3, "Ge": 3, "N": 2, "P": 3, "O": 2, "S": 2}
_MOST_BONDS, _UNUSUAL_BOND = 4, 0.1
# Foreign atoms sit at vacancies and edges: share of empty sites beside one, before it is looked at.
_EMPTY_BESIDE = 0.25
# Å: an atom of a site this near to a foreign one may be bonded, though the sites are no neighbours,
# if it is nearer than this share of the longest bond.
_FAR_A, _SURE_BOND = 3.2, 0.92
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
    chosen: dict[Adatom | Cluster, tuple[float, ReplacedSites, list[int]]] = {}
    for weight, replaced in ways:
        near = _sites_in_reach(view, crystal, members, replaced) if any(replaced) else []
        for share, kept in _bonded_sets(view, crystal, members, near, options):
            kind = _kind(view, members, [crystal.sites.species[s] for s in kept])
            p = weight * share * _p_valence(view, crystal, members, kept)
            shares[kind] = shares.get(kind, 0.0) + p
            chosen[kind] = max(chosen.get(kind, (-1.0, replaced, kept)), (p, replaced, kept))
    there = float(np.prod(view.p[members] * view.p_element[members])) / sum(shares.values())
    best = max(shares, key=lambda kind: shares[kind])
    _, way, kept = chosen[best]
    seen = [int(crystal.occupant[s]) for s in kept if crystal.occupant[s] >= 0]
    gone = {s for own in way for s in own} | set(enclosed_sites(crystal, way))
    sites = (*gone, *(bonded_sites(crystal, way) if any(way) else ()))
    named = defect_of_atoms(best, view, members, shares[best] * there, seen, sites=sites)
    others = sorted(((p * there, str(k)) for k, p in shares.items() if k != best), reverse=True)
    told = ", ".join(f"{name} {p:.2f}" for p, name in others if p >= _LEAST_TOLD)
    return replace(named, alternatives=told)


def _sites_in_reach(
    view: FrameAtoms, crystal: OccupiedSites, members: IntArray, replaced: ReplacedSites
) -> list[int]:
    """Sites next to the replaced ones; for each without an atom, one whose atom came as near.

    Where a sheet is disordered, a bonded atom may lie nearer to another site.
    """
    near = bonded_sites(crystal, replaced)
    lacking = sum(crystal.occupant[s] < 0 for s in near)
    flat = {s for own in replaced for s in own}
    more = []
    for site in crystal.sites.near(view.xy[members], _FAR_A) if lacking else ():
        atom = int(crystal.occupant[site])
        if atom >= 0 and site not in flat and site not in near:
            away = np.hypot(*(view.measured[members] - view.measured[atom]).T)
            own = view.element[int(members[np.argmin(away)])]
            if away.min() < _SURE_BOND * bond_cutoff(own, view.element[atom]):
                more.append((float(away.min()), site))
    return sorted([*near, *(site for _, site in sorted(more)[:lacking])])


def _p_valence(
    view: FrameAtoms, crystal: OccupiedSites, members: IntArray, kept: Sequence[int]
) -> float:
    """Prior of the bonds of a cluster: an atom with fewer or more than usual is rare.

    An atom without any bond to the crystal lies on it, and is not asked.
    """
    if not kept:
        return 1.0
    at = [int(crystal.occupant[s]) for s in kept]
    xy = np.array([
        view.measured[a] if a >= 0 else crystal.sites.measured_xy[s]
        for a, s in zip(at, kept, strict=True)
    ])  # fmt: skip
    host = [crystal.sites.species[s] for s in kept]
    unusual = 0
    for i in members:
        fewest = _FEWEST_BONDS.get(view.element[i], 0)
        others = [j for j in members if j != i]
        away = np.hypot(*(np.concatenate([xy, view.measured[others]]) - view.measured[i]).T)
        names = [*host, *(view.element[j] for j in others)]
        limit = np.array([bond_cutoff(view.element[i], name) for name in names]) + _BOND_SPREAD_A
        bonds = int((away < limit).sum())
        unusual += max(fewest - bonds, bonds - _MOST_BONDS if fewest else 0, 0)
    return float(_UNUSUAL_BOND**unusual)


def _bonded_sets(
    view: FrameAtoms,
    crystal: OccupiedSites,
    members: IntArray,
    near: Sequence[int],
    options: DefectOptions,
) -> list[tuple[float, list[int]]]:
    """List the sets of sites that may hold bonded host atoms, with their probabilities."""
    p = [_p_bonded(view, crystal, members, s, options) for s in near]
    doubtful = sorted(range(len(near)), key=lambda k: abs(p[k] - 0.5))[:_MOST_DOUBTFUL]
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

    An atom nearer to a foreign one than any bond is an alternative to it, and one farther than any
    bond is not bonded. A site in the frame without an atom must hold one that was missed, and not
    be empty, as sites beside foreign atoms often are.
    """
    atom = int(crystal.occupant[site])
    if atom < 0:
        if crystal.sites.border_A[site] <= 0.0:
            return 1.0
        atom = _doubtful_on(view, crystal, site, options)
    if atom < 0:
        missed = (1.0 - options.seen_share) * (1.0 - _EMPTY_BESIDE)
        vacant = _EMPTY_BESIDE * (1.0 - options.false_share)
        return missed / (missed + vacant)
    away = np.hypot(*(view.measured[members] - view.measured[atom]).T)
    own, nearest = int(members[np.argmin(away)]), float(away.min())
    spread = np.hypot(np.hypot(view.sigma[atom], view.sigma[own]), _BOND_SPREAD_A)
    p = float(view.p[atom])
    longest = bond_cutoff(view.element[own], view.element[atom])
    if nearest > longest:
        return p * float(np.exp(-0.5 * ((nearest - longest) / spread) ** 2))
    fits = float(np.exp(-0.5 * (max(_SHORTEST_BOND_A - nearest, 0.0) / spread) ** 2))
    return p * fits / max(p * fits + 1.0 - p, 1e-12)


def _doubtful_on(
    view: FrameAtoms, crystal: OccupiedSites, site: int, options: DefectOptions
) -> int:
    """The likeliest atom of the crystal on a site, of those that are rather not there, or -1."""
    away = np.hypot(*(view.measured - crystal.sites.measured_xy[site]).T)
    near = np.flatnonzero((away < options.site_tolerance_A) & (view.p < options.minimum_p))
    near = near[[view.element[int(i)] == crystal.sites.species[site] for i in near]]
    return int(near[np.argmax(view.p[near])]) if len(near) else -1


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
