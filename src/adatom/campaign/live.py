"""The live loop: take a frame, analyse it, follow its atoms, decide, act."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

from adatom.analysis.frame import FrameResult
from adatom.campaign.acting import Approve, Tell
from adatom.campaign.guarded import Fault, Guard, beam_off
from adatom.campaign.live_learn import Learner
from adatom.campaign.live_simulate import NoSimulations, Simulations, learned
from adatom.core import Frame, Material, ScanRequest
from adatom.errors import BadInput, InstrumentGone, NoMoreFrames
from adatom.feedback.dose_budget import DoseBudget
from adatom.feedback.live import (
    Decision,
    Knowledge,
    LiveOptions,
    Question,
    decide,
)
from adatom.instrument.protocol import Capabilities, Microscope, what_it_cannot
from adatom.parallel.interrupt import noted_interrupt

Mode = Literal["watch", "confirm", "auto"]
# Analysis of a frame: its result, and which analysis it was.
See = Callable[[Frame], tuple[FrameResult, str]]
# Work for the time in which the microscope scans: gives what to record, or None.
Meanwhile = Callable[[], dict[str, Any] | None]
Keep = Callable[[int, Frame], str]  # stores frame n; gives its name


@dataclass(frozen=True, slots=True)
class Lived:
    """Result of a live run.

    Parameters
    ----------
    status
        ``done``; ``limit`` (a limit ended it); ``stopped`` by the user; ``lost`` (the instrument
        is gone, or gave too many faults in a row).
    reason
        Why, in words.
    frames, faults
        Frames that were used, and faults.
    electrons
        Electrons of all frames; those of an instrument that does not steer, as far as known.
    seconds
        By the instrument's clock.
    questions
        What was open, with what was answered.
    """

    status: Literal["done", "limit", "stopped", "lost"]
    reason: str
    frames: int
    faults: int
    electrons: float
    seconds: float
    questions: tuple[Question, ...]


@dataclass(slots=True)
class State:
    """What a run begins with: nothing, or what the record of an interrupted one says.

    Parameters
    ----------
    known
        None at the first start.
    budget
        What is spent.
    acts
        Frames asked for so far.
    faults
        Faults so far.
    last_index
        Number of the last frame that was used.
    """

    known: Knowledge | None
    budget: DoseBudget
    acts: int = 0
    faults: int = 0
    last_index: int = -1


def run_loop(
    microscope: Microscope,
    see: See,
    material: Material,
    *,
    mode: Mode,
    options: LiveOptions | None = None,
    approve: Approve = lambda _: False,
    tell: Tell = lambda _: None,
    keep: Keep = lambda n, _: str(n),
    meanwhile: Meanwhile = lambda: None,
    simulations: Simulations | None = None,
    start: State | None = None,
) -> Lived:
    """Take frames and decide until nothing is open, a limit is reached, or the user stops it.

    Every decision is told before it is carried out, with what it knew. Whatever happens, the beam
    is off at the end. An instrument that does not steer is only watched.

    Parameters
    ----------
    microscope
        Open microscope.
    see
        Analysis of a frame.
    material
        The specimen.
    mode
        ``watch``: scan the field as asked for, and only say what a closer look would answer;
        ``confirm``: ask before each look; ``auto``: look.
    options
        Limits.
    approve
        Asked in mode ``confirm``, in words.
    tell
        Called with every decision and what came of it.
    keep
        Stores each frame.
    meanwhile
        Called while the microscope scans: checks the fast analysis of the last frame by the full
        one.
    simulations
        Asked after each frame for the defects that are sure, and never waited for.
    start
        What the record of an interrupted run says.

    Raises
    ------
    BadInput
        If the instrument cannot take the frames of the options, or is told to act and cannot.
    StepFailed
        If a record or a frame cannot be written.
    """
    o = options or LiveOptions()
    with beam_off(microscope), noted_interrupt() as interrupted:
        if start is not None:
            microscope.abort()  # whoever was killed may have left the beam on
        beside = simulations or NoSimulations()
        try:
            return _Loop(
                microscope, see, material, mode, o, approve, tell, keep, meanwhile, beside, start
            ).run(interrupted)
        finally:
            beside.close()


def check_possible(can: Capabilities, mode: Mode, options: LiveOptions) -> None:
    """Refuse what an instrument cannot do.

    Raises
    ------
    BadInput
        If it takes no orders and is to act, or cannot take the frames of the options.
    """
    if not can.steers and mode != "watch":
        raise BadInput(
            "mode",
            expected="watch, for an instrument that takes no orders",
            got=mode,
            todo="Leave the mode out, or choose an instrument that can be steered.",
        )
    if can.steers:
        for field_A in (options.field_A, options.look_field_A):
            pixels = round(field_A / options.pixel_size_A)
            can.check(ScanRequest(can.center_xy_A, field_A, pixels, options.dose_per_A2))


class _Loop:
    """What the loop knows, and its steps."""

    def __init__(
        self, microscope: Microscope, see: See, material: Material, mode: Mode,
        options: LiveOptions, approve: Approve, tell: Tell, keep: Keep, meanwhile: Meanwhile,
        simulations: Simulations, start: State | None,
    ) -> None:  # fmt: skip
        self.microscope, self.see, self.mode, self.options = microscope, see, mode, options
        self.approve, self._tell, self.keep = approve, tell, keep
        self._meanwhile, self.simulations = meanwhile, simulations
        self.can = microscope.capabilities
        budget = DoseBudget(options.most_electrons, options.most_dose_per_A2)
        state = start or State(None, budget)
        self.budget, self.acts, self.faults = state.budget, state.acts, state.faults
        voltage = microscope.conditions.voltage_kV
        known = state.known or Knowledge(
            0, 0, 0, 0.0, self.can.center_xy_A, (0.0, 0.0), voltage, ()
        )
        self.learner = Learner(material, options, known)
        longest = options.longest_frame_s
        self.guard = Guard(microscope, material, state.budget, longest, state.last_index)
        self.clock: float | None = None
        self._begin(resumed=start is not None)

    @property
    def known(self) -> Knowledge:
        """What the loop knows."""
        return self.learner.known

    @known.setter
    def known(self, known: Knowledge) -> None:
        self.learner.known = known

    def run(self, interrupted: threading.Event) -> Lived:
        """Go on until a decision, a fault or the user ends it."""
        try:
            while not interrupted.is_set():
                decision = decide(self.known, self.options, looks=self.mode != "watch")
                if decision.request is None:
                    limit = self.known.faults >= self.options.most_faults
                    calm = self.known.scans_settled >= self.options.settled_frames
                    settled = calm and not self.options.keep_watching
                    status = "lost" if limit else "done" if settled else "limit"
                    return self.end(status, decision.why)
                if self.mode == "watch":
                    self.advise()
                refused = self.budget.why_not(decision.request, self.known.drift_xy_A)
                if refused and self.can.steers:  # of another one, the dose is not ours to limit
                    return self.end("limit", refused)
                if self.approved(decision):
                    self.act(decision, decision.request)
                self.hear()
        except NoMoreFrames as error:
            return self.end("done", error.got)
        except InstrumentGone as error:
            self.fault(Fault("instrument gone", str(error)))
            return self.end("lost", f"the instrument is gone: {error.got}")
        except KeyboardInterrupt:
            pass
        return self.end("stopped", "stopped by the user")

    def approved(self, decision: Decision) -> bool:
        """Ask, where the mode says so; a refused look is not asked for again soon."""
        if self.mode != "confirm" or decision.action != "look" or self.approve(decision.why):
            return True
        self.known = replace(
            self.known,
            looked=True,
            questions=tuple(
                replace(q, asked=q.asked + 1) if q.xy_A == decision.question else q
                for q in self.known.questions
            ),
        )
        self.tell("refused", why=decision.why, known=asdict(self.known))
        return False

    def act(self, decision: Decision, request: ScanRequest) -> None:
        """Take the frame and learn from it."""
        n, self.acts = self.acts, self.acts + 1
        self.tell(decision.action, n=n, why=decision.why, request=asdict(request))
        try:
            frame = self.guard.acquire(request, self.known.drift_xy_A, self.meanwhile)
        except Fault as fault:
            self.fault(fault, n=n)
            return
        if not self.can.steers:
            request = _request_of(frame, self.known.voltage_kV)
            self.budget.spend(request, self.known.drift_xy_A)
        file = self.keep(n, frame)
        self.tell("frame", n=n, file=file, index=frame.index, request=asdict(request))
        began = time.perf_counter()
        try:
            result, how = self.see(frame)
            seen = self.learner.learn(result, request, looked=decision.action == "look")
        except Exception as error:  # noqa: BLE001  # a failed analysis must not leave the beam on
            self.microscope.abort()
            what = f"{type(error).__name__}: {error}"
            self.fault(error if isinstance(error, Fault) else Fault("analysis", what), n=n)
            return
        ms = round(1e3 * (time.perf_counter() - began), 1)
        self.tell("seen", n=n, analysis=how, **seen, known=asdict(self.known), ms=ms)
        self.simulations.ask(result, self.known, n)

    def hear(self) -> None:
        """Take what came from the simulations; nothing is waited for."""
        for line in self.simulations.told():
            self.known = learned(self.known, line)
            self.tell("simulation", **line, known=asdict(self.known))

    def meanwhile(self) -> None:
        """Use the time of the scan; a check that fails is told and changes nothing."""
        try:
            told = self._meanwhile()
        except Exception as error:  # noqa: BLE001  # the frame that is being taken is not lost
            told = {"failed": f"{type(error).__name__}: {error}"}
        if told is not None:
            self.tell("check", **told)

    def advise(self) -> None:
        """Say what a closer look would answer, where the mode or the instrument forbids it."""
        wish = decide(self.known, self.options, looks=True)
        if wish.action == "look" and wish.request is not None:
            self.tell("advise", why=wish.why, request=asdict(wish.request))

    def fault(self, fault: Fault, **more: object) -> None:
        """Record a fault; the beam is off already."""
        self.faults += 1
        # Where somebody else takes the frames, a pause is theirs and no reason to end.
        waited = fault.kind == "late" and not self.can.steers
        self.known = replace(self.known, faults=self.known.faults + (not waited))
        known = asdict(self.known)
        self.tell("fault", kind=fault.kind, what=fault.what, known=known, **more)

    def end(self, status: str, reason: str) -> Lived:
        """Turn the beam off, say why, and sum up."""
        self.microscope.abort()
        self.tell("end", status=status, reason=reason)
        return Lived(
            cast("Literal['done', 'limit', 'stopped', 'lost']", status), reason,
            self.known.frames, self.faults, self.budget.electrons, self.known.seconds,
            self.known.questions,
        )  # fmt: skip

    def tell(self, action: str, **known: object) -> None:
        """Record a line with the time; nothing else reads the instrument's clock."""
        now, most = round(self.microscope.time_s, 6), 2 * self.options.longest_frame_s
        step = 0.0 if self.clock is None else now - self.clock
        self.clock = now
        if not 0.0 <= step <= most:  # False for NaN, too
            self._tell({"time_s": now, "action": "clock", "step_s": step, "taken_for_s": 0.0})
            step = 0.0
        self.known = replace(self.known, seconds=self.known.seconds + step)
        if "known" in known:
            known["known"] = asdict(self.known)
        self._tell({"time_s": now, "action": action, **known})

    def _begin(self, *, resumed: bool) -> None:
        """Refuse what the instrument cannot do, and say what it cannot, before anything begins."""
        can, o = self.can, self.options
        check_possible(can, self.mode, o)
        self.tell("resume" if resumed else "begin", mode=self.mode, options=o.model_dump(),
                  capabilities=asdict(can), conditions=asdict(self.microscope.conditions),
                  notes=what_it_cannot(can))  # fmt: skip


def _request_of(frame: Frame, voltage_kV: float) -> ScanRequest:
    """Request that a frame of somebody else answers; no dose where it is not known."""
    width, height = frame.calibration.extent_xy(frame.shape)
    edge = max(width, height)
    return ScanRequest(
        (edge / 2, edge / 2), edge, max(frame.shape), frame.dose_per_A2 or 0.0, voltage_kV
    )
