"""Fit and evidence of a choice of atoms in the pixels around one place.

The image is ``background + sum_i A_i P(r - r_i)``. Amplitudes, positions and a quadratic background
have normal priors. Their integral is that of a normal distribution around the maximum (Laplace's
method; MacKay, Information Theory, Inference, and Learning Algorithms (2003), ch. 28), so choices
with more atoms pay for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.core.arrays import FloatArray
from adatom.features.refinement.local_pixels import LocalPixels

_STEPS = 3  # most Gauss-Newton steps: positions start within a fraction of a spot's width
# Nats that a step should gain: with less none is taken, as the evidence adds the last one; with
# more, the curvature is computed anew.
_WORTH, _FAR = 0.02, 1.0
_BENT_SHARE = 0.5  # prior deviation of slopes and curvatures of the background over its level's
_LEVELS = 6  # parameters of the background: constant, slopes, curvatures


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


class Ascent:
    """The way to the best fit of a choice of atoms, step by step.

    Choices that are weighed against each other need not all go to the end.

    Parameters
    ----------
    pixels
        The pixels.
    atoms
        The choice.
    spreads
        Equally probable factors on `ChosenAtoms.position_sd`: all count, by their evidence.

    Examples
    --------
    >>> from adatom.features.refinement.image_model import Probe
    >>> from adatom.features.refinement.noise import Noise
    >>> from adatom.features.refinement.optics import Optics
    >>> probe = Probe(np.array([9.0, 0.0, 9.0]), np.zeros(2))
    >>> optics = Optics(probe, Noise(1.0, 0.0, 1.0, 1.0), 0.15)
    >>> rc = np.argwhere(np.ones((25, 25))).astype(float)
    >>> data = 10.0 * probe.value_at(rc - [12.4, 12.0])
    >>> pixels = LocalPixels(rc, data, optics, 1.0, 0.0, 10.0)
    >>> one, ten = np.ones(1), np.full(1, 10.0)
    >>> here = Ascent(pixels, ChosenAtoms(np.array([[12.0, 12.0]]), one, ten, one)).finish()
    >>> none = np.zeros(0)
    >>> empty = Ascent(pixels, ChosenAtoms(np.zeros((0, 2)), none, none, none)).finish()
    >>> here.rc.round(1).tolist(), here.log_evidence > empty.log_evidence
    ([[12.4, 12.0]], True)
    """

    def __init__(
        self, pixels: LocalPixels, atoms: ChosenAtoms, spreads: tuple[float, ...] = (1.0,)
    ) -> None:
        self._pixels, self._n = pixels, len(atoms.rc)
        self._mean = np.concatenate(
            [atoms.rc.ravel(), atoms.amplitude, [pixels.level], np.zeros(_LEVELS - 1)]
        )
        self._atoms, self._spreads = atoms, spreads
        self._widest = _prior(pixels, atoms, spreads[-1])
        self._precision = np.linalg.inv(self._widest)
        self._theta, self._steps = self._mean, 0
        self._look()
        self._bend()

    @property
    def log_evidence(self) -> float:
        """What `LocalFit.log_evidence` is as far as is known: too low where steps remain."""
        away = self._theta - self._mean
        penalty = float(away @ self._precision @ away)
        return -0.5 * (self._pixels.deviance(self._now.signal) + penalty) - self._volume

    @property
    def amplitude(self) -> FloatArray:
        """Amplitudes, shape (atom,), intensity."""
        return self._theta[2 * self._n : 3 * self._n]

    @property
    def amplitude_sd(self) -> FloatArray:
        """Their standard deviations, shape (atom,), intensity."""
        return np.sqrt(np.diagonal(self._covariance)[2 * self._n : 3 * self._n])

    def step(self) -> bool:
        """Take a step; tells whether it was worth it and another one may be taken."""
        if self._steps == _STEPS:
            return False
        uphill = self._gradient - self._precision @ (self._theta - self._mean)
        change = self._covariance @ uphill
        gain = 0.5 * float(change @ uphill)
        if gain < _WORTH:
            return False
        if gain > _FAR and self._steps:
            self._bend()
            change = self._covariance @ uphill
        self._theta = self._theta + _limited(change, self._n)
        self._steps += 1
        self._look()
        return True

    def finish(self) -> LocalFit:
        """Go to the end, and integrate over all that is fitted; priors count by their evidence."""
        while self.step():
            pass
        self._bend()
        away = self._theta - self._mean
        priors = [_prior(self._pixels, self._atoms, spread) for spread in self._spreads[:-1]]
        # Over the quadratic about this point, which has the maximum of each prior.
        found = [
            _summit(away, self._gradient, self._information, prior)
            for prior in [*priors, self._widest]
        ]
        _, highest, _, penalty, volume = max(found, key=lambda one: one[0])
        more, mean, covariance = _mixture([one[:3] for one in found])
        theta, n = self._mean + mean, self._n
        # The likelihood at the highest summit is exact.
        top = self._pixels.signal(self._mean + highest, n)
        signal = top if len(found) == 1 else self._pixels.signal(theta, n)
        at = np.arange(n)
        own = np.stack([2 * at, 2 * at + 1], axis=1)
        return LocalFit(
            -0.5 * (self._pixels.deviance(top) + penalty) - volume + more,
            theta[: 2 * n].reshape(n, 2),
            covariance[own[:, :, None], own[:, None, :]],
            theta[2 * n : 3 * n],
            np.sqrt(np.diagonal(covariance)[2 * n : 3 * n]),
            *self._pixels.chi2(signal),
        )

    def _look(self) -> None:
        """Compute the expected image here, and the gradient of the log-likelihood."""
        pixels, n = self._pixels, self._n
        self._now = now = pixels.expected(self._theta, n)
        self._weight = 1.0 / pixels.variance(now.signal)
        residual = self._weight * (pixels.data - now.signal)
        own = np.append(residual, 0.0).astype(np.float32)[now.pixel]
        gradient = np.zeros(len(self._theta))
        gradient[2 * n + now.near] = np.einsum("ak,ak->a", now.heights, own)
        gradient[2 * now.near] = np.einsum("ak,ak->a", now.steep[0], own)
        gradient[2 * now.near + 1] = np.einsum("ak,ak->a", now.steep[1], own)
        gradient[3 * n :] = pixels.levels @ residual
        self._gradient = gradient

    def _bend(self) -> None:
        """Compute the expected curvature of the log-likelihood here (Fisher's information)."""
        now, n = self._now, self._n
        width = len(now.signal) + 1  # the last is no pixel
        weight = np.sqrt(np.append(self._weight, 0.0)).astype(np.float32)
        root = np.zeros((len(self._theta), width), dtype=np.float32)
        flat, own = root.reshape(-1), weight[now.pixel]
        for rows, slope in (
            (2 * n + now.near, now.heights),
            (2 * now.near, now.steep[0]),
            (2 * now.near + 1, now.steep[1]),
        ):
            flat[now.pixel + rows[:, None] * width] = slope * own
        root[:, -1] = 0.0
        root[3 * n :, :-1] = self._pixels.levels * weight[:-1]
        # The product of a matrix with itself takes half the time.
        self._information = (root @ root.T).astype(np.float64)
        _, self._covariance, self._volume = _posterior(
            self._theta - self._mean, self._gradient, self._information, self._widest
        )


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


def _summit(
    away: FloatArray, gradient: FloatArray, information: FloatArray, prior: FloatArray
) -> tuple[float, FloatArray, FloatArray, float, float]:
    """Give the maximum for one prior, from that of the likelihood's quadratic.

    Logarithm of the evidence to a constant, place (from the mean), covariance, squared distance in
    units of the prior, and the logarithm of `_posterior`.
    """
    best, covariance, volume = _posterior(away, gradient, information, prior)
    step = best - away
    uphill = gradient - information @ step  # which the pull of the prior balances
    penalty = float(best @ uphill)
    likelihood = float(step @ (gradient - 0.5 * information @ step))
    return likelihood - 0.5 * penalty - volume, best, covariance, penalty, volume


def _mixture(
    found: list[tuple[float, FloatArray, FloatArray]],
) -> tuple[float, FloatArray, FloatArray]:
    """Log-evidence over the highest one's, mean and covariance of equally probable priors."""
    log = np.array([one[0] for one in found])
    share = np.exp(log - log.max())
    more = float(np.log(share.mean()))
    share /= share.sum()
    mean = np.einsum("k,ki->i", share, np.array([one[1] for one in found]))
    covariance = np.zeros_like(found[0][2])
    for weight, (_, theta, own) in zip(share, found, strict=True):
        covariance += weight * (own + np.outer(theta - mean, theta - mean))
    return more, mean, covariance


def _prior(pixels: LocalPixels, atoms: ChosenAtoms, spread: float) -> FloatArray:
    """Covariance of positions, amplitudes and background."""
    n = len(atoms.rc)
    variance = np.concatenate([
        np.repeat((spread * atoms.position_sd) ** 2, 2),
        atoms.amplitude_sd**2,
        [pixels.level_sd**2], np.full(_LEVELS - 1, (_BENT_SHARE * pixels.level_sd) ** 2),
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
