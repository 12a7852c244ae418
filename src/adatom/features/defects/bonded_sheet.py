"""Name what is not perfect crystal: foreign atoms, vacancies, rotated bonds, ad-atoms, rings.

Frames are noisy (0.05 to 0.2 Å per atom), so names come from the lattice, not from bond lengths:
every atom is matched to a site, a foreign atom is told which sites it replaces, and its bonded
neighbours are the sites next to those. Where no lattice holds, bond lengths and rings decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import cKDTree
from scipy.special import expit, ndtr

from adatom.core import AtomTable, DefectTable, Lattice, Material
from adatom.core.arrays import FloatArray, IntArray
from adatom.core.defects import SCHEMA
from adatom.errors import BadInput
from adatom.features.defects.bonds import bond_cutoff, bond_graph
from adatom.features.defects.rings import ring_groups, rings
from adatom.features.defects.sites import (
    Crystal,
    Owned,
    Sites,
    bonded_sites,
    enclosed,
    lattice_sites,
    replaceable,
    site_likelihood,
    turned,
)
from adatom.features.neighbours import border_distance, distinct, groups, occupy, touching, within


class DefectOptions(BaseModel):
    """How defects are named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    border_A: float = Field(default=1.5, ge=0.0, description="Ignored margin of the frame, Å")
    minimum_p: float = Field(default=0.5, ge=0.0, le=1.0, description="Least probability")
    site_tolerance_A: float = Field(default=0.75, gt=0.0, description="Atom from its site, Å")
    displaced_A: float = Field(default=1.4, gt=0.0, description="Stray atom from a free site, Å")
    cluster_distance_A: float = Field(default=2.7, gt=0.0, description="Atoms in a cluster, Å")
    relaxation_A: float = Field(default=0.2, gt=0.0, description="Shift of a foreign atom, Å")
    seen_share: float = Field(default=0.97, gt=0.5, lt=1.0, description="Host atoms found")
    false_share: float = Field(default=0.05, gt=0.0, lt=0.5, description="Found where none is")
    vacancy_share: float = Field(default=0.01, gt=0.0, lt=0.5, description="Prior, empty site")
    rotated_share: float = Field(default=1e-4, gt=0.0, lt=0.5, description="Prior, turned bond")
    rings: bool = Field(default=True, description="Look for rings of the wrong size")


@dataclass(frozen=True, slots=True, eq=False)
class _Atoms:
    """One frame's atoms as arrays; xy is undistorted and freed of smooth lattice misfit."""

    xy: FloatArray
    measured: FloatArray
    sigma: FloatArray
    p: FloatArray
    p_element: FloatArray
    element: tuple[str, ...]
    number: IntArray
    amplitude: FloatArray
    border: FloatArray
    foreign: NDArray[np.bool_]
    host: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Found:
    kind: str
    xy: tuple[float, float]
    p: float
    atoms: tuple[int, ...]
    sites: tuple[int, ...] = ()  # every site that this defect explains


def find_defects(
    atoms: AtomTable,
    lattice: Lattice | None,
    material: Material,
    extent_xy_A: tuple[float, float],
    *,
    site_evidence: tuple[FloatArray, FloatArray] | None = None,
    options: DefectOptions | None = None,
) -> DefectTable:
    """Name the defects of one frame.

    Foreign atoms that touch are one cluster, named as the field does by its atoms and the host
    atoms bonded to them: ``Si1C3``, ``Si1C4``, ``Si2C6``, ``Si3C6``. Empty sites that touch are
    ``V1``, ``V2``, ...; a bond turned by 90 degrees is ``Stone-Wales``; atoms on no site are
    ``ad-C``, ``ad-Si``; other clusters of wrong rings are ``rings 5-7`` and the like.

    Parameters
    ----------
    atoms
        Atoms of one frame.
    lattice
        The crystal in this frame; without it only distances and rings are used.
    material
        The crystal's kind.
    extent_xy_A
        Far corner x, y of the frame, Å, measured axes.
    site_evidence
        Positions of tested sites, shape (site, 2), Å, measured axes, and the probability, shape
        (site,), that each is empty, from the counts themselves. Without it an unseen atom is
        taken as missing with probability 0.5.
    options
        Thresholds.

    Returns
    -------
    Defects in measured axes; ``p`` is the probability of the defect with this name; ``atoms``
    lists the foreign or displaced atoms first, then the bonded neighbours that were seen.

    Raises
    ------
    BadInput
        If the table holds more than one frame, or the evidence's shapes do not agree.
    """
    o = options or DefectOptions()
    frames = atoms.frames
    if len(frames) > 1:
        raise BadInput(
            "atom table",
            expected="the atoms of one frame",
            got=f"{len(frames)} frames",
            todo="Take one with AtomTable.of_frame.",
        )
    if not frames:
        return DefectTable.empty()
    view = _parse(atoms, lattice, material, extent_xy_A, o)
    found: list[_Found] = []
    crystal = None
    if lattice is not None:
        view, crystal = _seat(view, lattice_sites(lattice, extent_xy_A), site_evidence, o)
        found += _clusters(view, crystal, material, o)
        found += _rotated(view, crystal, found, o)
        found += _vacancies(view, crystal, found, o)
        found += _ad_atoms(view, crystal, o)
    else:
        found += _bonded_clusters(view, np.flatnonzero(view.foreign), material, o)
    if o.rings:
        found += _ring_clusters(view, crystal, found, material, o)
    rows = [
        (frames[0], k, f.kind, *f.xy, f.p, list(f.atoms), -1, frames[0], "", None)
        for k, f in enumerate(found)
    ]
    return DefectTable(pl.DataFrame(rows, schema=SCHEMA, orient="row"))


def _parse(
    atoms: AtomTable,
    lattice: Lattice | None,
    material: Material,
    extent: tuple[float, float],
    o: DefectOptions,
) -> _Atoms:
    measured = atoms.xy
    element = tuple(str(e) for e in atoms.elements)
    p, p_element = atoms.column("p_exists"), atoms.column("p_element")
    other = ~np.isin(element, material.site_species)
    if lattice is not None:  # the wrong element for its site, an antisite among them
        index, offset = lattice.nearest_site(lattice.undistort(measured))
        due = np.array(material.site_species)[index[:, 2]]
        other |= (np.hypot(*offset.T) < o.site_tolerance_A) & (np.array(element) != due)
    foreign = distinct(measured, other & (p * p_element >= o.minimum_p), p * p_element)
    host = ~other & (p >= o.minimum_p)
    if foreign.any():  # a second detection of the same bright spot is no host atom
        host &= cKDTree(measured[foreign]).query(measured)[0] > 0.35
    return _Atoms(
        xy=measured if lattice is None else lattice.undistort(measured),
        measured=measured,
        sigma=np.sqrt(np.maximum(np.trace(atoms.covariance, axis1=1, axis2=2) / 2.0, 1e-6)),
        p=p,
        p_element=p_element,
        element=element,
        number=atoms.data["atom"].to_numpy().astype(np.int64),
        amplitude=atoms.column("amplitude"),
        border=border_distance(measured, extent),
        foreign=foreign,
        host=host,
    )


def _seat(
    view: _Atoms, sites: Sites, evidence: tuple[FloatArray, FloatArray] | None, o: DefectOptions
) -> tuple[_Atoms, Crystal]:
    hosts = np.flatnonzero(view.host)
    occupant, xy, trusted = occupy(sites.xy, view.xy, hosts, o.site_tolerance_A, o.displaced_A)
    p_empty = np.full(len(sites.xy), np.nan)
    if evidence is not None:
        tested, p = (np.asarray(e, dtype=np.float64) for e in evidence)
        if tested.shape != (p.size, 2) or p.ndim != 1:
            raise BadInput(
                "site evidence",
                expected="positions (site, 2) and as many probabilities (site,)",
                got=f"shapes {tested.shape} and {p.shape}",
                todo="Give one probability to be empty for every tested site.",
            )
        if len(p):
            far, which = cKDTree(tested).query(sites.measured_xy)
            p_empty[far < 0.5] = np.clip(p[which[far < 0.5]], 0.0, 1.0)
    return replace(view, xy=xy), Crystal(sites, occupant, p_empty, trusted)


def _clusters(view: _Atoms, crystal: Crystal, material: Material, o: DefectOptions) -> list[_Found]:
    """Name foreign atoms by the sites that they replace, or by distance off the lattice."""
    foreign = np.flatnonzero(view.foreign)
    nearest = cKDTree(crystal.sites.xy).query(view.xy[foreign])[1]
    found = _bonded_clusters(view, foreign[~crystal.trusted[nearest]], material, o)
    foreign = foreign[crystal.trusted[nearest]]
    pieces = touching(view.xy[foreign], o.cluster_distance_A)
    solved = [_solve(view, crystal, foreign[g], o) for g in pieces]
    # Clusters that touch or share a bonded neighbour are one defect.
    best = [ways[0][1] for ways, _ in solved]
    reach = [
        {s for own in owned for s in own} | set(bonded_sites(crystal, owned)) for owned in best
    ]
    shared = [(i, j) for i in range(len(reach)) for j in range(i) if reach[i] & reach[j]]
    for group in groups(len(solved), shared):
        members = np.concatenate([solved[g][1] for g in group])
        if view.border[members].min() >= o.border_A:
            one = solved[group[0]] if len(group) == 1 else _solve(view, crystal, members, o)
            found.append(_name_cluster(view, crystal, one, o))
    return found


_Solution = tuple[list[tuple[float, Owned]], IntArray]


def _solve(view: _Atoms, crystal: Crystal, members: IntArray, o: DefectOptions) -> _Solution:
    """Weigh every way in which the cluster's atoms replace sites; likeliest first.

    An atom replaces one site, two neighbouring sites (it then sits between them, as Si in a
    divacancy does) or none (an ad-atom). Each way is scored by the atoms' distance from the place
    it implies and by which sites around still show a host atom.
    """
    xy = view.xy[members]
    s2 = view.sigma[members] ** 2 + o.relaxation_A**2
    choices = [replaceable(crystal.sites, *where) for where in zip(xy, s2, strict=True)]
    while prod(len(c) for c in choices) > 3000:
        max(choices, key=len).pop()
    around = np.unique(np.concatenate(within(crystal.sites.xy, xy, 2.4))).tolist()
    rates = o.seen_share, o.false_share
    ways = []
    for way in product(*choices):
        flat = [s for _, own in way for s in own]
        if len(set(flat)) == len(flat):
            own_sites = tuple(own for _, own in way)
            score = sum(c[0] for c in way) + site_likelihood(crystal, own_sites, around, *rates)
            ways.append((score, own_sites))
    ways = ways or [(0.0, tuple(() for _ in members))]  # more atoms than sites: ad-atoms
    top = max(w[0] for w in ways)
    total = sum(np.exp(w[0] - top) for w in ways)
    ranked = [(float(np.exp(score - top) / total), own) for score, own in ways]
    return sorted(ranked, key=lambda r: -r[0])[:40], members


def _name_cluster(view: _Atoms, crystal: Crystal, solution: _Solution, o: DefectOptions) -> _Found:
    ways, members = solution
    names = []
    for _, owned in ways:
        near = bonded_sites(crystal, owned) if any(owned) else []
        names.append(_kind(view, members, [crystal.sites.species[s] for s in near]))
    best = ways[0][1]
    # The probability of the name is that of all the ways that lead to it.
    p = sum(w for (w, _), name in zip(ways, names, strict=True) if name == names[0])
    p *= float(np.prod(view.p[members] * view.p_element[members]))
    bonded = bonded_sites(crystal, best)
    hidden = [s for s in bonded if crystal.occupant[s] < 0 and crystal.sites.border_A[s] > 0.0]
    missed, empty = (1.0 - o.seen_share) * (1.0 - o.vacancy_share), o.vacancy_share
    p *= (missed / (missed + empty * (1.0 - o.false_share))) ** len(hidden)
    seen = [int(crystal.occupant[s]) for s in bonded if crystal.occupant[s] >= 0]
    gone = tuple({s for own in best for s in own} | set(enclosed(crystal, best)))
    return _found(names[0], view, members, p, seen, sites=(*gone, *bonded))


def _kind(view: _Atoms, members: IntArray, bonded: Sequence[str]) -> str:
    """Name a cluster by its foreign elements and the host atoms bonded to them: Si3C6."""
    count = sorted(Counter(view.element[i] for i in members).items())
    if not bonded:
        return "ad-" + "".join(f"{e}{n if n > 1 else ''}" for e, n in count)
    return "".join(f"{e}{n}" for e, n in [*count, *sorted(Counter(bonded).items())])


def _found(
    kind: str,
    view: _Atoms,
    members: IntArray,
    p: float,
    bonded: Sequence[int],
    *,
    sites: tuple[int, ...] = (),
) -> _Found:
    x, y = view.measured[members].mean(axis=0)
    number = tuple(int(n) for n in view.number[[*members.tolist(), *bonded]])
    return _Found(kind, (float(x), float(y)), min(p, 1.0), number, sites)


def _bonded_clusters(
    view: _Atoms, foreign: IntArray, material: Material, o: DefectOptions
) -> list[_Found]:
    """Name foreign atoms by bond lengths alone, where there is no lattice."""
    hosts = np.flatnonzero(view.host)
    found = []
    for group in touching(view.xy[foreign], o.cluster_distance_A):
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
        if view.border[members].min() >= o.border_A:
            kind = _kind(view, members, [view.element[h] for h in bonded])
            found.append(_found(kind, view, members, p, sorted(bonded)))
    return found


def _rotated(
    view: _Atoms, crystal: Crystal, found: Sequence[_Found], o: DefectOptions
) -> list[_Found]:
    """Find bonds turned by 90 degrees, by the likelihood ratio of turned to straight."""
    sites, at = crystal.sites, crystal.occupant
    taken = {s for f in found for s in f.sites}
    free = (at >= 0) & crystal.trusted
    free[list(taken)] = False
    first, second = sites.bonds(free).T
    i, j = at[first], at[second]
    spread = np.hypot(view.sigma[i], view.sigma[j])
    odds = turned(sites.xy[second] - sites.xy[first], view.xy[j] - view.xy[i], spread)
    p_turned = expit(odds + np.log(o.rotated_share)) * view.p[i] * view.p[j]
    scored = zip(p_turned, first, second, strict=True)
    out: list[_Found] = []
    for p, a, b in sorted(scored, reverse=True):
        near = {n for s in (a, b) for n in sites.neighbours[s]}
        members = at[[a, b]]
        if p < o.minimum_p or near & taken or view.border[members].min() < o.border_A:
            continue
        taken |= near | {a, b}
        bonded = [int(at[n]) for n in sorted(near - {a, b}) if at[n] >= 0]
        out.append(_found("Stone-Wales", view, members, p, bonded, sites=tuple(near | {a, b})))
    return out


def _vacancies(
    view: _Atoms, crystal: Crystal, found: Sequence[_Found], o: DefectOptions
) -> list[_Found]:
    """Name groups of empty neighbouring sites that no foreign atom explains."""
    sites = crystal.sites
    taken = {s for f in found for s in f.sites}
    # An atom too doubtful to be counted still speaks against the site being empty.
    doubtful = np.flatnonzero(~view.host & ~view.foreign)
    doubt = np.zeros(len(sites.xy))
    for k, near in enumerate(within(view.xy[doubtful], sites.xy, o.site_tolerance_A)):
        doubt[k] = view.p[doubtful[near]].max(initial=0.0)
    tested = np.isfinite(crystal.p_empty)
    p = np.where(tested, crystal.p_empty, 0.5 * (1.0 - doubt))
    empty = (crystal.occupant < 0) & crystal.trusted & (sites.border_A >= o.border_A)
    empty &= p >= o.minimum_p
    empty[list(taken)] = False
    index = np.flatnonzero(empty)
    order = {int(s): k for k, s in enumerate(index)}
    links = [(k, order[n]) for s, k in order.items() for n in sites.neighbours[s] if n in order]
    out = []
    for group in groups(len(index), links):
        members = index[group]
        known = p[members[tested[members]]]
        share = float(np.prod(known)) * (1.0 if tested[members].all() else 0.5)
        rim = {n for s in members for n in sites.neighbours[s]} - set(members.tolist())
        atoms = [int(crystal.occupant[n]) for n in sorted(rim) if crystal.occupant[n] >= 0]
        x, y = sites.measured_xy[members].mean(axis=0)
        number = tuple(int(n) for n in view.number[atoms])
        kind, explained = f"V{len(members)}", tuple(int(s) for s in members)
        out.append(_Found(kind, (float(x), float(y)), share, number, explained))
    return out


def _ad_atoms(view: _Atoms, crystal: Crystal, o: DefectOptions) -> list[_Found]:
    """Name host atoms that are left over where every site around is filled."""
    left = np.setdiff1d(np.flatnonzero(view.host), crystal.occupant)
    sites = crystal.sites
    filled = crystal.trusted & (crystal.occupant >= 0)
    usual = float(np.median(view.amplitude[view.host])) if view.host.any() else 0.0
    out = []
    for i, near in zip(left, within(sites.xy, view.xy[left], 1.6), strict=True):
        alone = not len(within(view.xy[view.foreign], view.xy[[i]], 1.3)[0])
        whole = len(near) >= 2 and bool(filled[near].all())
        bright = view.amplitude[i] >= 0.5 * usual
        if alone and whole and bright and view.border[i] >= o.border_A:
            p = float(view.p[i] * view.p_element[i])
            out.append(_found(f"ad-{view.element[i]}", view, np.array([i]), p, ()))
    return out


def _ring_clusters(
    view: _Atoms,
    crystal: Crystal | None,
    found: Sequence[_Found],
    material: Material,
    o: DefectOptions,
) -> list[_Found]:
    """Name clusters of rings of the wrong size that nothing else explains."""
    kept = np.flatnonzero(view.host | view.foreign)
    graph = bond_graph(
        view.xy[kept],
        [view.element[i] for i in kept],
        border_distance_A=view.border[kept],
        coordination=material.coordination,
        host=material.host,
    )
    # Atoms on their sites form the crystal's own rings, however noise may have cut the bonds.
    regular = np.zeros(len(view.xy), dtype=np.bool_)
    if crystal is not None:
        at = crystal.occupant
        near = np.hypot(*(view.xy[at] - crystal.sites.xy).T) <= o.site_tolerance_A
        regular[at[(at >= 0) & crystal.trusted & near]] = True
    named_at = np.array([f.xy for f in found]).reshape(-1, 2)
    named = np.isin(view.number, [n for f in found for n in f.atoms])
    far = cKDTree(named_at).query(view.measured[kept])[0] > 2.6
    usable = far & ~named[kept] & ~graph.near_border
    odd = [
        r
        for r in rings(graph, largest=9)
        if len(r) != material.ring_size
        and usable[list(r)].all()
        and not regular[kept[list(r)]].all()
    ]
    out = []
    for p, kind, ring_atoms in ring_groups(graph, odd, view.sigma[kept], o.minimum_p):
        members = kept[ring_atoms]
        out.append(_found(kind, view, members, p * float(view.p[members].min()), ()))
    return out
