"""The simulated specimen behind a program that has its own clock: time passes as on the wall."""

from __future__ import annotations

import threading
import time

import numpy as np

from adatom.core import BeamRequest, ScanRequest
from adatom.core.arrays import FloatArray, Image
from adatom.instrument.limits import Limits
from adatom.instrument.twin import Twin
from adatom.instrument.twin_options import TwinOptions

SLICE_S = 0.005  # s: time slice of a parked beam, as of `adatom.instrument.twin`
_LEAST_FIELD_A = 2.0  # Å: as of the simulated microscope
_SEEN_A = 4.0  # Å: any frame around the place of a parked beam


class HostedTwin:
    """Let another program scan the simulated specimen and park the beam on it.

    What lies between two scans is drift, and dose where a beam that is not blanked rests. Places
    are in an unrotated scan, x right and y down, from the middle of the sheet.

    Parameters
    ----------
    twin
        Specimen and detector.
    """

    def __init__(self, twin: Twin) -> None:
        self.twin, self.lock = twin, threading.RLock()
        self._start, self._turned_rad = time.perf_counter(), 0.0
        self._rests: FloatArray | None = None
        self._blanked = False

    def scan(
        self,
        middle: FloatArray,
        field_A: float,
        pixels: int,
        pixel_time_us: float,
        rotation_rad: float = 0.0,
    ) -> Image:
        """Take a square frame; dark where the beam is blanked.

        Parameters
        ----------
        middle
            Its middle, shape (2,), Å.
        field_A, pixels, pixel_time_us
            Edge, Å; pixels along it; time on each, µs.
        rotation_rad
            Positive: the picture turns counter-clockwise on the screen.
        """
        with self.lock:
            self._catch_up()
            twin = self.twin
            twin.turn(rotation_rad - self._turned_rad)
            self._turned_rad = rotation_rad
            if self._blanked:
                twin.wait(pixels**2 * pixel_time_us / 1e6)
                return np.zeros((pixels, pixels), dtype=np.float32)
            electrons = twin.conditions.electrons_per_s * pixel_time_us / 1e6
            x, y = turned(middle, -rotation_rad) + np.asarray(twin.center_xy_A)
            dose = electrons / (field_A / pixels) ** 2
            return twin.acquire(ScanRequest((float(x), float(y)), field_A, pixels, dose)).data

    def rest(self, place: FloatArray | None) -> None:
        """Note where the beam rests from now on: shape (2,), Å; None for beside the sheet."""
        with self.lock:
            self._catch_up()
            self._rests = place

    def blanked(self, *, on: bool) -> None:
        """Note whether the beam is blanked from now on."""
        with self.lock:
            self._catch_up()
            self._blanked = on

    def counts(self, place: FloatArray, slices: int) -> float:
        """Park the beam, and give the detector's counts.

        Parameters
        ----------
        place
            Shape (2,), Å.
        slices
            For so many time slices.
        """
        with self.lock:
            if self._blanked:
                self.twin.wait(slices * SLICE_S)
                return 0.0
            here = turned(place, -self._turned_rad) + np.asarray(self.twin.center_xy_A)
            seen = ScanRequest((float(here[0]), float(here[1])), _SEEN_A, 16, 1.0)
            request = BeamRequest(seen, (_SEEN_A / 2, _SEEN_A / 2), slices * SLICE_S)
            return float(np.nansum(self.twin.place_beam(request).counts))

    def _catch_up(self) -> None:
        """Let the time pass that has passed on the wall; a beam that rests acts meanwhile."""
        left = time.perf_counter() - self._start - self.twin.time_s
        if left <= 0:  # a scan runs: its time is counted already
            return
        if self._blanked or self._rests is None:
            self.twin.wait(left)
        elif left >= SLICE_S:
            self.counts(self._rests, int(left / SLICE_S))


def turned(xy: FloatArray, angle_rad: float) -> FloatArray:
    """Turn a place from the axes of a rotated scan to those of an unrotated one.

    Parameters
    ----------
    xy
        Shape (2,), x right and y down.
    angle_rad
        Rotation of the scan.
    """
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    out: FloatArray = np.array([[c, -s], [s, c]]) @ xy
    return out


def limits_of(options: TwinOptions) -> Limits:
    """Limits of the simulated specimen: its sheet, and its beam."""
    return Limits(
        voltage_kV=(options.voltage_kV, options.voltage_kV), most_current_pA=options.current_pA,
        field_of_view_A=(_LEAST_FIELD_A, options.sheet_A), longest_dwell_s=60.0,
        pixel_time_us=(0.01, 1e5),
    )  # fmt: skip
