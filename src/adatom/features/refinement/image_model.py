"""The image as a sum of spots, and its derivatives; the cost is independent of the probe size.

A frame is ``background + sum_i A_i P(r - r_i)``. Points are spread on the pixels with cubic
B-splines and convolved with the probe in Fourier space, where the transfer function of the splines
is divided out. The gradient is the adjoint of these operations, so it is exact for the computed
image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from adatom.core.arrays import FloatArray, Image

# Widths of the three Gaussians of a probe, in units of the core: a geometric series that spans the
# tails of STEM probes.
_WIDTHS = np.array([1.0, 1.8, 3.2])
_CACHED_KERNELS = 3  # the probe, its effective Gaussian, and the square of that
_PAD = 24  # pixels of padding around the frame against wrap-around of the Fourier transform


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A probe of peak one: three concentric Gaussians with the same elliptical shape.

    Parameters
    ----------
    covariance
        Covariance of the core (rows, mixed, columns), shape (3,), pixels².
    tails
        Peaks of the two wider Gaussians (1.8 and 3.2 times the core), shape (2,); the core has the
        rest.

    Examples
    --------
    >>> probe = Probe(np.array([4.0, 0.0, 4.0]), np.array([0.2, 0.0]))
    >>> probe.sigma(), probe.weights.tolist()
    (2.0, [0.8, 0.2, 0.0])
    """

    covariance: FloatArray
    tails: FloatArray

    @property
    def weights(self) -> FloatArray:
        """Peak of each of the three Gaussians, shape (3,); the sum is one."""
        return np.concatenate([[1.0 - self.tails.sum()], self.tails])

    def squared_widths(self) -> FloatArray:
        """Squared widths of the three Gaussians over that of the core, shape (3,)."""
        return _WIDTHS**2

    def matrix(self) -> FloatArray:
        """Covariance of the core, shape (2, 2), pixels²."""
        rr, rc, cc = self.covariance
        return np.array([[rr, rc], [rc, cc]])

    def sigma(self) -> float:
        """Mean width of the core, pixels: fourth root of the determinant of its covariance."""
        return float(np.linalg.det(self.matrix()) ** 0.25)

    def value_at(self, step: FloatArray) -> FloatArray:
        """Height of the probe at vectors (..., 2), row and column, from its centre, pixels."""
        inverse = np.linalg.inv(self.matrix())
        form = -0.5 * np.einsum("...i,ij,...j->...", step, inverse, step)
        parts = zip(self.weights, _WIDTHS**2, strict=True)
        out: FloatArray = sum((w * np.exp(form / s2) for w, s2 in parts if w), np.zeros_like(form))
        return out

    def transfer(self, kr: FloatArray, kc: FloatArray) -> Image:
        """Fourier transform of the probe at frequencies in cycles per pixel, which broadcast."""
        rr, rc, cc = self.covariance
        form = (-2 * np.pi**2 * (rr * kr**2 + 2 * rc * kr * kc + cc * kc**2)).astype(np.float32)
        area = 2 * np.pi * np.sqrt(max(rr * cc - rc**2, 1e-12))
        parts = zip(self.weights, _WIDTHS**2, strict=True)
        out = sum(np.float32(w * area * s2) * np.exp(np.float32(s2) * form) for w, s2 in parts if w)
        return np.asarray(out, dtype=np.float32)

    def transfer_derivatives(self, kr: FloatArray, kc: FloatArray) -> list[Image]:
        """Derivatives of `transfer` by the three elements of the covariance and the two tails."""
        rr, rc, cc = self.covariance
        form = (-2 * np.pi**2 * (rr * kr**2 + 2 * rc * kr * kc + cc * kc**2)).astype(np.float32)
        determinant = max(rr * cc - rc**2, 1e-12)
        area = 2 * np.pi * np.sqrt(determinant)
        parts = [np.float32(area * s2) * np.exp(np.float32(s2) * form) for s2 in _WIDTHS**2]
        weights = self.weights.astype(np.float32)
        whole = sum(w * p for w, p in zip(weights, parts, strict=True))
        wide = sum(
            w * np.float32(s2) * p for w, s2, p in zip(weights, _WIDTHS**2, parts, strict=True)
        )
        by_area = np.array([cc, -2 * rc, rr]) / (2 * determinant)
        squares = (kr**2, 2 * kr * kc, kc**2)
        shape = [
            np.float32(a) * whole - (2 * np.pi**2 * k).astype(np.float32) * wide
            for a, k in zip(by_area, squares, strict=True)
        ]
        return [*shape, parts[1] - parts[0], parts[2] - parts[0]]

    def effective_gaussian(self) -> tuple[float, FloatArray]:
        """Peak and covariance (2, 2), pixels², of the Gaussian with the same Fisher information.

        It has the same ``∫P²`` and ``∫∂P∂P`` as the probe. These integrals determine the errors of
        amplitude and position.
        """
        s2 = _WIDTHS**2
        both = s2[:, None] + s2[None, :]
        overlap = np.outer(self.weights, self.weights) * np.outer(s2, s2) / both
        wider = 0.5 * overlap.sum() / max(float((overlap / both).sum()), 1e-12)
        peak = np.sqrt(max(2 * float(overlap.sum()) / wider, 1e-12))
        return float(peak), self.matrix() * wider

    def with_tails(self, tails: FloatArray) -> Probe:
        """Give the probe with other tails, (2,), whose effective Gaussian is as wide as before.

        Examples
        --------
        >>> probe = Probe(np.array([4.0, 0.0, 4.0]), np.array([0.2, 0.0]))
        >>> bare = probe.with_tails(np.zeros(2))
        >>> round(bare.sigma(), 2), bool(np.allclose(bare.effective_gaussian()[1],
        ...                                           probe.effective_gaussian()[1]))
        (2.35, True)
        """
        other = Probe(self.covariance, tails)
        wide, own = (np.linalg.det(p.effective_gaussian()[1]) for p in (self, other))
        return Probe(self.covariance * np.sqrt(wide / own), tails)

    def tail_area(self) -> float:
        """Integral of the probe minus that of its effective Gaussian, pixels²; may be negative."""
        peak, covariance = self.effective_gaussian()
        whole = float(self.weights @ _WIDTHS**2) * np.sqrt(np.linalg.det(self.matrix()))
        return float(2 * np.pi * (whole - peak * np.sqrt(np.linalg.det(covariance))))


@dataclass(frozen=True, slots=True, eq=False)
class SplineStencil:
    """Pixels and weights with which cubic B-splines interpolate at a set of points.

    Parameters
    ----------
    index
        Indices of the pixels of the padded frame around each point, shape (4, 4, point).
    fraction
        Distance of each point from the second of these pixels, along rows and along columns, each
        of shape (point,), pixels.
    """

    index: NDArray[np.int64]
    fraction: tuple[FloatArray, FloatArray]


class Grid:
    """Pixel grid of one frame: computes images of spots, and derivatives at spots.

    Parameters
    ----------
    shape
        Rows and columns.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._padded = tuple(int(fft.next_fast_len(n + 2 * _PAD, real=True)) for n in shape)
        self.kr = fft.fftfreq(self._padded[0])[:, None]
        self.kc = fft.rfftfreq(self._padded[1])[None, :]
        spline = np.sinc(self.kr) ** 4 * np.sinc(self.kc) ** 4
        self._inverse = (1.0 / spline).astype(np.float32)
        self._kernels: dict[bytes, Image] = {}

    def kernel(self, probe: Probe) -> Image:
        """Fourier transform of a probe, corrected for the splines, for `image` and `correlate`."""
        key = probe.covariance.tobytes() + probe.tails.tobytes()
        if key not in self._kernels:
            while len(self._kernels) >= _CACHED_KERNELS:
                self._kernels.pop(next(iter(self._kernels)))
            self._kernels[key] = self.divide_by_spline(probe.transfer(self.kr, self.kc))
        return self._kernels[key]

    def column_derivative(self, kernel: Image) -> NDArray[np.complex64]:
        """Fourier transform of the derivative of a kernel along columns, for `image`."""
        out: NDArray[np.complex64] = kernel * (2j * np.pi * self.kc).astype(np.complex64)
        return out

    def divide_by_spline(self, transfer: Image) -> Image:
        """Divide the transfer function of a probe by that of the splines."""
        out: Image = transfer * self._inverse
        return out

    def spectrum(self, rc: FloatArray, amplitude: FloatArray) -> NDArray[np.complex64]:
        """Fourier transform of points that are spread with splines.

        Parameters
        ----------
        rc
            Shape (atom, 2), pixels; points farther outside than the padding are moved to its rim.
        amplitude
            Peak height, shape (atom,), intensity.
        """
        stencil = self.stencil(rc)
        rows, cols = (_spline(f, 0) for f in stencil.fraction)
        values = rows[:, None, :] * (cols * amplitude)[None, :, :]
        index, size = stencil.index, self._padded[0] * self._padded[1]
        comb = np.bincount(index.ravel(), weights=values.ravel(), minlength=size)
        out: NDArray[np.complex64] = fft.rfft2(comb.reshape(self._padded).astype(np.float32))
        return out

    def image(
        self, spectrum: NDArray[np.complex64], kernel: Image | NDArray[np.complex64]
    ) -> Image:
        """Convolve the points of a spectrum with a kernel: image, shape (row, col)."""
        whole: Image = fft.irfft2(spectrum * kernel, s=self._padded, overwrite_x=True)
        return whole[_PAD : _PAD + self.shape[0], _PAD : _PAD + self.shape[1]]

    def correlate(self, image: Image, *kernels: Image) -> list[Image]:
        """Spline coefficients of the correlation of an image with kernels, for `interpolate`."""
        padded = np.zeros(self._padded, dtype=np.float32)
        padded[_PAD : _PAD + self.shape[0], _PAD : _PAD + self.shape[1]] = image
        spectrum = fft.rfft2(padded)
        return [fft.irfft2(spectrum * k, s=self._padded, overwrite_x=True) for k in kernels]

    def interpolate(
        self, coefficients: Image, where: FloatArray | SplineStencil, orders: tuple[str, ...]
    ) -> FloatArray:
        """Evaluate a spline image and its derivatives at points.

        Parameters
        ----------
        coefficients
            From `correlate`.
        where
            Points, shape (point, 2), pixels; or their `stencil`.
        orders
            Any of ``""`` (the value), ``"r"``, ``"c"``, ``"rr"``, ``"rc"``, ``"cc"``.

        Returns
        -------
        Shape (order, point).
        """
        stencil = where if isinstance(where, SplineStencil) else self.stencil(where)
        # Single precision, as the coefficients. Points come last, so that sums are vectorised.
        patch = coefficients.ravel()[stencil.index]
        rows: dict[int, Image] = {}
        along_c: dict[int, Image] = {}
        out = np.empty((len(orders), patch.shape[2]))
        for k, order in enumerate(orders):
            dr, dc = order.count("r"), order.count("c")
            if dc not in along_c:
                table = _spline(stencil.fraction[1], dc).astype(np.float32)
                along_c[dc] = np.einsum("ijn,jn->in", patch, table)
            if dr not in rows:
                rows[dr] = _spline(stencil.fraction[0], dr).astype(np.float32)
            out[k] = np.einsum("in,in->n", along_c[dc], rows[dr])
        return out

    def stencil(self, rc: FloatArray) -> SplineStencil:
        """Pixels and weights at points (point, 2) in pixels; serves several images."""
        (r, fr), (c, fc) = (self._split(rc[:, axis], axis) for axis in (0, 1))
        k = np.arange(4)[:, None]
        index = ((r + k) * self._padded[1])[:, None, :] + (c + k)[None, :, :]
        return SplineStencil(index, (fr, fc))

    def _split(self, x: FloatArray, axis: int) -> tuple[NDArray[np.int64], FloatArray]:
        """First of the four pixels under a spline, and the distance from the second, pixels."""
        shifted = np.clip(x + _PAD, 1.0, self._padded[axis] - 3.001)
        base = np.floor(shifted).astype(np.int64)
        return base - 1, shifted - base


def _spline(f: FloatArray, order: int) -> FloatArray:
    """Weights of the four cubic B-splines at each point, or derivatives of `order`, (4, n)."""
    g = 1.0 - f
    f2, g2 = f * f, g * g  # `**` on arrays is slower
    if order == 0:
        inner = ((0.5 * f - 1.0) * f2 + 2 / 3, (0.5 * g - 1.0) * g2 + 2 / 3)
        parts = [f * f2, g * g2]
        return np.stack([parts[1] / 6, *inner, parts[0] / 6])
    if order == 1:
        return np.stack([-g2 / 2, 1.5 * f2 - 2 * f, 2 * g - 1.5 * g2, f2 / 2])
    return np.stack([g, 3 * f - 2, 3 * g - 2, f])
