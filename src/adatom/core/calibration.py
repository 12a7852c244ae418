"""Conversion between pixels and Å, and the affine correction of scan distortion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adatom.core.arrays import FloatArray
from adatom.errors import BadInput


@dataclass(frozen=True, slots=True)
class Calibration:
    """Square pixels of a known size; the origin is the centre of pixel (0, 0).

    Parameters
    ----------
    pixel_size_A
        Edge of one pixel in Å.

    Raises
    ------
    BadInput
        If the pixel size is not a finite positive number.

    Examples
    --------
    >>> import numpy as np
    >>> Calibration(0.1).xy(np.array([[0.0, 10.0]]))  # row 0, column 10
    array([[1., 0.]])
    """

    pixel_size_A: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.pixel_size_A) and self.pixel_size_A > 0):
            raise BadInput(
                "pixel size",
                expected="a finite positive number of Å",
                got=repr(self.pixel_size_A),
                todo="Give `pixel_size_A` in Å.",
            )

    def xy(self, rc: FloatArray) -> FloatArray:
        """Positions (N, 2) as x, y in Å from row, column in pixels."""
        return np.asarray(rc, dtype=np.float64)[..., ::-1] * self.pixel_size_A

    def rc(self, xy: FloatArray) -> FloatArray:
        """Row, column in pixels from positions (N, 2) x, y in Å."""
        return np.asarray(xy, dtype=np.float64)[..., ::-1] / self.pixel_size_A

    def pixels(self, length_A: float) -> float:
        """Length in pixels of a length in Å."""
        return length_A / self.pixel_size_A

    def angstrom(self, length_px: float) -> float:
        """Length in Å of a length in pixels."""
        return length_px * self.pixel_size_A

    def extent_xy(self, shape: tuple[int, int]) -> tuple[float, float]:
        """Position x, y in Å of the last pixel's centre in a (row, col) image of this shape."""
        return (shape[1] - 1) * self.pixel_size_A, (shape[0] - 1) * self.pixel_size_A


@dataclass(frozen=True, slots=True)
class Affine:
    """Linear map from measured to undistorted positions: ``xy_true = xy @ matrix.T``.

    It corrects the stretch and shear of the scan, a few per cent in most microscopes.

    Parameters
    ----------
    matrix
        ``((xx, xy), (yx, yy))``, dimensionless.
    """

    matrix: tuple[tuple[float, float], tuple[float, float]]

    @classmethod
    def from_array(cls, matrix: FloatArray) -> Affine:
        """Build from a (2, 2) array."""
        m = np.asarray(matrix, dtype=np.float64)
        return cls(((float(m[0, 0]), float(m[0, 1])), (float(m[1, 0]), float(m[1, 1]))))

    @classmethod
    def identity(cls) -> Affine:
        """Build the map that changes nothing."""
        return cls(((1.0, 0.0), (0.0, 1.0)))

    def array(self) -> FloatArray:
        """Give the map as a (2, 2) array."""
        return np.array(self.matrix, dtype=np.float64)

    def apply(self, xy: FloatArray) -> FloatArray:
        """Undistorted positions (N, 2) in Å."""
        return np.asarray(xy, dtype=np.float64) @ self.array().T

    def invert(self, xy: FloatArray) -> FloatArray:
        """Measured positions (N, 2) in Å of undistorted ones."""
        return np.asarray(xy, dtype=np.float64) @ np.linalg.inv(self.array()).T

    def strain(self) -> tuple[float, float]:
        """Principal stretches minus one, largest first, dimensionless."""
        s = np.linalg.svd(self.array(), compute_uv=False)
        return float(s[0] - 1.0), float(s[1] - 1.0)
