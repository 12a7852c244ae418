"""The usable pixels around one place, and the image that is expected of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from adatom.core.arrays import BoolArray, FloatArray, Image, IntArray
from adatom.features.refinement.binning import BinnedFrame
from adatom.features.refinement.optics import Optics
from adatom.features.refinement.spot_values import spot, spot_and_slopes
from adatom.features.refinement.surroundings import Surroundings

_LEAST_PIXELS = 60  # a place with fewer usable pixels says nothing
_REACH = 5.0  # a spot ends this many core widths from its centre: its tails are as wide as 3.2


@dataclass(frozen=True, eq=False)  # without slots: it keeps what it computed once
class LocalPixels:
    """The usable pixels around one place.

    Parameters
    ----------
    rc
        Shape (pixel, 2), binned pixels.
    data
        Shape (pixel,), intensity.
    optics
        Probe and noise of the frame.
    excess
        Factor on the variance of the noise: the frame's reduced χ² where that exceeds one.
    level, level_sd
        Expected background and its standard deviation, intensity.
    fixed
        Image of atoms that are not fitted, shape (pixel,), intensity; None for none.
    """

    rc: FloatArray
    data: FloatArray
    optics: Optics
    excess: float
    level: float
    level_sd: float
    fixed: FloatArray | None = None

    def beside(self, rc: FloatArray, amplitude: FloatArray) -> LocalPixels:
        """The same pixels with atoms that are not fitted.

        Parameters
        ----------
        rc, amplitude
            Their positions, shape (atom, 2), binned pixels, and amplitudes, shape (atom,).
        """
        out = replace(self, fixed=self._spots(rc, amplitude))
        out.__dict__.update(_around=self._around, levels=self.levels)  # of the same pixels
        return out

    def deviance(self, signal: FloatArray) -> float:
        """Twice the negative log-likelihood of an expected image, shape (pixel,), to a constant."""
        noise = self.optics.noise
        pair = (self.data.astype(np.float32), signal.astype(np.float32))
        return noise.deviance(*pair) / self.excess

    def variance(self, signal: FloatArray) -> FloatArray:
        """Variance of each pixel of an expected image, shape (pixel,), intensity²."""
        variance = self.optics.noise.variance(signal.astype(np.float32)).astype(np.float64)
        return variance * self.excess

    def expected(self, theta: FloatArray, n: int) -> Expected:
        """Expected image of `n` atoms, and how it changes, at positions, amplitudes and levels."""
        rc, amplitude, level = theta[: 2 * n].reshape(n, 2), theta[2 * n : 3 * n], theta[3 * n :]
        near, pixel, step = self._around.of(rc)
        heights, steep = spot_and_slopes(self.optics.probe, step)
        bright = amplitude[near, None].astype(np.float32)
        signal = self._summed(pixel, heights * bright) + level @ self.levels
        if self.fixed is not None:
            signal += self.fixed
        return Expected(signal, near, pixel, heights, steep * bright)

    def signal(self, theta: FloatArray, n: int) -> FloatArray:
        """Expected image, shape (pixel,), alone; see `expected`."""
        out = self._spots(theta[: 2 * n].reshape(n, 2), theta[2 * n : 3 * n])
        out += theta[3 * n :] @ self.levels
        return out if self.fixed is None else out + self.fixed

    def chi2(self, signal: FloatArray) -> tuple[float, float]:
        """Mean squared residual over the variance, and its standard deviation for Poisson noise."""
        noise, count = self.optics.noise, len(signal)
        variance = self.variance(signal) / noise.correlation  # of each pixel by itself
        squared = (self.data - signal) ** 2 / variance
        # The fourth moment of a Poisson count over its squared variance is 3 + 1 / variance.
        spread = 2.0 + max(noise.gain, 0.0) ** 2 / variance
        return float(squared.mean()), float((spread.mean() * noise.correlation / count) ** 0.5)

    def _spots(self, rc: FloatArray, amplitude: FloatArray) -> FloatArray:
        near, pixel, step = self._around.of(rc)
        heights = spot(self.optics.probe, step)
        return self._summed(pixel, heights * amplitude[near, None])

    def _summed(self, pixel: IntArray, values: FloatArray | Image) -> FloatArray:
        count = len(self.rc)
        out = np.bincount(pixel.ravel(), weights=values.ravel(), minlength=count + 1)
        return np.asarray(out[:count], dtype=np.float64)

    @cached_property
    def _around(self) -> Surroundings:
        return Surroundings(self.rc, _REACH * self.optics.probe.sigma())

    @cached_property
    def levels(self) -> FloatArray:
        """Shapes of the background, shape (parameter, pixel)."""
        u, v = ((self.rc - self.rc.mean(axis=0)) / max(np.ptp(self.rc, axis=0).max(), 1.0)).T
        return np.stack([np.ones(len(u)), u, v, u * u, u * v, v * v])


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """An expected image and its change.

    Parameters
    ----------
    signal
        Shape (pixel,), intensity.
    near
        Numbers of the atoms that reach a pixel, shape (near,).
    pixel
        Pixels around them, shape (near, place), the count of pixels where there is none.
    heights
        Change by the amplitude, shape (near, place), dimensionless.
    steep
        Change by row and column, shape (2, near, place), intensity per pixel.
    """

    signal: FloatArray
    near: IntArray
    pixel: IntArray
    heights: Image
    steep: Image


def pixels_near(
    binned: BinnedFrame, centre_rc: FloatArray, radius_px: float
) -> tuple[FloatArray, FloatArray] | None:
    """Positions and values of the usable pixels around a place; None where there are too few.

    Parameters
    ----------
    binned
        The frame.
    centre_rc
        Shape (2,), binned pixels.
    radius_px
        Radius, binned pixels.
    """
    shape = np.array(binned.data.shape)
    low = np.clip(np.floor(centre_rc - radius_px), 0, shape - 1).astype(int)
    high = np.clip(np.ceil(centre_rc + radius_px), 0, shape - 1).astype(int)
    rows, cols = (np.arange(a, b + 1) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    used: BoolArray = np.hypot(*(grid - centre_rc).T) <= radius_px
    at = (grid[:, 0], grid[:, 1])
    for spoiled in (binned.masked, binned.clipped):
        if spoiled is not None:
            used &= spoiled[at] == 0
    if used.sum() < _LEAST_PIXELS:
        return None
    return grid[used].astype(np.float64), binned.data[at][used].astype(np.float64)
