"""Pixels around positions, of a place whose pixels are a list."""

from __future__ import annotations

import numpy as np

from adatom.core.arrays import FloatArray, Image, IntArray


class Surroundings:
    """Which of some pixels lie in a square around a position.

    Parameters
    ----------
    rc
        The pixels, shape (pixel, 2), whole numbers.
    reach
        Half the edge of the square, pixels.
    """

    def __init__(self, rc: FloatArray, reach: float) -> None:
        half = int(np.ceil(reach)) + 1
        whole = np.rint(rc).astype(np.int64)
        # A grid with a rim so wide that no square around a position near a pixel leaves it.
        self._low = whole.min(axis=0) - 2 * half
        shape = whole.max(axis=0) + 2 * half + 1 - self._low
        number = np.full(shape, len(rc), dtype=np.int64)
        number[tuple((whole - self._low).T)] = np.arange(len(rc))
        self._number, self._none = number.ravel(), len(rc)
        self._half, self._reach, self._shape = half, reach, shape
        along = np.arange(-half, half + 1)
        rows, cols = np.meshgrid(along, along, indexing="ij")
        self._steps = np.stack([rows.ravel(), cols.ravel()]).astype(np.float32)
        self._offset = (rows * shape[1] + cols).ravel()

    def of(self, rc: FloatArray) -> tuple[IntArray, IntArray, Image]:
        """Give the pixels around positions.

        Parameters
        ----------
        rc
            Positions, shape (atom, 2), pixels.

        Returns
        -------
        Numbers of the positions near to a pixel, shape (near,); numbers of the pixels around each,
        shape (near, place), the count of pixels where there is none; and vectors from the position
        to them, shape (2, near, place).
        """
        own = np.rint(rc).astype(np.int64)
        place = own - self._low
        inside = (place >= self._half) & (place < self._shape - self._half)
        near = np.flatnonzero(inside.all(axis=1))
        first = place[near, 0] * self._shape[1] + place[near, 1]
        pixel = self._number[first[:, None] + self._offset]
        away = (own[near] - rc[near]).T.astype(np.float32)
        step = self._steps[:, None, :] + away[:, :, None]
        pixel[(np.abs(step) > self._reach).any(axis=0)] = self._none
        return near, pixel, step
