"""Where the sites of a crystal are, and where a frame was taken, by the counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adatom.core import Calibration
from adatom.core.arrays import FloatArray
from adatom.features.exposure import Exposure
from adatom.features.refinement.image_model import Grid
from adatom.features.refinement.spot_values import spot_and_slopes
from adatom.features.site_counts import CHUNK, LEAST_LEVEL, REACH, Held, Sheet

_STEPS = 3  # of Fisher scoring of the places
_MOST_STEP_A = 0.15  # Å: longest step of a site
_LEAST_REACH_A = 0.3  # Å: shifts up to this are tried at least
_REACH_SD = 3.5  # and up to so many standard deviations of the expected one
_LEAST_RATE = 1e-12  # counts of a pixel for one electron per Å²: logarithms need one
_ELSEWHERE_A = 0.8  # Å: places farther apart than this are different ones


def moved_to_counts(exposure: Exposure, held: Held) -> Held:
    """Move the sites to where the counts say: a quadratic in the place.

    Each site has a step of Fisher scoring with the sites around it as they are expected. The
    quadratic is fitted to the steps by their information, some times.

    Parameters
    ----------
    exposure
        Counts and dose.
    held
        What was found with the sites where they were.
    """
    sheet, px = held.sheet, exposure.calibration.pixel_size_A
    probe, grid = sheet.probe_in(exposure.calibration), Grid(exposure.counts.shape)
    xy, far = sheet.xy, np.asarray(exposure.calibration.extent_xy(exposure.counts.shape))
    for _ in range(_STEPS):
        rc = exposure.calibration.rc(xy)
        image = grid.image(grid.spectrum(rc, held.amplitude), grid.kernel(probe))
        mean = np.maximum(np.asarray(image, dtype=np.float64) + sheet.level, LEAST_LEVEL)
        score, info = _scores(exposure, mean, sheet, rc, held.amplitude)
        u = 2.0 * xy / far - 1.0
        terms = np.stack([np.ones(len(u)), u[:, 0], u[:, 1], u[:, 0] ** 2, u[:, 0] * u[:, 1],
                          u[:, 1] ** 2], axis=1)  # fmt: skip
        step = np.zeros_like(xy)
        for axis in (0, 1):  # of xy; rows are y
            g, h = score[:, 1 - axis], info[:, 1 - axis]
            normal = (terms * h[:, None]).T @ terms + 1e-9 * np.eye(terms.shape[1])
            smooth = terms @ np.linalg.solve(normal, terms.T @ g)
            step[:, axis] = smooth * px
        xy = xy + np.clip(step, -_MOST_STEP_A, _MOST_STEP_A)
    return replace(held, sheet=replace(sheet, xy=xy))


def _scores(
    exposure: Exposure, mean: FloatArray, sheet: Sheet, rc: FloatArray, amplitude: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Score and information of each site's row and column, shape (site, 2), pixels."""
    probe = sheet.probe_in(exposure.calibration)
    half = int(np.ceil(REACH * probe.sigma()))
    k = np.arange(-half, half + 1)
    step = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)
    score, info = np.empty((len(rc), 2)), np.empty((len(rc), 2))
    for start in range(0, len(rc), CHUNK):
        part = slice(start, start + CHUNK)
        pixel = np.round(rc[part]).astype(np.int64)[:, None, :] + step
        inside = np.all((pixel >= 0) & (pixel < exposure.counts.shape), axis=2)
        r, c = np.clip(pixel, 0, np.array(exposure.counts.shape) - 1).transpose(2, 0, 1)
        dose = np.where(inside, exposure.dose[r, c] * sheet.rate, 0.0)
        counts = np.where(inside, exposure.counts[r, c], 0.0)
        here = mean[r, c]
        steps = np.moveaxis(pixel - rc[part][:, None, :], -1, 0).astype(np.float32)
        slopes = spot_and_slopes(probe, steps)[1].astype(np.float64) * amplitude[part][:, None]
        score[part] = ((counts / here - dose) * slopes).sum(axis=2).T
        info[part] = (dose / here * slopes**2).sum(axis=2).T
    return score, info


def shift_of(
    held: Held, calibration: Calibration, data: FloatArray, dose_per_A2: float,
    guess_xy_A: FloatArray, sigma_A: float,
) -> tuple[FloatArray, float]:  # fmt: skip
    """Find where in the field a frame was taken.

    Parameters
    ----------
    held
        Gives the expected image.
    calibration
        Of the field and of the frame.
    data
        Counts, shape (row, col).
    dose_per_A2
        Electrons per Å² of the frame.
    guess_xy_A, sigma_A
        Where its first pixel is expected in the field, shape (2,), and the standard deviation per
        axis, Å.

    Returns
    -------
    The likeliest place of its first pixel, shape (2,), Å; and by how many nats it is likelier than
    the best one farther than 0.8 Å away.
    """
    px = calibration.pixel_size_A
    reach = int(np.ceil(max(_REACH_SD * sigma_A, _LEAST_REACH_A) / px))
    start = np.round(np.asarray(guess_xy_A)[::-1] / px).astype(int)
    steps = np.arange(-reach, reach + 1)
    # The same pixels for all shifts: those that stay within the field.
    low = np.maximum(reach - start, 0)
    high = np.minimum(data.shape, np.array(held.expected.shape) - start - reach)
    seen = data[low[0] : high[0], low[1] : high[1]]
    first, last = start + low - reach, start + high + reach
    image = held.expected[first[0] : last[0], first[1] : last[1]]
    log_image = np.log(np.maximum(image, _LEAST_RATE))
    value = np.zeros((len(steps), len(steps)))
    for i in range(len(steps)):
        for j in range(len(steps)):
            there = np.s_[i : i + seen.shape[0], j : j + seen.shape[1]]
            value[i, j] = (seen * log_image[there]).sum() - dose_per_A2 * image[there].sum()
    off = (start[:, None, None] + np.stack(np.meshgrid(steps, steps, indexing="ij"))) * px
    away2 = (off[0] - guess_xy_A[1]) ** 2 + (off[1] - guess_xy_A[0]) ** 2
    value = value - away2 / (2.0 * sigma_A**2)
    i, j = divmod(int(np.argmax(value)), len(steps))
    best = np.array([off[1][i, j], off[0][i, j]])
    far = np.hypot(off[1] - best[0], off[0] - best[1]) > _ELSEWHERE_A
    margin = float(value[i, j] - value[far].max()) if far.any() else np.inf
    return best + px * np.array([_vertex(value[i], j), _vertex(value[:, j], i)]), margin


def _vertex(values: FloatArray, at: int) -> float:
    """Offset of the maximum of a parabola through three values, steps."""
    if not 0 < at < len(values) - 1 or not np.isfinite(values[at - 1 : at + 2]).all():
        return 0.0
    before, here, after = values[at - 1 : at + 2]
    return float(np.clip(0.5 * (before - after) / (before - 2 * here + after), -0.5, 0.5))
