"""Act for a move: within its limits, with approval and a record."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adatom.analysis.frame import FrameResult
from adatom.campaign.guarded import Fault, Guard
from adatom.core import BeamRequest, DwellTrace, Frame, Material, ScanRequest
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput
from adatom.feedback.dose_budget import DoseBudget
from adatom.feedback.moving import MoveOptions
from adatom.instrument.protocol import Microscope, StopWhen

_FAULTS = 5  # frames in a row that cannot be used, after which a move is given up

See = Callable[[Frame], FrameResult]
Approve = Callable[[str], bool]  # asked before each step, in words; False ends the move
Tell = Callable[[dict[str, Any]], None]  # called with every decision when it is made


class Halt(Exception):  # leaves the loop from any depth; it is no error
    """The loop ends here.

    Parameters
    ----------
    status
        As of `adatom.campaign.moved.Moved`.
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
    material
        The specimen.
    options
        Limits.
    approve, tell
        See `Approve` and `Tell`.
    """

    def __init__(
        self,
        microscope: Microscope,
        see: See,
        material: Material,
        options: MoveOptions,
        approve: Approve,
        tell: Tell,
    ) -> None:
        self.microscope, self.options = microscope, options
        self._see, self._approve, self._tell = see, approve, tell
        self._start = microscope.time_s
        budget = DoseBudget(options.most_electrons, math.inf)
        self._guard = Guard(microscope, material, budget, options.longest_frame_s)
        self.frames: list[Seen] = []
        self._check()

    @property
    def electrons(self) -> float:
        """Electrons of frames and parked beams."""
        return self._guard.budget.electrons

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

    def acquire(self, request: ScanRequest, drift_xy: FloatArray, why: str) -> FrameResult:
        """Take and analyse a frame; see `take`."""
        return self._see(self.take(request, drift_xy, why).frame)

    def take(self, request: ScanRequest, drift_xy: FloatArray, why: str) -> Seen:
        """Take a frame; one that cannot be used is taken again.

        Parameters
        ----------
        request
            The frame.
        drift_xy
            Drift of the specimen, shape (2,), Å.
        why
            Reason, in words.

        Raises
        ------
        Halt
            If a limit forbids it, or too many in a row cannot be used.
        """
        electrons = request.dose_per_A2 * request.field_of_view_A**2
        drift = float(drift_xy[0]), float(drift_xy[1])
        for _ in range(_FAULTS):
            self._allow(self._guard.budget.why_not(request, drift),
                        electrons / self.microscope.conditions.electrons_per_s)  # fmt: skip
            self.tell(
                "look", frame=len(self.frames), why=why, center_xy_A=list(request.center_xy_A),
                field_of_view_A=request.field_of_view_A,
            )  # fmt: skip
            start = self.seconds
            try:
                frame = self._guard.acquire(request, drift)
            except Fault as fault:
                self.tell("fault", kind=fault.kind, what=fault.what)
                continue
            seen = Seen(request, frame, start, self.seconds - start)
            self.frames.append(seen)
            return seen
        raise Halt("given up", f"{_FAULTS} frames in a row cannot be used")

    def park(self, request: BeamRequest, stop_when: StopWhen | None) -> DwellTrace:
        """Park the beam.

        Raises
        ------
        Halt
            If a limit forbids it, or the instrument fails.
        """
        budget = self._guard.budget
        wanted = self.microscope.conditions.electrons_per_s * request.dwell_s
        spent = budget.electrons + wanted > budget.most_electrons
        why = f"the limit of {budget.most_electrons:.3g} electrons is reached" if spent else ""
        self._allow(why, request.dwell_s)
        try:
            return self._guard.park(request, stop_when)
        except Fault as fault:
            self.tell("fault", kind=fault.kind, what=fault.what)
            raise Halt("given up", f"the beam cannot be parked: {fault.what}") from fault

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
        if not self.microscope.capabilities.longest_dwell_s:
            raise BadInput(
                "instrument",
                expected="one that can park its beam",
                got="one that only scans",
                todo="Choose another instrument.",
            )

    def _allow(self, why_not: str, seconds: float) -> None:
        """Refuse what a limit of electrons forbids, or that of time."""
        if why_not:
            raise Halt("given up", why_not)
        if self.seconds + seconds > self.options.longest_s:
            raise Halt("given up", f"the limit of {self.options.longest_s:g} s is reached")
