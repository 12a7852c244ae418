"""The simulated specimen as the sample of Nion Swift's simulated microscope."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from adatom.core import BeamRequest, ScanRequest
from adatom.core.arrays import FloatArray, Image
from adatom.instrument.twin import Twin

_A_PER_NM = 10.0
_A_PER_M = 1e10
_SLICE_S = 0.005  # s: time slice of a parked beam, as of `adatom.instrument.twin`
# Å: a scan of a smaller field is a parked beam whose detector is read. The bridge asks for 0.001.
_POINT_A = 0.01
_SEEN_A = 4.0  # Å: any frame around the place of a parked beam


class TwinSample:
    """Give Nion Swift's simulated scan unit a picture of the specimen; the beam acts on it.

    Time passes for the specimen as on the wall: what lies between two scans is drift, and dose
    where a beam that is not blanked rests. A scan that is cancelled has its whole dose.

    Parameters
    ----------
    twin
        Specimen and detector; the middle of its sheet is the middle of the unshifted scan.
    """

    def __init__(self, twin: Twin) -> None:
        self._twin, self._lock = twin, threading.RLock()
        self._start, self._turned_rad = time.perf_counter(), 0.0
        self._rests: FloatArray | None = None  # from the middle, in an unrotated scan, Å
        self._blanked = False

    def generate_scan_data(self, instrument: Any, asked: Any) -> Any:
        """Give the pixels of a scan: the interface of Nion Swift's simulated scan unit.

        Parameters
        ----------
        instrument
            Its STEM controller.
        asked
            Its frame parameters.
        """
        with self._lock:
            self._catch_up()
            shift = instrument.value_manager.actual_offset_m  # stage, beam shift
            middle = _xy(asked.center_nm) * _A_PER_NM - _xy(shift) * _A_PER_M
            field_A = asked.fov_size_nm.width * _A_PER_NM
            if field_A < _POINT_A:
                return _Dwell(self, middle, asked.pixel_time_us)
            if asked.size.height != asked.size.width:
                raise ValueError(f"square scans alone, not {asked.size}")
            return self._image(middle, field_A, asked)

    def parked(self, context: Any, place: Any) -> None:
        """Note where the beam rests; None of Nion Swift is its middle.

        Parameters
        ----------
        context
            Nion Swift's scan context.
        place
            Fractions of it.
        """
        with self._lock:
            self._catch_up()
            if context.fov_nm is None:
                self._rests = None
                return
            y, x = (0.5, 0.5) if place is None else (place.y, place.x)
            away = np.array([x - 0.5, y - 0.5]) * context.fov_nm * _A_PER_NM
            self._rests = _turn(away, context.rotation_rad) + _xy(context.center_nm) * _A_PER_NM

    def blanked(self, *, on: bool) -> None:
        """Note whether the beam is blanked."""
        with self._lock:
            self._catch_up()
            self._blanked = on

    def counts(self, place: FloatArray, slices: int) -> float:
        """Park the beam, and give the detector's counts.

        Parameters
        ----------
        place
            From the middle, in an unrotated scan, Å.
        slices
            For so many time slices.
        """
        with self._lock:
            if self._blanked:
                self._twin.wait(slices * _SLICE_S)
                return 0.0
            here = _turn(place, -self._turned_rad) + np.asarray(self._twin.center_xy_A)
            seen = ScanRequest((float(here[0]), float(here[1])), _SEEN_A, 16, 1.0)
            request = BeamRequest(seen, (_SEEN_A / 2, _SEEN_A / 2), slices * _SLICE_S)
            return float(np.nansum(self._twin.place_beam(request).counts))

    def _image(self, middle: FloatArray, field_A: float, asked: Any) -> Image:
        twin, pixels = self._twin, int(asked.size.width)
        twin.turn(asked.rotation_rad - self._turned_rad)
        self._turned_rad = asked.rotation_rad
        electrons = twin.conditions.electrons_per_s * asked.pixel_time_us / 1e6
        x, y = _turn(middle, -self._turned_rad) + np.asarray(twin.center_xy_A)
        dose = electrons / (field_A / pixels) ** 2
        if self._blanked:
            twin.wait(pixels**2 * asked.pixel_time_us / 1e6)
            return np.zeros((pixels, pixels), dtype=np.float32)
        return twin.acquire(ScanRequest((float(x), float(y)), field_A, pixels, dose)).data

    def _catch_up(self) -> None:
        """Let the time pass that has passed on the wall; a beam that rests acts meanwhile."""
        left = time.perf_counter() - self._start - self._twin.time_s
        if left <= 0:  # a scan runs: its time is counted already
            return
        if self._blanked or self._rests is None:
            self._twin.wait(left)
        elif left >= _SLICE_S:
            self.counts(self._rests, int(left / _SLICE_S))


class _Dwell:
    """Counts of a parked beam, pixel by pixel, each when it is read and not before."""

    def __init__(self, sample: TwinSample, place: FloatArray, pixel_time_us: float) -> None:
        self._sample, self._place = sample, place
        self._slices = max(1, round(pixel_time_us / 1e6 / _SLICE_S))

    def reshape(self, shape: tuple[int, ...]) -> _Dwell:
        """Give itself: it is read in order."""
        del shape
        return self

    def __getitem__(self, pixels: slice) -> FloatArray:
        count = pixels.stop - pixels.start
        return np.array([self._sample.counts(self._place, self._slices) for _ in range(count)])


def _turn(xy: FloatArray, angle_rad: float) -> FloatArray:
    """Turn from the axes of a rotated scan to those of an unrotated one, x right and y down."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    out: FloatArray = np.array([[c, -s], [s, c]]) @ xy
    return out


def _xy(point: Any) -> FloatArray:
    return np.array([point.x, point.y], dtype=np.float64)
