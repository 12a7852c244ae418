"""Maximum-likelihood fit of all atoms, the background and the line shifts of a piece of a frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

from adatom.core import Calibration
from adatom.core.arrays import FloatArray, Image
from adatom.features.refinement.background import Background
from adatom.features.refinement.fisher import Information, Pairs, find_pairs, information
from adatom.features.refinement.image_model import Grid, Probe
from adatom.features.refinement.noise import estimate_noise
from adatom.features.refinement.optics import Optics, RefineOptions
from adatom.features.refinement.used_pixels import UsedPixels

# Least Levenberg-Marquardt damping, as a fraction of the Fisher diagonal: as large as the terms
# that the approximate information leaves out.
_DAMPING = 0.03
_TRIES = 3  # step lengths that are tried before a step is given up
# Relative tolerance of conjugate gradients: the curvature is approximate, and the next step
# corrects the rest.
_RELATIVE_TOLERANCE = 3e-3
# Relative change of probe or pixel weights from which the curvature is recomputed
_RECOMPUTE = 0.05
_RIM_A = 1.2  # width of the rim that is not used to measure the noise, Å: atoms outside are guesses
_LEAST_LINES = 24  # fewer scan lines do not distinguish jitter from noise
_FROZEN = 1e9  # prior information, 1/pixel², that holds a position in place
_OUTSIDE_SIGMA_A = 0.2  # accuracy of the guessed positions of atoms outside the frame, Å


class Fit:
    """Fit of the atoms, the background and the scan-line shifts of one piece of a frame.

    Parameters
    ----------
    data
        Shape (row, col), intensity.
    start
        Positions that the networks gave, shape (atom, 2), pixels.
    outside
        Shape (atom,): True for guessed atoms outside the frame.
    optics
        Initial probe, noise and jitter.
    options
        See `RefineOptions`.
    pixels
        Which pixels are used; by default all.
    """

    def __init__(
        self,
        data: Image,
        start: FloatArray,
        outside: NDArray[np.bool_],
        optics: Optics,
        options: RefineOptions,
        pixels: UsedPixels | None = None,
    ) -> None:
        self.data, self.start, self.options = data, start, options
        self.pixels = pixels or UsedPixels()
        self.px, self.probe, self.noise = optics.pixel_size_A, optics.probe, optics.noise
        self.grid = Grid((data.shape[0], data.shape[1]))
        self.background = Background(self.grid.shape, Calibration(self.px))
        self.rc, n = start.copy(), len(start)
        every = (slice(None, None, 2), slice(None, None, 2))
        seen = self.pixels.cut(every).of(data[every])
        floor = float(np.percentile(seen, 10))
        self.amplitude = np.full(n, max(float(seen.mean()) - floor, 1e-6))
        self.coefficients = np.full(self.background.count, floor)
        self.outside = outside
        # Information of the prior on row and column. That of atoms outside the frame is tighter,
        # because little of them is seen.
        self._position_prior = np.where(
            outside, (self.px / _OUTSIDE_SIGMA_A) ** 2, (self.px / options.start_sigma_A) ** 2
        )
        self._faint = max(0.05 * float(seen.std()), 1e-9)
        self.damping = _DAMPING
        self._spectrum: NDArray[np.complex64] | None = None
        self._image: Image | None = None
        self._value: float | None = None
        self._typical: tuple[FloatArray, float] | None = None  # of these amplitudes
        self._pairs: Pairs | None = None
        self._curvature: _Curvature | None = None
        self.line_shifts = np.zeros(data.shape[0])  # shift of each scan line along columns, pixels
        self.line_shifts_sd = np.zeros(data.shape[0])
        self.jitter = optics.jitter_A / self.px

    def optics(self) -> Optics:
        """Give the parameters that all atoms share."""
        return Optics(self.probe, self.noise, self.px, self.jitter * self.px)

    def run(self, iterations: int) -> None:
        """Fit amplitudes and background, then take `iterations` steps with free positions."""
        self.step(frozen=True)
        self.take_steps(iterations - 2)
        if self.jitter > 0:
            self.fit_line_shifts()
        self.take_steps(2)

    def set_start(self, amplitude: float, background: float) -> None:
        """Set all amplitudes and the whole background to one initial value each, intensity."""
        self.amplitude = np.full(len(self.rc), amplitude)
        self.coefficients = np.full(self.background.count, background)
        self._invalidate_image()

    def take_steps(self, iterations: int) -> None:
        """Take `iterations` steps; no step increases the objective."""
        for _ in range(iterations):
            self.step()

    def model(self) -> Image:
        """Expected image, shape (row, col). The array is cached: do not write to it."""
        if self._image is None:
            kernel = self.grid.kernel(self.probe)
            image = self.grid.image(self.spectrum(), kernel) + self.background.image(
                self.coefficients
            )
            if self.line_shifts.any():
                slope = self.grid.image(self.spectrum(), self.grid.column_derivative(kernel))
                image -= self.line_shifts[:, None].astype(np.float32) * slope
            self._image = image
        return self._image

    def restored(self) -> Image:
        """The data, with what is expected of clipped pixels beyond their limit, (row, col)."""
        model = self.model()
        return model + self.pixels.residual(self.data, model, self.noise)

    def spectrum(self) -> NDArray[np.complex64]:
        """Fourier transform of the atoms as points, for `Grid.image`."""
        if self._spectrum is None:
            self._spectrum = self.grid.spectrum(self.rc, self.amplitude)
        return self._spectrum

    def fit_line_shifts(self) -> None:
        """Estimate the shift of each scan line and the standard deviation of the shifts.

        To first order, a shift changes a line by the shift times the slope along the line, so each
        shift is one weighted mean. The variance that noise alone causes is subtracted from the
        variance of the shifts, and each shift is shrunk towards zero (empirical Bayes).
        """
        kernel = self.grid.column_derivative(self.grid.kernel(self.probe))
        slope = self.grid.image(self.spectrum(), kernel)
        model = self.model()
        weight, residual, informed = self._weighted(model)
        weighted = informed * slope
        known = (weighted * slope).sum(axis=1, dtype=np.float64)
        seen = known > 0.05 * known.max()
        if seen.sum() < _LEAST_LINES:
            return
        shift = self.line_shifts.copy()
        shift[seen] -= (weight * slope * residual).sum(axis=1)[seen] / known[seen]
        variance = 1.0 / known[seen]
        shift[seen] -= np.average(shift[seen], weights=known[seen])
        excess = np.average(shift[seen] ** 2 - variance, weights=known[seen] ** 2)
        # For noise alone, the relative standard deviation of the mean square is sqrt(2 / lines).
        if excess < 4 * np.average(variance, weights=known[seen] ** 2) * np.sqrt(2 / seen.sum()):
            self.jitter, self.line_shifts = 0.0, np.zeros_like(self.line_shifts)
        else:
            self.jitter = float(np.sqrt(excess))
            trust = np.zeros_like(self.line_shifts)
            trust[seen] = excess / (excess + variance)
            self.line_shifts = np.clip(trust * shift, -3 * self.jitter, 3 * self.jitter)
            self.line_shifts_sd = self.jitter * np.sqrt(1 - trust)
        self._image = self._value = None

    def step(self, *, frozen: bool = False) -> None:
        """Take one step of Fisher scoring with Levenberg-Marquardt damping.

        The gradient is exact, and the information leaves out small terms. A step that would
        increase the objective is rejected, and a shorter one is tried.

        Parameters
        ----------
        frozen
            Hold all positions; fit amplitudes and background alone.
        """
        model, now = self.model(), self.objective()
        weight, residual, informed = self._weighted(model)
        weighted = weight * residual
        (correlation,) = self.grid.correlate(weighted, self.grid.kernel(self.probe))
        gradient = self.grid.interpolate(correlation, self.rc, ("r", "c", "")).T
        gradient[:, :2] *= self.amplitude[:, None]
        typical = self.typical_amplitude()
        prior = self.prior()
        gradient[:, :2] -= (self.rc - self.start) * prior[:, 0, 0, None]
        gradient[:, 2] += prior[:, 2, 2] * (typical - self.amplitude)
        if frozen:
            prior = prior + np.diag([_FROZEN, _FROZEN, 0.0])
        curvature = self._current_curvature(informed, frozen=frozen)
        system = _System(self, curvature, prior, gradient, weighted)
        before = (self.rc, self.amplitude, self.coefficients)
        spectrum = self._spectrum
        for _ in range(_TRIES):
            change, coefficients = system.solve(self.damping)
            if not (np.isfinite(change).all() and np.isfinite(coefficients).all()):
                self.damping *= 10  # the approximate information is not positive definite
                continue
            self.amplitude = np.maximum(before[1] + change[:, 2], 1e-3 * typical)
            self.coefficients = before[2] + coefficients
            if not frozen:
                self.rc = _move(before[0], self.start, change[:, :2], self.px, self.options)
            self._invalidate_image()
            if self.objective() <= now + 1e-6 * self.data.size:  # False for NaN
                self.damping = max(self.damping / 3, _DAMPING)
                return
            self.damping *= 6
        self.rc, self.amplitude, self.coefficients = before
        self._spectrum, self._image, self._value = spectrum, model, now

    def objective(self) -> float:
        """Twice the negative logarithm of the posterior, up to a constant."""
        if self._value is None:
            model, typical = self.model(), self.typical_amplitude()
            away = (self.rc - self.start) ** 2
            penalty = float((self._position_prior * away.sum(axis=1)).sum())
            penalty += float((self._amplitude_prior() * (self.amplitude - typical) ** 2).sum())
            penalty += float(self.coefficients @ (self.smoothness() @ self.coefficients))
            self._value = self.pixels.deviance(self.data, model, self.noise) + penalty
        return self._value

    def smoothness(self) -> sparse.csr_matrix:
        """Information of the smoothness prior on the background, shape (knot, knot)."""
        return self.background.roughness * (0.5 * self.typical_amplitude()) ** -2.0

    def set_probe(self, probe: Probe) -> None:
        """Replace the probe."""
        self.probe = probe
        self._image = self._value = None

    def state(self) -> tuple[FloatArray, FloatArray, FloatArray, Probe]:
        """Positions, amplitudes, background coefficients and probe, for `set_state`."""
        return self.rc, self.amplitude, self.coefficients, self.probe  # no step writes into them

    def set_state(self, state: tuple[FloatArray, FloatArray, FloatArray, Probe]) -> None:
        """Go back to a state."""
        self.rc, self.amplitude, self.coefficients, self.probe = state
        self._invalidate_image()

    def _weighted(self, model: Image) -> tuple[Image, Image, Image]:
        """Weight of every pixel, residual, and weight in the information, all (row, col)."""
        weight = self.pixels.weight(self.data, model, self.noise)
        residual = self.pixels.residual(self.data, model, self.noise)
        return (
            weight, residual,
            self.pixels.information_weight(weight, self.data, model, self.noise),
        )  # fmt: skip

    def _invalidate_image(self) -> None:
        """Discard cached images after atoms or background have changed."""
        self._spectrum = self._image = self._value = None

    def _current_curvature(self, weight: Image, *, frozen: bool) -> _Curvature:
        """Curvature of the likelihood, recomputed only where it has changed noticeably.

        The gradient is exact, so a slightly old curvature leads to the same maximum.
        """
        last, brightness = self._curvature, float(weight.mean())
        if (
            last is None
            or last.frozen != frozen
            or self.pixels.clipped is not None  # what clipped pixels tell changes with each step
            or abs(brightness - last.brightness) > _RECOMPUTE * last.brightness
            or np.abs(self.probe.covariance - last.probe.covariance).max()
            > _RECOMPUTE * self.probe.sigma() ** 2
        ):
            if last is None or not last.frozen or self.probe is not last.probe:
                self._pairs = None  # the atoms have moved, or the probe has widened
            last = _Curvature(self, self.information(weight), weight, frozen=frozen)
            self._curvature = last
        return last

    def prior(self) -> FloatArray:
        """Information of the prior on row, column and amplitude, shape (atom, 3, 3)."""
        prior = np.zeros((len(self.rc), 3, 3))
        prior[:, 0, 0] = prior[:, 1, 1] = self._position_prior
        prior[:, 2, 2] = self._amplitude_prior()
        return prior

    def _amplitude_prior(self) -> FloatArray:
        typical = self.typical_amplitude()
        out: FloatArray = np.where(self.outside, 0.3 * typical, 30.0 * typical) ** -2.0
        return out

    def typical_amplitude(self) -> float:
        """Median amplitude of the atoms inside the frame, intensity."""
        if self._typical is None or self._typical[0] is not self.amplitude:
            inner = self.amplitude[~self.outside]
            # Without visible atoms, amplitudes scatter about zero: a noise floor keeps it positive.
            typical = max(float(np.median(inner)) if len(inner) else 1.0, self._faint)
            self._typical = self.amplitude, typical
        return self._typical[1]

    def covariance(self, *, as_stepped: bool = False) -> FloatArray:
        """Covariance of row, column and amplitude, shape (atom, 3, 3), pixels and intensity.

        Parameters
        ----------
        as_stepped
            Take the information of the last step, at the places where it began.
        """
        last = self._curvature
        if as_stepped and last is not None:
            info = last.information.brightened(np.maximum(self.amplitude, 1e-9) / last.amplitude)
        else:
            info = self.information(self._weighted(self.model())[2])
        out = info.covariance(self.prior(), self.outside)
        # Cap at the prior variance: loopy belief propagation can exceed it.
        widest = np.einsum("nii->ni", out)[:, :2].max(axis=1)
        most = (self.options.start_sigma_A / self.px) ** 2
        out[:, :2, :2] *= np.minimum(1.0, most / np.maximum(widest, 1e-12))[:, None, None]
        # Add the error from the remaining line shifts. Each line is weighted by its information,
        # exp(-r²/σ²), so the mean is over (Σq)² / Σq² = sqrt(2π) σ lines.
        lines = np.sqrt(2 * np.pi) * self.probe.sigma()
        near = np.clip(np.round(self.rc[:, 0]).astype(int), 0, len(self.line_shifts) - 1)
        slow = self.jitter**2 * 0.5 / lines  # common shift of neighbouring lines
        out[:, 1, 1] += self.line_shifts_sd[near] ** 2 / lines + slow
        return out

    def measure_noise(self) -> None:
        """Fit the noise to the residuals, without the rim where atoms outside are guessed."""
        rim = min(int(_RIM_A / self.px), min(self.data.shape) // 6)
        inner = (slice(rim, self.data.shape[0] - rim), slice(rim, self.data.shape[1] - rim))
        plain = self.pixels.plain(self.data, self.model(), self.noise)
        self.noise = estimate_noise(
            self.data[inner], self.model()[inner], None if plain is None else plain[inner]
        )
        self._value = None

    def reduced_chi2(self) -> float:
        """Mean squared residual over the variance of the noise (reduced χ²)."""
        model = self.model()
        square = (self.data - model) ** 2 / self.noise.variance(model)
        plain = self.pixels.plain(self.data, model, self.noise)
        return float(np.mean(square if plain is None or not plain.any() else square[plain]))

    def information(self, weight: Image) -> Information:
        """Fisher information of the atoms; `weight` (row, col) is 1/variance of each pixel."""
        if self._pairs is None:
            self._pairs = find_pairs(self.rc, self.probe)
        return information(self.grid, weight, self.rc, self.amplitude, self.probe, self._pairs)


class _Curvature:
    """Fisher information of atoms and background as matrices, without priors.

    One object serves several steps: the information of a position is rescaled with the amplitude
    of its atom, and everything else changes little.
    """

    def __init__(self, fit: Fit, info: Information, weight: Image, *, frozen: bool) -> None:
        self.frozen, self.probe, self.brightness = frozen, fit.probe, float(weight.mean())
        self.amplitude = np.maximum(fit.amplitude, 1e-9)
        self.information, self.atoms = info, info.matrix(np.zeros((1, 3, 3)))
        self.knots = fit.background.information(weight)
        self.cross = fit.background.cross_information(info, fit.rc, fit.amplitude)
        self.cross_t = self.cross.T.tocsr()
        self.diagonal = self.atoms.diagonal(), self.knots.diagonal()


class _System:
    """Normal equations of one step, for (row, column, amplitude) of every atom and the background.

    The information describes each spot by its effective Gaussian. The splines of the background can
    represent almost all of a wide tail. The unknowns are therefore the amplitudes and the
    background *plus* all tails; the tails drop out of these equations.
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
        self._knot, splines = background.splines_at(fit.rc)
        # Change of the coefficients that the tail of a spot of amplitude one causes.
        self._tail = splines[0] * fit.probe.tail_area() / background.spline_area
        by_background = background.gradient(weighted) - smooth @ fit.coefficients
        top = gradient.copy()
        top[:, 2] -= (self._tail * by_background[self._knot]).sum(axis=1)
        self._right = np.concatenate([top.ravel(), by_background])
        # Amplitudes have changed since the curvature was computed.
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
        """Change of the atoms, shape (atom, 3), and of the coefficients, shape (knot,)."""
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
        with np.errstate(over="ignore", invalid="ignore"):  # the caller checks the result
            solution, _ = linalg.cg(
                operator, self._right * scale, rtol=_RELATIVE_TOLERANCE, maxiter=60
            )
        solution = solution * scale
        change, coefficients = solution[: 3 * n].reshape(n, 3), solution[3 * n :]
        moved = np.bincount(
            self._knot.ravel(),
            weights=(self._tail * change[:, 2:]).ravel(),
            minlength=len(coefficients),
        )
        return change, coefficients - moved


def _move(
    rc: FloatArray, start: FloatArray, step: FloatArray, px: float, options: RefineOptions
) -> FloatArray:
    """Add a step (atom, 2) in pixels; limit its length and the distance from the start."""
    length = np.linalg.norm(step, axis=1, keepdims=True)
    step = step * np.minimum(1.0, options.largest_step_A / px / np.maximum(length, 1e-12))
    away = rc + step - start
    far = np.linalg.norm(away, axis=1, keepdims=True)
    out: FloatArray = start + away * np.minimum(
        1.0, options.largest_shift_A / px / np.maximum(far, 1e-12)
    )
    return out
