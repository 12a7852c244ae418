"""Nion Swift as adatom's instrument: orders go to the bridge in its process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adatom.core import BeamConditions, BeamRequest, DwellTrace, Frame, ScanRequest
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput, InstrumentGone, StepFailed
from adatom.instrument.limits import Limits
from adatom.instrument.nion.link import SWIFT, Link
from adatom.instrument.nion.wire import Message
from adatom.instrument.protocol import Capabilities, StopWhen

_A_PER_NM = 10.0
_A_PER_M = 1e10
_SLICE_S = 0.005  # s: a time slice of the trace
_SAME_SIZE = 1e-3  # relative difference of pixel sizes that are equal


@dataclass(frozen=True, slots=True)
class Setup:
    """How Nion Swift is used.

    Parameters
    ----------
    channel
        Detector whose frames are taken, as Nion Swift names it.
    rotation_rad
        Scan rotation; the axes of the specimen are those of frames that are turned so.
    current_pA
        Probe current, pA; None for what Nion Swift says.
    traces
        Read the detector while the beam is parked.
    limits
        What may be done.
    """

    channel: str
    rotation_rad: float
    current_pA: float | None
    traces: bool
    limits: Limits


class NionMicroscope:
    """An open Nion Swift; the axes of the specimen begin in the middle of its unshifted scan.

    Nion Swift has a clock of its own that does not stop, so frames are not repeatable and it counts
    as a real instrument, whatever its sample.

    Parameters
    ----------
    link
        Connections to the bridge; they belong to this object.
    setup
        See `Setup`.
    end
        Called by `close`.

    Raises
    ------
    BadInput
        If it has no such channel, does not say its voltage or current, or is outside the limits.
    """

    def __init__(self, link: Link, setup: Setup, end: Callable[[], None] = lambda: None) -> None:
        self._link, self.setup, self._end = link, setup, end
        hello, _ = link.ask({"do": "hello"})
        if setup.channel not in hello["channels"]:
            raise BadInput(
                "channel", expected=f"one of {', '.join(hello['channels'])}", got=setup.channel,
                todo="Name it in the file of --instrument-options.",
            )  # fmt: skip
        self.versions = dict(hello["versions"])
        self._blanks = bool(hello["blanks"])
        self._max_field_A = _A_PER_NM * float(hello["max_field_nm"])
        self._start, self._taken = time.monotonic(), 0
        self._learn(hello)

    @property
    def capabilities(self) -> Capabilities:
        """What the limits allow; whether the beam is blanked, and the detector read meanwhile."""
        limits = self.setup.limits
        low, high = limits.field_of_view_A
        return Capabilities(
            simulated=False,
            center_xy_A=(0.0, 0.0),
            field_of_view_A=(low, min(high, self._max_field_A)),
            pixels=limits.pixels,
            longest_dwell_s=limits.longest_dwell_s,
            slice_s=_SLICE_S if self.setup.traces else 0.0,
            blanks=self._blanks,
            parks_aside=True,
        )

    @property
    def conditions(self) -> BeamConditions:
        """Voltage as Nion Swift said with its last answer; current as it, or the options, say."""
        return self._conditions

    @property
    def defocus_A(self) -> float | None:
        """Defocus, control C10, Å, as Nion Swift said with its last answer."""
        return self._defocus_A

    @property
    def time_s(self) -> float:
        """Time since it was opened, s."""
        return time.monotonic() - self._start

    def set_defocus(self, defocus_A: float) -> None:
        """Set the defocus, control C10.

        Parameters
        ----------
        defocus_A
            Å; positive as Nion Swift has it.

        Raises
        ------
        StepFailed
            If Nion Swift does not take it.
        """
        order = {"do": "set", "defocus_m": defocus_A / _A_PER_M, **self._checked()}
        self._learn(self._link.ask(order)[0])

    def acquire(self, request: ScanRequest) -> Frame:
        """Take a frame.

        Raises
        ------
        BadInput
            If the request is outside `capabilities` or the limits.
        StepFailed
            If Nion Swift refuses, or gives another size or unit; `NoFrame` after an abort.
        InstrumentGone
            If it does not answer any more.
        """
        self.capabilities.check(request)
        self.setup.limits.check_place(request)
        pixel_us = self.setup.limits.pixel_us(request, self.conditions)
        order = {
            "do": "scan", "pixels": request.pixels, "pixel_time_us": pixel_us,
            "channel": self.setup.channel, **self._field(request), **self._checked(),
        }  # fmt: skip
        told, data = self._link.ask(order, request.pixels**2 * pixel_us / 1e6)
        _check_size(told, request)
        self._learn(told)
        self._taken += 1
        return Frame(
            np.frombuffer(data, "<f4").reshape(told["shape"]), request.calibration,
            self._taken - 1, SWIFT, request.dose_per_A2,
        )  # fmt: skip

    def place_beam(self, request: BeamRequest, stop_when: StopWhen | None = None) -> DwellTrace:
        """Park the beam on a place of a frame that was seen.

        Raises
        ------
        BadInput
            If the request is outside `capabilities` or the limits.
        StepFailed
            If Nion Swift refuses.
        InstrumentGone
            If it does not answer any more.
        """
        self.capabilities.check_beam(request, stop_when)
        self.setup.limits.check_beam_place(request)
        seen, slice_s = request.seen, self.capabilities.slice_s
        x, y = request.xy_A
        slices = max(1, round(request.dwell_s / slice_s)) if slice_s else 0
        order = {
            "do": "park", "dwell_s": request.dwell_s, "slices": slices, "slice_s": slice_s,
            "place": [y / seen.field_of_view_A, x / seen.field_of_view_A],
            "at_nm": self._scan_nm(request.place_xy_A), "channel": self.setup.channel,
            **self._field(seen), **self._checked(),
        }  # fmt: skip
        watch = _Watch(stop_when, self._link.interrupt)
        told, _ = self._link.ask(order, request.dwell_s, watch.see)
        if not slices:
            return DwellTrace(request, np.full(1, np.nan), told["seconds"], bool(told["stopped"]))
        return DwellTrace(request, watch.counts, slice_s, stopped=len(watch.counts) < slices)

    def abort(self) -> None:
        """End what runs; the beam is blanked, or parked in the corner of the largest field.

        Where Nion Swift is gone, nothing can be done from here: its bridge turns the beam off when
        the connection ends.
        """
        try:
            self._link.interrupt()
        except InstrumentGone:
            self._link.close()

    def close(self) -> None:
        """Turn the beam off and end the connection."""
        self._link.close()
        self._end()

    def _field(self, request: ScanRequest) -> Message:
        return {
            "center_nm": self._scan_nm(request.center_xy_A),
            "fov_nm": request.field_of_view_A / _A_PER_NM,
            "rotation_rad": self.setup.rotation_rad,
        }

    def _scan_nm(self, xy_A: tuple[float, float]) -> tuple[float, float]:
        """Turn a place into the axes of an unrotated scan; y and x in nm.

        A positive rotation turns the picture counter-clockwise on the screen, and ``center_nm``
        does not turn with it.
        """
        x, y = xy_A
        c, s = math.cos(self.setup.rotation_rad), math.sin(self.setup.rotation_rad)
        return (s * x + c * y) / _A_PER_NM, (c * x - s * y) / _A_PER_NM

    def _checked(self) -> Message:
        """Check the beam by the limits; the bridge does not act at another voltage."""
        self.setup.limits.check_conditions(self.conditions)
        return {"voltage_V": 1e3 * self.conditions.voltage_kV}

    def _learn(self, told: Message) -> None:
        """Take over what the instrument says of itself."""
        voltage_V, current_A, focus_m = told["voltage_V"], told["current_A"], told["defocus_m"]
        if voltage_V is None:
            raise _not_said("voltage", "control EHT", "It cannot be driven by adatom.")
        current_pA = self.setup.current_pA
        if current_pA is None:
            if current_A is None:
                todo = "Measure it, and give it as `current_pA` in the instrument's options."
                raise _not_said("probe current", "control BeamCurrent", todo)
            current_pA = 1e12 * current_A
        self._conditions = BeamConditions(voltage_V / 1e3, current_pA)
        self._defocus_A = None if focus_m is None else _A_PER_M * focus_m
        self.setup.limits.check_conditions(self._conditions)


class _Watch:
    """Collect the trace of a dwell, and end it when its signal says so."""

    def __init__(self, stop_when: StopWhen | None, interrupt: Callable[[], None]) -> None:
        self._stop_when, self._interrupt = stop_when, interrupt
        self._values: list[float] = []

    @property
    def counts(self) -> FloatArray:
        """Signal so far, shape (slice,)."""
        return np.array(self._values, dtype=np.float64)

    def see(self, told: Message) -> None:
        """Take over further slices."""
        for value in told["values"]:
            self._values.append(float(value))
            if self._stop_when is not None and self._stop_when(self.counts):
                self._stop_when = None
                self._interrupt()


def _check_size(told: Message, request: ScanRequest) -> None:
    """Refuse a frame of another size or unit than was asked for."""
    asked_nm = request.calibration.pixel_size_A / _A_PER_NM
    size = [request.pixels] * 2
    right = told["shape"] == size and told["units"] == ["nm", "nm"]
    if not right or any(abs(scale / asked_nm - 1) > _SAME_SIZE for scale in told["scale"]):
        rows, columns = told["shape"] if len(told["shape"]) == 2 else (told["shape"], "?")
        scales = " and ".join(
            f"{s:.4g} {u or '(no unit)'}" for s, u in zip(told["scale"], told["units"], strict=True)
        )
        raise StepFailed(
            "frame of Nion Swift",
            expected=f"{size[0]} x {size[1]} pixels of {asked_nm:.4g} nm",
            got=f"{rows} x {columns} of {scales}",
            todo="See to its scan unit: a frame of another size is not what was asked for.",
        )


def _not_said(subject: str, expected: str, todo: str) -> BadInput:
    return BadInput(f"{subject} of Nion Swift", expected=expected, got="none", todo=todo)
