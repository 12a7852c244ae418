"""Noise of a frame: variance as a function of the signal, correlation, and hot pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from adatom.core.arrays import BoolArray, FloatArray, Image

_LEAST_PIXELS = 400  # fewer pixels do not show how the noise depends on the signal


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Variance ``constant + gain * signal`` of a pixel, and the correlation of pixels.

    Parameters
    ----------
    constant
        Variance at zero signal, intensity².
    gain
        Intensity per detected quantum.
    correlation
        Sum of the autocorrelation of the noise over all lags: 1 for independent pixels. Smoothed or
        resampled frames have a larger sum, and carry less information than their number of pixels
        suggests.
    least
        Lower limit of the variance of a pixel, intensity².

    Examples
    --------
    >>> import numpy as np
    >>> poisson = Noise(constant=0.0, gain=1.0, correlation=1.0, least=0.1)
    >>> poisson.variance(np.array([[0.0, 4.0]], dtype=np.float32)).round(1).tolist()
    [[0.10000000149011612, 4.0]]
    """

    constant: float
    gain: float
    correlation: float
    least: float

    def deviance(self, data: Image, signal: Image) -> float:
        """Deviance of the quasi-likelihood, up to a constant; lower is better.

        Its derivative by the signal of a pixel is ``-2 (data - signal) / variance`` (Wedderburn,
        Biometrika 61, 439 (1974)). It is the Poisson deviance for counts, and the sum of squares
        for a constant variance.

        Parameters
        ----------
        data, signal
            Measured and expected intensity, shape (row, col).
        """
        if self.gain <= 0:
            square = float(np.vdot(data - signal, data - signal))
            return square / max(self.constant, self.least) / self.correlation
        gain, constant, floor = (np.float32(v) for v in (self.gain, self.constant, self.least))
        # All operations are in place: allocating memory takes longer than computing.
        edge = gain * signal
        edge += constant  # the variance
        below = edge < floor if edge.min() < floor else None
        np.maximum(edge, floor, out=edge)
        # Relative to the least variance, so that single precision is enough.
        value = edge / floor
        np.log(value, out=value)
        value *= data + constant / gain
        edge -= constant
        edge /= gain  # the signal, limited to where the variance reaches its lower limit
        np.subtract(edge, value, out=value)
        total = 2.0 / self.gain * float(value.sum(dtype=np.float64))
        if below is not None:
            d, mu, e = data[below], signal[below], edge[below]
            total += float(((d - mu) ** 2 - (d - e) ** 2).sum(dtype=np.float64)) / self.least
        return total / self.correlation

    def variance(self, signal: Image) -> Image:
        """Variance of every pixel times the correlation, shape of the signal, intensity²."""
        out = np.multiply(signal, np.float32(self.gain), dtype=np.float32)
        out += np.float32(self.constant)
        np.maximum(out, np.float32(self.least), out=out)
        out *= np.float32(self.correlation)
        return out


def estimate_noise(data: Image, model: Image, plain: BoolArray | None = None) -> Noise:
    """Fit the noise of a frame to the residuals of a model.

    Pixels are sorted by expected signal into groups, and a line is fitted to the variance of the
    residuals in each group.

    Parameters
    ----------
    data, model
        Measured and expected intensity, shape (row, col).
    plain
        Pixels to use, shape (row, col); None for all, and if it leaves too few.
    """
    residual = (data - model).astype(np.float64)
    used, own = model.ravel(), residual.ravel()
    if plain is not None and np.count_nonzero(plain) >= _LEAST_PIXELS:
        used, own = model[plain], residual[plain]
        residual = np.where(plain, residual, 0.0)
    order = np.argsort(used)
    sorted_model, sorted_residual = used[order], own[order]
    limit = np.percentile(np.abs(own), 99.9)
    edges = np.linspace(0, len(order), 25).astype(int)[:-1]
    size = np.diff(np.append(edges, len(order)))
    square = np.clip(sorted_residual, -limit, limit) ** 2
    signal = np.add.reduceat(sorted_model.astype(np.float64), edges) / size
    variance = np.add.reduceat(square, edges) / size
    # The error of a variance is proportional to it, hence relative weights. They also reduce the
    # influence of model errors, which are largest where the signal is large.
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
    """Sum of the autocorrelation of the residuals up to `reach` pixels; at least one.

    The correlation just beyond `reach` comes from model errors, not from noise, and is subtracted.
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
    """Replace hot pixels by the median of their 3 by 3 surroundings.

    A pixel is hot if it differs from that median by more than 12 standard deviations: a spot is
    wider than one pixel, so atoms do not reach this limit.

    Examples
    --------
    >>> import numpy as np
    >>> data = np.random.default_rng(0).poisson(9.0, (32, 32)).astype(np.float32)
    >>> data[5, 7] = 1e4
    >>> float(without_hot_pixels(data).max()) < 30.0
    True
    """
    around = ndimage.uniform_filter(data, 3, mode="nearest")
    difference = (data - around) * np.float32(9 / 8)  # minus the mean of the eight neighbours
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
