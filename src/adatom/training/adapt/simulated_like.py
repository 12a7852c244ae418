"""Simulated training frames under the conditions that were estimated from an experiment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from adatom.core import Calibration, LabelledFrame, Material
from adatom.core.imaging import Estimate, Imaging
from adatom.frames.simulate.conditions import Conditions, lumps_of, speckle_of
from adatom.frames.simulate.crystal import draw_specimen
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import (
    NOTHING,
    expected_image,
    image_specimen,
    image_twice,
    random_pair,
)

# Conditions vary between the frames of an experiment, and the estimate has an error. Sampled
# conditions therefore have at least this relative standard deviation: of any quantity, of counts.
_MIN_SPREAD = 0.06
_MIN_COUNTS_SPREAD = 0.25
# `Conditions` adds the slow background above its lowest value, which lies about this many of its
# standard deviations below its mean.
_BACKGROUND_DEPTH = 2.5
# Share of the frames with contamination: the first frames do not show where it will appear later.
_CONTAMINATED_SHARE = 0.25
# Share of the frames under any of the conditions of the first training, against forgetting.
_TRAINING_SHARE = 0.15
_CONTRAST_SPREAD = 0.15  # relative spread of the contrast of atoms to the texture of their support
_PATCH_SPOTS = 24.0  # edge of the frame on which a texture is measured, in widths of a spot
_MOST_TEXTURE = 4.0  # largest factor on the texture that a material's training has
_MIN_SHARE = 0.3  # of the estimated value: no sampled condition is lower


@dataclass(frozen=True, slots=True)
class SimulatedLike:
    """Source of simulated frames under estimated conditions.

    Parameters
    ----------
    material
        Material that the frames show.
    imaging
        Conditions estimated from the experiment's frames.
    field_A
        Edge of the square field, Å.
    scale
        Pixel size as given by the user over pixel size by the lattice. Networks work at the given
        scale, so they are trained at it.
    training_share
        Share of the frames under any of the conditions of the first training.
    density_A2
        Density of dispersed atoms in the experiment, atoms per Å²; None for a crystal.
    contrast
        Median contrast of the experiment's dispersed atoms to the texture of their support, see
        `texture_contrast`; None for a crystal.
    fewer
        Largest factor by which the counts of a frame are reduced.
    contaminated
        Share of the frames of a crystal that have contamination.
    """

    material: Material
    imaging: Imaging
    field_A: float
    scale: float = 1.0
    training_share: float = _TRAINING_SHARE
    fewer: float = 1.0
    density_A2: float | None = None
    contrast: float | None = None
    contaminated: float = _CONTAMINATED_SHARE

    def __call__(self, rng: np.random.Generator) -> list[LabelledFrame]:
        """Simulate two labelled frames of one specimen at different counts, for training."""
        if rng.random() < self.training_share:
            return random_pair(self.material, rng, field_A=self.field_A)
        conditions = self._conditions(rng)
        both = (self._with_fewer_counts(conditions, rng), self._with_fewer_counts(conditions, rng))
        specimen, shape = self._specimen(conditions, rng, density_A2=self.density_A2)
        frames = image_twice(specimen, shape, self.material, both, rng)
        return [_at_given_scale(f, self.scale) for f in frames]

    def frame(
        self, rng: np.random.Generator, *, whole: bool = False, empty: bool = False
    ) -> LabelledFrame:
        """Simulate one labelled frame.

        Parameters
        ----------
        rng
            Source of randomness.
        whole
            Show one crystal that fills the field, with point defects only.
        empty
            Nothing but background and noise.
        """
        as_in_training = bool(rng.random() < self.training_share)
        if as_in_training:
            conditions = Conditions.random(rng, self.material)
        else:
            conditions = self._conditions(rng)
            conditions = self._with_fewer_counts(conditions, rng)
        density = None if as_in_training else self.density_A2
        specimen, shape = self._specimen(conditions, rng, whole=whole, density_A2=density)
        specimen = NOTHING if empty else specimen
        shown = image_specimen(specimen, shape, self.material, conditions, rng)
        return shown if as_in_training else _at_given_scale(shown, self.scale)

    def _conditions(self, rng: np.random.Generator) -> Conditions:
        conditions = conditions_like(self.imaging, self.material, rng, self.contaminated)
        if self.contrast is None:
            return conditions
        # Regions of one support differ, and the estimate is one of the brighter atoms.
        wanted = self.contrast * np.exp(rng.normal(0.0, _CONTRAST_SPREAD))
        return with_texture(conditions, self.material, float(wanted), rng)

    def _with_fewer_counts(self, conditions: Conditions, rng: np.random.Generator) -> Conditions:
        factor = self.fewer ** -rng.uniform(0.0, 1.0)
        return replace(
            conditions,
            counts=conditions.counts * factor,
            read_noise=conditions.read_noise * factor**0.5,
        )

    def _specimen(
        self,
        conditions: Conditions,
        rng: np.random.Generator,
        *,
        whole: bool = False,
        density_A2: float | None = None,
    ) -> tuple[Specimen, tuple[int, int]]:
        n = int(np.ceil(self.field_A / conditions.pixel_size_A)) + 1
        extent = Calibration(conditions.pixel_size_A).extent_xy((n, n))
        sampled = draw_specimen(self.material, extent, rng, whole=whole, density_A2=density_A2)
        return sampled, (n, n)


def _at_given_scale(labelled: LabelledFrame, scale: float) -> LabelledFrame:
    px = labelled.frame.calibration.pixel_size_A
    return replace(
        labelled,
        frame=labelled.frame.recalibrated(Calibration(px * scale)),
        xy=labelled.xy * scale,
        vacancies_xy=labelled.vacancies_xy * scale,
    )


def conditions_like(
    imaging: Imaging,
    material: Material,
    rng: np.random.Generator,
    contaminated: float = _CONTAMINATED_SHARE,
) -> Conditions:
    """Sample conditions of a frame from the estimated conditions of an experiment.

    Parameters
    ----------
    imaging
        Estimated conditions with their standard deviations.
    material
        Decides whether the background is simulated as a level or as a support film.
    rng
        Source of randomness.
    contaminated
        Probability of contamination; a material on a support has none.
    """
    long, short = (_sample(e, rng, 0.05) for e in imaging.probe_sigma_A)
    slow = max(imaging.background_variation.draw(rng, 0.0, 50.0), 0.0)
    mean = max(imaging.background.draw(rng, 0.0, 500.0) * rng.normal(1.0, _MIN_SPREAD), 0.0)
    mean_background = mean if material.has_support else max(mean - _BACKGROUND_DEPTH * slow, 0.0)
    length = _sample(imaging.background_length_A, rng, 0.5)
    support = material.has_support
    is_contaminated = not support and rng.random() < contaminated
    sampled = Conditions(
        pixel_size_A=_sample(imaging.pixel_size_A, rng, 1e-3, least=0.01),
        probe_sigma_A=(max(long, short), min(long, short)),
        probe_angle_rad=rng.normal(imaging.probe_angle_rad.value, imaging.probe_angle_rad.sd),
        tail_fraction=imaging.tail_fraction.draw(rng, 0.0, 0.6),
        tail_width=imaging.tail_width.draw(rng, 1.5, 4.0),
        counts=_sample(imaging.counts, rng, 1e-3, least=_MIN_COUNTS_SPREAD),
        background=0.0 if support else mean_background,
        slow_background=0.0 if support else slow,
        slow_length_A=length,
        contamination=rng.uniform(0.05, 0.6) if is_contaminated else 0.0,
        contamination_level=rng.uniform(1.1, 9.1),
        jitter_A=abs(imaging.jitter_A.draw(rng, 0.0, 1.0)),
        read_noise=max(imaging.read_noise.draw(rng, 0.0, 1e3), 0.0),
        contrast_exponent=rng.uniform(*material.exponents),
        blur_px=max(imaging.blur_px.draw(rng, 0.0, 5.0), 0.0),
    )
    if support:
        return replace(
            sampled,
            support=mean_background,
            support_hills=min(slow / max(mean_background, 1e-6), 0.8),
            support_speckle=speckle_of(mean_background, rng),
            support_lumps=lumps_of(mean_background, rng),
        )
    return sampled


def with_texture(
    conditions: Conditions, material: Material, contrast: float, rng: np.random.Generator
) -> Conditions:
    """Scale speckle and lumps of a support so that atoms stand out of its texture as wanted.

    Parameters
    ----------
    conditions
        Conditions with a support.
    material
        Material without a lattice.
    contrast
        Wanted `texture_contrast` of an atom of usual brightness.
    rng
        Source of the support and the noise of a small frame, on which the texture is measured.

    Returns
    -------
    The conditions, with at most `_MOST_TEXTURE` times the texture and at least that less.
    """
    px, width_A = conditions.pixel_size_A, float(np.mean(conditions.probe_sigma_A))
    shape = (max(int(_PATCH_SPOTS * width_A / px), 32),) * 2
    middle = np.full((1, 2), (shape[0] - 1) * px / 2)
    one = Specimen(middle, np.zeros(1, dtype=np.int64), np.zeros((0, 2)))
    smooth = replace(conditions, support_speckle=0.0, support_lumps=0.0, support_hills=0.0)
    bare = expected_image(NOTHING, shape, material, smooth, rng)
    atom = expected_image(one, shape, material, smooth, rng) - bare
    rough = replace(conditions, support_hills=0.0)
    texture = expected_image(NOTHING, shape, material, rough, rng) - bare
    noise = rng.poisson(bare) - bare + rng.normal(0.0, conditions.read_noise, shape)
    peak, texture_sd, noise_sd = (
        float(measure(ndimage.gaussian_laplace(image, width_A / px)))
        for image, measure in ((-atom, np.max), (texture, np.std), (noise, np.std))
    )
    room = max((peak / max(contrast, 1.0)) ** 2 - noise_sd**2, 0.0)
    factor = float(np.clip(room**0.5 / max(texture_sd, 1e-12), 1 / _MOST_TEXTURE, _MOST_TEXTURE))
    return replace(
        conditions,
        support_speckle=conditions.support_speckle * factor,
        support_lumps=conditions.support_lumps * factor,
    )


def _sample(
    estimate: Estimate, rng: np.random.Generator, low: float, least: float = _MIN_SPREAD
) -> float:
    sd = max(estimate.sd, least * abs(estimate.value))
    return max(float(rng.normal(estimate.value, sd)), low, _MIN_SHARE * estimate.value)
