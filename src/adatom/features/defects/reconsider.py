"""Look again at the doubtful places of a sheet of graphene, and correct its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from adatom.core import AtomTable, DefectKind, DefectTable, Frame, Lattice, Material, StoneWales
from adatom.core.arrays import BoolArray, FloatArray
from adatom.features.defects.base import DefectOptions
from adatom.features.defects.hypotheses import FoundSheet, Weighed, weigh
from adatom.features.defects.screen import Screen, screen
from adatom.features.defects.shapes import Placed, graphene_shapes
from adatom.features.defects.sites import lattice_sites
from adatom.features.refinement.binning import bin_frame
from adatom.features.refinement.refine import Refined

_FEWEST_ATOMS = 20  # with fewer neither amplitude nor lattice is known well enough
_APART_A = 3.0  # Å: doubtful places nearer than this are one
# A place is doubtful from this share of the expected score below zero, and from this many standard
# deviations of the score of a perfect sheet, sqrt(2 E), above its mean, -E.
_BELOW, _ABOVE_SD = 0.25, 4.5
_MOST_PLACES = 6  # doubtful places of one shape; more in a frame are compared as they are named
_WITHIN = (20.0, 0.5)  # first scores that differ by less, nats and share of the best's, are fitted
_OF_EACH = 4  # places of one shape that are fitted
_FOREIGN_A = 3.0  # Å: shapes do not hold beside foreign atoms
_EXPLAINED_A = 3.2  # Å: other defects named this near to a shape are part of it
_SAME_A = 0.7  # Å: an atom of two hypotheses, or found and fitted
_LEAST_TOLD = 0.01  # alternatives less probable than this are not told
_SHAPES_OF = ("V1", "V2", "V3", "V4", "Stone-Wales", "ad-C")


@dataclass(slots=True, eq=False)
class _Tables:
    """The table of atoms as arrays that grow."""

    data: pl.DataFrame
    xy: FloatArray
    covariance: FloatArray
    p: FloatArray
    amplitude: FloatArray
    added: int = 0
    tested_xy: FloatArray | None = None
    tested_p: FloatArray | None = None


def reconsider(
    frame: Frame,
    atoms: AtomTable,
    refined: Refined,
    lattice: Lattice | None,
    defects: DefectTable,
    material: Material,
    options: DefectOptions,
) -> AtomTable:
    """Compare stored shapes with what was found, by the likelihood of the counts.

    Only sheets of carbon have stored shapes; other frames are returned as they are.

    Parameters
    ----------
    frame
        The image.
    atoms
        Its atoms, with amplitudes in the intensity of `frame`.
    refined
        The fit behind them.
    lattice
        Their lattice.
    defects
        Defects as they were named.
    material
        The crystal.
    options
        Thresholds.

    Returns
    -------
    The atoms, where a shape holds at its fitted positions. `AtomTable.weighed` has the defects that
    were settled, with their alternatives; `with_weighed` puts them in the place of others.
    """
    likely = atoms.is_likely
    if lattice is None or not _is_graphene(material) or likely.sum() < _FEWEST_ATOMS:
        return atoms
    found = _sheet(atoms, material)
    unit = float(np.median(found.amplitude[found.host]))
    sites = lattice_sites(lattice, frame.calibration.extent_xy(frame.shape))
    excess = max(refined.reduced_chi2, 1.0)
    seen = screen(
        bin_frame(frame), lattice, sites, found.xy[found.host], refined.optics, unit, excess
    )
    level = float(np.median(refined.background))
    out = _Tables(
        atoms.data, atoms.xy, atoms.covariance, atoms.column("p_exists"),
        atoms.column("amplitude"),
    )  # fmt: skip
    if atoms.empty_sites is not None:
        out.tested_xy = atoms.empty_sites.select("x_A", "y_A").to_numpy()
        out.tested_p = atoms.empty_sites["p"].to_numpy().copy()
    settled: list[DefectTable] = []
    for centre in _doubtful(seen, found, defects):
        candidates = _candidates(seen, centre)
        ways = weigh(seen, refined.optics, excess, level, found, centre, candidates)
        if ways:
            settled += _settle(out, defects, seen, ways, centre, frame.index, options)
    if not settled:
        return atoms
    return replace(_table(out, atoms), weighed=DefectTable.concat(settled).data)


def with_weighed(named: DefectTable, weighed: pl.DataFrame | None) -> DefectTable:
    """Put the defects that the counts were asked about in the place of those named beside them.

    Parameters
    ----------
    named
        Defects of one frame.
    weighed
        `AtomTable.weighed` of the frame.
    """
    if weighed is None or not len(weighed):
        return named
    chosen = DefectTable(weighed)
    kept = np.ones(len(named), dtype=np.bool_)
    for xy in chosen.xy:
        kept &= ~_beside(named, xy)
    both = DefectTable.concat([DefectTable(named.data.filter(pl.Series(kept))), chosen])
    count = pl.Series("defect", np.arange(len(both), dtype=np.int32))
    return DefectTable(both.data.with_columns(count))


def _beside(named: DefectTable, xy: FloatArray) -> BoolArray:
    """Which defects without foreign atoms are named near a place, shape (defect,)."""
    own = np.array([not k.startswith(("Si", "ad-Si")) for k in named.kinds], dtype=np.bool_)
    return np.asarray((np.hypot(*(named.xy - xy).T) < _EXPLAINED_A) & own)


def _is_graphene(material: Material) -> bool:
    return set(material.site_species) == {"C"} and material.coordination == 3


def _sheet(atoms: AtomTable, material: Material) -> FoundSheet:
    likely = atoms.is_likely
    element = atoms.elements[likely]
    amplitude = atoms.column("amplitude")[likely]
    usual = amplitude.copy()
    for symbol in np.unique(element):
        usual[element == symbol] = np.median(amplitude[element == symbol])
    sigma = np.sqrt(np.trace(atoms.covariance[likely], axis1=1, axis2=2) / 2.0)
    return FoundSheet(
        atoms.xy[likely], sigma, amplitude, usual, np.isin(element, material.site_species)
    )


def _doubtful(seen: Screen, found: FoundSheet, defects: DefectTable) -> list[FloatArray]:
    """List the places to look at, undistorted axes, each shape (2,), Å."""
    scored: list[tuple[float, FloatArray]] = []
    for shape in graphene_shapes():
        if shape.at_site:  # single vacancies are named already; the networks know them
            continue
        score, expected, places = seen.best(shape, _MOST_PLACES)
        least = max(-_BELOW * expected, -expected + _ABOVE_SD * (2.0 * expected) ** 0.5)
        scored += [
            (float(value), seen.placed(shape, place).centre)
            for value, place in zip(score, places, strict=True)
            if value > least
        ]
    scored.sort(key=lambda pair: -pair[0])
    named = [
        seen.lattice.undistort(xy[None])[0]
        for kind, xy in zip(defects.kinds, defects.xy, strict=True)
        if kind in _SHAPES_OF or kind.startswith("rings")
    ]
    foreign = found.xy[~found.host]
    out: list[FloatArray] = []
    for centre in [c for _, c in scored] + named:
        if len(foreign) and np.hypot(*(foreign - seen.shifted(centre[None])).T).min() < _FOREIGN_A:
            continue
        if all(np.hypot(*(centre - other)) > _APART_A for other in out):
            out.append(centre)
    return out


def _candidates(seen: Screen, centre: FloatArray) -> list[Placed]:
    """Choose the shapes to fit around a place by their first scores."""
    scored = []
    for shape in graphene_shapes():
        score, expected, places = seen.best(shape, _OF_EACH, centre)
        log_prior = np.log(shape.prior)
        scored += [
            (float(v) + log_prior, expected, seen.placed(shape, k))
            for v, k in zip(score, places, strict=True)
        ]
    if not scored:
        return []
    best, expected, _ = max(scored, key=lambda s: s[0])
    least = best - _WITHIN[0] - _WITHIN[1] * expected
    return [placed for value, _, placed in scored if value >= least]


def _settle(
    out: _Tables,
    named: DefectTable,
    seen: Screen,
    ways: Sequence[Weighed],
    centre: FloatArray,
    frame: int,
    options: DefectOptions,
) -> list[DefectTable]:
    """Write what the hypotheses say of one place into the table of atoms; gives the defect."""
    shares: dict[str, float] = {}
    for way in ways:
        shares[way.name] = shares.get(way.name, 0.0) + way.p
    best = max(shares, key=lambda name: shares[name])
    middle = seen.shifted(centre[None])[0]
    near = _beside(named, middle)
    known = [k for k, is_near in zip(named.kinds, near, strict=True) if is_near]
    if best in ("", "?") or shares[best] < options.minimum_p:
        return []
    if best == "V1" and not known:
        return []  # whether a single site is empty, the networks tell better
    way = next(w for w in ways if w.name == best)
    assert way.placed is not None  # it has a name  # noqa: S101
    at = seen.shifted(way.placed.centre[None])[0]
    p = shares[best]
    if best == "V1" and known == ["V1"]:
        p = float(named.data["p"].to_numpy()[near][0])
    numbers = _write_atoms(out, ways, way, shares[best])
    _write_sites(out, seen.shifted(_lacking(way.placed)), at, p)
    kind = DefectKind.parse(best)
    one = DefectTable.build(
        frame=frame, kinds=[kind], xy=at[None], p=[min(p, 1.0)],
        atoms=[numbers[:6] if isinstance(kind, StoneWales) else numbers],
        alternatives=[_told(shares, best)],
    )  # fmt: skip
    return [one]


def _write_atoms(out: _Tables, ways: Sequence[Weighed], way: Weighed, p: float) -> list[int]:
    """Write the atoms of a hypothesis; gives their numbers, those that moved farthest first."""
    numbers = []
    tree = cKDTree(out.xy)
    mean, covariance = _mixed(ways, way)
    taken: set[int] = set()
    for i in np.argsort(-way.core.astype(int), kind="stable"):
        distance, order = tree.query(mean[i], k=min(4, len(out.xy)))
        free = [
            int(o) for d, o in zip(np.atleast_1d(distance), np.atleast_1d(order), strict=True)
            if d < _SAME_A and int(o) not in taken
        ]  # fmt: skip
        free.sort(key=lambda o: -out.p[o])
        if free:
            row = free[0]
            out.xy[row], out.covariance[row] = mean[i], covariance[i]
            if way.core[i]:
                out.p[row] = max(out.p[row], p)
            out.amplitude[row] = way.amplitude[i]
        elif way.core[i]:
            row = _append(out, mean[i], covariance[i], p, float(way.amplitude[i]))
        else:
            continue
        taken.add(row)
        if way.core[i]:
            numbers.append(row)
    assert way.placed is not None  # callers pass a shape  # noqa: S101
    middle = way.xy[way.core].mean(axis=0)
    gone = np.hypot(*(out.xy - middle).T) < _EXPLAINED_A - _SAME_A
    gone[list(taken)] = False
    out.p[gone] *= 1.0 - p
    return numbers


def _lacking(placed: Placed) -> FloatArray:
    """Sites of the perfect sheet that a shape leaves empty, shape (site, 2), Å, undistorted."""
    count = len(placed.sites) - len(placed.xy)
    order = np.argsort(np.hypot(*(placed.sites - placed.centre).T))
    return placed.sites[order[:count]]


def _write_sites(out: _Tables, lacking: FloatArray, at: FloatArray, p: float) -> None:
    """Write which of the tested sites near a settled shape are empty."""
    if out.tested_xy is None or out.tested_p is None or not len(out.tested_xy):
        return
    near = np.hypot(*(out.tested_xy - at).T) < _EXPLAINED_A
    out.tested_p[near] *= 1.0 - p
    if len(lacking):
        distance, own = cKDTree(out.tested_xy).query(lacking)
        own = own[distance < _SAME_A]
        out.tested_p[own] = np.maximum(out.tested_p[own], p)


def _append(
    out: _Tables, xy: FloatArray, covariance: FloatArray, p: float, amplitude: float
) -> int:
    out.xy = np.concatenate([out.xy, xy[None]])
    out.covariance = np.concatenate([out.covariance, covariance[None]])
    out.p = np.append(out.p, p)
    out.amplitude = np.append(out.amplitude, amplitude)
    out.added += 1
    return len(out.xy) - 1


def _mixed(ways: Sequence[Weighed], way: Weighed) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of each atom over all hypotheses that have it."""
    weight = np.full(len(way.xy), way.p)
    first = way.p * way.xy
    second = way.p * (way.covariance + np.einsum("ni,nj->nij", way.xy, way.xy))
    for other in ways:
        if other is way or not len(other.xy) or other.p < 1e-3:
            continue
        distance, own = cKDTree(other.xy).query(way.xy)
        same = np.where(distance < _SAME_A, other.p, 0.0)
        xy = other.xy[own]
        weight += same
        first += same[:, None] * xy
        outer = other.covariance[own] + np.einsum("ni,nj->nij", xy, xy)
        second += same[:, None, None] * outer
    mean = first / weight[:, None]
    covariance = second / weight[:, None, None] - np.einsum("ni,nj->nij", mean, mean)
    return mean, covariance


def _told(shares: dict[str, float], best: str) -> str:
    """Write the alternatives to a kind, likeliest first."""
    others = sorted(((p, name) for name, p in shares.items() if name != best), reverse=True)
    return ", ".join(f"{name or 'none'} {p:.2f}" for p, name in others if p >= _LEAST_TOLD)


def _table(out: _Tables, atoms: AtomTable) -> AtomTable:
    """Make the table of atoms from the arrays."""
    old, new = atoms.data, out.added
    host = old["element"].mode()[0] if len(old) else ""
    return AtomTable(
        AtomTable.build(
            frame=int(old["frame"][0]),
            xy=out.xy,
            covariance=out.covariance,
            p_exists=out.p,
            element=[*old["element"], *[host] * new],
            p_element=np.append(old["p_element"].to_numpy(), np.ones(new)),
            votes=np.append(old["votes"].to_numpy(), np.zeros(new)),
            amplitude=out.amplitude,
        ).data,
        None
        if atoms.empty_sites is None
        else atoms.empty_sites.with_columns(pl.Series("p", out.tested_p)),
    )
