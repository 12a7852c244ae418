"""Imaging conditions estimated from frames, each with its standard deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adatom.core.calibration import Affine
from adatom.errors import BadInput


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its standard deviation.

    Parameters
    ----------
    value
        Best estimate.
    sd
        Its standard deviation, same unit.

    Raises
    ------
    BadInput
        If the value is not finite, or the standard deviation not finite or negative.
    """

    value: float
    sd: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and math.isfinite(self.sd) and self.sd >= 0):
            raise BadInput(
                "estimate",
                expected="a finite value and a finite standard deviation of at least zero",
                got=f"{self.value!r} ± {self.sd!r}",
                todo="Leave the frame out that the estimate came from.",
            )

    def draw(self, rng: np.random.Generator, low: float, high: float) -> float:
        """Sample from the normal distribution of the estimate, clipped to the limits."""
        return float(np.clip(rng.normal(self.value, self.sd), low, high))


@dataclass(frozen=True, slots=True)
class Imaging:
    """Conditions of one movie, each with its standard deviation.

    Lengths are in Å of the corrected pixel size. Probe and counts are those before any smoothing
    (`blur_px`), as a simulation takes them.

    Parameters
    ----------
    pixel_size_A
        Pixel size at which the lattice has its known area per atom, Å.
    probe_sigma_A
        Gaussian width of the spot of one atom along its long and its short axis, Å.
    probe_angle_rad
        Direction of the long axis, from x towards y (downwards), 0 to π; its standard deviation is
        that of any direction, π/√12, where the spot is round.
    tail_fraction
        Share of the intensity in a second Gaussian of the same shape.
    tail_width
        Width of that second Gaussian divided by the first. A perfect lattice cannot separate wide
        tails from a constant background: without a defect, both standard deviations are large and
        their errors are correlated.
    counts
        Detected quanta per pixel at the peak of an isolated host atom, above the background.
    background
        Mean level in units of that peak.
    background_variation
        Standard deviation of its slow variation over the field, same unit.
    background_length_A
        Gaussian length ``L`` of that variation, Å: its autocorrelation is ``exp(-d² / 4 L²)``.
    jitter_A
        Standard deviation of the shift of a scan line along x, Å.
    blur_px
        Width of the Gaussian smoothing that explains the correlation of the noise, pixels.
    noise_correlation
        Sum of the noise's autocorrelation over lags that this smoothing makes, dimensionless.
    read_noise
        Gaussian noise before smoothing, counts. With an unknown offset it cannot be separated from
        the background, which then includes it.
    stretch, shear
        Correction of the scan's distortion without its scale: half the difference of the stretches
        along x and y, and the symmetric shear, dimensionless.
    drift_x_A, drift_y_A
        Mean drift from one frame to the next, Å.
    """

    pixel_size_A: Estimate
    probe_sigma_A: tuple[Estimate, Estimate]
    probe_angle_rad: Estimate
    tail_fraction: Estimate
    tail_width: Estimate
    counts: Estimate
    background: Estimate
    background_variation: Estimate
    background_length_A: Estimate
    jitter_A: Estimate
    blur_px: Estimate
    noise_correlation: Estimate
    read_noise: Estimate
    stretch: Estimate
    shear: Estimate
    drift_x_A: Estimate
    drift_y_A: Estimate

    @property
    def affine(self) -> Affine:
        """Map from measured to undistorted positions that leaves areas as they are."""
        a, b = self.stretch.value, self.shear.value
        scale = 1.0 / math.sqrt(max(1.0 - a**2 - b**2, 1e-9))
        return Affine.from_array(scale * np.array([[1.0 + a, b], [b, 1.0 - a]]))
