"""Name defects that need no foreign atom: rotated bonds, vacancies, ad-atoms, odd rings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import expit

from adatom.core import Adatom, Material, StoneWales, Vacancy
from adatom.core.arrays import BoolArray, IntArray
from adatom.features.defects.base import DefectOptions
from adatom.features.defects.bonds import bond_graph
from adatom.features.defects.frame_atoms import FrameAtoms, NamedDefect, defect_of_atoms
from adatom.features.defects.holes import HOLE_SITES
from adatom.features.defects.rings import ring_groups, rings
from adatom.features.defects.sites import OccupiedSites, rotated_bond_log_odds
from adatom.features.neighbours import groups, within

_UNTESTED_P = 0.5  # probability that a site without an atom is empty, if it was not tested
_AROUND_A = 1.6  # sites around an ad-atom: a little more than a bond length of graphene
_ON_FOREIGN_A = 1.3  # an atom this near to a foreign one belongs to its spot
_AD_ATOM_BRIGHTNESS = 0.5  # least amplitude of an ad-atom relative to the median host atom
_EXPLAINED_A = 2.6  # rings this near to a named defect belong to it: a hexagon's width is 2.8 Å
_TRUSTED_SHARE = 0.33  # in another grain nearly no site is trusted
_AROUND_ODD_A = 12.0  # a ring of nine atoms is 4 Å wide; the bonds farther out are as they are
_LARGEST_RING = 9  # larger faces of the bond graph are gaps left by atoms that were not found


def name_rotated_bonds(
    view: FrameAtoms, crystal: OccupiedSites, found: Sequence[NamedDefect], options: DefectOptions
) -> list[NamedDefect]:
    """Name bonds rotated by 90 degrees (Stone-Wales) by their likelihood ratio."""
    sites, at = crystal.sites, crystal.occupant
    taken = {s for f in found for s in f.sites}
    free = (at >= 0) & crystal.trusted
    free[list(taken)] = False
    first, second = sites.bonds(free).T
    i, j = at[first], at[second]
    spread = np.hypot(view.sigma[i], view.sigma[j])
    log_odds = rotated_bond_log_odds(
        sites.xy[second] - sites.xy[first], view.xy[j] - view.xy[i], spread
    )
    p_rotated = expit(log_odds + np.log(options.rotated_share)) * view.p[i] * view.p[j]
    likely = p_rotated >= options.minimum_p
    scored = zip(p_rotated[likely], first[likely], second[likely], strict=True)
    out: list[NamedDefect] = []
    for p, a, b in sorted(scored, reverse=True):
        near = {n for s in (a, b) for n in sites.neighbours[s]}
        members = at[[a, b]]
        if near & taken or view.border[members].min() < options.border_A:
            continue
        taken |= near | {a, b}
        bonded = [int(at[n]) for n in sorted(near - {a, b}) if at[n] >= 0]
        explained = tuple(near | {a, b})
        out.append(defect_of_atoms(StoneWales(), view, members, p, bonded, sites=explained))
    return out


def name_vacancies(
    view: FrameAtoms, crystal: OccupiedSites, found: Sequence[NamedDefect], options: DefectOptions
) -> list[NamedDefect]:
    """Name groups of neighbouring empty sites that no other defect explains."""
    sites = crystal.sites
    taken = {s for f in found for s in f.sites}
    # An atom too doubtful to count as one still makes it less probable that its site is empty.
    doubtful = np.flatnonzero(~view.host & ~view.foreign)
    doubt = np.zeros(len(sites.xy))
    around = sites.tree.query_ball_point(view.xy[doubtful], options.site_tolerance_A)
    for i, near in zip(doubtful, around, strict=True):
        doubt[near] = np.maximum(doubt[near], view.p[i])
    tested = np.isfinite(crystal.p_empty)
    p = np.where(tested, crystal.p_empty, _UNTESTED_P * (1.0 - doubt))
    empty = (crystal.occupant < 0) & (sites.border_A >= options.border_A)
    empty &= p >= options.minimum_p
    empty[list(taken)] = False
    out = []
    for members in _groups_of_sites(crystal, empty):
        known = p[members[tested[members]]]
        # The sites of a large hole share their level and the amplitude that they lack, so their
        # tests are not independent: the least certain one counts.
        share = float(np.prod(known) if len(members) < HOLE_SITES else known.min(initial=1.0))
        share *= 1.0 if tested[members].all() else _UNTESTED_P
        rim = {n for s in members for n in sites.neighbours[s]} - set(members.tolist())
        atoms = [int(crystal.occupant[n]) for n in sorted(rim) if crystal.occupant[n] >= 0]
        x, y = sites.measured_xy[members].mean(axis=0)
        number = tuple(int(n) for n in view.number[atoms])
        explained = tuple(int(s) for s in members)
        out.append(
            NamedDefect(_vacancy(crystal, members), (float(x), float(y)), share, number, explained)
        )
    return out


def _groups_of_sites(crystal: OccupiedSites, empty: BoolArray) -> list[IntArray]:
    """List the groups of neighbouring empty sites where the lattice holds.

    Atoms relax at the edge of a hole, so its sites are trusted together if a third of them are.
    """
    index = np.flatnonzero(empty)
    order = {int(s): k for k, s in enumerate(index)}
    near = crystal.sites.neighbours
    links = [(k, order[n]) for s, k in order.items() for n in near[s] if n in order]
    out: list[IntArray] = []
    for group in groups(len(index), links):
        members = index[group]
        if crystal.trusted[members].mean() > _TRUSTED_SHARE:
            out.append(members)
    return out


def _vacancy(crystal: OccupiedSites, members: IntArray) -> Vacancy:
    """Name the sites only where the crystal has several kinds of them."""
    if len(set(crystal.sites.species)) == 1:
        return Vacancy(len(members))
    return Vacancy.at(*(crystal.sites.species[s] for s in members))


def name_ad_atoms(
    view: FrameAtoms, crystal: OccupiedSites, options: DefectOptions
) -> list[NamedDefect]:
    """Name host atoms without a site, where every site around them is occupied."""
    left = np.setdiff1d(np.flatnonzero(view.host), crystal.occupant)
    sites = crystal.sites
    filled = crystal.trusted & (crystal.occupant >= 0)
    usual = float(np.median(view.amplitude[view.host])) if view.host.any() else 0.0
    out = []
    for i, near in zip(left, sites.tree.query_ball_point(view.xy[left], _AROUND_A), strict=True):
        alone = not len(within(view.xy[view.foreign], view.xy[[i]], _ON_FOREIGN_A)[0])
        whole = len(near) >= 2 and bool(filled[near].all())
        bright = view.amplitude[i] >= _AD_ATOM_BRIGHTNESS * usual
        if alone and whole and bright and view.border[i] >= options.border_A:
            p = float(view.p[i] * view.p_element[i])
            kind = Adatom.of([view.element[i]])
            out.append(defect_of_atoms(kind, view, np.array([i]), p, ()))
    return out


def name_rings(
    view: FrameAtoms,
    crystal: OccupiedSites | None,
    found: Sequence[NamedDefect],
    material: Material,
    options: DefectOptions,
) -> list[NamedDefect]:
    """Name clusters of rings of the wrong size that no other defect explains."""
    regular = _on_sites(view, crystal, options)
    named_at = np.array([f.xy for f in found]).reshape(-1, 2)
    free = cKDTree(named_at).query(view.measured)[0] > _EXPLAINED_A
    free &= ~np.isin(view.number, [n for f in found for n in f.atoms])
    there = view.host | view.foreign
    # An odd ring has an atom off its site, so only the surroundings of such atoms are looked at.
    off = there & free & ~regular
    if not off.any():
        return []
    away = cKDTree(view.xy[off]).query(view.xy)[0]
    kept = np.flatnonzero(there & (away < _AROUND_ODD_A))
    graph = bond_graph(
        view.xy[kept],
        [view.element[i] for i in kept],
        border_distance_A=np.minimum(view.border, _AROUND_ODD_A - away)[kept],
        coordination=material.coordination,
        host=material.host,
    )
    usable = free[kept] & ~graph.near_border
    odd = [
        r
        for r in rings(graph, largest=_LARGEST_RING)
        if len(r) != material.ring_size
        and usable[list(r)].all()
        and not regular[kept[list(r)]].all()
    ]
    out = []
    for p, kind, ring_atoms in ring_groups(graph, odd, view.sigma[kept], options.minimum_p):
        members = kept[ring_atoms]
        out.append(defect_of_atoms(kind, view, members, p * float(view.p[members].min()), ()))
    return out


def _on_sites(view: FrameAtoms, crystal: OccupiedSites | None, options: DefectOptions) -> BoolArray:
    """Which atoms are on their sites: these form regular rings, even if noise cut their bonds."""
    regular = np.zeros(len(view.xy), dtype=np.bool_)
    if crystal is not None:
        at = crystal.occupant
        near = np.hypot(*(view.xy[at] - crystal.sites.xy).T) <= options.site_tolerance_A
        regular[at[(at >= 0) & crystal.trusted & near]] = True
    return regular
