"""Frames so faint that no atom of them is sure: their lattice, and how they were taken.

Half an electron an atom shows no atom, and yet a frame of five hundred has its reflections.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage, stats

from adatom.core import Estimate, Frame, Imaging, Material
from adatom.core.arrays import FloatArray
from adatom.frames.lattice.spectrum import first_ring
from adatom.frames.simulate.conditions import PROBE_SIGMA_A

_DARK = 0.35  # share of the pixels without a count: with fewer the frame is not faint
_STRAIN = 0.05  # of a scan: how far from their place reflections are looked for
_PADDED = 2  # times the frame's side, so that no reflection falls between two frequencies
_TAIL = (0.15, 2.5)  # usual share and width of a probe's tail
_BACKGROUND = (0.15, 0.12)  # usual, in units of a host atom's peak, and its spread


def lattice_evidence(frames: Sequence[Frame], material: Material) -> float:
    """How strongly the spectra of faint frames speak for a lattice of known scale.

    The noise of counts is white: the power at any frequency over its mean is exponentially
    distributed. Of the first ring of reflections the median counts, at the angle and scale where it
    is largest, so that neither one bright reflection nor another crystal's pair makes a ring; its
    chance in noise is that of the middle one of as many exponential variables (the beta
    distribution of order statistics), times the number of places looked at. Frames may be turned
    against each other; their chances are joined by Fisher's method.

    Parameters
    ----------
    frames
        Of one pixel size.
    material
        With a lattice.

    Returns
    -------
    Decimal logarithm of one over the chance that noise alone shows as much: 6 is one in a million.
    """
    ring = first_ring(material)
    logs = [_log_chance(f, ring) for f in frames]
    joined = stats.chi2.logsf(-2.0 * np.sum(logs), 2 * len(logs))
    return float(-joined / np.log(10.0))


def _log_chance(frame: Frame, ring: FloatArray) -> float:
    """Natural logarithm of the chance that noise has such a ring anywhere it is looked for."""
    px = frame.calibration.pixel_size_A
    side = _PADDED * max(frame.shape)
    spectrum = np.fft.fft2(frame.data - frame.data.mean(), s=(side, side))
    power = np.fft.fftshift(np.abs(spectrum) ** 2)
    middle, radius = side // 2, float(np.linalg.norm(ring[0])) * px * side
    if not 4.0 < radius < 0.45 * side:
        return 0.0
    rows, cols = np.indices(power.shape)
    near = np.abs(np.hypot(rows - middle, cols - middle) / radius - 1.0) < 3 * _STRAIN
    power /= max(float(power[near].mean()), 1e-30)
    angles = np.arange(0.0, np.pi, 0.7 / radius)
    scales = 1.0 + np.arange(-_STRAIN, _STRAIN + 1e-9, 0.7 / radius)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    col = (cos * ring[:, 0] - sin * ring[:, 1]) * px * side
    row = (sin * ring[:, 0] + cos * ring[:, 1]) * px * side
    at = middle + scales[:, None, None, None] * np.stack([row, col])
    values = ndimage.map_coordinates(power, at.transpose(1, 0, 2, 3), order=1)
    n = len(ring)
    third = (n + 1) // 2  # the middle one; of an even number the lower
    best = float(np.sort(values, axis=-1)[..., n - third].max())
    # At least `third` of n exceed it, each with the chance exp(-best).
    chance = stats.binom.logsf(third - 1, n, np.exp(-best))
    return float(min(chance + np.log(angles.size * scales.size), 0.0))


def estimate_faint(frames: Sequence[Frame], material: Material) -> Imaging | None:
    """Conditions of faint frames: the dose by their dark pixels, the rest as it usually is.

    A pixel is dark with the chance ``exp(-λ)``: the share of dark ones gives the mean counts λ,
    whatever unit the file has. What of it are atoms and what is background, and how wide the probe
    is, only training's range of conditions says, and so do the standard deviations.

    Parameters
    ----------
    frames
        Of one pixel size, counts in any unit.
    material
        With a lattice.

    Returns
    -------
    Conditions; None where too few pixels are dark to tell.
    """
    dark = np.array([float(np.mean(f.data == f.data.min())) for f in frames])
    if (dark < _DARK).any():
        return None
    mean = float(np.mean(-np.log(dark)))
    px = frames[0].calibration.pixel_size_A
    low, high = material.probe_sigma_A or (PROBE_SIGMA_A[0], PROBE_SIGMA_A[1] * material.scale)
    sigma, sigma_sd = 0.5 * (low + high), (high - low) / 12**0.5
    number = {s: k for k, s in enumerate(material.species)}
    columns = material.brightness()[[number[s] for s in material.site_species]]
    share, width = _TAIL
    per_peak = 2 * np.pi * sigma**2 / (1.0 - share + share / width**2)  # Å² under a peak of one
    atoms = float(columns.mean()) * per_peak / material.site_area_A2
    counts = mean / (atoms + _BACKGROUND[0])
    doubt = np.hypot(2 * sigma_sd / sigma * atoms, _BACKGROUND[1]) / (atoms + _BACKGROUND[0])
    none = Estimate(0.0, 0.0)
    return Imaging(
        pixel_size_A=Estimate(px, 0.01 * px),
        probe_sigma_A=(Estimate(1.03 * sigma, sigma_sd), Estimate(0.97 * sigma, sigma_sd)),
        probe_angle_rad=Estimate(np.pi / 2, np.pi / 12**0.5),
        tail_fraction=Estimate(share, 0.1),
        tail_width=Estimate(width, 0.4),
        counts=Estimate(counts, float(doubt) * counts),
        background=Estimate(*_BACKGROUND),
        background_variation=none,
        background_length_A=Estimate(5.5 * material.scale, 2.0 * material.scale),
        jitter_A=Estimate(0.0, 0.03 * material.scale),
        blur_px=none,
        noise_correlation=Estimate(1.0, 0.0),
        read_noise=none,
        stretch=Estimate(0.0, 0.02),
        shear=Estimate(0.0, 0.02),
        drift_x_A=none,
        drift_y_A=none,
    )
