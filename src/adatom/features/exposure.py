"""Counts and dose of every pixel of a field that was scanned in parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.core import Calibration
from adatom.core.arrays import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """What a field has been given, and what it gave.

    Parameters
    ----------
    counts
        Counts of all visits, shape (row, col).
    dose
        Electrons per Å² of all visits, shape (row, col).
    calibration
        Of the pixels; (0, 0) is the centre of the first one.
    """

    counts: FloatArray
    dose: FloatArray
    calibration: Calibration

    @classmethod
    def none(cls, shape: tuple[int, int], calibration: Calibration) -> Exposure:
        """Make a field that was not scanned yet."""
        return cls(np.zeros(shape), np.zeros(shape), calibration)

    def plus(self, data: FloatArray, dose_per_A2: float, corner_xy_A: FloatArray) -> Exposure:
        """Add the counts of a frame with the same pixels, to the nearest whole pixel.

        Parameters
        ----------
        data
            Counts, shape (row, col).
        dose_per_A2
            Electrons per Å² of this frame.
        corner_xy_A
            Place of its first pixel in the field, shape (2,), Å; parts outside are left out.

        Examples
        --------
        >>> field = Exposure.none((4, 4), Calibration(0.5))
        >>> more = field.plus(np.ones((2, 2)), 1e4, np.array([1.1, 0.4]))
        >>> more.counts.astype(int).tolist()
        [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
        >>> float(more.dose.max()), float(field.dose.max())
        (10000.0, 0.0)
        """
        col, row = np.round(np.asarray(corner_xy_A) / self.calibration.pixel_size_A).astype(int)
        rows, cols = self.counts.shape
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + data.shape[0], rows), min(col + data.shape[1], cols)
        counts, dose = self.counts.copy(), self.dose.copy()
        if top < bottom and left < right:
            there = np.s_[top:bottom, left:right]
            counts[there] += data[top - row : bottom - row, left - col : right - col]
            dose[there] += dose_per_A2
        return Exposure(counts, dose, self.calibration)
