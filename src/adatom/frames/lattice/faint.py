"""Lattice and imaging conditions of frames that are too faint to show single atoms.

With half an electron per atom no atom is visible, but the power spectrum of a frame of five hundred
atoms still has the lattice's reflections.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.special import bdtrc, chdtrc

from adatom.core import Estimate, Frame, Imaging, Material
from adatom.core.arrays import FloatArray
from adatom.frames.lattice.spectrum import first_ring
from adatom.frames.simulate.conditions import PROBE_SIGMA_A

# Smallest fraction of pixels without a count in a faint frame, dimensionless: about 1 count/pixel.
_DARK = 0.35
# Largest relative change of scale of the search for reflections: the distortion of a scan.
_STRAIN = 0.05
_PADDED = 2  # zero-padding, in frame sides, so that no reflection falls between two frequencies
# Fraction and relative width of the probe's tail: defaults of `Conditions`, dimensionless.
_TAIL = (0.15, 2.5)
# Usual background and its standard deviation, in units of a host atom's peak.
_BACKGROUND = (0.15, 0.12)


def lattice_evidence(frames: Sequence[Frame], material: Material) -> float:
    """Evidence of a lattice of known scale in the power spectra of faint frames.

    Counting noise is white: the power at a frequency divided by its mean is exponentially
    distributed. The statistic is the median power of the first ring of reflections, at the angle
    and scale where it is largest. A median is not raised by one bright reflection, nor by two that
    another crystal has there. Its probability in noise is that of the median of exponential
    variables (order statistics), times the number of angles and scales searched (Bonferroni
    correction). Frames may be rotated against each other: their probabilities are combined by
    Fisher's method.

    Parameters
    ----------
    frames
        Frames of one pixel size.
    material
        A material with a lattice.

    Returns
    -------
    Negative decimal logarithm of the p-value for noise alone: 6 means one in a million.
    """
    ring = first_ring(material)
    logs = [_log_chance(f, ring) for f in frames]
    with np.errstate(divide="ignore"):
        joined = np.log(chdtrc(2 * len(logs), -2.0 * np.sum(logs)))
    return float(-joined / np.log(10.0))


def _log_chance(frame: Frame, ring: FloatArray) -> float:
    """Natural logarithm of the probability that noise alone has such a ring in the search range."""
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
    rank = (n + 1) // 2  # the median, counted from the largest; the upper one if n is even
    best = float(np.sort(values, axis=-1)[..., n - rank].max())
    # At least `rank` of n values are this large, each with probability exp(-best) in noise.
    with np.errstate(divide="ignore"):
        chance = np.log(bdtrc(rank - 1, n, np.exp(-best)))
    return float(min(chance + np.log(angles.size * scales.size), 0.0))


def estimate_faint(frames: Sequence[Frame], material: Material) -> Imaging | None:
    """Imaging conditions of faint frames: the dose from dark pixels, the rest from training.

    A pixel has no count with probability ``exp(-λ)``, so the fraction of such pixels gives the mean
    counts λ per pixel in any unit of the file. The frames do not show the probe width, nor which
    part of the counts is background: these values, and their standard deviations, are those of the
    range of conditions in training.

    Parameters
    ----------
    frames
        Frames of one pixel size, counts in any unit.
    material
        A material with a lattice.

    Returns
    -------
    Conditions; None if the frames are not faint.
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
    per_peak = (
        2 * np.pi * sigma**2 / (1.0 - share + share / width**2)
    )  # integral of a spot of peak 1, Å²
    atoms = float(columns.mean()) * per_peak / material.site_area_A2
    counts = mean / (atoms + _BACKGROUND[0])
    relative_sd = np.hypot(2 * sigma_sd / sigma * atoms, _BACKGROUND[1]) / (atoms + _BACKGROUND[0])
    none = Estimate(0.0, 0.0)
    return Imaging(
        pixel_size_A=Estimate(px, 0.01 * px),
        probe_sigma_A=(Estimate(1.03 * sigma, sigma_sd), Estimate(0.97 * sigma, sigma_sd)),
        probe_angle_rad=Estimate(np.pi / 2, np.pi / 12**0.5),
        tail_fraction=Estimate(share, 0.1),
        tail_width=Estimate(width, 0.4),
        counts=Estimate(counts, float(relative_sd) * counts),
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
