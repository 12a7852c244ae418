"""The record of a live run as an instrument: the loop runs on it again, and must do the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adatom.analysis.frame import FrameResult
from adatom.campaign.guarded import Fault
from adatom.campaign.live import See
from adatom.core import BeamConditions, BeamRequest, DwellTrace, Frame, ScanRequest
from adatom.errors import InstrumentGone, NoMoreFrames, StepFailed
from adatom.feedback.live import Knowledge
from adatom.frames.readers.read import read
from adatom.instrument.protocol import Capabilities, StopWhen

Line = dict[str, Any]
_NOT_COMPARED = ("ms",)  # how long it took


class Again:
    """One uninterrupted part of a record.

    Parameters
    ----------
    directory
        Of the run.
    lines
        From ``begin`` or ``resume`` on.
    tell
        Called with every line that agrees.
    """

    def __init__(
        self, directory: Path, lines: Sequence[Line], tell: Callable[[Line], None]
    ) -> None:
        self._directory, self._lines, self._tell, self._at = directory, lines, tell, 0
        self.microscope = _Recorded(self)

    @property
    def next(self) -> Line | None:
        """The line that must come next."""
        return self._lines[self._at] if self._at < len(self._lines) else None

    @property
    def coming(self) -> Line | None:
        """The next line that is no check and no jump of the clock."""
        left = self._lines[self._at :]
        return next((x for x in left if x["action"] not in {"check", "clock"}), None)

    @property
    def first(self) -> Line:
        """The line with capabilities and conditions."""
        return self._lines[0]

    def compare(self, line: Line) -> None:
        """Compare a line with the record.

        Raises
        ------
        StepFailed
            If it differs.
        EOFError
            If the record ends here, because the run was killed.
        KeyboardInterrupt
            If the user stopped it here.
        """
        if self.next is None:
            raise EOFError
        same_or_fail(self._directory, self.next, line)
        self._tell(line)
        self._at += 1
        following = self.next
        if following and following["action"] == "end" and following["status"] == "stopped":
            raise KeyboardInterrupt

    def finish(self) -> None:
        """Make sure that nothing of the record is left."""
        if self.next is not None:
            same_or_fail(self._directory, self.next, {"action": "nothing more"})

    def approve(self, words: str) -> bool:
        """Answer as the user did."""
        del words
        return self.coming is None or self.coming["action"] != "refused"

    def keep(self, n: int, frame: Frame) -> str:
        """Give the name of the stored frame."""
        del n
        return frame.source

    def seen(self, see: See) -> See:
        """Give the same analysis; it fails where it failed."""

        def again(frame: Frame) -> tuple[FrameResult, str]:
            line = self.coming
            if line is None:
                raise EOFError
            if line["action"] == "fault":
                raise Fault(line["kind"], line["what"])
            return see(frame)

        return again

    def ask(self, result: FrameResult, known: Knowledge, frame: int) -> None:
        """Simulate nothing: the record has what came."""

    def told(self) -> list[Line]:
        """Give what the simulations told here."""
        out = []
        for line in self._lines[self._at :]:
            if line["action"] == "simulation":
                out.append({k: line[k] for k in ("what", "kind", "why", "result")})
            elif line["action"] != "clock":
                break
        return out

    def close(self) -> None:
        """Nothing runs."""

    def frame(self) -> Frame:
        """Give what came after the last request: a frame or an error."""
        line = self.coming
        if line is None:
            raise EOFError
        if line["action"] == "frame":
            stored = read([self._directory / line["file"]])[0]
            dose = line["request"]["dose_per_A2"] or None
            return Frame(stored.data, stored.calibration, line["index"], line["file"], dose)
        if line["action"] == "end":
            raise NoMoreFrames("record", expected="", got=line["reason"], todo="")
        if line["kind"] == "instrument gone":
            raise _GoneAgain(line["what"], self._lines[-1]["reason"])
        raise Fault(line["kind"], line["what"])


class _GoneAgain(InstrumentGone):
    def __init__(self, what: str, reason: str) -> None:
        super().__init__("", expected="", got=reason.split(": ", 1)[-1], todo="")
        self._what = what

    def __str__(self) -> str:
        return self._what


class _Recorded:
    """A microscope that answers as the record says."""

    def __init__(self, again: Again) -> None:
        self._again = again

    @property
    def capabilities(self) -> Capabilities:
        told = self._again.first["capabilities"]
        pairs = {k: tuple(told[k]) for k in ("center_xy_A", "field_of_view_A", "pixels")}
        return Capabilities(**{**told, **pairs, "notes": tuple(told.get("notes", ()))})

    @property
    def conditions(self) -> BeamConditions:
        return BeamConditions(**self._again.first["conditions"])

    @property
    def time_s(self) -> float:
        line = self._again.next
        return 0.0 if line is None else float(line["time_s"])

    def acquire(self, request: ScanRequest) -> Frame:
        del request  # compared when it was told
        return self._again.frame()

    def place_beam(self, request: BeamRequest, stop_when: StopWhen | None = None) -> DwellTrace:
        raise NotImplementedError  # the live loop parks no beam

    def abort(self) -> None:
        pass


def same_or_fail(directory: Path, recorded: Line | None, now: Line) -> None:
    """Compare two lines, without the times that the analysis took.

    Raises
    ------
    StepFailed
        If they differ.
    """
    texts = [
        json.dumps({k: v for k, v in (line or {}).items() if k not in _NOT_COMPARED})
        for line in (recorded, json.loads(json.dumps(now)))
    ]
    if texts[0] != texts[1]:
        raise StepFailed(
            str(directory),
            expected=f"as recorded: {texts[0][:600]}",
            got=texts[1][:600],
            todo="The record, the frames, the networks or adatom itself were changed since.",
        )
