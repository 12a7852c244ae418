"""What the live loop learns from a frame: drift, moves, and answers to its questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from adatom.analysis.frame import FrameResult
from adatom.core import Material, ScanRequest
from adatom.core.arrays import FloatArray
from adatom.features.live_tracks import LiveTracks
from adatom.feedback.live import (
    ATOM,
    SAME_PLACE_A,
    Knowledge,
    LiveOptions,
    Question,
    answered,
)

_SEEN_P = 0.5  # p_exists from which an atom is counted and followed
_OPEN_P = (0.1, 0.9)  # p_exists of an atom that is a question
_NEW_P = 0.2  # probability from which a defect is a new question
_BORDER_A = 2.5  # Å: nearer to the border of a frame, a defect is not told from the border


class Learner:
    """Follow the atoms from frame to frame, and answer questions.

    Parameters
    ----------
    material
        The specimen.
    options
        Of the loop.
    known
        What is known at the start.

    Attributes
    ----------
    known
        What is known now.
    """

    def __init__(self, material: Material, options: LiveOptions, known: Knowledge) -> None:
        self.known, self._options, self._material = known, options, material
        self._tracks = LiveTracks(material.bond_length_A, start_xy_A=known.drift_xy_A)

    def learn(self, result: FrameResult, request: ScanRequest, *, looked: bool) -> dict[str, Any]:
        """Take a frame into account; give what it shows, in plain types.

        Parameters
        ----------
        result
            Its analysis.
        request
            Where it was taken.
        looked
            Whether it was a closer look.
        """
        if self._material.has_lattice and result.lattice is None:
            return self._not_read(looked=looked)
        corner = request.to_specimen(np.zeros(2))
        far = np.asarray(result.found.frame.calibration.extent_xy(result.found.frame.shape))
        there = result.atoms.column("p_exists") >= _SEEN_P
        xy, elements = result.atoms.xy + corner, result.atoms.elements
        followed = self._tracks.see(xy[there], elements[there], corner, corner + far)
        drift = followed.shift_xy_A
        low, high = corner + _BORDER_A - drift, corner + far - _BORDER_A - drift
        found = _found(result, xy, drift, low, high, self.known.questions)
        questions = answered(self.known.questions, found, _pair(low), _pair(high))
        if followed.lost:  # another place: what was open there is not seen here
            questions = answered((), found, _pair(low), _pair(high))
        still = any(q.is_open(self._options.sure) for q in questions)
        settled = self.known.scans_settled
        self.known = replace(
            self.known,
            frames=self.known.frames + 1,
            scans_settled=0 if still else settled if looked else settled + 1,
            faults=0,
            drift_xy_A=_pair(drift),
            questions=questions,
            looked=looked,
        )
        kinds, counts = np.unique(elements[there], return_counts=True)
        return {
            "atoms": int(there.sum()),
            "elements": dict(zip(kinds.tolist(), counts.tolist(), strict=True)),
            "defects": [[kind, *_pair(np.asarray(at)), round(p, 4)] for kind, at, p in found],
            "moved": [list(m) for m in followed.moved],
            "appeared": followed.appeared.round(2).tolist(),
            "vanished": followed.vanished.round(2).tolist(),
            "lost_place": followed.lost,
            "lattice": True,
        }

    def _not_read(self, *, looked: bool) -> dict[str, Any]:
        """Learn nothing from a frame whose lattice is not found: what it lacks may yet be there."""
        self.known = replace(
            self.known, frames=self.known.frames + 1, scans_settled=0, faults=0, looked=looked
        )
        return {
            "atoms": 0, "elements": {}, "defects": [], "moved": [], "appeared": [],
            "vanished": [], "lost_place": False, "lattice": False,
        }  # fmt: skip


def _found(
    result: FrameResult, xy: FloatArray, drift: FloatArray, low: FloatArray, high: FloatArray,
    questions: Sequence[Question],
) -> list[tuple[str, tuple[float, float], float]]:  # fmt: skip
    """Defects, doubtful atoms, and atoms that were doubtful: kind, place, probability."""
    corner = xy[0] - result.atoms.xy[0] if len(xy) else np.zeros(2)
    named = result.defects.data
    places = named.select("x_A", "y_A").to_numpy() + corner - drift
    known = np.array([q.xy_A for q in questions]).reshape(-1, 2)
    old = np.linalg.norm(places[:, None] - known[None], axis=2).min(1, initial=np.inf)
    told = zip(named["kind"].to_list(), places, named["p"].to_list(), strict=True)
    out = [t for t, away in zip(told, old, strict=True) if t[2] > _NEW_P or away < SAME_PLACE_A]
    p = result.atoms.column("p_exists")
    asked = np.array([q.xy_A for q in questions if q.kind == ATOM]).reshape(-1, 2)
    away = np.linalg.norm((xy - drift)[:, None] - asked[None], axis=2).min(1, initial=np.inf)
    doubtful = (p > _OPEN_P[0]) & ((p < _OPEN_P[1]) | (away < SAME_PLACE_A))
    out.extend((ATOM, xy[i] - drift, float(p[i])) for i in np.flatnonzero(doubtful))
    return [(k, _pair(at), q) for k, at, q in out if np.all((at > low) & (at < high))]


def _pair(xy: Sequence[float] | FloatArray) -> tuple[float, float]:
    return round(float(xy[0]), 4), round(float(xy[1]), 4)
