"""Smooth background of a frame: quadratic B-splines on a coarse grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from adatom.core import Calibration
from adatom.core.arrays import FloatArray, Image
from adatom.features.refinement.fisher import Information

# Spacing of the B-spline knots, Å: about twice the lattice constant of graphene (2.46 Å), so that
# the background cannot follow single atoms.
_KNOT_SPACING_A = 4.5


class Background:
    """Quadratic B-splines on a coarse grid; the background varies more slowly than the lattice.

    Parameters
    ----------
    shape
        Rows and columns of the frame.
    calibration
        Gives the pixel size of the frame.
    """

    def __init__(self, shape: tuple[int, int], calibration: Calibration) -> None:
        self.shape = shape
        self._intervals = [
            max(round(n * calibration.pixel_size_A / _KNOT_SPACING_A), 1) for n in shape
        ]
        self._dense = []
        for axis, n in enumerate(shape):
            first, value, _ = self._along(np.arange(n, dtype=np.float64), axis)
            dense = np.zeros((n, self._intervals[axis] + 2), dtype=np.float32)
            for k in range(3):
                dense[np.arange(n), first + k] = value[:, k]
            self._dense.append(dense)
        self._knots = (self._intervals[0] + 2, self._intervals[1] + 2)
        rows, cols = (n / k for n, k in zip(shape, self._intervals, strict=True))
        self.spline_area = rows * cols  # integral of one spline, pixels
        steps = [_squared_differences(n) for n in self._knots]
        eyes = [sparse.identity(n) for n in self._knots]
        # Quadratic form of the smoothness prior: the sum of squared differences of neighbouring
        # coefficients. It determines knots under which few pixels lie.
        self.roughness = sparse.kron(steps[0], eyes[1]) + sparse.kron(eyes[0], steps[1])

    @property
    def count(self) -> int:
        """Number of knots."""
        return self._knots[0] * self._knots[1]

    def image(self, coefficients: FloatArray) -> Image:
        """Background, shape (row, col), of B-spline coefficients, shape (knot,)."""
        rows, cols = self._dense
        grid: Image = coefficients.astype(np.float32).reshape(self._knots)
        return np.asarray((rows @ grid) @ cols.T, dtype=np.float32)

    def gradient(self, image: Image) -> FloatArray:
        """Sum of an image times the spline of each knot, shape (knot,)."""
        rows, cols = self._dense
        out: FloatArray = (rows.T @ image @ cols).ravel().astype(np.float64)
        return out

    def splines_at(self, rc: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """Give the nine knots around each position, and the values of their splines there.

        Parameters
        ----------
        rc
            Shape (point, 2), pixels.

        Returns
        -------
        Index of each knot, shape (point, 9); and the value, slope along rows and slope along
        columns of its spline, shape (3, point, 9).
        """
        (r, vr, sr), (c, vc, sc) = (self._along(rc[:, axis], axis) for axis in (0, 1))
        k = np.arange(3)
        knot = (r[:, None] + k)[:, :, None] * self._knots[1] + (c[:, None] + k)[:, None, :]
        pairs = ((vr, vc), (sr, vc), (vr, sc))
        splines = np.stack([a[:, :, None] * b[:, None, :] for a, b in pairs])
        return knot.reshape(-1, 9), splines.reshape(3, -1, 9)

    def value_at(self, coefficients: FloatArray, rc: FloatArray) -> FloatArray:
        """Background at positions (point, 2) in pixels, shape (point,)."""
        knot, splines = self.splines_at(rc)
        out: FloatArray = (coefficients[knot] * splines[0]).sum(axis=1)
        return out

    def cross_information(
        self, info: Information, rc: FloatArray, amplitude: FloatArray
    ) -> sparse.csr_matrix:
        """Fisher information between (row, column, amplitude) of the atoms and the coefficients.

        Each spline is replaced by its tangent plane under a spot; `info` gives the moments of the
        spot.

        Returns
        -------
        Shape (3 atom, knot).
        """
        knot, (h, hr, hc) = self.splines_at(rc)
        value, r, c, rr, mixed, cc = info.background_moments[:, :, None]
        ar, ac = info.spot_covariance @ np.stack([hr.ravel(), hc.ravel()])  # covariance times slope
        ar, ac = ar.reshape(h.shape), ac.reshape(h.shape)
        a = amplitude[:, None]
        rows = np.stack(
            [
                a * (hr * value + h * r + rr * ar + mixed * ac),
                a * (hc * value + h * c + mixed * ar + cc * ac),
                h * value + ar * r + ac * c,
            ],
            axis=1,
        )
        n = len(rc)
        columns = np.broadcast_to(knot[:, None, :], rows.shape)
        return sparse.csr_matrix(
            (rows.ravel(), columns.ravel(), 9 * np.arange(3 * n + 1)), shape=(3 * n, self.count)
        )

    def information(self, weight: Image) -> sparse.csr_matrix:
        """Fisher information of the coefficients, shape (knot, knot); `weight` is 1/variance."""
        rows, cols = (_products(d) for d in self._dense)
        kr, kc = self._knots
        sums = (rows @ weight @ cols.T).astype(np.float64).reshape(5, kr, 5, kc)
        i, r, j, c = np.indices(sums.shape)
        r2, c2 = r + i - 2, c + j - 2
        real = (r2 >= 0) & (r2 < kr) & (c2 >= 0) & (c2 < kc)
        return sparse.csr_matrix(
            (sums[real], ((r * kc + c)[real], (r2 * kc + c2)[real])), shape=(self.count, self.count)
        )

    def _along(self, x: FloatArray, axis: int) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """First of three knots along an axis, shape (n,); values and slopes, both (n, 3)."""
        scale = self._intervals[axis] / max(self.shape[axis] - 1, 1)
        at = np.clip(x * scale, -0.5, self._intervals[axis] + 0.5)
        first = np.clip(np.floor(at).astype(np.int64), 0, self._intervals[axis] - 1)
        f = at - first
        value = np.stack([(1 - f) ** 2 / 2, 0.5 + f * (1 - f), f**2 / 2], axis=1)
        return first, value, scale * np.stack([f - 1, 1 - 2 * f, f], axis=1)


def _squared_differences(n: int) -> sparse.csr_matrix:
    """Matrix of the sum of squared differences of `n` coefficients in a row."""
    difference = sparse.diags([-np.ones(n), np.ones(n - 1)], [0, 1], shape=(n - 1, n))
    return (difference.T @ difference).tocsr()


def _products(splines: Image) -> Image:
    """Products of each spline with its neighbours from -2 to +2, shape (5 knot, pixel)."""
    knots = splines.shape[1]
    padded = np.pad(splines, ((0, 0), (2, 2)))
    return np.concatenate([(splines * padded[:, k : k + knots]).T for k in range(5)])
