"""Decisions of the live loop: which frame is worth its dose next, and when to stop.

Pure functions of what is known: the same knowledge gives the same decision.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from adatom.core import ScanRequest

ATOM = "atom"  # kind of a question about an atom of the crystal
_VACANCY = re.compile(r"V\d|vac_")  # start of the names of vacancies: V1, vac_S2 (V_Mo is vanadium)
SAME_PLACE_A = 0.8  # Å: questions nearer than this are one
# Log-odds that one frame adds at most: several frames share what is wrong with the analysis.
_MOST_NATS = 4.0
_NOT_SEEN_NATS = -2.0  # log-odds that a frame adds that shows a place and nothing there
_LEAST_NATS = 0.3  # evidence of a frame below this is noise: it does not set the next dose


class LiveOptions(BaseModel):
    """Limits and habits of the live loop. No limit is exceeded, whatever is believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int | None = Field(None, ge=1, description="most frames; no limit by default")
    longest_s: float = Field(3600.0, gt=0, description="longest time, s")
    most_electrons: float = Field(1e11, gt=0, description="most electrons of all frames together")
    most_dose_per_A2: float = Field(
        5e6, gt=0, description="most electrons per Å² on any atom, all frames together"
    )
    field_A: float = Field(24.0, gt=4, description="field of view of a scan, Å")
    pixel_size_A: float = Field(0.125, gt=0.02, lt=0.3, description="pixel size of frames, Å")
    dose_per_A2: float = Field(5e4, gt=0, description="electrons per Å² of a scan")
    look_field_A: float = Field(12.0, gt=6, description="field of view of a closer look, Å")
    most_look_dose: float = Field(
        8.0, ge=1, description="largest dose of a closer look, over that of a scan"
    )
    sure: float = Field(
        0.95, gt=0.5, lt=1, description="probability from which a question is answered"
    )
    settled_frames: int = Field(
        3, ge=1, description="stop after so many scans in a row without an open question"
    )
    keep_watching: bool = Field(
        default=False, description="go on when every question is answered, up to a limit"
    )
    full_every: int = Field(
        10, ge=1, description="the full analysis checks the fast one every so many frames"
    )
    most_faults: int = Field(5, ge=1, description="stop after so many faults in a row")
    longest_frame_s: float = Field(
        60.0, gt=0, description="a frame that takes longer than this is stalled, s"
    )


@dataclass(frozen=True, slots=True)
class Question:
    """Something that the frames so far leave open, or have answered.

    Parameters
    ----------
    kind
        What may be there: the name of a defect, or ``atom``.
    xy_A
        Place on the specimen, without drift, Å.
    log_odds
        Natural logarithm of the odds that it is there, summed over frames.
    frames
        Frames that showed the place.
    asked
        Closer looks that were asked for and refused.
    """

    kind: str
    xy_A: tuple[float, float]
    log_odds: float
    frames: int = 1
    asked: int = 0

    def is_open(self, sure: float) -> bool:
        """Whether neither yes nor no is surer than `sure`."""
        return abs(self.log_odds) < math.log(sure / (1.0 - sure))


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a decision knows.

    Parameters
    ----------
    frames, scans_settled, faults
        Frames so far; scans in a row without an open question; faults in a row.
    seconds
        Time since the start, s.
    center_xy_A, drift_xy_A
        Middle of the field on the specimen, and its drift, Å.
    voltage_kV
        Acceleration voltage.
    questions
        Open and answered ones.
    looked
        Whether the last frame was a closer look.
    simulated
        Kinds of defect that were simulated beside the loop, each with the dose per Å² at which 0.1
        atoms beside it are expected to be displaced; None where no dose is known to.
    """

    frames: int
    scans_settled: int
    faults: int
    seconds: float
    center_xy_A: tuple[float, float]
    drift_xy_A: tuple[float, float]
    voltage_kV: float
    questions: tuple[Question, ...]
    looked: bool = False
    simulated: tuple[tuple[str, float | None], ...] = ()

    def bears(self, kind: str) -> float:
        """Dose per Å² that a kind of defect bears by its simulation; infinite where none says."""
        limits = [limit for name, limit in self.simulated if name == kind and limit is not None]
        return min(limits, default=math.inf)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next.

    Parameters
    ----------
    action
        ``scan`` the field, ``look`` closer at one place, or ``stop``.
    why
        Reason, in words.
    request
        The frame; None to stop.
    question
        Place of the question that a look is for.
    """

    action: Literal["scan", "look", "stop"]
    why: str
    request: ScanRequest | None = None
    question: tuple[float, float] | None = None


def decide(known: Knowledge, options: LiveOptions, *, looks: bool) -> Decision:
    """Choose the next frame, or stop.

    Log-odds grow with the dose, so the dose of a look follows from what the frames so far gave: a
    question with half of the evidence that is needed needs as much dose again. A scan of the whole
    field at this dose would cost the field's area over that of the look times as many electrons.

    Parameters
    ----------
    known
        See `Knowledge`.
    options
        See `LiveOptions`.
    looks
        Whether closer looks can be asked for.

    Examples
    --------
    >>> open_ = Question("V1", (20.0, 30.0), 1.5, frames=2)
    >>> known = Knowledge(2, 0, 0, 4.0, (24.0, 24.0), (0.5, 0.0), 60.0, (open_,))
    >>> next_ = decide(known, LiveOptions(), looks=True)
    >>> next_.action, next_.request.center_xy_A, round(next_.request.dose_per_A2)
    ('look', (20.5, 30.0), 96296)
    """
    o = options
    still = [q for q in known.questions if q.is_open(o.sure)]
    if o.frames is not None and known.frames >= o.frames:
        return Decision("stop", f"{known.frames} frames were asked for")
    if known.seconds >= o.longest_s:
        return Decision("stop", f"the limit of {o.longest_s:g} s is reached")
    if known.faults >= o.most_faults:
        return Decision("stop", f"{known.faults} faults in a row")
    if looks and not o.keep_watching and known.scans_settled >= o.settled_frames:
        n = len([q for q in known.questions if q.log_odds > 0])
        return Decision(
            "stop", f"{known.scans_settled} scans in a row leave nothing open ({n} defects)"
        )
    if looks and still and known.frames and not known.looked:
        return _look(known, still, o)
    x, y = (c + d for c, d in zip(known.center_xy_A, known.drift_xy_A, strict=True))
    why = f"to answer {len(still)} open questions" if still else "to see whether something changes"
    request = _request((x, y), o.field_A, o.dose_per_A2, known, o)
    return Decision("scan", why if known.frames else "to see what is there", request)


def _look(known: Knowledge, still: Sequence[Question], o: LiveOptions) -> Decision:
    """Look at the question that nobody refused, and that needs the least dose."""
    first = min(still, key=lambda q: (q.asked, -abs(q.log_odds), q.xy_A))
    need = math.log(o.sure / (1.0 - o.sure))
    per_scan = max(abs(first.log_odds), _LEAST_NATS) / first.frames
    scans = min(max((need - abs(first.log_odds)) / per_scan, 1.0), o.most_look_dose)
    bears = known.bears(first.kind)
    dose = min(scans * o.dose_per_A2, bears)
    x, y = (c + d for c, d in zip(first.xy_A, known.drift_xy_A, strict=True))
    saved = (o.field_A / o.look_field_A) ** 2
    p = 1.0 / (1.0 + math.exp(-first.log_odds))
    why = (
        f"{first.kind} at ({first.xy_A[0]:.1f}, {first.xy_A[1]:.1f}) Å is there with p = {p:.2f}: "
        f"about {scans:.1f} times the dose of a scan answers it, here for {saved:.1f} times fewer "
        "electrons than on the whole field"
    )
    if dose == bears:
        why += f"; it gets {dose:.2g} e⁻/Å², which by its simulation displaces 0.1 atoms"
    return Decision("look", why, _request((x, y), o.look_field_A, dose, known, o), first.xy_A)


def answered(
    questions: Sequence[Question],
    found: Sequence[tuple[str, tuple[float, float], float]],
    low_xy: tuple[float, float],
    high_xy: tuple[float, float],
) -> tuple[Question, ...]:
    """Give the questions after a frame.

    Parameters
    ----------
    questions
        Before the frame.
    found
        What the frame shows: kind, place without drift in Å, probability that it is there.
    low_xy, high_xy
        Corners of the area in which the frame shows defects, without drift, Å.

    Examples
    --------
    >>> one = answered((), [("V1", (5.0, 5.0), 0.8)], (0.0, 0.0), (9.0, 9.0))
    >>> two = answered(one, [("V1", (5.1, 5.0), 0.9)], (0.0, 0.0), (9.0, 9.0))
    >>> round(one[0].log_odds, 2), round(two[0].log_odds, 2), two[0].frames
    (1.39, 3.58, 2)
    >>> answered(one, [], (0.0, 0.0), (9.0, 9.0))[0].log_odds < 0
    True
    >>> answered(two, [("atom", (5.0, 5.0), 0.9)], (0.0, 0.0), (9.0, 9.0))[0].log_odds < 2
    True
    """
    left = list(found)
    out: list[Question] = []
    for old in questions:
        near = [f for f in left if math.dist(f[1], old.xy_A) < SAME_PLACE_A]
        left = [f for f in left if f not in near]
        if (told := _told(old, near)) is not None:
            out.append(told)
        elif all(a < v < b for a, v, b in zip(low_xy, old.xy_A, high_xy, strict=True)):
            total = old.log_odds + _NOT_SEEN_NATS
            out.append(replace(old, log_odds=total, frames=old.frames + 1))
        else:
            out.append(old)
    out += [Question(kind, xy, _nats(p)) for kind, xy, p in left]
    # More evidence than this is never needed; what was there and is gone can so be unlearned.
    bounded = [replace(q, log_odds=min(max(q.log_odds, -8.0), 8.0)) for q in out]
    # What is surely not there is no question, and neither is an atom that is surely there.
    return tuple(
        q
        for q in bounded
        if q.log_odds > (-8.0 if q.kind != ATOM else -6.0) and (q.kind != ATOM or q.log_odds < 6.0)
    )


def _told(old: Question, near: Sequence[tuple[str, tuple[float, float], float]]) -> Question | None:
    """Give a question after what was found at its place; None where that tells nothing."""
    named = max((f for f in near if f[0] != ATOM), key=lambda f: f[2], default=None)
    atom = max((f for f in near if f[0] == ATOM), key=lambda f: f[2], default=None)
    frames = old.frames + 1
    if old.kind == ATOM and named is not None and _VACANCY.match(named[0]):
        # No atom, but a vacancy: what spoke against the atom speaks for it.
        return Question(named[0], old.xy_A, _nats(named[2]) - old.log_odds, frames)
    if named is not None:
        kind = named[0] if named[2] > 0.5 and old.kind != ATOM else old.kind
        return replace(old, kind=kind, log_odds=old.log_odds + _nats(named[2]), frames=frames)
    if atom is not None and old.kind == ATOM:
        return replace(old, log_odds=old.log_odds + _nats(atom[2]), frames=frames)
    if atom is not None and _VACANCY.match(old.kind):
        return replace(old, log_odds=old.log_odds - _nats(atom[2]), frames=frames)
    return None


def _nats(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return min(max(math.log(p / (1.0 - p)), -_MOST_NATS), _MOST_NATS)


def _request(
    xy: tuple[float, float], field_A: float, dose: float, known: Knowledge, o: LiveOptions
) -> ScanRequest:
    return ScanRequest(xy, field_A, round(field_A / o.pixel_size_A), dose, known.voltage_kV)
