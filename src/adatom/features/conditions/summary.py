"""Convert the fit to the imaging conditions of a simulation, each with its standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adatom.core import Estimate, Imaging
from adatom.core.arrays import FloatArray, Image
from adatom.features.conditions.noise import FrameNoise, smoothing_matrix, summed_correlation
from adatom.features.conditions.patch_model import Patch, SpotShape, binning
from adatom.features.conditions.patches import FramePatches
from adatom.features.conditions.shared_fit import Jitter, covariance_of_shared

_READ_2 = 0.1  # variance of usual read noise, counts²: it cannot be told from background
_LENGTH_A = (5.5, 2.0)  # length, and its error, if the background does not vary, Å
_VARIES = 4e-4  # least relative variance within a patch for an estimate of the length
_JITTER_SD = 0.05  # least relative error of the jitter


def summarise(
    patched: list[FramePatches],
    spot: SpotShape,
    jitter: Jitter,
    scale: tuple[Estimate, Estimate, Estimate],
    drift: tuple[Estimate, Estimate],
) -> Imaging:
    """Convert the fit to imaging conditions.

    Parameters
    ----------
    patched
        Frames with their fitted patches.
    spot
        Fitted shape of the spots.
    jitter
        Variance of the line shifts.
    scale
        Pixel size, Å; stretch and shear.
    drift
        Drift along x and y, Å per frame.
    """
    covariance = covariance_of_shared(patched, spot)
    patches = [(v, p) for v in patched for p in v.patches]
    widening = np.mean([_widening(p, v.noise, jitter) for v, p in patches], axis=0)
    loose = np.mean(
        [p.atoms.position_covariance[[0, 0, 1], [0, 1, 1]] * p.px**2 for _, p in patches], axis=0
    )
    extra = (0.3 * loose) ** 2 + np.array([0.0, 0.0, jitter.sd**2])
    long, short, angle = _shape(spot, widening, covariance[:3, :3] + np.diag(extra))
    growth = np.sqrt(spot.determinant() / spot.determinant(widening))
    counts, background, read = _levels(patched, covariance, growth)
    variation, length = _variation(patched)
    blur = pool([v.noise.blur.value for v in patched], [v.noise.blur.sd**2 for v in patched])
    size, stretch, shear = scale
    zoom = size.value / (patches[0][1].px / patches[0][1].bins)
    lined = _root(jitter.variance, jitter.sd)
    lined = Estimate(lined.value, float(np.hypot(lined.sd, _JITTER_SD * lined.value)))
    return Imaging(
        pixel_size_A=size,
        probe_sigma_A=(_times(zoom, long), _times(zoom, short)),
        probe_angle_rad=Estimate(angle.value, min(angle.sd, np.pi / 12**0.5)),
        tail_fraction=Estimate(float(spot.tail_fraction), float(covariance[3, 3] ** 0.5)),
        tail_width=Estimate(float(spot.tail_width), float(covariance[4, 4] ** 0.5)),
        counts=counts,
        background=background,
        background_variation=variation,
        background_length_A=_times(zoom, length),
        jitter_A=_times(zoom, lined),
        blur_px=blur,
        noise_correlation=summed_correlation(blur),
        read_noise=read,
        stretch=stretch,
        shear=shear,
        drift_x_A=drift[0],
        drift_y_A=drift[1],
    )


def pool(values: Sequence[float], variances: Sequence[float]) -> Estimate:
    """Weighted mean; its error is increased if the scatter of the values exceeds their errors.

    Examples
    --------
    >>> pool([1.0, 3.0], [1.0, 1.0])
    Estimate(value=2.0, sd=1.0)
    """
    x, weight = np.asarray(values), 1 / np.maximum(np.asarray(variances), 1e-30)
    mean = float(np.average(x, weights=weight))
    excess = float((weight * (x - mean) ** 2).sum() / max(len(x) - 1, 1))
    return Estimate(mean, float(np.sqrt(max(excess, 1.0) / weight.sum())))


def _times(factor: float, estimate: Estimate) -> Estimate:
    return Estimate(factor * estimate.value, factor * estimate.sd)


def _root(variance: float, sd: float) -> Estimate:
    """Square root of an estimated variance with standard deviation `sd`; it may be negative."""
    value = float(np.sqrt(max(variance, 0.0)))
    return Estimate(value, float(min(sd / max(2 * value, 1e-12), np.sqrt(sd))))


def _widening(patch: Patch, noise: FrameNoise, jitter: Jitter) -> FloatArray:
    """Covariance of the fitted core minus that of the probe (rows, mixed, columns), (3,), Å².

    Pixels, smoothing, and line shifts within a binned pixel widen a spot. Positions and line shifts
    fitted to the same noise narrow it by their variance, as a sample mean lowers a sample variance.
    """
    b, px = patch.bins, patch.px
    wide = binning(b, px) + (noise.blur.value * px / b) ** 2
    position_covariance = patch.atoms.position_covariance * px**2
    lines = max(jitter.variance, 0.0)
    if jitter.seen:  # otherwise the lines were not shifted
        apart = 1 - float((smoothing_matrix(9, noise.blur.value / b)[4] ** 2).sum()) / b
        lines = lines * apart - patch.lines_var
    return np.array(
        [
            wide - position_covariance[0, 0],
            -position_covariance[0, 1],
            wide - position_covariance[1, 1] + lines,
        ]
    )


def _shape(spot: SpotShape, widening: FloatArray, covariance: FloatArray) -> list[Estimate]:
    """Long width, short width (Å), and direction of the long axis (rad)."""

    def of(core: FloatArray) -> FloatArray:
        widths, axes = np.linalg.eigh((core - widening)[[0, 1, 1, 2]].reshape(2, 2))
        angle = np.arctan2(axes[0, 1], axes[1, 1]) % np.pi
        low, high = np.sqrt(np.maximum(widths, 0.05**2))
        return np.array([high, low, angle])

    now = of(spot.core)
    jacobian = np.empty((3, 3))
    for k in range(3):
        h = 0.1 * covariance[k, k] ** 0.5
        moved = of(spot.core + h * np.eye(3)[k]) - now
        moved[2] = (moved[2] + np.pi / 2) % np.pi - np.pi / 2
        jacobian[:, k] = moved / h
    sd = np.sqrt(np.diag(jacobian @ covariance @ jacobian.T))
    return [Estimate(*both) for both in zip(now.tolist(), sd.tolist(), strict=True)]


class _Row(NamedTuple):
    """A value from one patch, its derivative by the own parameters, and the error of its frame."""

    value: float
    slope: FloatArray
    patch: Patch
    sd: float


def _levels(
    patched: list[FramePatches], covariance: FloatArray, growth: float
) -> tuple[Estimate, Estimate, Estimate]:
    """Counts at the peak of a host atom, background in units of the peak, read noise in counts."""
    counts, levels, read = [], [], []
    for one_frame in patched:
        noise = one_frame.noise
        counting = noise.counting(one_frame.data - np.float32(one_frame.zero))
        zero, zero_sd = (one_frame.zero, 0.0) if counting else _zero(noise, one_frame)
        for patch in one_frame.patches:
            peak, level = float(patch.amplitude[0] * growth), patch.mean_background()
            value, relative = _peak_counts(noise, peak, level)
            share = (level - zero) / peak
            at_peak = np.zeros(len(patch.inverse))
            at_peak[0] = 1.0 / patch.amplitude[0]
            at_level = -share * at_peak
            by_level = patch.background.gradient(patch.own.astype(np.float32))
            at_level[len(patch.amplitude) :] = by_level / peak
            counts.append(_Row(value, value * at_peak, patch, value * relative))
            levels.append(_Row(share, at_level, patch, zero_sd / peak))
            read.append(_read_noise(noise, zero, share * value, counting=counting))
    read_value, read_sd = (float(np.mean([getattr(r, a) for r in read])) for a in ("value", "sd"))
    return (
        _pool_parts(counts, covariance),
        _pool_parts(levels, covariance),
        Estimate(read_value, read_sd),
    )


def _peak_counts(noise: FrameNoise, peak: float, level: float) -> tuple[float, float]:
    """Counts at a peak, and their relative error from the error of the noise."""
    corr = noise.correlation
    if not noise.poisson:
        return peak**2 / max(corr * (noise.constant + noise.gain * level), 1e-30), 0.1
    gain, gain_sd = noise.gain * corr, corr * noise.covariance[1, 1] ** 0.5
    smoothed = summed_correlation(noise.blur).sd / corr
    return peak / gain, float(np.hypot(gain_sd / gain, smoothed))


def _read_noise(noise: FrameNoise, zero: float, background: float, *, counting: bool) -> Estimate:
    """Read noise in counts; with an unknown offset, at most the noise of the background."""
    if not counting:
        return Estimate(0.0, float(np.sqrt(max(background, 0.01))))
    variance = (noise.constant + noise.gain * zero) * noise.correlation
    sd = noise.correlation * float(noise.covariance[0, 0] ** 0.5)
    return _root(variance if variance > 2 * sd else 0.0, sd)


def _zero(noise: FrameNoise, one_frame: FramePatches) -> tuple[float, float]:
    """Intensity at zero counts, where the noise vanishes, and its standard deviation."""
    if not noise.poisson:
        spread = float(np.mean([p.amplitude[0] for p in one_frame.patches]))
        return float(np.percentile(one_frame.data, 1)), 0.3 * spread
    slope = np.array([-1.0, noise.constant / noise.gain]) / noise.gain
    sd = float(np.sqrt(slope @ noise.covariance @ slope))
    read = _READ_2 * noise.gain * noise.correlation
    return -noise.constant / noise.gain, float(np.hypot(sd, read))


def _pool_parts(rows: list[_Row], covariance: FloatArray) -> Estimate:
    """Pool values of patches; errors of the spot shape and of the noise are common to all."""
    own = [float(r.slope @ r.patch.inverse @ r.slope) for r in rows]
    shared = np.mean([r.patch.response_to_shared().T @ r.slope for r in rows], axis=0)
    pooled = pool([r.value for r in rows], own)
    frame = float(np.mean([r.sd for r in rows]))
    variance = pooled.sd**2 + shared @ covariance @ shared + frame**2
    return Estimate(pooled.value, float(np.sqrt(variance)))


def _variation(patched: list[FramePatches]) -> tuple[Estimate, Estimate]:
    """Standard deviation and length of slow variations of the background, without its error."""
    spread, steep, reach, doubt = [], [], [], []
    for one_frame in patched:
        first, unit = one_frame.patches[0], one_frame.patches[0].amplitude[0] ** 2
        inner, slope, of_mean, off = (np.array([_spread(p) for p in one_frame.patches]) / unit).T
        among = float(np.var([p.mean_background() for p in one_frame.patches])) / unit
        spread.append(float(inner.mean()) + max(among - float(of_mean.mean()), 0.0))
        steep.append(float(slope.mean()))
        doubt.append(float((off**2).sum()) / len(off) ** 2)
        reach.append((float(inner.mean()), min(first.data.shape) * first.px))
    variance = float(np.mean(spread))
    sd = float(np.hypot(0.3 * variance, np.sqrt(sum(doubt)) / len(doubt) + 2e-5))
    within, edge = np.mean(reach, axis=0)
    return _root(variance, sd), _length(float(within), float(np.mean(steep)), float(edge))


def _length(variance: float, slope: float, edge: float) -> Estimate:
    """Correlation length, Å, from the variance within patches and the mean square slope (1/Å²)."""
    if variance < _VARIES or slope <= 0:
        return Estimate(*_LENGTH_A)
    # The variance within a patch of this edge excludes that of its mean: tabulate the ratio of the
    # variance to the squared slope over the length.
    length = np.linspace(1.0, 15.0, 57)
    x = np.linspace(0, edge, 41)
    alike = np.exp(-((x[:, None] - x) ** 2) / 4 / length[:, None, None] ** 2).mean(axis=(1, 2))
    best = float(np.interp(variance / slope, length**2 * (1 - alike**2), length))
    return Estimate(best, 0.35 * best)


def _spread(patch: Patch) -> tuple[float, float, float, float]:
    """Variance and mean square slope (1/Å²) of the background of a patch, and two errors.

    The contributions of the fit error are subtracted from the first two. The third value is the
    variance of the mean background, the fourth the error of the first.
    """
    groups, used = len(patch.amplitude), patch.mask > 0
    image = patch.background.image(patch.coefficients)
    values, vectors = np.linalg.eigh(patch.inverse[groups:, groups:])
    square = np.array([image[used].var(), _steepness(image, used, patch.px)], dtype=np.float64)
    mean, noises = 0.0, []
    for root in (vectors * np.sqrt(np.maximum(values, 0.0))).T:
        noise = patch.background.image(root)
        noises.append(float(noise[used].var()))
        square -= noises[-1], _steepness(noise, used, patch.px)
        mean += float((noise * patch.own).sum()) ** 2
    doubt = float(np.sqrt(2 * np.square(noises).sum()))
    return float(square[0]), float(square[1]), mean, doubt


def _steepness(image: Image, used: NDArray[np.bool_], px: float) -> float:
    """Mean square of the slope, intensity²/Å²."""
    down, right = image[1:, :-1] - image[:-1, :-1], image[:-1, 1:] - image[:-1, :-1]
    return float((down**2 + right**2)[used[:-1, :-1]].mean()) / px**2
