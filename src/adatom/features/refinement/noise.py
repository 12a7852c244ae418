"""Noise of a frame: its variance against the signal, and hot pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from adatom.core.arrays import FloatArray, Image


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Variance ``constant + gain * signal`` of a pixel, and how far pixels are correlated.

    Parameters
    ----------
    constant
        Intensity².
    gain
        Intensity per detected quantum.
    correlation
        Sum of the noise's autocorrelation over lags: 1 for independent pixels. Smoothed or
        resampled frames have more, and know less than their pixels seem to say.
    least
        Least variance of a pixel, intensity²: the line is not followed below.
    """

    constant: float
    gain: float
    correlation: float
    least: float

    def deviance(self, data: Image, signal: Image) -> float:
        """Sum over pixels whose slope by the signal is ``-2 (data - signal) / variance``.

        The quasi-likelihood of Wedderburn, Biometrika 61, 439 (1974): Poisson's for counts, least
        squares where the variance is constant.
        """
        if self.gain <= 0:
            square = float(np.vdot(data - signal, data - signal))
            return square / max(self.constant, self.least) / self.correlation
        gain, constant, floor = (np.float32(v) for v in (self.gain, self.constant, self.least))
        # In place throughout: to touch new memory takes longer than to compute.
        edge = gain * signal
        edge += constant  # the variance
        below = edge < floor if edge.min() < floor else None
        np.maximum(edge, floor, out=edge)
        # In units of the usual variance, so that single precision is enough.
        value = edge / floor
        np.log(value, out=value)
        value *= data + constant / gain
        edge -= constant
        edge /= gain  # the signal, or where its variance is least
        np.subtract(edge, value, out=value)
        total = 2.0 / self.gain * float(value.sum(dtype=np.float64))
        if below is not None:
            d, mu, e = data[below], signal[below], edge[below]
            total += float(((d - mu) ** 2 - (d - e) ** 2).sum(dtype=np.float64)) / self.least
        return total / self.correlation

    def variance(self, signal: Image) -> Image:
        """Variance of every pixel, same shape as the signal, correlation included."""
        out = np.multiply(signal, np.float32(self.gain), dtype=np.float32)
        out += np.float32(self.constant)
        np.maximum(out, np.float32(self.least), out=out)
        out *= np.float32(self.correlation)
        return out


def estimate_noise(data: Image, model: Image) -> Noise:
    """Fit the noise of a frame to what its model leaves.

    Pixels are sorted by expected signal into groups; the variance of the residual in each group is
    fitted by a line.

    Parameters
    ----------
    data, model
        Shape (row, col), intensity.
    """
    residual = (data - model).astype(np.float64)
    order = np.argsort(model, axis=None)
    sorted_model, sorted_residual = model.ravel()[order], residual.ravel()[order]
    limit = np.percentile(np.abs(residual), 99.9)
    edges = np.linspace(0, len(order), 25).astype(int)[:-1]
    size = np.diff(np.append(edges, len(order)))
    square = np.clip(sorted_residual, -limit, limit) ** 2
    signal = np.add.reduceat(sorted_model.astype(np.float64), edges) / size
    variance = np.add.reduceat(square, edges) / size
    # A variance is known to a share of itself; relative weights also keep misfit, which is largest
    # where the signal is, from passing for noise.
    variance = np.maximum(variance, 1e-6 * max(float(variance.max()), 1e-12))
    weight = variance**-2.0
    center = float(np.average(signal, weights=weight))
    spread = signal - center
    slope = float((weight * spread * variance).sum() / max((weight * spread**2).sum(), 1e-300))
    least, correlation = 0.5 * float(variance.min()), _correlation(residual)
    if slope <= 0:
        return Noise(float(np.mean(variance)), 0.0, correlation, least)
    constant = float(np.average(variance, weights=weight)) - slope * center
    return Noise(constant, slope, correlation, least)


def _correlation(residual: FloatArray, reach: int = 2) -> float:
    """Sum of the residual's autocorrelation up to `reach` pixels; at least one.

    What is still correlated just beyond `reach` is misfit and not noise: it is taken off.
    """
    flat = np.clip(residual, *np.percentile(residual, (0.1, 99.9)))
    spectrum = fft.rfft2((flat - flat.mean()).astype(np.float32))
    lag = fft.irfft2(spectrum.real**2 + spectrum.imag**2, s=flat.shape).astype(np.float64)
    if lag[0, 0] <= 0:
        return 1.0
    lag = lag / lag[0, 0]
    k = np.arange(-reach - 2, reach + 3)
    near = lag[np.ix_(k, k)]
    distance = np.maximum(np.abs(k)[:, None], np.abs(k)[None, :])
    misfit = max(float(near[distance == reach + 2].mean()), 0.0)
    inner = (distance <= reach) & (distance > 0)
    return float(np.clip(1.0 + (near[inner] - misfit).sum(), 1.0, 30.0))


def without_hot_pixels(data: Image) -> Image:
    """Replace pixels far above their neighbours' median by it.

    Far is what no spot could do: a spot is wider than one pixel, noise is not twelve sigma.
    """
    around = ndimage.uniform_filter(data, 3, mode="nearest")
    difference = (data - around) * np.float32(9 / 8)  # from the mean of the eight neighbours
    spread = float(
        np.sqrt(
            np.mean(np.clip(difference, *np.percentile(difference[::3, ::3], (0.1, 99.9))) ** 2)
        )
    )
    rows, cols = np.nonzero(np.abs(difference) > 9 * max(spread, 1e-30))
    if not len(rows):
        return data
    out = data.copy()
    padded = np.pad(data, 1, mode="edge")
    window = np.stack([padded[rows + i, cols + j] for i in range(3) for j in range(3)])
    median = np.median(window, axis=0)
    hot = np.abs(window[4] - median) > 12 * spread
    out[rows[hot], cols[hot]] = median[hot]
    return out
