"""Look again at the doubtful places of a sheet of graphene, and correct its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from adatom.core import (
    Adatom,
    AtomTable,
    Cluster,
    DefectKind,
    DefectTable,
    Frame,
    Lattice,
    Material,
)
from adatom.core.arrays import FloatArray
from adatom.features.defects.base import DefectOptions
from adatom.features.defects.brightness import brightness_of
from adatom.features.defects.hypotheses import (
    ADDED,
    RECONSTRUCTED,
    FoundSheet,
    Reach,
    Statistics,
    Weighed,
    weigh,
)
from adatom.features.defects.screen import Screen, screen
from adatom.features.defects.settled import (
    ON_IT_A,
    Tables,
    beside,
    has_impurity,
    settle_added,
    settle_shape,
    table_of,
)
from adatom.features.defects.shapes import Placed, Shape, graphene_shapes
from adatom.features.defects.sites import lattice_sites
from adatom.features.neighbours import border_distance
from adatom.features.refinement.binning import bin_frame
from adatom.features.refinement.coarser import coarser
from adatom.features.refinement.refine import Refined, one_thread

_FEWEST_ATOMS = 20  # with fewer neither amplitude nor lattice is known well enough
_APART_A = 3.0  # Å: doubtful places nearer than this are one
# A place is doubtful from this share of the expected score below zero, and from this many standard
# deviations of the score of a perfect sheet, sqrt(2 E), above its mean, -E.
_BELOW, _ABOVE_SD = 0.25, 4.5
_MOST_PLACES = 6  # doubtful places of one shape; more in a frame are compared as they are named
_WITHIN = (20.0, 0.5)  # first scores that differ by less, nats and share of the best's, are fitted
_OF_EACH = 4  # places of one shape that are fitted
_FOREIGN_A = 3.0  # Å: shapes do not hold beside foreign atoms
_SHAPES_OF = ("V1", "V2", "V3", "V4", "V2-555-777", "Stone-Wales")
# Ad-atoms are sought from this many standard deviations on; most places of one kind.
_ADDED_ABOVE_SD, _MOST_ADDED = 4.0, 12
_FROM_BORDER_A = 2.5  # Å: nearer to the border too few atoms around an ad-atom are seen
_POSSIBLE = 1e-4  # in the next frame, shapes less probable than this are not weighed
_SAME_SITE_A = 0.7  # Å: a site this near to one of the lattice before is that site
_ALONE_A = 1.2  # Å: an impurity with another this far or farther within _FOREIGN_A is of a cluster


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A place that is weighed.

    Parameters
    ----------
    centre
        Where, shape (2,), Å, undistorted axes of the lattice.
    reach
        How far around it.
    candidates
        Shapes at their places.
    others
        Whether the perfect sheet and the atoms as found are weighed with them.
    kind
        What was settled; empty before, and where only a probability changed; ``?`` where too few
        pixels are left.
    """

    centre: FloatArray
    reach: Reach
    candidates: tuple[Placed, ...]
    others: bool = True
    kind: str = ""


def reconsider(
    frame: Frame,
    atoms: AtomTable,
    refined: Refined,
    lattice: Lattice,
    defects: DefectTable,
    material: Material,
    options: DefectOptions,
    again: Sequence[Asked] | None = None,
) -> tuple[AtomTable, tuple[Asked, ...]]:
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
    again
        Places that were weighed in the frame before, in the axes of the lattice that `lattice`
        follows: these are weighed with the shapes that were possible there; with all that may fit
        where another kind is now the likeliest. By default, every doubtful place is weighed, with
        all shapes that may fit.

    Returns
    -------
    The atoms, where a shape holds at its fitted positions, and the places where something changed;
    with `again`, all of its places.
    `AtomTable.weighed` has the defects that were settled, with their alternatives; `with_weighed`
    puts them in the place of others.
    """
    likely = atoms.is_likely
    if not _is_graphene(material) or likely.sum() < _FEWEST_ATOMS:
        return atoms, ()
    binned, optics, peak = coarser(bin_frame(frame), refined.optics)
    found = _sheet(atoms, material, peak)
    unit = float(np.median(found.amplitude[found.host]))
    sites = lattice_sites(lattice, frame.calibration.extent_xy(frame.shape))
    statistics = replace(Statistics.of(refined), optics=optics)
    seen = screen(
        binned, lattice, sites, found.xy[found.host], optics, unit, statistics.excess,
        brightness_of(material), peak,
    )  # fmt: skip
    out = Tables(
        atoms.data, atoms.xy, atoms.covariance, atoms.column("p_exists"),
        atoms.column("amplitude"), atoms.data["element"].to_list(), atoms.column("p_element"),
    )  # fmt: skip
    if atoms.empty_sites is not None:
        out.tested_xy = atoms.empty_sites.select("x_A", "y_A").to_numpy()
        out.tested_p = atoms.empty_sites["p"].to_numpy().copy()
    settled: list[DefectTable] = []
    asked: list[Asked] = []

    def answer(question: Asked, into: Tables) -> tuple[list[DefectTable], Asked | None]:
        """Settle a place; what remains to be asked there is None where there is nothing new."""
        ways = weigh(
            seen, statistics, found, question.centre, list(question.candidates), question.reach,
            others=question.others,
        )  # fmt: skip
        if not ways:
            return [], None if again is None else replace(question, kind="?")
        settle = settle_shape if question.reach is RECONSTRUCTED else settle_added
        changed, into.changed = into.changed, False
        new = settle(into, defects, seen, ways, question.centre, frame.index, options)
        told = new or into.changed or again is not None
        into.changed = into.changed or changed
        return new, _remaining(question, ways, new) if told else None

    with one_thread():  # products of small matrices, which threads slow down
        if again is None:
            questions = _questions(seen, found, defects)
        else:
            questions = [_moved(one, seen) for one in again]
        for question in questions:
            before = out if again is None else out.copy()
            new, remains = answer(question, out)
            if again is not None and remains is not None and remains.kind != question.kind:
                # What was not possible in the frame before may be now.
                out = before
                every = tuple(_candidates(seen, question.centre, question.reach))
                new, remains = answer(Asked(question.centre, question.reach, every), out)
            settled += new
            asked += [] if remains is None else [remains]
    if not settled and not out.changed:
        return atoms, tuple(asked)
    weighed = DefectTable.concat(settled).data if settled else None
    return replace(table_of(out, atoms), weighed=weighed), tuple(asked)


def _questions(seen: Screen, found: FoundSheet, defects: DefectTable) -> list[Asked]:
    """List the doubtful places of a frame with all shapes that may fit."""
    return [
        Asked(centre, reach, tuple(_candidates(seen, centre, reach)))
        for centre, reach in _doubtful(seen, found, defects)
    ]


def _remaining(question: Asked, ways: Sequence[Weighed], new: Sequence[DefectTable]) -> Asked:
    """Keep what remained possible at a place."""
    possible = tuple(
        w.placed for w in ways
        if w.placed is not None and w.placed.kind is not None and w.p > _POSSIBLE
    )  # fmt: skip
    none = sum(w.p for w in ways if w.placed is None or w.placed.kind is None)
    kind = new[0].kinds[0] if new else ""
    if question.reach is not RECONSTRUCTED and not kind.startswith("ad-"):
        kind = ""  # a substitution with another probability
    return Asked(question.centre, question.reach, possible, none > _POSSIBLE, kind)


def _moved(asked: Asked, seen: Screen) -> Asked:
    """Put what remained possible on the sites of a lattice that was fitted again."""
    tree = cKDTree(seen.sites.xy)
    moved = []
    for placed in asked.candidates:
        distance, nearest = tree.query(placed.sites)
        near = distance < _SAME_SITE_A
        shift = np.zeros(2)
        if near.any():
            shift = (seen.sites.xy[nearest[near]] - placed.sites[near]).mean(axis=0)
        moved.append(
            replace(
                placed, centre=placed.centre + shift, xy=placed.xy + shift,
                sites=placed.sites + shift,
            )
        )  # fmt: skip
    return replace(asked, candidates=tuple(moved))


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
    for kind, xy in zip(chosen.kinds, chosen.xy, strict=True):
        kept &= ~beside(named, xy)
        if has_impurity(kind):
            kept &= np.hypot(*(named.xy - xy).T) > ON_IT_A
    both = DefectTable.concat([DefectTable(named.data.filter(pl.Series(kept))), chosen])
    count = pl.Series("defect", np.arange(len(both), dtype=np.int32))
    return DefectTable(both.data.with_columns(count))


def _is_graphene(material: Material) -> bool:
    return set(material.site_species) == {"C"} and material.coordination == 3


def _sheet(atoms: AtomTable, material: Material, peak: float) -> FoundSheet:
    likely = atoms.is_likely
    element = atoms.elements[likely]
    amplitude = peak * atoms.column("amplitude")[likely]
    usual = amplitude.copy()
    for symbol in np.unique(element):
        usual[element == symbol] = np.median(amplitude[element == symbol])
    sigma = np.sqrt(np.trace(atoms.covariance[likely], axis1=1, axis2=2) / 2.0)
    return FoundSheet(
        atoms.xy[likely], sigma, amplitude, usual, np.isin(element, material.site_species), element
    )


def _doubtful(
    seen: Screen, found: FoundSheet, defects: DefectTable
) -> list[tuple[FloatArray, Reach]]:
    """List the places to look at, undistorted axes, each shape (2,), Å, and how far around them."""
    scored: list[tuple[float, FloatArray, Reach]] = []
    for shape in graphene_shapes():
        if not shape.added and shape.origin == "site":
            continue  # single vacancies are named already; the networks know them
        if "C" not in shape.added and shape.added:
            continue  # and impurities are found already
        above, most = (_ADDED_ABOVE_SD, _MOST_ADDED) if shape.added else (_ABOVE_SD, _MOST_PLACES)
        score, expected, places = seen.best(shape, most)
        least = np.maximum(-_BELOW * expected, -expected + above * (2.0 * expected) ** 0.5)
        scored += [
            (float(value), seen.placed(shape, place).centre, _reach_of(shape))
            for value, least_of_it, place in zip(score, least, places, strict=True)
            if value > least_of_it
        ]
    scored.sort(key=lambda one: -one[0])
    named = [
        (seen.lattice.undistort(xy[None])[0], RECONSTRUCTED)
        for kind, xy in zip(defects.kinds, defects.xy, strict=True)
        if kind in _SHAPES_OF or kind.startswith("rings")
    ]
    named += [
        (seen.lattice.undistort(xy[None])[0], ADDED)
        for kind, xy in zip(defects.kinds, defects.xy, strict=True)
        if kind.startswith("ad-") and not has_impurity(kind)
    ]
    foreign = found.xy[~found.host]
    alone = [(seen.lattice.undistort(xy[None])[0], ADDED) for xy in _single(foreign, defects)]
    clustered = _clustered(foreign, defects)
    out: list[tuple[FloatArray, Reach]] = []
    extent = seen.binned.calibration.extent_xy(seen.binned.data.shape)
    for centre, reach in alone + [(c, r) for _, c, r in scored] + named:
        at = seen.shifted(centre[None])
        if reach is ADDED and border_distance(at, extent)[0] < _FROM_BORDER_A:
            continue
        away = np.hypot(*(foreign - at).T)
        others = away[away > (_ALONE_A if reach is ADDED else 0.0)]
        if len(others) and others.min() < _FOREIGN_A:
            continue
        if len(clustered) and np.hypot(*(clustered - at).T).min() < _FOREIGN_A:
            continue  # Si of a named cluster is not compared
        if all(np.hypot(*(centre - other)) > _APART_A for other, _ in out):
            out.append((centre, reach))
    return out


def _single(foreign: FloatArray, defects: DefectTable) -> list[FloatArray]:
    """List the impurities, each shape (2,), Å, that were named as one atom by itself."""
    out = []
    for kind, xy in zip(defects.kinds, defects.xy, strict=True):
        known = DefectKind.parse_or_none(kind)
        if has_impurity(kind) and isinstance(known, (Adatom, Cluster)) and len(foreign):
            away = np.hypot(*(foreign - xy).T)
            if sum(n for _, n in known.atoms) == 1 and away.min() < ON_IT_A:
                out.append(foreign[np.argmin(away)])
    return out


def _clustered(foreign: FloatArray, defects: DefectTable) -> FloatArray:
    """Positions of the impurities of named clusters of several atoms, shape (atom, 2), Å."""
    own = np.zeros(len(foreign), dtype=np.bool_)
    for kind, xy in zip(defects.kinds, defects.xy, strict=True):
        known = DefectKind.parse_or_none(kind)
        if isinstance(known, (Adatom, Cluster)) and sum(n for _, n in known.atoms) > 1:
            own |= np.hypot(*(foreign - xy).T) < _FOREIGN_A
    return foreign[own]


def _reach_of(shape: Shape) -> Reach:
    return ADDED if shape.added else RECONSTRUCTED


def _candidates(seen: Screen, centre: FloatArray, reach: Reach) -> list[Placed]:
    """Choose the shapes to fit around a place by their first scores."""
    scored = []
    for shape in graphene_shapes():
        if _reach_of(shape) is not reach:
            continue
        score, expected, places = seen.best(shape, _OF_EACH, centre)
        log_prior = np.log(shape.prior)
        scored += [
            (float(v) + log_prior, float(e), seen.placed(shape, k))
            for v, e, k in zip(score, expected, places, strict=True)
        ]
    if not scored:
        return []
    best, of_best, _ = max(scored, key=lambda s: s[0])
    cut = best - _WITHIN[0] - _WITHIN[1] * of_best
    return [placed for value, _, placed in scored if value >= cut]
