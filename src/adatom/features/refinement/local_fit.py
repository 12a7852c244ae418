"""Fit and evidence of a choice of atoms in the pixels around one place.

The image is ``background + sum_i A_i P(r - r_i)``. Amplitudes, positions and a quadratic background
have normal priors. Their integral is that of a normal distribution around the maximum (Laplace's
method; MacKay, Information Theory, Inference, and Learning Algorithms (2003), ch. 28), so choices
with more atoms pay for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from adatom.core.arrays import BoolArray, FloatArray, Image, IntArray
from adatom.features.refinement.binning import BinnedFrame
from adatom.features.refinement.optics import Optics
from adatom.features.refinement.spot_values import spot, spot_and_slopes

_STEPS = 3  # Gauss-Newton steps: positions start within a fraction of a spot's width
_LEAST_PIXELS = 60  # a place with fewer usable pixels says nothing
_BENT_SHARE = 0.5  # prior deviation of slopes and curvatures of the background over its level's
_LEVELS = 6  # parameters of the background: constant, slopes, curvatures
_REACH = 5.0  # a spot ends this many core widths from its centre: its tails are as wide as 3.2


@dataclass(frozen=True, slots=True, eq=False)
class ChosenAtoms:
    """A choice of atoms with normal priors.

    Parameters
    ----------
    rc
        Expected positions, shape (atom, 2), binned pixels.
    position_sd
        Standard deviation of each around it per axis, shape (atom,), pixels.
    amplitude, amplitude_sd
        Expected amplitude and its standard deviation, shape (atom,), intensity.
    together_px
        Standard deviation of a shift that all atoms share, pixels.
    bent
        Root of the smooth part of the covariance of their shifts along one axis, in units of the
        factor that the pixels choose, shape (atom, mode), pixels; None for none.
    common
        Root of the covariance of shifts that several atoms make together, shape (mode, atom, 2),
        pixels; None for none.
    """

    rc: FloatArray
    position_sd: FloatArray
    amplitude: FloatArray
    amplitude_sd: FloatArray
    together_px: float = 0.0
    bent: FloatArray | None = None
    common: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LocalFit:
    """The fit of a choice of atoms.

    Parameters
    ----------
    log_evidence
        Natural logarithm of p(pixels | choice), up to a constant of the pixels.
    rc
        Positions, shape (atom, 2), binned pixels.
    covariance
        Their covariance, shape (atom, 2, 2), row and column, pixels².
    amplitude, amplitude_sd
        Amplitudes and their standard deviations, shape (atom,), intensity.
    chi2, chi2_sd
        Mean squared residual over the variance of the noise, and its standard deviation where the
        image differs by noise alone.
    """

    log_evidence: float
    rc: FloatArray
    covariance: FloatArray
    amplitude: FloatArray
    amplitude_sd: FloatArray
    chi2: float
    chi2_sd: float


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
        image = self._spots(rc, amplitude)
        return replace(self, fixed=image)

    def fit(self, atoms: ChosenAtoms, spreads: tuple[float, ...] = (1.0,)) -> LocalFit:
        """Fit a choice of atoms, and integrate over all that is fitted.

        Parameters
        ----------
        atoms
            The choice.
        spreads
            Factors on `ChosenAtoms.position_sd` among which the pixels choose, by the evidence.

        Examples
        --------
        >>> from adatom.features.refinement.noise import Noise
        >>> from adatom.features.refinement.image_model import Probe
        >>> probe = Probe(np.array([9.0, 0.0, 9.0]), np.zeros(2))
        >>> optics = Optics(probe, Noise(1.0, 0.0, 1.0, 1.0), 0.15)
        >>> rc = np.argwhere(np.ones((25, 25))).astype(float)
        >>> data = 10.0 * probe.value_at(rc - [12.4, 12.0])
        >>> pixels = LocalPixels(rc, data, optics, 1.0, 0.0, 10.0)
        >>> one, ten = np.ones(1), np.full(1, 10.0)
        >>> here = pixels.fit(ChosenAtoms(np.array([[12.0, 12.0]]), one, ten, one))
        >>> none = np.zeros(0)
        >>> empty = pixels.fit(ChosenAtoms(np.zeros((0, 2)), none, none, none))
        >>> here.rc.round(1).tolist(), here.log_evidence > empty.log_evidence
        ([[12.4, 12.0]], True)
        """
        n = len(atoms.rc)
        mean = np.concatenate(
            [atoms.rc.ravel(), atoms.amplitude, [self.level], np.zeros(_LEVELS - 1)]
        )
        priors = [self._prior(atoms, s) for s in spreads]
        theta, precision = mean.copy(), np.linalg.inv(priors[-1])
        for _ in range(_STEPS):
            gradient, information = self._gradient(theta, n)
            pull = precision @ (theta - mean)
            theta = theta + _limited(np.linalg.solve(information + precision, gradient - pull), n)
        gradient, information = self._gradient(theta, n)
        best = max(
            (self._evidence(mean, theta, gradient, information, prior) for prior in priors),
            key=lambda found: found[0],
        )
        theta, covariance = best[1], best[2]
        at = np.arange(n)
        own = np.stack([2 * at, 2 * at + 1], axis=1)
        return LocalFit(
            best[0],
            theta[: 2 * n].reshape(n, 2),
            covariance[own[:, :, None], own[:, None, :]],
            theta[2 * n : 3 * n],
            np.sqrt(np.diagonal(covariance)[2 * n : 3 * n]),
            *self._chi2(self._model(theta, n)),
        )

    def _gradient(self, theta: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
        """Gradient of the log-likelihood and its expected curvature (Fisher's information)."""
        signal, slopes = self._slopes(theta, n)
        weight = 1.0 / self._variance(signal)
        # The product of a matrix with itself takes half the time.
        root = slopes * np.sqrt(weight).astype(np.float32)
        residual = (weight * (self.data - signal)).astype(np.float32)
        return (slopes @ residual).astype(np.float64), (root @ root.T).astype(np.float64)

    def _chi2(self, signal: FloatArray) -> tuple[float, float]:
        """Mean squared residual over the variance, and its standard deviation for Poisson noise."""
        noise, count = self.optics.noise, len(signal)
        variance = self._variance(signal) / noise.correlation  # of each pixel by itself
        squared = (self.data - signal) ** 2 / variance
        # The fourth moment of a Poisson count over its squared variance is 3 + 1 / variance.
        spread = 2.0 + max(noise.gain, 0.0) ** 2 / variance
        return float(squared.mean()), float((spread.mean() * noise.correlation / count) ** 0.5)

    def _evidence(
        self,
        mean: FloatArray,
        theta: FloatArray,
        gradient: FloatArray,
        information: FloatArray,
        prior: FloatArray,
    ) -> tuple[float, FloatArray, FloatArray]:
        """Logarithm of the evidence, maximum and covariance for one prior."""
        gained, covariance, volume = _posterior(theta - mean, gradient, information, prior)
        # The information is that at `theta`, but the likelihood is exact.
        best = mean + gained
        signal = self._model(best, (len(best) - _LEVELS) // 3)
        away = best - mean
        penalty = float(away @ np.linalg.solve(prior, away))
        return -0.5 * (self.deviance(signal) + penalty) - volume, best, covariance

    def deviance(self, signal: FloatArray) -> float:
        """Twice the negative log-likelihood of an expected image, shape (pixel,), to a constant."""
        noise = self.optics.noise
        pair = (self.data.astype(np.float32), signal.astype(np.float32))
        return noise.deviance(*pair) / self.excess

    def _variance(self, signal: FloatArray) -> FloatArray:
        variance = self.optics.noise.variance(signal.astype(np.float32)).astype(np.float64)
        return variance * self.excess

    def _prior(self, atoms: ChosenAtoms, spread: float) -> FloatArray:
        """Covariance of positions, amplitudes and background."""
        n = len(atoms.rc)
        variance = np.concatenate([
            np.repeat((spread * atoms.position_sd) ** 2, 2),
            atoms.amplitude_sd**2,
            [self.level_sd**2], np.full(_LEVELS - 1, (_BENT_SHARE * self.level_sd) ** 2),
        ])  # fmt: skip
        out = np.diag(variance)
        for axis in (0, 1):
            own = slice(axis, 2 * n, 2)
            out[own, own] += atoms.together_px**2
            if atoms.bent is not None:
                out[own, own] += spread**2 * (atoms.bent @ atoms.bent.T)
        if atoms.common is not None:
            flat = atoms.common.reshape(-1, 2 * n)
            out[: 2 * n, : 2 * n] += flat.T @ flat
        return out

    def _model(self, theta: FloatArray, n: int) -> FloatArray:
        """Expected image, shape (pixel,)."""
        rc, amplitude, level = theta[: 2 * n].reshape(n, 2), theta[2 * n : 3 * n], theta[3 * n :]
        signal = self._spots(rc, amplitude) + level @ self._levels
        return signal if self.fixed is None else signal + self.fixed

    def _spots(self, rc: FloatArray, amplitude: FloatArray) -> FloatArray:
        near, pixel, step = self._around.of(rc)
        heights = spot(self.optics.probe, step)
        return self._summed(pixel, heights * amplitude[near, None])

    def _slopes(self, theta: FloatArray, n: int) -> tuple[FloatArray, Image]:
        """Expected image, shape (pixel,), and its derivatives, shape (parameter, pixel)."""
        rc, amplitude, level = theta[: 2 * n].reshape(n, 2), theta[2 * n : 3 * n], theta[3 * n :]
        count = len(self.rc)
        slopes = np.zeros((len(theta), count + 1), dtype=np.float32)  # the last is no pixel
        near, pixel, step = self._around.of(rc)
        heights, steep = spot_and_slopes(self.optics.probe, step)
        row, bright = near[:, None], amplitude[near, None].astype(np.float32)
        slopes[2 * n + row, pixel] = heights
        for axis in (0, 1):
            slopes[2 * row + axis, pixel] = bright * steep[axis]
        slopes[3 * n :, :count] = self._levels
        signal = self._summed(pixel, heights * bright) + level @ self._levels
        return (signal if self.fixed is None else signal + self.fixed), slopes[:, :count]

    def _summed(self, pixel: IntArray, values: FloatArray | Image) -> FloatArray:
        count = len(self.rc)
        out = np.bincount(pixel.ravel(), weights=values.ravel(), minlength=count + 1)
        return np.asarray(out[:count], dtype=np.float64)

    @cached_property
    def _around(self) -> _Surroundings:
        return _Surroundings(self.rc, _REACH * self.optics.probe.sigma())

    @cached_property
    def _levels(self) -> FloatArray:
        """Shapes of the background, shape (parameter, pixel)."""
        u, v = ((self.rc - self.rc.mean(axis=0)) / max(np.ptp(self.rc, axis=0).max(), 1.0)).T
        return np.stack([np.ones(len(u)), u, v, u * u, u * v, v * v])


class _Surroundings:
    """Which of some pixels lie in a square around a position.

    Parameters
    ----------
    rc
        The pixels, shape (pixel, 2), whole numbers.
    reach
        Half the edge of the square, pixels.
    """

    def __init__(self, rc: FloatArray, reach: float) -> None:
        half = int(np.ceil(reach)) + 1
        whole = np.rint(rc).astype(np.int64)
        # A grid with a rim so wide that no square around a position near a pixel leaves it.
        self._low = whole.min(axis=0) - 2 * half
        shape = whole.max(axis=0) + 2 * half + 1 - self._low
        number = np.full(shape, len(rc), dtype=np.int64)
        number[tuple((whole - self._low).T)] = np.arange(len(rc))
        self._number, self._none = number.ravel(), len(rc)
        self._half, self._reach, self._shape = half, reach, shape
        along = np.arange(-half, half + 1)
        rows, cols = np.meshgrid(along, along, indexing="ij")
        self._steps = np.stack([rows.ravel(), cols.ravel()]).astype(np.float32)
        self._offset = (rows * shape[1] + cols).ravel()

    def of(self, rc: FloatArray) -> tuple[IntArray, IntArray, Image]:
        """Give the pixels around positions.

        Parameters
        ----------
        rc
            Positions, shape (atom, 2), pixels.

        Returns
        -------
        Numbers of the positions near to a pixel, shape (near,); numbers of the pixels around each,
        shape (near, place), the count of pixels where there is none; and vectors from the position
        to them, shape (2, near, place).
        """
        own = np.rint(rc).astype(np.int64)
        place = own - self._low
        inside = (place >= self._half) & (place < self._shape - self._half)
        near = np.flatnonzero(inside.all(axis=1))
        first = place[near, 0] * self._shape[1] + place[near, 1]
        pixel = self._number[first[:, None] + self._offset]
        away = (own[near] - rc[near]).T.astype(np.float32)
        step = self._steps[:, None, :] + away[:, :, None]
        pixel[(np.abs(step) > self._reach).any(axis=0)] = self._none
        return near, pixel, step


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


def _limited(change: FloatArray, n: int) -> FloatArray:
    """Limit a step of the positions to two pixels."""
    change[: 2 * n] = np.clip(change[: 2 * n], -2.0, 2.0)
    return change


def _posterior(
    away: FloatArray, gradient: FloatArray, information: FloatArray, prior: FloatArray
) -> tuple[FloatArray, FloatArray, float]:
    """Mean (from that of the prior) and covariance of the posterior, and log of prior over it.

    The log-likelihood is quadratic about `away` from the mean of the prior. The last is the
    logarithm of the ratio of the widths of prior and posterior.
    """
    # In units of the prior's root, the posterior has the information 1 + L^T F L.
    root = np.linalg.cholesky(prior)
    inner = np.eye(len(away)) + root.T @ information @ root
    half = np.linalg.cholesky(inner)
    shrunk = np.linalg.solve(half, root.T)
    covariance = shrunk.T @ shrunk
    volume = float(np.log(np.diagonal(half)).sum())
    return covariance @ (gradient + information @ away), covariance, volume
