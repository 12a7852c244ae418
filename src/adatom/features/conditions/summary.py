"""From a fit to the conditions that a simulation takes, each with its standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adatom.core import Estimate, Imaging
from adatom.core.arrays import FloatArray, Image
from adatom.features.conditions.noise import FrameNoise, mixing, summed_correlation
from adatom.features.conditions.patch_model import Part, binning, determinant
from adatom.features.conditions.patches import View
from adatom.features.conditions.shared_fit import Jitter, covariance_of_shared

_READ_2 = 0.1  # variance of usual read noise, counts²: it passes for background
_LENGTH_A = (5.5, 2.0)  # of a background that does not vary
_VARIES = 4e-4  # least variance within a part that tells a length
_JITTER_SD = 0.05  # least uncertainty of the lines' shifts, as a share of them


def summarise(
    views: list[View],
    theta: FloatArray,
    jitter: Jitter,
    scale: tuple[Estimate, Estimate, Estimate],
    drift: tuple[Estimate, Estimate],
) -> Imaging:
    """Translate the fit into conditions.

    Parameters
    ----------
    views
        Frames with their parts, fitted.
    theta
        What parts share.
    jitter
        Of the scan lines.
    scale
        Pixel size, Å; stretch and shear.
    drift
        Along x and y, Å per frame.
    """
    covariance = covariance_of_shared(views, theta)
    parts = [(v, p) for v in views for p in v.parts]
    widening = np.mean([_widening(p, v.noise, jitter) for v, p in parts], axis=0)
    loose = np.mean([p.atoms.wander[[0, 0, 1], [0, 1, 1]] * p.px**2 for _, p in parts], axis=0)
    extra = (0.3 * loose) ** 2 + np.array([0.0, 0.0, jitter.sd**2])
    long, short, angle = _shape(theta, widening, covariance[:3, :3] + np.diag(extra))
    growth = np.sqrt(determinant(theta) / determinant(theta, widening))
    counts, background, read = _levels(views, covariance, growth)
    variation, length = _variation(views)
    blur = pool([v.noise.blur.value for v in views], [v.noise.blur.sd**2 for v in views])
    size, stretch, shear = scale
    zoom = size.value / (parts[0][1].px / parts[0][1].bins)
    lined = _root(jitter.variance, jitter.sd)
    lined = Estimate(lined.value, float(np.hypot(lined.sd, _JITTER_SD * lined.value)))
    return Imaging(
        pixel_size_A=size,
        probe_sigma_A=(_times(zoom, long), _times(zoom, short)),
        probe_angle_rad=Estimate(angle.value, min(angle.sd, np.pi / 12**0.5)),
        tail_fraction=Estimate(float(theta[3]), float(covariance[3, 3] ** 0.5)),
        tail_width=Estimate(float(theta[4]), float(covariance[4, 4] ** 0.5)),
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
    """Weighted mean; its error is widened where the values scatter by more than theirs."""
    x, weight = np.asarray(values), 1 / np.maximum(np.asarray(variances), 1e-30)
    mean = float(np.average(x, weights=weight))
    excess = float((weight * (x - mean) ** 2).sum() / max(len(x) - 1, 1))
    return Estimate(mean, float(np.sqrt(max(excess, 1.0) / weight.sum())))


def _times(factor: float, estimate: Estimate) -> Estimate:
    return Estimate(factor * estimate.value, factor * estimate.sd)


def _root(variance: float, sd: float) -> Estimate:
    """Square root of a variance that is known to `sd`, and may have come out negative."""
    value = float(np.sqrt(max(variance, 0.0)))
    return Estimate(value, float(min(sd / max(2 * value, 1e-12), np.sqrt(sd))))


def _widening(part: Part, noise: FrameNoise, jitter: Jitter) -> FloatArray:
    """Give what the fitted core's covariance has beyond the probe's (rows, mixed, columns), Å².

    Pixels, smoothing and the lines within a binned one widen a spot. Positions and line shifts
    that were fitted to the same noise narrow it, by their variance (as the mean of a sample does
    its spread).
    """
    b, px = part.bins, part.px
    wide = binning(b, px) + (noise.blur.value * px / b) ** 2
    wander = part.atoms.wander * px**2
    lines = max(jitter.variance, 0.0)
    if jitter.seen:  # or else the lines were left where they are
        apart = 1 - float((mixing(9, noise.blur.value / b)[4] ** 2).sum()) / b
        lines = lines * apart - part.lines_var
    return np.array([wide - wander[0, 0], -wander[0, 1], wide - wander[1, 1] + lines])


def _shape(theta: FloatArray, widening: FloatArray, covariance: FloatArray) -> list[Estimate]:
    """Long width, short width, direction of the long axis."""

    def of(core: FloatArray) -> FloatArray:
        widths, axes = np.linalg.eigh((core - widening)[[0, 1, 1, 2]].reshape(2, 2))
        angle = np.arctan2(axes[0, 1], axes[1, 1]) % np.pi
        low, high = np.sqrt(np.maximum(widths, 0.05**2))
        return np.array([high, low, angle])

    now = of(theta[:3])
    jacobian = np.empty((3, 3))
    for k in range(3):
        h = 0.1 * covariance[k, k] ** 0.5
        moved = of(theta[:3] + h * np.eye(3)[k]) - now
        moved[2] = (moved[2] + np.pi / 2) % np.pi - np.pi / 2
        jacobian[:, k] = moved / h
    sd = np.sqrt(np.diag(jacobian @ covariance @ jacobian.T))
    return [Estimate(*both) for both in zip(now.tolist(), sd.tolist(), strict=True)]


class _Row(NamedTuple):
    """A value from one part, its slope by the part's own unknowns, its frame's uncertainty."""

    value: float
    slope: FloatArray
    part: Part
    sd: float


def _levels(
    views: list[View], covariance: FloatArray, growth: float
) -> tuple[Estimate, Estimate, Estimate]:
    """Counts at a host atom's peak, background in units of it, and read noise in counts."""
    counts, levels, read = [], [], []
    for view in views:
        noise = view.noise
        counting = noise.counting(view.data)
        zero, zero_sd = (0.0, 0.0) if counting else _zero(noise, view)
        for part in view.parts:
            peak, level = float(part.amplitude[0] * growth), part.mean_level()
            value, relative = _peak_counts(noise, peak, level)
            share = (level - zero) / peak
            at_peak = np.zeros(len(part.inverse))
            at_peak[0] = 1.0 / part.amplitude[0]
            at_level = -share * at_peak
            by_level = part.background.gradient(part.own.astype(np.float32))
            at_level[len(part.amplitude) :] = by_level / peak
            counts.append(_Row(value, value * at_peak, part, value * relative))
            levels.append(_Row(share, at_level, part, zero_sd / peak))
            read.append(_read_noise(noise, share * value, counting=counting))
    read_value, read_sd = (float(np.mean([getattr(r, a) for r in read])) for a in ("value", "sd"))
    return (
        _pool_parts(counts, covariance),
        _pool_parts(levels, covariance),
        Estimate(read_value, read_sd),
    )


def _peak_counts(noise: FrameNoise, peak: float, level: float) -> tuple[float, float]:
    """Counts at a peak, and how well the noise tells them, as a share."""
    corr = noise.correlation
    if not noise.poisson:
        return peak**2 / max(corr * (noise.constant + noise.gain * level), 1e-30), 0.1
    gain, gain_sd = noise.gain * corr, corr * noise.covariance[1, 1] ** 0.5
    smoothed = summed_correlation(noise.blur).sd / corr
    return peak / gain, float(np.hypot(gain_sd / gain, smoothed))


def _read_noise(noise: FrameNoise, background: float, *, counting: bool) -> Estimate:
    """Read noise in counts; where the offset is unknown, up to all of the background's."""
    if not counting:
        return Estimate(0.0, float(np.sqrt(max(background, 0.01))))
    variance = noise.constant * noise.correlation
    sd = noise.correlation * float(noise.covariance[0, 0] ** 0.5)
    return _root(variance if variance > 2 * sd else 0.0, sd)


def _zero(noise: FrameNoise, view: View) -> tuple[float, float]:
    """Intensity of no counts, where noise ends, and its standard deviation."""
    if not noise.poisson:
        spread = float(np.mean([p.amplitude[0] for p in view.parts]))
        return float(np.percentile(view.data, 1)), 0.3 * spread
    slope = np.array([-1.0, noise.constant / noise.gain]) / noise.gain
    sd = float(np.sqrt(slope @ noise.covariance @ slope))
    read = _READ_2 * noise.gain * noise.correlation
    return -noise.constant / noise.gain, float(np.hypot(sd, read))


def _pool_parts(rows: list[_Row], covariance: FloatArray) -> Estimate:
    """Pool values of parts; what parts share, and their frame's noise, does not average out."""
    own = [float(r.slope @ r.part.inverse @ r.slope) for r in rows]
    shared = np.mean([r.part.follows().T @ r.slope for r in rows], axis=0)
    pooled = pool([r.value for r in rows], own)
    frame = float(np.mean([r.sd for r in rows]))
    variance = pooled.sd**2 + shared @ covariance @ shared + frame**2
    return Estimate(pooled.value, float(np.sqrt(variance)))


def _variation(views: list[View]) -> tuple[Estimate, Estimate]:
    """Spread and length of what varies slowly in the background, beyond its own uncertainty."""
    spread, steep, reach, doubt = [], [], [], []
    for view in views:
        first, unit = view.parts[0], view.parts[0].amplitude[0] ** 2
        inner, slope, of_mean, off = (np.array([_spread(p) for p in view.parts]) / unit).T
        among = float(np.var([p.mean_level() for p in view.parts])) / unit
        spread.append(float(inner.mean()) + max(among - float(of_mean.mean()), 0.0))
        steep.append(float(slope.mean()))
        doubt.append(float((off**2).sum()) / len(off) ** 2)
        reach.append((float(inner.mean()), min(first.data.shape) * first.px))
    variance = float(np.mean(spread))
    sd = float(np.hypot(0.3 * variance, np.sqrt(sum(doubt)) / len(doubt) + 2e-5))
    within, edge = np.mean(reach, axis=0)
    return _root(variance, sd), _length(float(within), float(np.mean(steep)), float(edge))


def _length(variance: float, slope: float, edge: float) -> Estimate:
    """Length of what varies, Å, by its variance in parts and its mean square slope, per Å²."""
    if variance < _VARIES or slope <= 0:
        return Estimate(*_LENGTH_A)
    # Within a part of this edge the mean is lost: (variance within) / (slope squared) of a length.
    length = np.linspace(1.0, 15.0, 57)
    x = np.linspace(0, edge, 41)
    alike = np.exp(-((x[:, None] - x) ** 2) / 4 / length[:, None, None] ** 2).mean(axis=(1, 2))
    best = float(np.interp(variance / slope, length**2 * (1 - alike**2), length))
    return Estimate(best, 0.35 * best)


def _spread(part: Part) -> tuple[float, float, float, float]:
    """Variance of a part's background, its mean square slope per Å², and its mean's variance.

    What its uncertainty would give by itself is taken off the first two; last, how far the first
    is off with that.
    """
    groups, used = len(part.amplitude), part.mask > 0
    image = part.background.image(part.level)
    values, vectors = np.linalg.eigh(part.inverse[groups:, groups:])
    square = np.array([image[used].var(), _steepness(image, used, part.px)], dtype=np.float64)
    mean, noises = 0.0, []
    for root in (vectors * np.sqrt(np.maximum(values, 0.0))).T:
        noise = part.background.image(root)
        noises.append(float(noise[used].var()))
        square -= noises[-1], _steepness(noise, used, part.px)
        mean += float((noise * part.own).sum()) ** 2
    doubt = float(np.sqrt(2 * np.square(noises).sum()))
    return float(square[0]), float(square[1]), mean, doubt


def _steepness(image: Image, used: NDArray[np.bool_], px: float) -> float:
    """Mean square of the slope, per Å²."""
    down, right = image[1:, :-1] - image[:-1, :-1], image[:-1, 1:] - image[:-1, :-1]
    return float((down**2 + right**2)[used[:-1, :-1]].mean()) / px**2
