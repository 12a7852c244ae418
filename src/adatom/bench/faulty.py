"""A simulated microscope with faults, which keeps count of what is done to its specimen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from adatom.core import (
    BeamConditions,
    BeamRequest,
    Calibration,
    DwellTrace,
    Frame,
    ScanRequest,
)
from adatom.core.arrays import FloatArray
from adatom.errors import AdatomError, DamagedFile, InstrumentGone, NoFrame
from adatom.instrument import Capabilities, StopWhen, Twin

# Faults that this microscope has; a full disk and a killed process are not the instrument's.
KINDS = (
    "gone", "connection", "late", "stalled", "corrupt", "not finite", "blank", "doubled",
    "out of order", "wrong pixel size", "wrong shape", "clock back", "clock ahead",
)  # fmt: skip
_ERRORS: dict[str, type[AdatomError]] = {
    "gone": InstrumentGone, "late": NoFrame, "stalled": NoFrame, "corrupt": DamagedFile,
}  # fmt: skip
_CELL_A = 0.5  # cell of the dose map, Å


class FaultyMicroscope:
    """A twin with faults at given frames.

    The beam is on from the begin of a frame until the frame is complete or `abort` is called; a
    fault leaves it on.

    Parameters
    ----------
    twin
        The simulated microscope.
    faults
        Fault of each acquisition, by its number from 0.

    Attributes
    ----------
    beam_on
        Whether the beam is on.
    asked
        Every request.
    exposed_twice
        Acquisitions that began while the beam was on: a fault before them was not answered.
    """

    def __init__(self, twin: Twin, faults: Mapping[int, str]) -> None:
        self._twin, self._faults = twin, dict(faults)
        self._aborted = threading.Event()
        self._jump_s = 0.0
        self._last: Frame | None = None  # what a doubled frame repeats
        self._before: Frame | None = None
        self.beam_on, self.exposed_twice = False, 0
        self.asked: list[ScanRequest] = []
        cells = round(twin.options.sheet_A / _CELL_A)
        self._dose = np.zeros((cells, cells))

    @property
    def capabilities(self) -> Capabilities:
        """Those of the twin."""
        return self._twin.capabilities

    @property
    def conditions(self) -> BeamConditions:
        """Those of the twin."""
        return self._twin.conditions

    @property
    def time_s(self) -> float:
        """The twin's clock, with its jumps."""
        return self._twin.time_s + self._jump_s

    @property
    def highest_dose_per_A2(self) -> float:
        """Highest dose of a place of the specimen, electrons per Å²."""
        return float(self._dose.max())

    @property
    def electrons(self) -> float:
        """Electrons of all frames."""
        return sum(r.dose_per_A2 * r.field_of_view_A**2 for r in self.asked)

    def acquire(self, request: ScanRequest) -> Frame:
        """Take a frame, with the fault of its number."""
        fault = self._faults.get(len(self.asked), "")
        self.exposed_twice += self.beam_on
        self._aborted.clear()
        self.asked.append(request)
        self._expose(request)
        self.beam_on = True
        frame = self._twin.acquire(request)
        if fault == "doubled" and self._last is None:
            fault = ""  # there is none to double
        frame = self._spoiled(frame, fault)
        self._before = self._last
        if not fault:
            self._last = frame
        self.beam_on = bool(fault) and not fault.startswith("clock")
        return frame

    def place_beam(self, request: BeamRequest, stop_when: StopWhen | None = None) -> DwellTrace:
        """Refuse: the live loop parks no beam."""
        raise NotImplementedError

    def withhold(self) -> None:
        """Forget the last frame: whoever asked for it was killed, and never got it."""
        self._last = self._before

    def abort(self) -> None:
        """Turn the beam off."""
        self._aborted.set()
        self.beam_on = False

    def _spoiled(self, frame: Frame, fault: str) -> Frame:
        """Do what a fault does."""
        words = {"expected": "a frame", "got": fault, "todo": "Ask again."}
        if fault == "stalled":
            self._aborted.wait()
        if fault in _ERRORS:
            raise _ERRORS[fault]("faulty", **words)
        if fault == "connection":
            raise ConnectionResetError(104, "reset by peer")
        if fault == "doubled":
            return self._last or frame
        self._jump_s += {"clock back": -1e4, "clock ahead": 1e6}.get(fault, 0.0)
        data, size = frame.data, frame.calibration.pixel_size_A
        changed: dict[str, Callable[[], dict[str, Any]]] = {
            "not finite": lambda: {"data": np.where(np.eye(*frame.shape) > 0, np.nan, data)},
            "blank": lambda: {"data": np.zeros(frame.shape)},
            "out of order": lambda: {"index": -1},
            "wrong pixel size": lambda: {"calibration": Calibration(10 * size)},
            "wrong shape": lambda: {"data": data[: frame.shape[0] // 2]},
        }
        return replace(frame, **changed[fault]()) if fault in changed else frame

    def _expose(self, request: ScanRequest) -> None:
        """Count the dose where the specimen really is."""
        drift = self._twin.drift_xy_A
        low = self._cells(request.to_specimen(np.zeros(2)) - drift)
        high = self._cells(request.to_specimen(np.full(2, request.field_of_view_A)) - drift)
        self._dose[low[1] : high[1], low[0] : high[0]] += request.dose_per_A2

    def _cells(self, xy: FloatArray) -> list[int]:
        return [max(round(float(v) / _CELL_A), 0) for v in xy]
