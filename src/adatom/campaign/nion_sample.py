"""The simulated specimen as the sample of Nion Swift's simulated microscope."""

from __future__ import annotations

from typing import Any

import numpy as np

from adatom.campaign.hosted_twin import SLICE_S, HostedTwin, turned
from adatom.core.arrays import FloatArray

_A_PER_NM = 10.0
_A_PER_M = 1e10
# Å: a scan of a smaller field is a parked beam whose detector is read. The bridge asks for 0.001.
_POINT_A = 0.01


class TwinSample(HostedTwin):
    """Give Nion Swift's simulated scan unit a picture of the specimen; the beam acts on it.

    The middle of the sheet is the middle of the unshifted scan. A scan that is cancelled has its
    whole dose.
    """

    def generate_scan_data(self, instrument: Any, asked: Any) -> Any:
        """Give the pixels of a scan: the interface of Nion Swift's simulated scan unit.

        Parameters
        ----------
        instrument
            Its STEM controller.
        asked
            Its frame parameters.
        """
        shift = instrument.value_manager.actual_offset_m  # stage, beam shift
        middle = _xy(asked.center_nm) * _A_PER_NM - _xy(shift) * _A_PER_M
        field_A, size = asked.fov_size_nm.width * _A_PER_NM, asked.size
        if field_A < _POINT_A:
            return _Dwell(self, middle, asked.pixel_time_us)
        if size.height != size.width:
            raise ValueError(f"square scans alone, not {size}")
        return self.scan(middle, field_A, size.width, asked.pixel_time_us, asked.rotation_rad)

    def parked(self, context: Any, place: Any) -> None:
        """Note where the beam rests; None of Nion Swift is its middle.

        Parameters
        ----------
        context
            Nion Swift's scan context.
        place
            Fractions of it.
        """
        if context.fov_nm is None:
            self.rest(None)
            return
        y, x = (0.5, 0.5) if place is None else (place.y, place.x)
        away = np.array([x - 0.5, y - 0.5]) * context.fov_nm * _A_PER_NM
        self.rest(turned(away, context.rotation_rad) + _xy(context.center_nm) * _A_PER_NM)


class _Dwell:
    """Counts of a parked beam, pixel by pixel, each when it is read and not before."""

    def __init__(self, sample: HostedTwin, place: FloatArray, pixel_time_us: float) -> None:
        self._sample, self._place = sample, place
        self._slices = max(1, round(pixel_time_us / 1e6 / SLICE_S))

    def reshape(self, shape: tuple[int, ...]) -> _Dwell:
        """Give itself: it is read in order."""
        del shape
        return self

    def __getitem__(self, pixels: slice) -> FloatArray:
        count = pixels.stop - pixels.start
        return np.array([self._sample.counts(self._place, self._slices) for _ in range(count)])


def _xy(point: Any) -> FloatArray:
    return np.array([point.x, point.y], dtype=np.float64)
