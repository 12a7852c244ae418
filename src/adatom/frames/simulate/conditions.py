"""Imaging conditions: pixel, probe, dose, noise, background, scan; and their training range."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from adatom.core import GRAPHENE, Material
from adatom.frames.simulate.probe import Optics

# The training range of the networks for graphene, smallest and largest value;
# `features.novelty` flags frames outside of it.
PIXEL_A = (0.065, 0.22)  # Å: pixel size
COUNTS_PER_A2 = (2.5, 10_000.0)  # counts per Å² at the peak of an isolated host atom
_BRIGHTEST_LUMPS = 0.45  # of a host atom's peak; brighter ones cannot be told from atoms
PROBE_SIGMA_A = (0.3, 0.56)  # Å: standard deviation of the spot of one atom


@dataclass(frozen=True, slots=True)
class Conditions:
    """Imaging conditions of a frame.

    Parameters
    ----------
    pixel_size_A
        Edge of a pixel, Å.
    probe_sigma_A
        Standard deviations of the Gaussian spot of one atom along its two axes, Å (probe, source
        and vibration). With `optics`, only of the blur by source and vibration.
    probe_angle_rad
        Direction of the first axis (two-fold astigmatism), rad, from x towards y.
    tail_fraction
        Fraction of the intensity in a second Gaussian, the tail.
    tail_width
        Width of the tail over that of the spot, dimensionless.
    optics
        A wave-optical probe in place of a Gaussian one.
    counts
        Detected counts at the peak of an isolated host atom.
    background
        Constant background, in units of that peak.
    slow_background
        Amplitude of a smooth random background (support, thick contamination), same unit.
    slow_length_A
        Its length scale, Å.
    contamination
        Fraction of the field under amorphous contamination, which is rough on the scale of atoms.
    contamination_level
        Its mean intensity, in units of a host atom's peak.
    support
        Mean intensity of an amorphous support under the atoms, same unit.
    support_speckle
        Relative standard deviation of its intensity by its atoms.
    support_lumps
        Brightness of spots in the support that are no atoms of the material: many atoms of the
        support above each other, or heavy ones out of focus. Root mean square, in units of a host
        atom's peak.
    support_hills
        Relative standard deviation of its thickness, which varies over `slow_length_A`.
    jitter_A
        Standard deviation of the shift of a scan line along x, Å.
    vibration_A, vibration_lines
        Amplitude of a periodic shift of the lines along x, Å, and its period in lines.
    fly_back_A, fly_back_length_A
        Shift along x at the start of each line, Å, and the length over which it decays, Å.
    read_noise
        Gaussian noise, counts.
    contrast_exponent
        Intensity goes with Z to this power.
    blur_px
        Standard deviation of smoothing after detection (exported or filtered frames), pixels.
    """

    pixel_size_A: float = 0.1
    probe_sigma_A: tuple[float, float] = (0.42, 0.42)
    probe_angle_rad: float = 0.0
    tail_fraction: float = 0.15
    tail_width: float = 2.5
    optics: Optics | None = None
    counts: float = 20.0
    background: float = 0.1
    slow_background: float = 0.0
    slow_length_A: float = 6.0
    contamination: float = 0.0
    contamination_level: float = 1.0
    support: float = 0.0
    support_speckle: float = 0.1
    support_lumps: float = 0.0
    support_hills: float = 0.3
    jitter_A: float = 0.0
    vibration_A: float = 0.0
    vibration_lines: float = 7.0
    fly_back_A: float = 0.0
    fly_back_length_A: float = 2.0
    read_noise: float = 0.0
    contrast_exponent: float = 1.64
    blur_px: float = 0.0

    @property
    def counts_per_A2(self) -> float:
        """Detected counts per Å² at the peak of an isolated host atom."""
        return self.counts / self.pixel_size_A**2

    def undisturbed(self) -> Conditions:
        """Same probe, dose, pixel size and constant background, without further disturbances."""
        return replace(
            self,
            slow_background=0.0,
            contamination=0.0,
            jitter_A=0.0,
            vibration_A=0.0,
            fly_back_A=0.0,
            read_noise=0.0,
            blur_px=0.0,
        )

    @classmethod
    def random(cls, rng: np.random.Generator, material: Material = GRAPHENE) -> Conditions:
        """Sample conditions from the training range.

        Parameters
        ----------
        rng
            Source of randomness.
        material
            Pixel sizes and the largest probe width are multiplied by its `Material.scale`.
        """
        scale = material.scale
        pixel_size_A = scale * _log_uniform(rng, *PIXEL_A)
        # The visibility of atoms depends on counts per area, not per pixel: sample these.
        counts_per_A2 = _log_uniform(rng, *COUNTS_PER_A2) / scale**2
        stretch = 1.0 + abs(rng.normal(0.0, 0.08))
        low, high = material.probe_sigma_A or (PROBE_SIGMA_A[0], PROBE_SIGMA_A[1] * scale)
        width = rng.uniform(low, high)
        fine = material.probe_sigma_A is None
        optics = _random_optics(rng) if rng.random() < 0.4 and fine else None
        if optics is not None:
            width = rng.uniform(0.23, 0.4)
        drawn = cls(
            pixel_size_A=pixel_size_A,
            probe_sigma_A=(width * stretch, width / stretch),
            probe_angle_rad=rng.uniform(0, np.pi),
            tail_fraction=rng.uniform(0.0, 0.4) if optics is None or rng.random() < 0.3 else 0.0,
            tail_width=rng.uniform(1.8, 3.5),
            optics=optics,
            counts=counts_per_A2 * pixel_size_A**2,
            background=rng.exponential(0.25),
            slow_background=rng.exponential(0.25) if rng.random() < 0.5 else 0.0,
            slow_length_A=rng.uniform(2.0, 9.0),
            contamination=rng.uniform(0.05, 0.6) if rng.random() < 0.15 else 0.0,
            contamination_level=rng.uniform(1.1, 9.1),
            jitter_A=abs(rng.normal(0.0, 0.05)) if rng.random() < 0.6 else 0.0,
            vibration_A=rng.exponential(0.04) if rng.random() < 0.15 else 0.0,
            vibration_lines=rng.uniform(3.0, 30.0),
            fly_back_A=rng.normal(0.0, 0.3) if rng.random() < 0.15 else 0.0,
            fly_back_length_A=rng.uniform(1.0, 4.0),
            read_noise=rng.uniform(0.0, 0.5) if rng.random() < 0.25 else 0.0,
            contrast_exponent=rng.uniform(*material.exponents),
            blur_px=rng.uniform(0.3, 1.0) if rng.random() < 0.2 else 0.0,
        )
        return _besides(drawn, material, rng)


def _besides(drawn: Conditions, material: Material, rng: np.random.Generator) -> Conditions:
    """Sample the support of dispersed atoms; scale all lengths to the material."""
    s = material.scale
    if material.has_support:
        # Real frames of single Pt atoms on carbon have a peak of 1/7 of the carbon's intensity.
        support = _log_uniform(rng, 1.0, 25.0)
        return replace(
            drawn,
            support=support,
            support_speckle=speckle_of(support, rng),
            support_lumps=lumps_of(support, rng),
            support_hills=rng.uniform(0.1, 0.7),
            slow_length_A=rng.uniform(5.0, 25.0),
            contamination=0.0,
            slow_background=0.0,
        )
    return replace(
        drawn, slow_length_A=s * drawn.slow_length_A, jitter_A=s * drawn.jitter_A,
        fly_back_A=s * drawn.fly_back_A, vibration_A=s * drawn.vibration_A,
    )  # fmt: skip


def speckle_of(support: float, rng: np.random.Generator) -> float:
    """Sample the relative speckle of a support.

    With n atoms under the probe it is proportional to 1 / sqrt(n) (Poisson statistics).

    Parameters
    ----------
    support
        Intensity of the support, in units of a host atom's peak.
    rng
        Source of randomness.
    """
    return float(rng.uniform(0.0, 0.12) / max(support, 1.0) ** 0.5)


def lumps_of(support: float, rng: np.random.Generator) -> float:
    """Sample the brightness of the lumps of a support.

    Like speckle it grows with the root of the number of atoms under the probe. Frames of Pt on
    carbon have about 0.25 at a support of 7 (decision record 40).

    Parameters
    ----------
    support
        Intensity of the support, in units of a host atom's peak.
    rng
        Source of randomness.
    """
    return float(min(rng.uniform(0.04, 0.16) * support**0.5, _BRIGHTEST_LUMPS))


def _random_optics(rng: np.random.Generator) -> Optics:
    """Sample residual aberrations of an aberration-corrected, focused microscope."""
    return Optics(
        voltage_kV=float(rng.choice([60.0, 80.0, 100.0])),
        semiangle_mrad=rng.uniform(25.0, 36.0),
        defocus_A=rng.normal(0.0, 25.0),
        astigmatism_A=abs(rng.normal(0.0, 12.0)),
        astigmatism_rad=rng.uniform(0, np.pi),
        coma_A=abs(rng.normal(0.0, 300.0)),
        coma_rad=rng.uniform(0, 2 * np.pi),
        star_A=abs(rng.normal(0.0, 300.0)),
        star_rad=rng.uniform(0, 2 * np.pi),
        spherical_A=rng.normal(0.0, 5e3),
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
