"""A microscope behind a Tango device server with the verbs of the field (asyncroscopy).

Which verbs a server has is asked at the connection: that project changed them three times in a
year. Images come as bytes through Tango; a server that only puts them into a store is refused.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from adatom.core import BeamConditions, BeamRequest, DwellTrace, Frame, ScanRequest
from adatom.core.arrays import Image
from adatom.errors import AdatomError, BadInput, InstrumentGone, NoFrame, StepFailed
from adatom.instrument.limits import Limits
from adatom.instrument.protocol import Capabilities, StopWhen

_A_PER_M = 1e10
_ANSWER_MS = 10_000  # longest wait for an answer, beyond the time that the request takes
_SAME = 0.01  # relative difference of lengths and times that are equal
_FIELDS_M = (1e-11, 1e-3)  # m: fields of view of electron microscopes; others are another unit
_SCAN_ATTRIBUTES = ("dwell_time", "imsize", "scan_region")
_KINDS = {
    "float32",
    "float64",
    "uint8",
    "uint16",
    "uint32",
    "int16",
    "int32",
}  # of an image's bytes


@dataclass(frozen=True, slots=True)
class Setup:
    """How a Tango microscope is used.

    Parameters
    ----------
    microscope, scan
        Addresses of its devices.
    detector
        Detector, as the server names it.
    voltage_kV
        Acceleration voltage, kV: the verbs do not tell it.
    current_pA
        Probe current, pA; None for that of the screen.
    corners
        The server takes a scan's region as left, top, right, bottom, and not as left, top, width,
        height.
    limits
        What may be done.
    """

    microscope: str
    scan: str
    detector: str
    voltage_kV: float
    current_pA: float | None
    corners: bool
    limits: Limits


class TangoMicroscope:
    """An open Tango microscope; the axes of the specimen begin in the middle of its scan.

    Parameters
    ----------
    setup
        See `Setup`.
    end
        Called by `close`.

    Raises
    ------
    BadInput
        If no device answers at an address, it lacks a verb that is needed, tells lengths in another
        unit, or is outside of the limits. Nothing was moved.
    """

    def __init__(self, setup: Setup, end: Callable[[], None] = lambda: None) -> None:
        self.setup, self._end = setup, end
        self._microscope, self._scan = _connected(setup.microscope), _connected(setup.scan)
        self.verbs = {str(c.cmd_name) for c in self._microscope.command_list_query()}
        self._check_server()
        self._start, self._taken = time.monotonic(), 0
        self._aborted, self._acting = threading.Event(), threading.Lock()
        current_pA = setup.current_pA
        if current_pA is None:
            if "get_screen_current" not in self.verbs:
                raise _bad("probe current", "the option `current_pA`", "no verb get_screen_current")
            current_pA = float(self._do("get_screen_current"))
        self._conditions = BeamConditions(setup.voltage_kV, current_pA)
        setup.limits.check_conditions(self._conditions)
        self._rest()

    @property
    def capabilities(self) -> Capabilities:
        """What the limits allow and the server has verbs for."""
        limits, parks = self.setup.limits, "place_beam" in self.verbs
        blanks = {"blank_beam", "unblank_beam"} <= self.verbs
        notes = ["finishes a scan that it began: an abort waits for it"]
        if not parks:
            notes.append("has no verb place_beam: it only scans")
        return Capabilities(
            simulated=False,
            center_xy_A=(0.0, 0.0),
            field_of_view_A=limits.field_of_view_A,
            pixels=limits.pixels,
            longest_dwell_s=limits.longest_dwell_s if parks else 0.0,
            blanks=blanks,
            parks_aside=parks,
            notes=tuple(notes),
        )

    @property
    def conditions(self) -> BeamConditions:
        """Voltage of the options; current of the options, or of the screen at the start."""
        return self._conditions

    @property
    def time_s(self) -> float:
        """Time since it was opened, s."""
        return time.monotonic() - self._start

    def set_defocus(self, defocus_A: float) -> None:
        """Set the defocus, Å; positive as the server has it.

        Raises
        ------
        BadInput
            If the server has no such verb.
        """
        if "set_defocus" not in self.verbs:
            raise _bad("defocus", "a server with the verb set_defocus", "none")
        self._do("set_defocus", defocus_A / _A_PER_M)

    def acquire(self, request: ScanRequest) -> Frame:
        """Take a frame.

        Raises
        ------
        BadInput
            If the request is outside `capabilities` or the limits.
        StepFailed
            If the server refuses, or gives another size or unit; `NoFrame` after an abort.
        InstrumentGone
            If it does not answer any more.
        """
        limits = self.setup.limits
        self.capabilities.check(request)
        limits.check_place(request)
        limits.check_conditions(self.conditions)
        pixel_us = limits.pixel_us(request, self.conditions)
        with self._acting:
            self._aborted.clear()
            whole_A, region = self._region(request)
            self._set_field(whole_A)
            asked = {"dwell_time": pixel_us / 1e6, "imsize": request.pixels, "scan_region": region}
            for name, value in asked.items():
                self._set(name, value)
            seconds = request.pixels**2 * pixel_us / 1e6
            try:
                self._blank(on=False)
                image = self._image(seconds)
            finally:
                self._rest()
        if self._aborted.is_set():
            raise NoFrame(
                self.setup.microscope, expected="a frame", got="an abort", todo="Ask again."
            )
        if image.shape != (request.pixels, request.pixels):
            raise _odd("frame", f"{request.pixels} x {request.pixels} pixels",
                       f"{image.shape[0]} x {image.shape[-1]}")  # fmt: skip
        self._taken += 1
        return Frame(
            image, request.calibration, self._taken - 1, self.setup.microscope, request.dose_per_A2
        )

    def place_beam(self, request: BeamRequest, stop_when: StopWhen | None = None) -> DwellTrace:
        """Park the beam on a place of a frame that was seen.

        Raises
        ------
        BadInput
            If the request is outside `capabilities` or the limits.
        StepFailed
            If the server refuses.
        InstrumentGone
            If it does not answer any more.
        """
        self.capabilities.check_beam(request, stop_when)
        limits = self.setup.limits
        limits.check_beam_place(request)
        limits.check_conditions(self.conditions)
        with self._acting:
            self._aborted.clear()
            whole_A, _ = self._region(request.seen)
            self._set_field(whole_A)
            try:
                self._do("place_beam", [v / whole_A + 0.5 for v in request.place_xy_A])
                self._blank(on=False)
                began = time.perf_counter()
                self._aborted.wait(request.dwell_s)
                self._blank(on=True)
                seconds = time.perf_counter() - began
            finally:
                self._rest()
        return DwellTrace(request, np.full(1, np.nan), seconds, stopped=self._aborted.is_set())

    def abort(self) -> None:
        """End a dwell; the beam is blanked, or parked in the corner of the largest field.

        A scan that the server began, it finishes. Where the server is gone, nothing can be done.
        """
        self._aborted.set()
        try:
            with self._acting:
                self._rest()
        except AdatomError:  # a loop that ends does so without a further error
            return

    def close(self) -> None:
        """Turn the beam off."""
        self.abort()
        self._end()

    def _check_server(self) -> None:
        """Refuse a server that lacks what is needed, or counts in other units."""
        images = {"get_scanned_image"} & self.verbs or (
            {"acquire_scanned_image", "get_image_data_cached"} <= self.verbs
        )
        if not images:
            wanted = "get_scanned_image, or acquire_scanned_image with get_image_data_cached"
            have = ", ".join(sorted(v for v in self.verbs if "image" in v)) or "none of them"
            raise _bad("verbs for images as bytes", wanted, have)
        if missing := sorted({"set_fov", "get_fov"} - self.verbs):
            raise _bad("verbs", "set_fov and get_fov, in m", f"no {', '.join(missing)}")
        if not self.verbs & {"blank_beam", "place_beam"}:
            raise _bad("verbs", "blank_beam and unblank_beam, or place_beam", "neither")
        there = {str(name) for name in self._scan.get_attribute_list()}
        if missing := sorted(set(_SCAN_ATTRIBUTES) - there):
            wanted = ", ".join(_SCAN_ATTRIBUTES)
            raise _bad(f"scan device {self.setup.scan}", wanted, f"no {', '.join(missing)}")
        unit = str(self._scan.get_attribute_config("dwell_time").unit)
        if unit not in {"s", "", "No unit"}:
            raise _bad("unit of dwell_time", "s", unit)
        field_m = float(self._do("get_fov"))
        if not _FIELDS_M[0] <= field_m <= _FIELDS_M[1]:
            raise _bad("field of view", "metres", f"{field_m:g}, which no microscope has in m")

    def _region(self, request: ScanRequest) -> tuple[float, list[float]]:
        """Field around the middle that holds a frame, Å; and the frame's part of it."""
        off = max(abs(v) for v in request.center_xy_A)
        edge = request.field_of_view_A
        whole = edge + 2 * off
        left, top = ((v - edge / 2) / whole + 0.5 for v in request.center_xy_A)
        size = edge / whole
        corner = [max(left, 0.0), max(top, 0.0)]
        end = [c + size for c in corner] if self.setup.corners else [size, size]
        return whole, [*corner, *(min(v, 1.0) for v in end)]

    def _set_field(self, field_A: float) -> None:
        """Set the field of view, and make sure that it is taken in the same unit."""
        self._do("set_fov", field_A / _A_PER_M)
        got = float(self._do("get_fov"))
        if not math.isclose(got, field_A / _A_PER_M, rel_tol=_SAME):
            raise _odd("field of view", f"{field_A / _A_PER_M:.4g} m", f"{got:.4g}")

    def _set(self, name: str, value: Any) -> None:
        """Set a part of the scan, and make sure that it is taken."""
        self._call(lambda: self._scan.write_attribute(name, value))
        got = self._call(lambda: self._scan.read_attribute(name).value)
        if not np.allclose(np.asarray(got, dtype=float), value, rtol=_SAME, atol=1e-12):
            raise _odd(f"{name} of the scan", str(value), str(got))

    def _image(self, seconds: float) -> Image:
        """Scan, and give the pixels."""
        detector = self.setup.detector
        self._microscope.set_timeout_millis(int(2e3 * seconds) + _ANSWER_MS)
        if "get_scanned_image" in self.verbs:
            takes = str(self._microscope.command_query("get_scanned_image").in_type)
            told = self._do("get_scanned_image", *([[detector]] if takes != "DevVoid" else []))
        else:
            self._do("acquire_scanned_image", [detector])
            told = self._do("get_image_data_cached", 0)
        try:
            about, data = told
            known = json.loads(about)
            if known["dtype"] not in _KINDS:
                raise _odd("image", f"one of {', '.join(sorted(_KINDS))}", str(known["dtype"]))
            return np.frombuffer(data, known["dtype"]).reshape(known["shape"]).astype(np.float32)
        except (ValueError, TypeError, KeyError) as error:
            raise _odd("image", "shape and dtype in JSON, and the pixels", str(error)) from error

    def _blank(self, *, on: bool) -> None:
        if self.capabilities.blanks:
            self._do("blank_beam" if on else "unblank_beam")

    def _rest(self) -> None:
        """Blank the beam, and park it in the corner of the largest field."""
        self._blank(on=True)
        if "place_beam" in self.verbs:
            self._set_field(self.setup.limits.field_of_view_A[1])
            self._do("place_beam", [0.0, 0.0])

    def _do(self, verb: str, *arguments: Any) -> Any:
        return self._call(lambda: self._microscope.command_inout(verb, *arguments))

    def _call(self, call: Callable[[], Any]) -> Any:
        """Call the server; its silence and its refusals are our errors."""
        import tango

        try:
            return call()
        except (tango.CommunicationFailed, tango.ConnectionFailed) as error:
            raise InstrumentGone(
                self.setup.microscope, expected="an answer", got=_why(error),
                todo="See to the microscope: the beam may be on.",
            ) from error  # fmt: skip
        except tango.DevFailed as error:
            raise StepFailed(
                self.setup.microscope, expected="that it does what was asked for", got=_why(error),
                todo="See to its device server.",
            ) from error  # fmt: skip


def _connected(address: str) -> Any:
    import tango

    try:
        proxy = tango.DeviceProxy(address)
        proxy.set_timeout_millis(_ANSWER_MS)
        proxy.ping()
    except tango.DevFailed as error:
        raise BadInput(
            f"Tango device {address}",
            expected="a device that answers: tango://HOST:PORT/A/B/C#dbase=no, or its name in the "
            "database of TANGO_HOST",
            got=_why(error),
            todo="Start its server, or correct the address.",
        ) from error
    return proxy


def _why(error: Any) -> str:
    """First and last words of a Tango error, which is a stack of them."""
    words = [" ".join(str(part.desc).split()) for part in error.args if hasattr(part, "desc")]
    return words[0] if words else str(error)


def _bad(subject: str, expected: str, got: str) -> BadInput:
    todo = "See to the device server, or give the option."
    return BadInput(f"Tango: {subject}", expected=expected, got=got, todo=todo)


def _odd(subject: str, expected: str, got: str) -> StepFailed:
    todo = "See to the device server: it takes or gives another unit or size."
    return StepFailed(f"Tango: {subject}", expected=expected, got=got, todo=todo)
