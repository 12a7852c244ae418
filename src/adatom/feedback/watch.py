"""Follow an atom by the signal of a parked beam: where it is, and when another one comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from adatom.core.arrays import FloatArray

# The beam is parked on three places around its aim in turn. Their differences tell the drift.
_CIRCLE_A = 0.17  # radius, Å: a third of a usual probe; it costs 4 % of the rate of a hop
_TRIANGLE = np.array([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
# The ratio of likelihoods after which a jump is believed: with 200 time slices a second, once in
# an hour by chance.
_SURE_NATS = 14.0
# A change that a jump must be told from: the signal is known to this factor (scale, drift left).
_SLACK = 1.15
# Å²/s: a stage that never drifts would be believed for ever; one that drifts by half a bond within
# a second cannot be followed.
_DIFFUSION_A2_s = (1e-3, 0.5)
_LEARN = 0.03  # how fast the diffusion follows the surprises: over about 30 dwells
_LARGEST_SURPRISE = 9.0  # a squared surprise beyond three standard deviations counts as this
_NEAR_A = 9.0  # Å: an atom farther from the beam adds less than 1e-3 of a spot to its signal
_START_A = 0.05  # Å per axis: error of the sites in the first frame
_MODEL_SD = 0.01  # relative error of the spots, which follow a fit to a noisy frame
_SCALE_SD = 0.3  # relative standard deviation of the scale of frames against parked beams


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """Signal of a parked beam: the spots of the atoms on a background.

    Parameters
    ----------
    xy
        Sites, shape (site, 2), Å.
    peak
        Counts per electron at the centres of their atoms, shape (site,).
    height
        Height of a spot of peak 1 at vectors (..., 2), x and y, from its centre, Å.
    background
        Counts per electron beside the spots.
    """

    xy: FloatArray
    peak: FloatArray
    height: Callable[[FloatArray], FloatArray]
    background: float

    def at(self, places: FloatArray) -> FloatArray:
        """Counts per electron at places, shape (..., 2), Å."""
        out: FloatArray = self.height(places[..., None, :] - self.xy) @ self.peak + self.background
        return out

    def near(self, xy: FloatArray) -> Spots:
        """Leave out the atoms that add nothing to the signal at a place, shape (2,), Å."""
        close = np.linalg.norm(self.xy - xy, axis=1) < _NEAR_A
        return replace(self, xy=self.xy[close], peak=self.peak[close])

    def after_losses(self, gone: Collection[int], back: Collection[int]) -> Spots:
        """The same after sites lost their atoms, and others have one of the crystal again."""
        peak = self.peak.copy()
        peak[list(back)] = np.median(peak[peak > 0])
        peak[list(gone)] = 0.0
        return replace(self, peak=peak)

    def swapped(self, one: int, other: int) -> Spots:
        """The same after the atoms of two sites changed places."""
        peak = self.peak.copy()
        peak[[one, other]] = peak[[other, one]]
        return replace(self, peak=peak)


def places_around(aim_xy: FloatArray) -> FloatArray:
    """Three places around an aim, shape (3, 2), Å; the beam visits them in turn."""
    out: FloatArray = aim_xy + _CIRCLE_A * _TRIANGLE
    return out


class JumpWatch:
    """Decides after each time slice whether an atom jumped: it ends a dwell as ``stop_when``.

    Page's cumulative sum (Biometrika 41, 100 (1954)) of the logarithm of the ratio of likelihoods
    of Poisson counts with the means ``after`` and ``before``.

    Parameters
    ----------
    before, after
        Expected counts of a time slice before and after the jump, which may be fewer. The test is
        made for signals that are 15 % nearer to each other.

    Attributes
    ----------
    jumped
        Whether it did.
    can_tell
        Whether the two signals are far enough apart.

    Examples
    --------
    >>> watch = JumpWatch(100.0, 300.0)
    >>> [bool(watch(counts)) for counts in ([104.0], [104.0, 93.0], [104.0, 93.0, 310.0])]
    [False, False, True]
    """

    def __init__(self, before: float, after: float) -> None:
        self.jumped = False
        slack = _SLACK if after > before else 1.0 / _SLACK
        self._before, self._after = before * slack, after / slack
        # Whether they are still in the order in which they were.
        self.can_tell = (self._after - self._before) * (after - before) > 0.0
        self._sum, self._seen = 0.0, 0

    def __call__(self, counts: FloatArray | Sequence[float]) -> bool:
        """Take the counts of all slices so far; True ends the dwell."""
        ratio, step = math.log(self._after / self._before), self._after - self._before
        for value in counts[self._seen :]:
            self._sum = max(0.0, self._sum + float(value) * ratio - step)
        self._seen = len(counts)
        self.jumped = self._sum > _SURE_NATS
        return self.jumped


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """Shift of the specimen since its sites were seen, as a Kalman filter knows it.

    The state is the shift along x and y and the logarithm of the scale of the signal. A dwell is
    one measurement of the logarithm of the signal, linearised at the present state (extended
    Kalman filter: Anderson & Moore, Optimal Filtering, chapter 8).

    Parameters
    ----------
    state
        Shape (3,): shift along x and y, Å; logarithm of the scale.
    covariance
        Shape (3, 3).
    diffusion_A2_s
        Growth of the variance of the shift per axis, Å²/s.
    look_xy
        Shift in the last frame, shape (2,), Å.
    looks
        Number of frames from which the diffusion was learned; the first guess counts as two.
    """

    state: FloatArray
    covariance: FloatArray
    diffusion_A2_s: float
    look_xy: FloatArray
    looks: int = 2

    @classmethod
    def start(cls, diffusion_A2_s: float) -> Drift:
        """No shift yet, known to 0.05 Å."""
        start = np.diag([_START_A**2, _START_A**2, _SCALE_SD**2])
        return cls(np.zeros(3), start, diffusion_A2_s, np.zeros(2))

    @property
    def shift_xy(self) -> FloatArray:
        """Shift, shape (2,), Å."""
        return self.state[:2]

    @property
    def scale(self) -> float:
        """Signal of parked beams over that of frames."""
        return float(np.exp(self.state[2]))

    @property
    def sigma_A(self) -> float:
        """Standard deviation of the shift per axis, Å."""
        return float(np.sqrt(np.trace(self.covariance[:2, :2]) / 2.0))

    def later(self, seconds: float) -> Drift:
        """Let time pass."""
        grown = self.covariance + np.diag([1.0, 1.0, 0.0]) * self.diffusion_A2_s * seconds
        return replace(self, covariance=grown)

    def seen(self, shift_xy: FloatArray, sigma_A: float, seconds: float) -> Drift:
        """Take the shift from a frame, and learn from it how fast the specimen drifts.

        Parameters
        ----------
        shift_xy
            Shift of the frame's atoms, shape (2,), Å.
        sigma_A
            Its standard deviation per axis, Å.
        seconds
            Time since the last frame, s.
        """
        moved = float(np.mean((shift_xy - self.look_xy) ** 2)) - 2.0 * sigma_A**2
        rate = max(moved, 0.0) / max(seconds, 1e-3)
        return Drift(
            np.array([*shift_xy, self.state[2]]),
            np.diag([sigma_A**2, sigma_A**2, self.covariance[2, 2]]),
            (self.looks * self.diffusion_A2_s + rate) / (self.looks + 1),
            shift_xy,
            self.looks + 1,
        )

    def measured(
        self, spots: Spots, place_xy: FloatArray, counts: float, electrons: float
    ) -> tuple[Drift, float]:
        """Learn from the counts of a dwell during which no atom jumped.

        Parameters
        ----------
        spots
            The atoms without drift.
        place_xy
            Place of the beam, shape (2,), Å.
        counts, electrons
            Detected counts and electrons of the dwell.

        Returns
        -------
        What is known then, and the difference between the counts and what was expected of them, in
        standard deviations.
        """
        surprise, gradient, noise = self._compared(spots, place_xy, counts, electrons)
        variance = float(gradient @ self.covariance @ gradient) + noise
        gain = self.covariance @ gradient / variance
        # Squared surprises are 1 on average where the diffusion is right, and more where the
        # specimen drifts faster.
        excess = min(surprise**2 / variance, _LARGEST_SURPRISE) - 1.0
        after = replace(
            self,
            state=self.state + gain * surprise,
            covariance=self.covariance - np.outer(gain, gradient @ self.covariance),
            diffusion_A2_s=float(
                np.clip(self.diffusion_A2_s * math.exp(_LEARN * excess), *_DIFFUSION_A2_s)
            ),
        )
        return after, surprise / math.sqrt(variance)

    def _compared(
        self, spots: Spots, place_xy: FloatArray, counts: float, electrons: float
    ) -> tuple[float, FloatArray, float]:
        """Logarithm of the counts over the expected ones, its gradient (3,), and its variance."""
        step = 1e-3  # Å, for the gradient
        away = place_xy - self.shift_xy
        points = away - step * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        value = np.log(np.maximum(spots.at(points), 1e-12))
        gradient = np.array([value[1] - value[0], value[2] - value[0], step]) / step
        surprise = math.log(max(counts, 1.0) / electrons) - float(value[0] + self.state[2])
        return surprise, gradient, 1.0 / max(counts, 1.0) + _MODEL_SD**2
