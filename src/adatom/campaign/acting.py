"""Act on a microscope within limits, with approval and a record: nothing else may act on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adatom.analysis.frame import FrameResult
from adatom.core import BeamRequest, DwellTrace, Frame, ScanRequest
from adatom.errors import BadInput
from adatom.feedback.moving import MoveOptions
from adatom.instrument.protocol import Microscope, StopWhen

See = Callable[[Frame], FrameResult]
Approve = Callable[[str], bool]  # asked before each step, in words; False ends the move
Tell = Callable[[dict[str, Any]], None]  # called with every decision when it is made


class Halt(Exception):  # leaves the loop from any depth; it is no error
    """The loop ends here.

    Parameters
    ----------
    status
        As of `adatom.campaign.move.Moved`.
    reason
        Why, in words.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame with its request.

    Parameters
    ----------
    request
        Where it was taken.
    frame
        The image.
    start_s, seconds
        When it began, s after the start, and how long it took, s.
    """

    request: ScanRequest
    frame: Frame
    start_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Dwell:
    """A dwell of the parked beam.

    Parameters
    ----------
    start_s
        When it began, s after the start.
    xy_A
        Place that was aimed at, without drift, x and y, Å.
    drift_xy_A
        Drift that was believed, x and y, Å: the beam was parked at the sum of both.
    trace
        What the detector told.
    """

    start_s: float
    xy_A: tuple[float, float]
    drift_xy_A: tuple[float, float]
    trace: DwellTrace


class Hands:
    """The microscope, its limits, and the count of what was done with it.

    Parameters
    ----------
    microscope
        Open microscope.
    see
        Analysis of a frame.
    options
        Limits.
    approve, tell
        See `Approve` and `Tell`.
    """

    def __init__(
        self,
        microscope: Microscope,
        see: See,
        options: MoveOptions,
        approve: Approve,
        tell: Tell,
    ) -> None:
        self.microscope, self.options = microscope, options
        self._see, self._approve, self._tell = see, approve, tell
        self._start = microscope.time_s
        self.electrons = 0.0
        self.frames: list[Seen] = []
        self._check()

    @property
    def seconds(self) -> float:
        """Time since the start, s, by the instrument's clock."""
        return self.microscope.time_s - self._start

    @property
    def left_s(self) -> float:
        """Time that the limit leaves, s."""
        return self.options.longest_s - self.seconds

    @property
    def look_s(self) -> float:
        """Time of the last frame, s."""
        return self.frames[-1].seconds

    def acquire(self, request: ScanRequest, why: str) -> FrameResult:
        """Take and analyse a frame; see `take`."""
        return self._see(self.take(request, why).frame)

    def take(self, request: ScanRequest, why: str) -> Seen:
        """Take a frame.

        Parameters
        ----------
        request
            The frame.
        why
            Reason, in words.

        Raises
        ------
        Halt
            If a limit forbids it.
        """
        electrons = request.dose_per_A2 * request.field_of_view_A**2
        x, y = request.center_xy_A
        self._allow(electrons, electrons / self.microscope.conditions.electrons_per_s)
        start = self.seconds
        frame = self.microscope.acquire(request)
        self.electrons += electrons
        seen = Seen(request, frame, start, self.seconds - start)
        self.frames.append(seen)
        self.tell(
            "look", frame=len(self.frames) - 1, why=why, start_s=round(start, 4),
            center_xy_A=[x, y], field_of_view_A=request.field_of_view_A,
        )  # fmt: skip
        return seen

    def park(self, request: BeamRequest, stop_when: StopWhen | None) -> DwellTrace:
        """Park the beam.

        Raises
        ------
        Halt
            If a limit forbids it.
        """
        rate = self.microscope.conditions.electrons_per_s
        self._allow(rate * request.dwell_s, request.dwell_s)
        trace = self.microscope.place_beam(request, stop_when)
        self.electrons += rate * trace.dwell_s
        return trace

    def ask(self, words: str) -> None:
        """Ask for approval of a step.

        Raises
        ------
        Halt
            If it is not given.
        """
        if not self._approve(words):
            raise Halt("stopped", f"not approved: {words}")

    def tell(self, action: str, **known: object) -> None:
        """Record a decision with what it knew."""
        self._tell({"time_s": round(self.seconds, 4), "action": action, **known})

    def _check(self) -> None:
        low, high = self.options.voltage_kV
        voltage = self.microscope.conditions.voltage_kV
        if not low <= voltage <= high:
            raise BadInput(
                "voltage",
                expected=f"{low:g} to {high:g} kV, where the rates of the prior hold",
                got=f"{voltage:g} kV",
                todo="Set the voltage, or give `voltage_kV` with rates that you know.",
            )
        if not self.microscope.capabilities.longest_dwell_s:
            raise BadInput(
                "instrument",
                expected="one that can park its beam",
                got="one that only scans",
                todo="Choose another instrument.",
            )

    def _allow(self, electrons: float, seconds: float) -> None:
        o = self.options
        if self.electrons + electrons > o.most_electrons:
            raise Halt("given up", f"the limit of {o.most_electrons:.3g} electrons is reached")
        if self.seconds + seconds > o.longest_s:
            raise Halt("given up", f"the limit of {o.longest_s:g} s is reached")
