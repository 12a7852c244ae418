"""The pixel size of a frame from the reflections of its lattice, before any atom is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.frames.lattice.stripes import Stripes, without_stripes

_LOG_STEP = 0.006  # step of the logarithms of scale and spatial frequency: 0.6 %
_ANGLE_STEP = np.pi / 240  # rad: 0.75 degrees
_LOWEST_K = 0.004  # cycles per pixel: start of the grid, below the first ring at 0.02 Å pixels
_USUAL_ERROR = 0.12  # relative error of a file's pixel size that costs no penalty
# Penalty of a scale that differs from the file's by more than _USUAL_ERROR, in units of the score
# (mean logarithm of the whitened power).
_FAR_PENALTY = 0.4
# Contrast from which the estimate is trusted, standard deviations: noise alone reaches 5, rarely 6.
TRUSTED_CONTRAST = 6.5


@dataclass(frozen=True, slots=True)
class ScaleEstimate:
    """Pixel size from the reflections of the lattice.

    Parameters
    ----------
    pixel_size_A
        Å.
    contrast
        Score of the best fit above the median over all scales and rotations, in robust standard
        deviations.
    angle_rad
        Direction of the first reflection.
    stripes
        Stripes that were left out: interference of the scan.
    """

    pixel_size_A: float
    contrast: float
    angle_rad: float
    stripes: tuple[Stripes, ...] = ()


def estimate_scale(
    images: Sequence[NDArray[np.float32]],
    material: Material,
    *,
    expected_A: float | None = None,
    limits_A: tuple[float, float] = (0.02, 0.5),
) -> ScaleEstimate:
    """Find the pixel size at which the material's reflections fit the frames' power spectrum.

    The spectra of all frames are averaged, freed of stripes, and whitened by their radial median.
    The search over scale and rotation uses the first two rings of reflections together, so that one
    ring is not mistaken for the other.

    Parameters
    ----------
    images
        A few frames of one scale and rotation, each of shape (row, col).
    material
        The crystal.
    expected_A
        Pixel size in the file, Å; of two equally good fits the nearer one wins.
    limits_A
        Smallest and largest pixel size of the search, Å.

    Returns
    -------
    The best fit; trust it if its contrast reaches `TRUSTED_CONTRAST`.
    """
    power, stripes = without_stripes(_spectrum(images))
    polar = _polar_spectrum(power)
    reflections, rings = reflections_of(material)
    weight = np.where(rings == 0, 1.0, 0.5)
    shift = np.round(np.log(np.linalg.norm(reflections, axis=1)) / _LOG_STEP).astype(int)
    turn = np.round(np.arctan2(reflections[:, 1], reflections[:, 0]) / _ANGLE_STEP).astype(int)
    scales = np.arange(
        int(np.log(limits_A[0]) / _LOG_STEP), int(np.log(limits_A[1]) / _LOG_STEP) + 1
    )
    # log k = log |g| + log pixel size: a change of scale is a shift of rows, a rotation a roll.
    log_k0 = round(np.log(_LOWEST_K) / _LOG_STEP)
    row = scales[:, None] + shift[None, :] - log_k0
    usable = (row >= 0) & (row < polar.shape[0])
    score = np.zeros((len(scales), polar.shape[1]))
    for j in range(len(reflections)):
        part = np.roll(polar, -turn[j], axis=1)[np.clip(row[:, j], 0, polar.shape[0] - 1)]
        score += weight[j] * np.where(usable[:, j, None], part, 0.0)
    score /= weight.sum()
    score[~usable[:, rings == 0].all(axis=1)] = -np.inf
    plain = score
    # The outer rings have the same pattern as the first two and can be brighter with a fine probe.
    # A complete ring inside the assumed first one is evidence against a scale.
    score = score - _ring_inside(polar, row[:, rings == 0], turn[rings == 0])
    if expected_A is not None:
        distance = np.abs(scales * _LOG_STEP - np.log(expected_A))
        # The rings of a square lattice at 1, sqrt(2) and 2 have the same pattern, and the columns
        # decide which of them are bright. The scale nearest to the file's is then preferred.
        apart = np.clip((distance - _USUAL_ERROR) / 0.1, 0.0, 1.0)
        score = score - (0.03 * distance + _FAR_PENALTY * apart)[:, None]
    best_scale, best_angle = np.unravel_index(int(np.argmax(score)), score.shape)
    coarse = float(np.exp(scales[best_scale] * _LOG_STEP))
    angle = float(best_angle * _ANGLE_STEP)
    others = plain[np.isfinite(plain)]
    spread = 1.4826 * float(np.median(np.abs(others - np.median(others))))
    contrast = float((plain[best_scale, best_angle] - np.median(others)) / max(spread, 1e-9))
    sharp = _sharpen(power, reflections[rings == 0], coarse, angle)
    return ScaleEstimate(sharp, contrast, angle, stripes)


def _ring_inside(polar: FloatArray, row: NDArray[np.int64], turn: NDArray[np.int64]) -> FloatArray:
    """Score of a ring of reflections at frequencies lower than the first ring by sqrt(3) or 2.

    At a scale that is too large by such a factor, an outer ring is taken for the first one. The
    true first ring then lies here, where the assumed crystal has no reflections. The score is that
    of the weakest reflection, so that noise at one place is not a ring.
    """
    worst = np.zeros((len(row), polar.shape[1]))
    for factor, angle in ((3.0**0.5, np.pi / 6), (2.0, 0.0)):
        down, more = round(np.log(factor) / _LOG_STEP), round(angle / _ANGLE_STEP)
        ring = np.full_like(worst, np.inf)
        for j in range(len(turn)):
            at = row[:, j] - down
            part = np.roll(polar, -turn[j] - more, axis=1)[np.clip(at, 0, polar.shape[0] - 1)]
            ring = np.minimum(ring, np.where((at >= 0)[:, None], part, 0.0))
        worst = np.maximum(worst, ring)
    return worst


def _spectrum(images: Sequence[NDArray[np.float32]]) -> FloatArray:
    """Mean power spectrum of the frames' middles, zero-padded, centred, shape (k, k)."""
    side = min(512, *(min(i.shape) for i in images))
    window = np.hanning(side)[:, None] * np.hanning(side)[None, :]
    total = np.zeros((2 * side, 2 * side))
    for image in images:
        r0, c0 = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        part = np.clip(image, *np.percentile(image, (0.1, 99.9)))[r0 : r0 + side, c0 : c0 + side]
        part = (part - part.mean()) / max(float(part.std()), 1e-12)
        total += np.abs(np.fft.fftshift(np.fft.fft2(part * window, s=total.shape))) ** 2
    return total


def _polar_spectrum(power: FloatArray) -> FloatArray:
    """Logarithm of the whitened power spectrum on a grid of log k and angle (half a turn).

    Each row is divided by its median over angles, so that only the dependence on direction remains.
    A maximum filter over a few per cent and degrees then tolerates the shifts of reflections in a
    distorted scan.
    """
    middle = power.shape[0] // 2
    log_k = np.arange(np.log(_LOWEST_K), np.log(0.48), _LOG_STEP)
    angle = np.arange(0.0, np.pi, _ANGLE_STEP)
    radius = np.exp(log_k)[:, None] * power.shape[0]
    smooth = ndimage.gaussian_filter(power, 1.0)
    polar = ndimage.map_coordinates(
        smooth, [middle + radius * np.sin(angle), middle + radius * np.cos(angle)], order=1
    )
    polar /= np.maximum(np.median(polar, axis=1, keepdims=True), 1e-30)
    polar[radius[:, 0] < 7.0] = 1.0  # below two periods per frame there is only shading
    polar = ndimage.maximum_filter(polar, size=(9, 5), mode=("nearest", "wrap"))
    # Clipping keeps one bright reflection from replacing missing ones. The maximum of noise is
    # larger at high frequencies, where it is over more bins: subtract the median of each row.
    out: FloatArray = np.log(np.clip(polar, 0.5, 300.0))
    return out - np.median(out, axis=1, keepdims=True)


def _sharpen(power: FloatArray, reflections: FloatArray, coarse_A: float, angle: float) -> float:
    """Pixel size from the centres of mass of the first ring's peaks (root of the area's scale)."""
    n = power.shape[0]
    c, s = np.cos(angle), np.sin(angle)
    rotated = reflections @ np.array([[c, s], [-s, c]])
    seen = np.empty_like(rotated)
    for k, g in enumerate(rotated):
        col, row = n / 2 + g * coarse_A * n
        half = max(int(0.06 * np.linalg.norm(g) * coarse_A * n), 3)
        r0, c0 = round(row) - half, round(col) - half
        part = power[r0 : r0 + 2 * half + 1, c0 : c0 + 2 * half + 1]
        part = np.maximum(part - np.percentile(part, 70), 0.0) ** 2
        y, x = np.indices(part.shape)
        total = max(float(part.sum()), 1e-30)
        seen[k] = (c0 + (x * part).sum() / total - n / 2, r0 + (y * part).sum() / total - n / 2)
    linear, *_ = np.linalg.lstsq(rotated, seen / n, rcond=None)
    return float(np.sqrt(abs(np.linalg.det(linear))))


def reflections_of(material: Material) -> tuple[FloatArray, NDArray[np.int64]]:
    """Half of the first two rings of reflections, one of each pair ±g, and the ring of each.

    Parameters
    ----------
    material
        A material with a lattice.

    Returns
    -------
    Reflections, shape (reflection, 2), 1/Å, and the number of the ring, 0 or 1, of each.
    """
    reciprocal = np.linalg.inv(material.cell()).T
    h, k = np.meshgrid(np.arange(-3, 4), np.arange(-3, 4), indexing="ij")
    index = np.stack([h.ravel(), k.ravel()], axis=1)
    index = index[np.any(index != 0, axis=1)]
    phase = np.exp(-2j * np.pi * index @ np.asarray(material.basis).T)
    index = index[np.abs(phase.sum(axis=1)) > 0.2]
    g = index @ reciprocal
    g = g[(g[:, 1] > 1e-9) | ((np.abs(g[:, 1]) < 1e-9) & (g[:, 0] > 0))]
    length = np.round(np.linalg.norm(g, axis=1), 3)  # cells are written with three decimals
    rings = np.unique(length)[:2]
    keep = np.isin(length, rings)
    return g[keep], np.searchsorted(rings, length[keep])


def first_ring(material: Material) -> FloatArray:
    """Half of the first ring of reflections, one of each pair ±g, shape (reflection, 2), 1/Å.

    Parameters
    ----------
    material
        A material with a lattice.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import GRAPHENE
    >>> np.linalg.norm(first_ring(GRAPHENE), axis=1).round(4)  # 1 / 2.13 Å
    array([0.4694, 0.4694, 0.4694])
    """
    reflections, rings = reflections_of(material)
    out: FloatArray = reflections[rings == 0]
    return out
