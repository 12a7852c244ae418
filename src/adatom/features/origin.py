"""What made each defect: there before, came in, made by the beam, or by something else.

The chance of each history is weighed by what the frames could have shown. A defect that was there
all the time was missed in every frame that showed its place; one that was made in frame k was
missed since then only. How many were there before, and how many other causes make, is not known in
advance: the first has the density of the first frame, the second follows from the number of those
that appeared (empirical Bayes).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.special import xlogy

from adatom.core import DefectTable, Material, Vacancy
from adatom.core.arrays import BoolArray, FloatArray, IntArray
from adatom.core.composition import count_formula
from adatom.core.defect_kind import Adatom, Cluster, DefectKind, Interstitial, Substitution
from adatom.core.tracks import SCHEMA
from adatom.features.histories import SearchedField
from adatom.features.meetings import meetings
from adatom.features.motion import LinkOptions

# e⁻/Å² and frame where the dose is not known: what frames with atoms are taken with. Decades of it
# are equally likely.
_DOSES = np.geomspace(1e4, 1e7, 13)
_OTHER = np.geomspace(1e-4, 1e3, 120)  # values of the number that other causes make in a movie
_SEEN_WEIGHT = 2.0  # frames that the mean probability of the names counts as in the chance to see
_CAUSES = ("p_before", "p_came_in", "p_beam", "p_heat", "p_unknown")
_MOST_SEEN = 0.995  # a defect is missed in a frame with at least one chance in 200


@dataclass(frozen=True, slots=True, eq=False)
class Beam:
    """What the beam does to an atom of the crystal.

    Parameters
    ----------
    element
        Element that it displaces.
    cross_section_A2
        Equally probable values of the cross section, shape (value,), Å².
    dose_per_A2
        Electrons per Å² and frame; None if not known.
    heat_per_frame
        Defects that heat makes on a site in a frame, from a barrier; None if not known.
    """

    element: str
    cross_section_A2: FloatArray
    dose_per_A2: float | None = None
    heat_per_frame: float | None = None

    def per_site(self) -> FloatArray:
        """Equally probable chances that an atom is displaced in a frame, shape (chance,)."""
        doses = _DOSES if self.dose_per_A2 is None else np.array([self.dose_per_A2])
        return np.asarray(-np.expm1(-np.outer(self.cross_section_A2, doses).ravel()))


def track_table(
    defects: DefectTable,
    searched: SearchedField,
    material: Material,
    beams: Sequence[Beam],
    options: LinkOptions | None = None,
) -> pl.DataFrame:
    """Give every track once, with the probabilities of what made it.

    Parameters
    ----------
    defects
        Defects of several frames, linked.
    searched
        Where and when defects were searched.
    material
        The crystal.
    beams
        Cross section and dose for each element that the beam displaces; empty where no threshold is
        known.
    options
        How far defects go from frame to frame; as they were linked with.

    Returns
    -------
    One row a track with the columns of ``tracks.parquet``. A track that split from another one was
    made by what made that one.
    """
    parents = _parents(defects, searched, options or LinkOptions())
    stories = [_Track(defects, rows, searched, parents) for rows in _rows_of_tracks(defects)]
    families: dict[str, list[_Track]] = defaultdict(list)
    for story in stories:
        families[_family(story.kind)].append(story)
    rows = []
    for group in families.values():
        beam = _beam_for(group[0].kind, beams, material)
        rows += _Family(group, searched, material, beam).rows()
    table = pl.DataFrame(rows, schema=SCHEMA).sort("track")
    return _with_parents(table, {s.number: s.parent for s in stories if s.parent is not None})


def _parents(defects: DefectTable, searched: SearchedField, options: LinkOptions) -> dict[int, int]:
    """Track from which a track split when it began."""
    frame, track = defects.data["frame"].to_numpy(), defects.data["track"].to_numpy()
    place = defects.xy - searched.drift_of(frame.astype(np.int64))
    first: dict[int, int] = {}
    for row in np.argsort(frame, kind="stable"):
        first.setdefault(int(track[row]), int(row))
    return {
        int(track[row]): int(track[one.whole])
        for one in meetings(defects, place, options.defect_step_A, options.hop_reach_A)
        if one.splits
        for row in one.parts[1:]
        if first[int(track[row])] == row
    }


def _with_parents(tracks: pl.DataFrame, parent: Mapping[int, int]) -> pl.DataFrame:
    """Give a track that split from another one what made that one."""
    if not parent:
        return tracks
    row = {number: k for k, number in enumerate(tracks["track"])}
    rows = tracks.to_dicts()
    for child in sorted(parent, key=lambda number: rows[row[number]]["first_frame"]):
        own, of = rows[row[child]], rows[row[parent[child]]]
        own |= {name: of[name] for name in _CAUSES}
        first = str(of["reason"])
        own["reason"] = f"It split from defect {parent[child]}: {first[0].lower()}{first[1:]}"
    return pl.DataFrame(rows, schema=SCHEMA)


def _beam_for(kind: DefectKind | None, beams: Sequence[Beam], material: Material) -> Beam | None:
    """The beam that makes a kind of defect; the first one where none does."""
    makes = (beam for beam in beams if _lost_atoms(kind, beam.element, material))
    return next(makes, beams[0] if beams else None)


def with_beam_probability(defects: DefectTable, tracks: pl.DataFrame) -> DefectTable:
    """Fill ``p_beam_induced`` of every defect from the table of tracks."""
    p = tracks.select("track", p_beam_induced=pl.col("p_beam"))
    data = defects.data.drop("p_beam_induced").join(p, on="track", how="left",
                                                    maintain_order="left")  # fmt: skip
    return DefectTable(data)


def _rows_of_tracks(defects: DefectTable) -> list[IntArray]:
    track, frame = defects.data["track"].to_numpy(), defects.data["frame"].to_numpy()
    order = np.lexsort((frame, track))
    order = order[track[order] >= 0]
    starts = np.flatnonzero(np.diff(track[order])) + 1
    return [part.astype(np.int64) for part in np.split(order, starts) if len(part)]


def _family(kind: DefectKind | None) -> str:
    """Kinds that are made in the same way."""
    if isinstance(kind, Vacancy):
        return str(kind)
    if isinstance(kind, (Cluster, Adatom)):
        return " ".join(symbol for symbol, _ in kind.atoms)
    return "" if kind is None else str(kind)


class _Track:
    """One track: when and where it began, and which frames showed its place before."""

    def __init__(
        self,
        defects: DefectTable,
        rows: IntArray,
        searched: SearchedField,
        parents: Mapping[int, int],
    ) -> None:
        data = defects.data[rows]
        self.number = int(data["track"][0])
        self.parent = parents.get(self.number)
        self.frames = data["frame"].to_numpy().astype(np.int64)
        self.p = data["p"].to_numpy().astype(np.float64)
        weight: dict[str, float] = defaultdict(float)
        for name, p in zip(data["kind"], self.p, strict=True):
            weight[name] += float(p)
        self.name = max(weight, key=lambda n: weight[n])
        self.kind = DefectKind.parse_or_none(self.name)
        self.hops = data["hops"][-1]
        self.origin = str(data["origin"][0] or "")
        place = defects.xy[rows] - searched.drift_of(self.frames)
        shown = searched.shown(place[0])
        self.shown_before: BoolArray = shown[searched.frames < self.frames[0]]
        self._scanned: BoolArray = searched.scanned(place[0])[: len(self.shown_before)]
        inner = (searched.frames > self.frames[0]) & (searched.frames < self.frames[-1])
        self.chances = int((shown & inner).sum())  # frames in which it could have been missed
        self.found = min(max(len(np.unique(self.frames)) - 2, 0), self.chances)

    def made(self, missed: float) -> float:
        """Frames before the first whose dose may have made it, each by the chance to miss it since.

        A frame that scanned its place too near to the border to search it counts in full.
        """
        since = np.cumsum(self.shown_before[::-1])[::-1]
        since = np.append(since[1:], 0)  # what is made in a frame is seen from the next one on
        return float((missed**since)[self._scanned].sum())


class _Family:
    """Tracks of defects that are made in the same way, and what is known of their number."""

    def __init__(
        self,
        tracks: Sequence[_Track],
        searched: SearchedField,
        material: Material,
        beam: Beam | None,
    ) -> None:
        self._tracks, self._beam, self._material = tracks, beam, material
        self._sites = searched.area_A2 / material.site_area_A2
        frames = len(searched.frames)
        first = [t for t in tracks if not len(t.shown_before)]
        self.density = (len(first) + 0.5) / self._sites  # before the first frame, a site
        found, chances = sum(t.found for t in tracks), sum(t.chances for t in tracks)
        usual = float(np.mean(np.concatenate([t.p for t in tracks])))
        seen = (found + _SEEN_WEIGHT * usual) / (chances + _SEEN_WEIGHT)
        self.missed = 1.0 - min(seen, _MOST_SEEN)
        appeared = sum(bool(t.shown_before.any()) for t in tracks if t.parent is None)
        self.beam_rates = self._by_beam(tracks[0].kind, material)
        self.rates, self.weights = self._rates(appeared, max(frames - 1, 1))

    def _by_beam(self, kind: DefectKind | None, material: Material) -> FloatArray:
        """Equally probable numbers that the beam makes on a site in a frame, shape (value,)."""
        if self._beam is None:
            return np.zeros(1)
        lost = _lost_atoms(kind, self._beam.element, material)
        if not lost:
            return np.zeros(1)
        one = self._beam.per_site()
        # Further atoms are neighbours of the first, lost in the same frame.
        return np.asarray(one * (material.coordination * one) ** (lost - 1))

    def _rates(self, appeared: int, frames: int) -> tuple[FloatArray, FloatArray]:
        """Numbers made on a site in a frame by beam and by others, shape (pair, 2); weights."""
        area = self._sites * frames
        beam, other = (g.ravel() for g in np.meshgrid(self.beam_rates, _OTHER / area))
        # Jeffreys' prior of a Poisson rate, rate**-0.5, on a grid of even ratios.
        prior = 0.5 * np.log(other)
        expected = (beam + other) * area
        log = prior + xlogy(appeared, expected) - expected  # Poisson, to a constant
        weight = np.exp(log - log.max())
        return np.stack([beam, other], axis=1), weight / weight.sum()

    def rows(self) -> list[dict[str, Any]]:
        """One row of the table for each track."""
        return [self._row(t) for t in self._tracks]

    def _row(self, track: _Track) -> dict[str, Any]:
        before = len(track.shown_before)
        shown = int(track.shown_before.sum())
        # Made since then: missed in the frames between. In the first frame, half of it had passed.
        made = 0.5 if not before else track.made(self.missed)
        there = self.density * self.missed**shown
        rates = self.rates * made
        heat = None if self._beam is None else self._beam.heat_per_frame
        by_heat = 0.0 if heat is None else heat * made
        total = there + rates.sum(axis=1) + by_heat
        p_there = float((self.weights * there / total).sum())
        p_beam, p_other = (self.weights[:, None] * rates / total[:, None]).sum(axis=0)
        in_view = not before or bool(track.shown_before[0])
        known = self._beam is not None and _is_known(track.kind)
        p = {
            "p_before": p_there if in_view else 0.0,
            "p_came_in": 0.0 if in_view else p_there,
            "p_beam": float(p_beam) if known else None,
            "p_heat": None if heat is None else float((self.weights * by_heat / total).sum()),
            "p_unknown": float(p_other),
        }
        return p | {
            "track": track.number, "kind": track.name, "first_frame": int(track.frames[0]),
            "last_frame": int(track.frames[-1]), "frames_seen": len(np.unique(track.frames)),
            "hops": track.hops, "origin": track.origin, "reason": self._reason(track, p),
        }  # fmt: skip

    def _reason(self, track: _Track, p: dict[str, float | None]) -> str:
        start, shown = int(track.frames[0]), int(track.shown_before.sum())
        likeliest = max(p, key=lambda name: p[name] or 0.0)
        if not len(track.shown_before):
            text = "It was named in the first frame"
        elif likeliest == "p_came_in":
            text = f"The drift brought its place into view before frame {start}"
        elif likeliest == "p_before":
            text = f"It may have been missed in {_frames(shown)} before frame {start}"
        else:
            text = f"Its place was in view in {_frames(shown)} before frame {start} without it"
        return f"{text}; {self._beam_words(track)}."

    def _beam_words(self, track: _Track) -> str:
        if self._beam is None:
            return "no threshold of the crystal is known"
        if not _is_known(track.kind):
            return "no cross section is known for its kind"
        if not _lost_atoms(track.kind, self._beam.element, self._material):
            return f"the beam displaces {self._beam.element}, which does not make it"
        made = float(np.sum(self.weights * self.rates[:, 0])) * self._sites
        dose = self._beam.dose_per_A2
        at = "a dose that is not known" if dose is None else f"{dose:.2g} e⁻/Å²"
        often = "less than 0.001" if made < 0.001 else f"{made:.1g}"
        return f"the beam makes {often} such defects in the field in a frame of {at}"


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def _is_known(kind: DefectKind | None) -> bool:
    """Whether it can be said how the beam makes a kind: it takes atoms, and brings none."""
    return isinstance(kind, (Vacancy, Substitution, Cluster, Adatom, Interstitial))


def _lost_atoms(kind: DefectKind | None, element: str, material: Material) -> int:
    """Atoms of an element that are to be displaced to make a kind; 0 if that does not make it."""
    if isinstance(kind, Vacancy):
        missing = dict(kind.missing) if kind.sites else {material.host: kind.count}
    elif isinstance(kind, Substitution):
        present, site = dict(count_formula(kind.present)), dict(count_formula(kind.site))
        if not set(present) <= set(site):
            return 0
        missing = dict(kind.missing)
    else:
        return 0
    return missing.get(element, 0) if set(missing) == {element} else 0
