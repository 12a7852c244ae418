"""One piece of a frame on its way to the maximum of the likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse
from scipy.sparse import linalg

from adatom.core import Calibration
from adatom.core.arrays import FloatArray, Image
from adatom.features.refinement.background import Background
from adatom.features.refinement.fisher import Information, Pairs, find_pairs, information
from adatom.features.refinement.image_model import Grid, Probe
from adatom.features.refinement.noise import Noise, estimate_noise

_DAMPING = 0.03  # of each parameter's own information: what is left out there is as large
_TRIES = 3
_RESIDUAL = 3e-3  # of the equations, left to the next step: its curvature is not exact anyway
_FRESH = 0.05  # change of the probe or of the pixels' weights from which curvature is made anew
_RIM_A = 1.2  # left out where the noise is measured
_LEAST_LINES = 24  # fewer do not tell jitter from noise
_FROZEN = 1e9  # a prior that no frame can move
_GHOST_SIGMA_A = 0.2  # how well the places of atoms beyond the border are guessed


class RefineOptions(BaseModel):
    """How positions are refined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(4, ge=1, description="Fisher-scoring steps with the probe known")
    probe_iterations: int = Field(8, ge=1, description="steps in which the probe is learned")
    start_sigma_A: float = Field(
        0.12, gt=0, description="how far the networks' positions are trusted, Å (1 sigma)"
    )
    largest_step_A: float = Field(0.12, gt=0, description="longest move in one iteration, Å")
    largest_shift_A: float = Field(0.45, gt=0, description="farthest from the start, Å")


@dataclass(frozen=True, slots=True, eq=False)
class Optics:
    """What all atoms of a frame share.

    Parameters
    ----------
    probe
        The fitted probe, in binned pixels.
    noise
        The fitted noise.
    pixel_size_A
        Of the binned pixels.
    jitter_A
        Standard deviation of the shifts of scan lines along x, Å.
    """

    probe: Probe
    noise: Noise
    pixel_size_A: float
    jitter_A: float = 0.0

    @property
    def sigma_A(self) -> float:
        """Mean width of the probe's core, Å."""
        return self.probe.sigma() * self.pixel_size_A

    @property
    def ellipticity(self) -> float:
        """Long width of the core over the short one."""
        low, high = np.linalg.eigvalsh(self.probe.matrix())
        return float(np.sqrt(high / max(low, 1e-12)))


class Fit:
    """Atoms, background and scan lines of one piece of a frame.

    Parameters
    ----------
    data
        Shape (row, col), intensity.
    start
        Where the networks saw the atoms, shape (atom, 2), pixels.
    ghost
        Shape (atom,): True for guesses beyond the border.
    optics
        Probe and noise to start with.
    options
        See `RefineOptions`.
    """

    def __init__(
        self,
        data: Image,
        start: FloatArray,
        ghost: NDArray[np.bool_],
        optics: Optics,
        options: RefineOptions,
    ) -> None:
        self.data, self.start, self.options = data, start, options
        self.px, self.probe, self.noise = optics.pixel_size_A, optics.probe, optics.noise
        self.grid = Grid((data.shape[0], data.shape[1]))
        self.background = Background(self.grid.shape, Calibration(self.px))
        self.rc, n = start.copy(), len(start)
        floor = float(np.percentile(data[::2, ::2], 10))
        self.amplitude = np.full(n, max(float(data[::2, ::2].mean()) - floor, 1e-6))
        self.level = np.full(self.background.count, floor)
        prior = np.zeros((n, 3, 3))
        prior[:, 0, 0] = prior[:, 1, 1] = (self.px / options.start_sigma_A) ** 2
        self.prior, self.ghost = prior, ghost
        self._faint = max(0.05 * float(data[::2, ::2].std()), 1e-9)
        self.damping = _DAMPING
        self._spectrum: NDArray[np.complex64] | None = None
        self._image: Image | None = None
        self._value: float | None = None
        self._pairs: Pairs | None = None
        self._curvature: _Curvature | None = None
        self.lines = np.zeros(data.shape[0])  # shift of each scan line along x, pixels
        self.lines_sd = np.zeros(data.shape[0])
        self.jitter = optics.jitter_A / self.px

    def optics(self) -> Optics:
        """Give what all atoms share."""
        return Optics(self.probe, self.noise, self.px, self.jitter * self.px)

    def run(self, iterations: int) -> None:
        """Settle amplitudes and background, then take so many steps with everything free."""
        self.step(frozen=True)
        self.free(iterations - 2)
        if self.jitter > 0:
            self.settle_lines()
        self.free(2)

    def begin(self, amplitude: float, level: float) -> None:
        """Start from what another piece of the frame has shown of an atom and of the background."""
        self.amplitude = np.full(len(self.rc), amplitude)
        self.level = np.full(self.background.count, level)
        self._moved()

    def free(self, iterations: int) -> None:
        """Take so many steps; none makes the fit worse than it was."""
        for _ in range(iterations):
            self.step()

    def model(self) -> Image:
        """Give the expected image, shape (row, col); not to be written to."""
        if self._image is None:
            kernel = self.grid.kernel(self.probe)
            image = self.grid.image(self.spectrum(), kernel) + self.background.image(self.level)
            if self.lines.any():
                slope = self.grid.image(self.spectrum(), self.grid.along_columns(kernel))
                image -= self.lines[:, None].astype(np.float32) * slope
            self._image = image
        return self._image

    def spectrum(self) -> NDArray[np.complex64]:
        """Spectrum of the atoms as points, for `Grid.image`."""
        if self._spectrum is None:
            self._spectrum = self.grid.spectrum(self.rc, self.amplitude)
        return self._spectrum

    def settle_lines(self) -> None:
        """Estimate the shift of each scan line, and how much lines shift at all.

        To first order a shifted line differs by the shift times the slope along it: one weighted
        mean a line. What noise alone would give is taken off the variance of the shifts, and each
        is shrunk towards none accordingly.
        """
        kernel = self.grid.along_columns(self.grid.kernel(self.probe))
        slope = self.grid.image(self.spectrum(), kernel)
        model = self.model()
        weighted = slope / self.noise.variance(model)
        known = (weighted * slope).sum(axis=1, dtype=np.float64)
        seen = known > 0.05 * known.max()
        if seen.sum() < _LEAST_LINES:
            return
        shift = self.lines.copy()
        shift[seen] -= (weighted * (self.data - model)).sum(axis=1)[seen] / known[seen]
        variance = 1.0 / known[seen]
        shift[seen] -= np.average(shift[seen], weights=known[seen])
        excess = np.average(shift[seen] ** 2 - variance, weights=known[seen] ** 2)
        # Of noise alone the mean square scatters by sqrt(2 / lines).
        if excess < 4 * np.average(variance, weights=known[seen] ** 2) * np.sqrt(2 / seen.sum()):
            self.jitter, self.lines = 0.0, np.zeros_like(self.lines)
        else:
            self.jitter = float(np.sqrt(excess))
            trust = np.zeros_like(self.lines)
            trust[seen] = excess / (excess + variance)
            self.lines = np.clip(trust * shift, -3 * self.jitter, 3 * self.jitter)
            self.lines_sd = self.jitter * np.sqrt(1 - trust)
        self._image = self._value = None

    def step(self, *, frozen: bool = False) -> None:
        """One step of Fisher scoring: exact gradient, information with small terms left out.

        Damped as Levenberg and Marquardt do: a step that would make the fit worse is not taken,
        and a shorter one is tried.
        """
        model, now = self._state()
        weight = (1.0 / self.noise.variance(model)).astype(np.float32)
        weighted = weight * (self.data - model)
        (correlation,) = self.grid.coefficients(weighted, self.grid.kernel(self.probe))
        gradient = self.grid.at(correlation, self.rc, ("r", "c", "")).T
        gradient[:, :2] *= self.amplitude[:, None]
        typical = self.typical()
        prior = self._prior(typical)
        gradient[:, :2] -= (self.rc - self.start) * prior[:, 0, 0, None]
        gradient[:, 2] += prior[:, 2, 2] * (typical - self.amplitude)
        if frozen:
            prior = prior + np.diag([_FROZEN, _FROZEN, 0.0])
        curvature = self._curved(weight, frozen=frozen)
        system = _System(self, curvature, prior, gradient, weighted)
        before = (self.rc, self.amplitude, self.level)
        spectrum = self._spectrum
        for _ in range(_TRIES):
            change, level = system.solve(self.damping)
            if not (np.isfinite(change).all() and np.isfinite(level).all()):
                self.damping *= 10  # the information left out was more than that of some parameter
                continue
            self.amplitude = np.maximum(before[1] + change[:, 2], 1e-3 * typical)
            self.level = before[2] + level
            if not frozen:
                self.rc = _move(before[0], self.start, change[:, :2], self.px, self.options)
            self._moved()
            if self._state()[1] <= now + 1e-6 * self.data.size:  # False for nan
                self.damping = max(self.damping / 3, _DAMPING)
                return
            self.damping *= 6
        self.rc, self.amplitude, self.level = before
        self._spectrum, self._image, self._value = spectrum, model, now

    def _state(self) -> tuple[Image, float]:
        """Expected image, and twice the negative log of its posterior but for a constant."""
        model = self.model()
        if self._value is None:
            typical = self.typical()
            prior = self._prior(typical)
            away = (self.rc - self.start) ** 2
            penalty = float((prior[:, 0, 0] * away.sum(axis=1)).sum())
            penalty += float((prior[:, 2, 2] * (self.amplitude - typical) ** 2).sum())
            penalty += float(self.level @ (self.smoothness() @ self.level))
            self._value = self.noise.deviance(self.data, model) + penalty
        return model, self._value

    def smoothness(self) -> sparse.csr_matrix:
        """Information of the prior on the background: that it is smooth."""
        return self.background.roughness * (0.5 * self.typical()) ** -2.0

    def forget(self) -> None:
        """Say that anything may have changed."""
        self._moved()
        self._pairs = self._curvature = None

    def see(self, probe: Probe) -> None:
        """Take another probe."""
        self.probe = probe
        self._image = self._value = None

    def _moved(self) -> None:
        """Say that atoms or background have changed."""
        self._spectrum = self._image = self._value = None

    def _curved(self, weight: Image, *, frozen: bool) -> _Curvature:
        """Give the likelihood's curvature: anew where it has changed, or else the last one.

        The gradient is exact: a slightly old curvature leads to the same place.
        """
        last, brightness = self._curvature, float(weight.mean())
        if (
            last is None
            or last.frozen != frozen
            or abs(brightness - last.brightness) > _FRESH * last.brightness
            or np.abs(self.probe.covariance - last.probe.covariance).max()
            > _FRESH * self.probe.sigma() ** 2
        ):
            if last is None or not last.frozen or self.probe is not last.probe:
                self._pairs = None  # the atoms have moved, or reach farther
            last = _Curvature(self, self._information(weight), weight, frozen=frozen)
            self._curvature = last
        return last

    def _prior(self, typical: float) -> FloatArray:
        """Information of the prior; ghosts, of which little shows, stay near their inner kin."""
        prior = self.prior.copy()
        loose = (self.px / _GHOST_SIGMA_A) ** 2
        prior[self.ghost, :2, :2] = np.diag([loose, loose])
        prior[:, 2, 2] = np.where(self.ghost, 0.3 * typical, 30.0 * typical) ** -2.0
        return prior

    def typical(self) -> float:
        """Amplitude of a usual atom."""
        inner = self.amplitude[~self.ghost]
        # Where nothing is to be seen, amplitudes are noise about zero: not less than that.
        return max(float(np.median(inner)) if len(inner) else 1.0, self._faint)

    def covariance(self) -> FloatArray:
        """Covariance of row, column and amplitude, shape (atom, 3, 3), pixels and intensity."""
        weight = (1.0 / self.noise.variance(self.model())).astype(np.float32)
        out = self._information(weight).covariance(self._prior(self.typical()), self.ghost)
        # Nothing is less sure than the prior alone; loops of messages may forget it.
        widest = np.einsum("nii->ni", out)[:, :2].max(axis=1)
        most = (self.options.start_sigma_A / self.px) ** 2
        out[:, :2, :2] *= np.minimum(1.0, most / np.maximum(widest, 1e-12))[:, None, None]
        # What the lines under an atom may still have moved it. Each line counts by its information,
        # exp(-r²/σ²); the mean is then over (Σq)² / Σq² = sqrt(2π) σ lines.
        lines = np.sqrt(2 * np.pi) * self.probe.sigma()
        near = np.clip(np.round(self.rc[:, 0]).astype(int), 0, len(self.lines) - 1)
        slow = self.jitter**2 * 0.5 / lines  # moves of neighbouring lines together
        out[:, 1, 1] += self.lines_sd[near] ** 2 / lines + slow
        return out

    def measure_noise(self) -> None:
        """Fit the noise to what the model leaves away from the border, where ghosts are guesses."""
        rim = min(int(_RIM_A / self.px), min(self.data.shape) // 6)
        inner = (slice(rim, self.data.shape[0] - rim), slice(rim, self.data.shape[1] - rim))
        self.noise = estimate_noise(self.data[inner], self.model()[inner])
        self._value = None

    def misfit(self) -> float:
        """Mean squared residual over the noise's variance."""
        model = self.model()
        return float(np.mean((self.data - model) ** 2 / self.noise.variance(model)))

    def _information(self, weight: Image) -> Information:
        if self._pairs is None:
            self._pairs = find_pairs(self.rc, self.probe)
        return information(self.grid, weight, self.rc, self.amplitude, self.probe, self._pairs)


class _Curvature:
    """Fisher information of atoms and background as matrices, without priors.

    It can serve several steps: what an atom's position is known by goes with its amplitude, and
    the rest changes little.
    """

    def __init__(self, fit: Fit, info: Information, weight: Image, *, frozen: bool) -> None:
        self.frozen, self.probe, self.brightness = frozen, fit.probe, float(weight.mean())
        self.amplitude = np.maximum(fit.amplitude, 1e-9)
        self.atoms = info.matrix(np.zeros((1, 3, 3)))
        self.knots = fit.background.information(weight)
        self.cross = fit.background.shared(info, fit.rc, fit.amplitude)
        self.cross_t = self.cross.T.tocsr()
        self.diagonal = self.atoms.diagonal(), self.knots.diagonal()


class _System:
    """Normal equations of one step, for (row, column, amplitude) of every atom and the background.

    The information knows each spot's effective Gaussian alone. What a wide tail adds lies almost
    within the background's own splines, so the unknowns are the amplitudes and the background
    *with* all tails in it: there, the tails drop out.
    """

    def __init__(
        self,
        fit: Fit,
        curvature: _Curvature,
        prior: FloatArray,
        gradient: FloatArray,
        weighted: Image,
    ) -> None:
        background, self._n = fit.background, len(fit.rc)
        smooth = fit.smoothness()
        self._curvature = curvature
        self._knots = curvature.knots + smooth
        self._knot, splines = background.around(fit.rc)
        # The level that one of an amplitude adds.
        self._tail = splines[0] * fit.probe.tail_area() / background.area
        by_level = background.gradient(weighted) - smooth @ fit.level
        top = gradient.copy()
        top[:, 2] -= (self._tail * by_level[self._knot]).sum(axis=1)
        self._right = np.concatenate([top.ravel(), by_level])
        # Since the curvature was computed, amplitudes have changed.
        grown = np.ones((self._n, 3))
        grown[:, :2] = (np.maximum(fit.amplitude, 1e-9) / curvature.amplitude)[:, None]
        own = np.einsum("nii->ni", prior).ravel()
        diagonal = np.concatenate(
            [curvature.diagonal[0] * grown.ravel() ** 2 + own, self._knots.diagonal()]
        )
        self._scale = 1.0 / np.sqrt(np.maximum(diagonal, 1e-300))
        self._grown = np.concatenate([grown.ravel(), np.ones(background.count)]) * self._scale
        self._prior = own * self._scale[: 3 * self._n] ** 2

    def solve(self, damping: float) -> tuple[FloatArray, FloatArray]:
        """Change of the atoms, shape (atom, 3), and of the levels, shape (knot,)."""
        n, scale, curvature = self._n, self._scale, self._curvature
        diagonal = np.full(len(scale), damping)
        diagonal[: 3 * n] += self._prior

        def product(x: FloatArray) -> FloatArray:
            v = x * self._grown
            out = np.empty_like(v)
            out[: 3 * n] = curvature.atoms @ v[: 3 * n]
            out[: 3 * n] += curvature.cross @ v[3 * n :]
            out[3 * n :] = curvature.cross_t @ v[: 3 * n]
            out[3 * n :] += self._knots @ v[3 * n :]
            out *= self._grown
            out += diagonal * x
            return np.asarray(out, dtype=np.float64)

        size = len(self._right)
        operator = linalg.LinearOperator((size, size), matvec=product, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the answer
            solution, _ = linalg.cg(operator, self._right * scale, rtol=_RESIDUAL, maxiter=60)
        solution = solution * scale
        change, level = solution[: 3 * n].reshape(n, 3), solution[3 * n :]
        moved = np.bincount(
            self._knot.ravel(),
            weights=(self._tail * change[:, 2:]).ravel(),
            minlength=len(level),
        )
        return change, level - moved


def _move(
    rc: FloatArray, start: FloatArray, step: FloatArray, px: float, options: RefineOptions
) -> FloatArray:
    """Add a step (atom, 2), limited in length and in distance from the start, pixels."""
    length = np.linalg.norm(step, axis=1, keepdims=True)
    step = step * np.minimum(1.0, options.largest_step_A / px / np.maximum(length, 1e-12))
    away = rc + step - start
    far = np.linalg.norm(away, axis=1, keepdims=True)
    out: FloatArray = start + away * np.minimum(
        1.0, options.largest_shift_A / px / np.maximum(far, 1e-12)
    )
    return out
