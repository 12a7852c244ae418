"""Which pixels a fit uses, and how it uses clipped ones.

A clipped pixel says that its intensity lies at or beyond a limit: a censored observation (Tobin,
Econometrica 26, 24 (1958)), here with a normal distribution of the variance of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from adatom.core.arrays import BoolArray, FloatArray, Image
from adatom.features.refinement.noise import Noise

_LOG_ROOT_2PI = 0.5 * float(np.log(2.0 * np.pi))
# A pixel whose expected value is nearer to the limit, in standard deviations, may be clipped: its
# residuals are not those of the noise.
_NEAR_LIMIT_SD = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class UsedPixels:
    """The pixels of a piece of a frame that a fit uses.

    Parameters
    ----------
    masked
        True for pixels that are not used, shape (row, col); None if all are.
    clipped
        1 where the intensity was clipped from above, -1 from below, else 0, shape (row, col); None
        if none was.

    Examples
    --------
    >>> noise = Noise(constant=1.0, gain=0.0, correlation=1.0, least=1.0)
    >>> pixels = UsedPixels(None, np.array([[1, 0]], dtype=np.int8))
    >>> data, model = np.array([[5.0, 5.0]]), np.array([[8.0, 8.0]])
    >>> pixels.residual(data, model, noise).round(1).tolist()  # of "at least 5", and of 5
    [[0.0, -3.0]]
    """

    masked: BoolArray | None = None
    clipped: NDArray[np.int8] | None = None

    def cut(self, tile: tuple[slice, slice]) -> UsedPixels:
        """The same for a part of the piece."""
        masked = None if self.masked is None else self.masked[tile]
        clipped = None if self.clipped is None else self.clipped[tile]
        return UsedPixels(
            masked if masked is not None and masked.any() else None,
            clipped if clipped is not None and clipped.any() else None,
        )

    def of(self, image: Image) -> Image:
        """The values of an image at the pixels that are not masked."""
        return image if self.masked is None else image[~self.masked]

    def weight(self, data: Image, model: Image, noise: Noise) -> Image:
        """One over the variance of every pixel, 0 for masked ones, shape (row, col).

        That of a clipped pixel is taken at its limit, so that the deviance has the gradient of the
        residual.
        """
        out = (1.0 / noise.variance(model)).astype(np.float32)
        if self.clipped is not None:
            at = self.clipped != 0
            out[at] = 1.0 / noise.variance(data[at])
        if self.masked is not None:
            out[self.masked] = 0.0
        return out

    def information_weight(self, weight: Image, data: Image, model: Image, noise: Noise) -> Image:
        """The weight of every pixel in the Fisher information: less than `weight` if clipped."""
        if self.clipped is None:
            return weight
        out, at = weight.copy(), self.clipped != 0
        z, hazard, _ = self._censored(at, data, model, noise)
        out[at] *= np.clip(hazard * (hazard - z), 0.0, 1.0)
        return out

    def residual(self, data: Image, model: Image, noise: Noise) -> Image:
        """Data minus model, with what is expected of a clipped pixel beyond its limit."""
        out: Image = data - model
        if self.clipped is not None:
            at = self.clipped != 0
            _, hazard, sd = self._censored(at, data, model, noise)
            out[at] = self.clipped[at] * sd * hazard
        return out

    def deviance(self, data: Image, model: Image, noise: Noise) -> float:
        """Deviance of the pixels that are used; of clipped ones that of their limit."""
        if self.masked is None and self.clipped is None:
            return noise.deviance(data, model)
        plain = np.ones(data.shape, dtype=np.bool_) if self.masked is None else ~self.masked
        beyond = 0.0
        if self.clipped is not None:
            at = (self.clipped != 0) & plain
            z, _, _ = self._censored(at, data, model, noise)
            beyond = -2.0 * float(log_ndtr(-z).sum()) / noise.correlation
            plain = plain & ~at
        return noise.deviance(data[plain], model[plain]) + beyond

    def plain(self, data: Image, model: Image, noise: Noise) -> BoolArray | None:
        """Pixels whose residuals are those of the noise, shape (row, col); None if all are."""
        if self.masked is None and self.clipped is None:
            return None
        out = np.ones(data.shape, dtype=np.bool_) if self.masked is None else ~self.masked
        if self.clipped is not None:
            sd = np.sqrt(noise.variance(model) / noise.correlation)
            for sign in (1, -1):
                at = self.clipped == sign
                if at.any():
                    limit = float(np.median(data[at]))
                    out &= ~at & (sign * (limit - model) > _NEAR_LIMIT_SD * sd)
        return out

    def _censored(
        self, at: BoolArray, data: Image, model: Image, noise: Noise
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Distance of the limit from the model in standard deviations, hazard, and these (sd)."""
        assert self.clipped is not None  # callers check  # noqa: S101
        sd = np.sqrt(noise.variance(data[at]).astype(np.float64) / noise.correlation)
        z = np.clip(self.clipped[at] * (data[at] - model[at]) / sd, -30.0, 1e4)
        hazard = np.exp(-0.5 * z**2 - _LOG_ROOT_2PI - log_ndtr(-z))
        return z, hazard, sd
