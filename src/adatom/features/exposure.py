"""Counts and dose of every pixel of a field that was scanned in parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.core import Calibration
from adatom.core.arrays import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """A frame of a part of a field.

    Parameters
    ----------
    data
        Counts, shape (row, col).
    dose_per_A2
        Electrons per Å².
    corner_xy_A
        Place of its first pixel in the field, x and y, Å.
    """

    data: FloatArray
    dose_per_A2: float
    corner_xy_A: tuple[float, float]


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

    def plus(self, *visits: Visit) -> Exposure:
        """Add the counts of frames with the same pixels, to the nearest whole pixel.

        Parameters
        ----------
        visits
            The frames; parts outside the field are left out.

        Examples
        --------
        >>> field = Exposure.none((4, 4), Calibration(0.5))
        >>> more = field.plus(Visit(np.ones((2, 2)), 1e4, (1.1, 0.4)))
        >>> more.counts.astype(int).tolist()
        [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
        >>> float(more.dose.max()), float(field.dose.max())
        (10000.0, 0.0)
        """
        counts, dose = self.counts.copy(), self.dose.copy()
        for visit in visits:
            px, size = self.calibration.pixel_size_A, visit.data.shape
            col, row = np.round(np.asarray(visit.corner_xy_A) / px).astype(int)
            top, left = max(row, 0), max(col, 0)
            bottom, right = min(row + size[0], counts.shape[0]), min(col + size[1], counts.shape[1])
            if top < bottom and left < right:
                there = np.s_[top:bottom, left:right]
                counts[there] += visit.data[top - row : bottom - row, left - col : right - col]
                dose[there] += visit.dose_per_A2
        return Exposure(counts, dose, self.calibration)
