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

FloatArray = NDArray[np.float64]
Image = NDArray[np.float32]
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
        index, weight = self._stencil(rc)
        values = weight[0][:, :, None] * (weight[1] * amplitude[:, None])[:, None, :]
        size = self._padded[0] * self._padded[1]
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

    def at(self, coefficients: Image, rc: FloatArray, orders: tuple[str, ...]) -> FloatArray:
        """Value and derivatives of a spline image at positions.

        Parameters
        ----------
        coefficients
            From `coefficients`.
        rc
            Shape (point, 2), pixels.
        orders
            Of ``""`` (the value), ``"r"``, ``"c"``, ``"rr"``, ``"rc"``, ``"cc"``.

        Returns
        -------
        Shape (order, point).
        """
        index, _ = self._stencil(rc)
        patch = coefficients.ravel()[index].astype(np.float64)
        fraction = [self._split(rc[:, axis], axis)[1] for axis in (0, 1)]
        tables = [[_spline(f, order) for order in range(3)] for f in fraction]
        out = np.empty((len(orders), len(rc)))
        along_c: dict[int, FloatArray] = {}
        for k, order in enumerate(orders):
            dr, dc = order.count("r"), order.count("c")
            if dc not in along_c:
                along_c[dc] = np.einsum("nij,nj->ni", patch, tables[1][dc])
            out[k] = np.einsum("ni,ni->n", along_c[dc], tables[0][dr])
        return out

    def _split(self, x: FloatArray, axis: int) -> tuple[NDArray[np.int64], FloatArray]:
        """First of the four pixels that a spline reaches, and the fraction beyond the second."""
        shifted = np.clip(x + _PAD, 1.0, self._padded[axis] - 3.001)
        base = np.floor(shifted).astype(np.int64)
        return base - 1, shifted - base

    def _stencil(self, rc: FloatArray) -> tuple[NDArray[np.int64], tuple[FloatArray, FloatArray]]:
        r, fr = self._split(rc[:, 0], 0)
        c, fc = self._split(rc[:, 1], 1)
        k = np.arange(4)
        index = (r[:, None] + k)[:, :, None] * self._padded[1] + (c[:, None] + k)[:, None, :]
        return index, (_spline(fr, 0), _spline(fc, 0))


def _spline(f: FloatArray, order: int) -> FloatArray:
    """Weights of the four cubic B-splines around a point, or their derivatives, shape (n, 4)."""
    g = 1.0 - f
    if order == 0:
        parts = [g**3 / 6, (3 * f**3 - 6 * f**2 + 4) / 6, (3 * g**3 - 6 * g**2 + 4) / 6, f**3 / 6]
    elif order == 1:
        parts = [-(g**2) / 2, (3 * f**2 - 4 * f) / 2, -(3 * g**2 - 4 * g) / 2, f**2 / 2]
    else:
        parts = [g, 3 * f - 2, 3 * g - 2, f]
    return np.stack(parts, axis=1)
