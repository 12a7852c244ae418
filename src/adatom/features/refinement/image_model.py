"""The image as a sum of spots, and its derivatives, at a cost that does not know the probe size.

A frame is ``background + sum_i A_i P(r - r_i)``. Spots are spread on the pixels with cubic
B-splines and convolved with the probe in Fourier space, where the splines' own transfer is divided
out; the gradient is the adjoint of that, so that it is exact for the image as it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from adatom.core.arrays import FloatArray, Image

_WIDTHS = np.array([1.0, 1.8, 3.2])  # of the probe's parts, in units of its core
_KEPT = 3  # spectra of probes: the probe, its Gaussian, and that squared
_PAD = 24  # pixels around the frame, against wrap-around


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A peak-normalised probe: concentric Gaussians of one elliptical shape.

    Parameters
    ----------
    covariance
        Of the core: along rows, between rows and columns, along columns; shape (3,), pixels².
    tails
        Peaks of the wider parts (1.8 and 3.2 times the core), shape (2,); the core has the rest.
    """

    covariance: FloatArray
    tails: FloatArray

    @property
    def weights(self) -> FloatArray:
        """Peak of every part, shape (3,); they sum to one."""
        return np.concatenate([[1.0 - self.tails.sum()], self.tails])

    def matrix(self) -> FloatArray:
        """Covariance of the core, shape (2, 2), pixels²."""
        rr, rc, cc = self.covariance
        return np.array([[rr, rc], [rc, cc]])

    def sigma(self) -> float:
        """Mean width of the core, pixels: fourth root of its covariance's determinant."""
        return float(np.linalg.det(self.matrix()) ** 0.25)

    def transfer(self, kr: FloatArray, kc: FloatArray) -> Image:
        """Fourier transform of the probe at frequencies that broadcast, cycles per pixel."""
        rr, rc, cc = self.covariance
        form = (-2 * np.pi**2 * (rr * kr**2 + 2 * rc * kr * kc + cc * kc**2)).astype(np.float32)
        area = 2 * np.pi * np.sqrt(max(rr * cc - rc**2, 1e-12))
        parts = zip(self.weights, _WIDTHS**2, strict=True)
        out = sum(np.float32(w * area * s2) * np.exp(np.float32(s2) * form) for w, s2 in parts if w)
        return np.asarray(out, dtype=np.float32)

    def slopes(self, kr: FloatArray, kc: FloatArray) -> list[Image]:
        """Derivatives of `transfer` by each of the covariance and by each tail."""
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

    def effective(self) -> tuple[float, FloatArray]:
        """Give the Gaussian that carries the same information: its peak and covariance (2, 2).

        Same ``∫P²`` and ``∫∂P∂P`` as the probe, which decide amplitude and position errors.
        """
        s2 = _WIDTHS**2
        both = s2[:, None] + s2[None, :]
        overlap = np.outer(self.weights, self.weights) * np.outer(s2, s2) / both
        wider = 0.5 * overlap.sum() / max(float((overlap / both).sum()), 1e-12)
        peak = np.sqrt(max(2 * float(overlap.sum()) / wider, 1e-12))
        return float(peak), self.matrix() * wider

    def tail_area(self) -> float:
        """Area of the probe beyond its effective Gaussian, pixels²; may be negative."""
        peak, covariance = self.effective()
        whole = float(self.weights @ _WIDTHS**2) * np.sqrt(np.linalg.det(self.matrix()))
        return float(2 * np.pi * (whole - peak * np.sqrt(np.linalg.det(covariance))))


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Positions on a grid, as its splines see them.

    Parameters
    ----------
    index
        The padded frame's pixels around each, shape (4, 4, point).
    fraction
        How far each lies beyond the second of them along rows and along columns, shape (point,).
    """

    index: NDArray[np.int64]
    fraction: tuple[FloatArray, FloatArray]


class Grid:
    """Spots on one frame's pixels: images from spots, and gradients of images by spots.

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
        """Spectrum to give to `image` and `coefficients`."""
        key = probe.covariance.tobytes() + probe.tails.tobytes()
        if key not in self._kernels:
            while len(self._kernels) >= _KEPT:
                self._kernels.pop(next(iter(self._kernels)))
            self._kernels[key] = self.spline_inverse(probe.transfer(self.kr, self.kc))
        return self._kernels[key]

    def along_columns(self, kernel: Image) -> NDArray[np.complex64]:
        """Spectrum of a kernel's derivative along columns, for `image`."""
        out: NDArray[np.complex64] = kernel * (2j * np.pi * self.kc).astype(np.complex64)
        return out

    def spline_inverse(self, transfer: Image) -> Image:
        """Divide the splines' own transfer out of a probe's."""
        out: Image = transfer * self._inverse
        return out

    def spectrum(self, rc: FloatArray, amplitude: FloatArray) -> NDArray[np.complex64]:
        """Spectrum of spots that are points, spread with splines.

        Parameters
        ----------
        rc
            Shape (atom, 2), pixels; spots farther than the padding outside are left out.
        amplitude
            Shape (atom,).
        """
        places = self.places(rc)
        rows, cols = (_spline(f, 0) for f in places.fraction)
        values = rows[:, None, :] * (cols * amplitude)[None, :, :]
        index, size = places.index, self._padded[0] * self._padded[1]
        comb = np.bincount(index.ravel(), weights=values.ravel(), minlength=size)
        out: NDArray[np.complex64] = fft.rfft2(comb.reshape(self._padded).astype(np.float32))
        return out

    def image(
        self, spectrum: NDArray[np.complex64], kernel: Image | NDArray[np.complex64]
    ) -> Image:
        """Image (row, col) of spots seen through a kernel."""
        whole: Image = fft.irfft2(spectrum * kernel, s=self._padded, overwrite_x=True)
        return whole[_PAD : _PAD + self.shape[0], _PAD : _PAD + self.shape[1]]

    def coefficients(self, image: Image, *kernels: Image) -> list[Image]:
        """Spline coefficients of an image's correlation with kernels, for `at`."""
        padded = np.zeros(self._padded, dtype=np.float32)
        padded[_PAD : _PAD + self.shape[0], _PAD : _PAD + self.shape[1]] = image
        spectrum = fft.rfft2(padded)
        return [fft.irfft2(spectrum * k, s=self._padded, overwrite_x=True) for k in kernels]

    def at(
        self, coefficients: Image, where: FloatArray | Places, orders: tuple[str, ...]
    ) -> FloatArray:
        """Value and derivatives of a spline image at positions.

        Parameters
        ----------
        coefficients
            From `coefficients`.
        where
            Shape (point, 2), pixels; or `places` of them.
        orders
            Of ``""`` (the value), ``"r"``, ``"c"``, ``"rr"``, ``"rc"``, ``"cc"``.

        Returns
        -------
        Shape (order, point).
        """
        places = where if isinstance(where, Places) else self.places(where)
        # As precise as the coefficients are. Points come last: sums over them run in vectors.
        patch = coefficients.ravel()[places.index]
        rows: dict[int, Image] = {}
        along_c: dict[int, Image] = {}
        out = np.empty((len(orders), patch.shape[2]))
        for k, order in enumerate(orders):
            dr, dc = order.count("r"), order.count("c")
            if dc not in along_c:
                table = _spline(places.fraction[1], dc).astype(np.float32)
                along_c[dc] = np.einsum("ijn,jn->in", patch, table)
            if dr not in rows:
                rows[dr] = _spline(places.fraction[0], dr).astype(np.float32)
            out[k] = np.einsum("in,in->n", along_c[dc], rows[dr])
        return out

    def places(self, rc: FloatArray) -> Places:
        """Find the pixels around positions (point, 2), to read several images there."""
        (r, fr), (c, fc) = (self._split(rc[:, axis], axis) for axis in (0, 1))
        k = np.arange(4)[:, None]
        index = ((r + k) * self._padded[1])[:, None, :] + (c + k)[None, :, :]
        return Places(index, (fr, fc))

    def _split(self, x: FloatArray, axis: int) -> tuple[NDArray[np.int64], FloatArray]:
        """First of the four pixels that a spline reaches, and the fraction beyond the second."""
        shifted = np.clip(x + _PAD, 1.0, self._padded[axis] - 3.001)
        base = np.floor(shifted).astype(np.int64)
        return base - 1, shifted - base


def _spline(f: FloatArray, order: int) -> FloatArray:
    """Weights of the four cubic B-splines around a point, or their derivatives, shape (4, n)."""
    g = 1.0 - f
    f2, g2 = f * f, g * g  # powers of arrays are slow
    if order == 0:
        inner = ((0.5 * f - 1.0) * f2 + 2 / 3, (0.5 * g - 1.0) * g2 + 2 / 3)
        parts = [f * f2, g * g2]
        return np.stack([parts[1] / 6, *inner, parts[0] / 6])
    if order == 1:
        return np.stack([-g2 / 2, 1.5 * f2 - 2 * f, 2 * g - 1.5 * g2, f2 / 2])
    return np.stack([g, 3 * f - 2, 3 * g - 2, f])
