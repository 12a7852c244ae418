"""The pixel size of a frame by its lattice's reflections, before any atom is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adatom.core import Material
from adatom.core.arrays import FloatArray

_LOG_STEP = 0.006  # of scale and of spatial frequency
_ANGLE_STEP = np.pi / 240
_LOWEST_K = 0.004  # cycles per pixel
_USUAL_ERROR = 0.12  # of a file's pixel size, relative
_DOUBLE = 0.4  # by so much a scale farther off must fit better, in mean logarithms of power
TRUSTED_CONTRAST = 6.5  # noise alone reaches 5, seldom 6


@dataclass(frozen=True, slots=True)
class ScaleEstimate:
    """Pixel size by the lattice's reflections.

    Parameters
    ----------
    pixel_size_A
        Å.
    contrast
        How far the best fit stands out from all other scales and rotations, in standard
        deviations of theirs.
    angle_rad
        Direction of the first reflection.
    """

    pixel_size_A: float
    contrast: float
    angle_rad: float


def estimate_scale(
    images: Sequence[NDArray[np.float32]],
    material: Material,
    *,
    expected_A: float | None = None,
    limits_A: tuple[float, float] = (0.02, 0.5),
) -> ScaleEstimate:
    """Find the pixel size at which the material's reflections fit the frames' power spectrum.

    The spectra of all frames are averaged, whitened by their radial median, and searched over
    scale and rotation for the first two rings of reflections together, so that one ring is not
    mistaken for the other.

    Parameters
    ----------
    images
        A few frames of one scale and rotation, each of shape (row, col).
    material
        The crystal.
    expected_A
        The file's pixel size; between two equally good answers the nearer one wins.
    limits_A
        Smallest and largest pixel size looked for, Å.

    Returns
    -------
    The best fit; its contrast says how far to trust it.
    """
    polar = _polar_spectrum(images)
    reflections, rings = _reflections(material)
    weight = np.where(rings == 0, 1.0, 0.5)
    shift = np.round(np.log(np.linalg.norm(reflections, axis=1)) / _LOG_STEP).astype(int)
    turn = np.round(np.arctan2(reflections[:, 1], reflections[:, 0]) / _ANGLE_STEP).astype(int)
    scales = np.arange(
        int(np.log(limits_A[0]) / _LOG_STEP), int(np.log(limits_A[1]) / _LOG_STEP) + 1
    )
    # log k = log |g| + log pixel size: a scale is a shift, a rotation a roll.
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
    # The further rings of a clean sheet lie as its first two do, and outshine them where the probe
    # is fine: a whole ring inside the first one speaks against a scale.
    score = score - _inside(polar, row[:, rings == 0], turn[rings == 0])
    if expected_A is not None:
        distance = np.abs(scales * _LOG_STEP - np.log(expected_A))
        # Of a square lattice the rings at 1, sqrt(2) and 2 look alike, and which of them are
        # bright depends on the columns: then the file is right, if it is right to a tenth or so.
        apart = np.clip((distance - _USUAL_ERROR) / 0.1, 0.0, 1.0)
        score = score - (0.03 * distance + _DOUBLE * apart)[:, None]
    best_scale, best_angle = np.unravel_index(int(np.argmax(score)), score.shape)
    coarse = float(np.exp(scales[best_scale] * _LOG_STEP))
    angle = float(best_angle * _ANGLE_STEP)
    others = plain[np.isfinite(plain)]
    spread = 1.4826 * float(np.median(np.abs(others - np.median(others))))
    contrast = float((plain[best_scale, best_angle] - np.median(others)) / max(spread, 1e-9))
    return ScaleEstimate(_sharpen(images, reflections[rings == 0], coarse, angle), contrast, angle)


def _inside(polar: FloatArray, row: NDArray[np.int64], turn: NDArray[np.int64]) -> FloatArray:
    """Give what stands out where a crystal sqrt(3) or 2 times larger would have its reflections.

    A scale too large by that factor takes reflections farther out for the first ring, and finds the
    true first ring in these places, which the crystal leaves empty. The weakest of the ring counts,
    so that noise in one place is no ring.
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


def _polar_spectrum(images: Sequence[NDArray[np.float32]]) -> FloatArray:
    """Logarithm of the whitened power spectrum on a grid of log k and angle (half a turn).

    Each row is divided by its median over angles, so that only what stands out in direction
    counts; then a maximum over a few per cent and degrees lets each reflection be found near its
    place, as a distorted scan leaves it.
    """
    power = _spectrum(images)
    middle = power.shape[0] // 2
    log_k = np.arange(np.log(_LOWEST_K), np.log(0.48), _LOG_STEP)
    angle = np.arange(0.0, np.pi, _ANGLE_STEP)
    radius = np.exp(log_k)[:, None] * power.shape[0]
    smooth = ndimage.gaussian_filter(power, 1.0)
    polar = ndimage.map_coordinates(
        smooth, [middle + radius * np.sin(angle), middle + radius * np.cos(angle)], order=1
    )
    polar /= np.maximum(np.median(polar, axis=1, keepdims=True), 1e-30)
    polar[radius[:, 0] < 7.0] = 1.0  # closer to the middle than two periods a frame: shading
    polar = ndimage.maximum_filter(polar, size=(9, 5), mode=("nearest", "wrap"))
    # No single reflection, however bright, may make up for ones that are missing; and the maximum
    # over more bins, as far reflections have, is higher in noise too: compare within the row.
    out: FloatArray = np.log(np.clip(polar, 0.5, 300.0))
    return out - np.median(out, axis=1, keepdims=True)


def _sharpen(
    images: Sequence[NDArray[np.float32]], reflections: FloatArray, coarse_A: float, angle: float
) -> float:
    """Pixel size from the centres of mass of the first ring's peaks: their mean area scale."""
    power = _spectrum(images)
    n = power.shape[0]
    c, s = np.cos(angle), np.sin(angle)
    turned = reflections @ np.array([[c, s], [-s, c]])
    seen = np.empty_like(turned)
    for k, g in enumerate(turned):
        col, row = n / 2 + g * coarse_A * n
        half = max(int(0.06 * np.linalg.norm(g) * coarse_A * n), 3)
        r0, c0 = round(row) - half, round(col) - half
        part = power[r0 : r0 + 2 * half + 1, c0 : c0 + 2 * half + 1]
        part = np.maximum(part - np.percentile(part, 70), 0.0) ** 2
        y, x = np.indices(part.shape)
        total = max(float(part.sum()), 1e-30)
        seen[k] = (c0 + (x * part).sum() / total - n / 2, r0 + (y * part).sum() / total - n / 2)
    linear, *_ = np.linalg.lstsq(turned, seen / n, rcond=None)
    return float(np.sqrt(abs(np.linalg.det(linear))))


def _reflections(material: Material) -> tuple[FloatArray, NDArray[np.int64]]:
    """Half of the first two rings of reflections (each has its opposite), 1/Å, and their ring."""
    reciprocal = np.linalg.inv(material.cell()).T
    h, k = np.meshgrid(np.arange(-3, 4), np.arange(-3, 4), indexing="ij")
    index = np.stack([h.ravel(), k.ravel()], axis=1)
    index = index[np.any(index != 0, axis=1)]
    phase = np.exp(-2j * np.pi * index @ np.asarray(material.basis).T)
    index = index[np.abs(phase.sum(axis=1)) > 0.2]
    g = index @ reciprocal
    g = g[(g[:, 1] > 1e-9) | ((np.abs(g[:, 1]) < 1e-9) & (g[:, 0] > 0))]
    length = np.round(np.linalg.norm(g, axis=1), 6)
    rings = np.unique(length)[:2]
    keep = np.isin(length, rings)
    return g[keep], np.searchsorted(rings, length[keep])


def first_ring(material: Material) -> FloatArray:
    """Half of a first ring of reflections (each has its opposite), shape (reflection, 2), 1/Å."""
    reflections, rings = _reflections(material)
    out: FloatArray = reflections[rings == 0]
    return out
