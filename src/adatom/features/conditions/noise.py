"""Noise of original pixels: dependence on the signal, and smoothing; with uncertainties.

`refinement.noise.Noise` is the simpler model without uncertainties for the fit of one frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adatom.core import Estimate
from adatom.core.arrays import FloatArray, Image

_UNSMOOTHED = Estimate(0.0, 0.2)  # width of the smoothing if none is detected, pixels
_GROUPS = 24  # number of groups of pixels of similar signal
_OUTLIER = 64  # limit of squared residuals in units of their mean: larger ones are not noise
_MISFIT_LAG = 5  # lag at which correlation comes from model errors alone, pixels
_STEEP = 0.9  # correlation at lag one of the part of residuals that fitted positions removed


@dataclass(slots=True, eq=False)
class FrameNoise:
    """Variance ``constant + gain * signal`` of an original pixel, and the smoothing of the frame.

    Parameters
    ----------
    constant
        Intensity².
    gain
        Intensity.
    covariance
        Covariance of constant and gain, shape (2, 2).
    blur
        Width of the Gaussian with which white noise was smoothed, original pixels.
    least
        Lower limit of the variance of a pixel, intensity².
    """

    constant: float
    gain: float
    covariance: FloatArray = field(default_factory=lambda: np.zeros((2, 2)))
    blur: Estimate = _UNSMOOTHED
    least: float = 1e-30

    def variance(self, signal: Image) -> Image:
        """Variance of every pixel, same shape as the signal, intensity²."""
        line = self.constant + self.gain * signal
        return np.asarray(np.maximum(line, self.least), dtype=np.float32)

    @property
    def correlation(self) -> float:
        """Sum of the autocorrelation of the noise over all lags."""
        return smoothed_autocorrelation(self.blur.value)[1]

    @property
    def poisson(self) -> bool:
        """Whether the gain exceeds three standard deviations."""
        return self.gain > 3 * float(np.sqrt(self.covariance[1, 1])) > 0

    def counting(self, data: Image) -> bool:
        """Whether the intensities of a frame are counts: gain one and no offset."""
        gain, sd = self.gain * self.correlation, self.correlation * self.covariance[1, 1] ** 0.5
        return self.poisson and abs(gain - 1) < max(4 * sd, 0.05) and float(data.min()) > -6.0


def fit_noise(signal: Image, square: Image, grow: float) -> FrameNoise:
    """Fit ``constant + gain * signal`` to squared residuals, with the covariance.

    Parameters
    ----------
    signal, square
        Expected intensity and squared residual, shape (pixel,).
    grow
        Factor by which the fit of the model reduced the squared residuals.
    """
    order = np.argsort(signal)
    limit = _OUTLIER * float(square.mean())
    squares = np.minimum(square[order].astype(np.float64), limit) * grow
    edges = np.linspace(0, len(order), _GROUPS + 1).astype(int)
    groups = [slice(a, b) for a, b in pairwise(edges)]
    x = np.array([signal[order[g]].mean(dtype=np.float64) for g in groups])
    y = np.array([squares[g].mean() for g in groups])
    scatter = np.array([squares[g].var() for g in groups]) / np.maximum(y, 1e-300) ** 2
    least, centre = max(0.3 * float(y.min()), 1e-6 * float(y.max()), 1e-30), float(x.mean())
    design = np.stack([np.ones_like(x), x - centre], axis=1)
    fit = y
    for _ in range(5):
        weight = np.diff(edges) / np.maximum(scatter * fit**2, 1e-300)
        covariance = np.linalg.inv((design.T * weight) @ design)
        middle, gain = covariance @ (design.T @ (weight * y))
        fit = np.maximum(middle + gain * (x - centre), least)
    back = np.array([[1.0, -centre], [0.0, 1.0]])
    covariance = back @ covariance @ back.T
    if gain <= 0:
        return FrameNoise(float(middle), 0.0, covariance, least=least)
    return FrameNoise(float(middle - gain * centre), float(gain), covariance, least=least)


def autocorrelation(residual: Image, mask: NDArray[np.bool_], lost: float) -> tuple[float, float]:
    """Autocorrelation of residuals at lag one along rows and columns, without model errors.

    Parameters
    ----------
    residual
        Residuals in standard deviations, shape (row, col).
    mask
        Pixels that are used, same shape.
    lost
        Share of the variance that fitted positions removed; nearly all of it is common to
        neighbouring pixels.
    """
    r = np.where(mask, np.clip(residual, -8, 8), 0.0).astype(np.float64)
    r -= r.sum() / mask.sum() * mask
    zero = max(float((r**2).sum() / mask.sum()), 1e-30)

    def at(k: int, r: FloatArray, mask: NDArray[np.bool_]) -> float:
        return float((r[k:] * r[:-k]).sum() / (mask[k:] & mask[:-k]).sum()) / zero

    down, right = (
        at(1, a, m) - max(at(_MISFIT_LAG, a, m), 0.0) for a, m in ((r, mask), (r.T, mask.T))
    )
    left = 1 - min(lost, 0.5)
    return down * left + _STEEP * lost, right * left + _STEEP * lost


def smoothed_autocorrelation(blur: float) -> tuple[float, float]:
    """Autocorrelation at lag one of white noise smoothed by a Gaussian, and the sum over lags.

    Examples
    --------
    >>> smoothed_autocorrelation(0.0)
    (0.0, 1.0)
    """
    impulse = np.zeros(65)
    impulse[32] = 1.0
    kernel = ndimage.gaussian_filter1d(impulse, blur) if blur > 0 else impulse
    power = float(kernel @ kernel)
    return float(kernel[1:] @ kernel[:-1]) / power, power**-2


def summed_correlation(blur: Estimate) -> Estimate:
    """Sum over lags of the autocorrelation after smoothing, with its standard deviation."""
    low, high = (smoothed_autocorrelation(max(blur.value + s * blur.sd, 0.0))[1] for s in (-1, 1))
    return Estimate(smoothed_autocorrelation(blur.value)[1], (high - low) / 2)


def smoothing_matrix(lines: int, blur: float) -> FloatArray:
    """Matrix of the smoothing of scan lines, shape (line, line)."""
    eye = np.eye(lines)
    out: FloatArray = ndimage.gaussian_filter1d(eye, blur, axis=0) if blur > 0 else eye
    return out


# Table that inverts `smoothed_autocorrelation`: widths in pixels, and autocorrelations at lag one.
_BLURS = np.linspace(0.2, 3.0, 141)
_AT_ONE = np.array([smoothed_autocorrelation(float(s))[0] for s in _BLURS])


def blur_from_autocorrelation(near: float, sd: float) -> Estimate:
    """Width of the Gaussian that gives this autocorrelation at lag one, pixels."""
    if near < max(3 * sd, 0.02):
        return _UNSMOOTHED
    low, value, high = np.interp([near - sd, near, near + sd], _AT_ONE, _BLURS)
    return Estimate(float(value), float(max((high - low) / 2, 0.01)))
