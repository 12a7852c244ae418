"""Simulated frames like the ones seen: what the iterative training learns from, besides those."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from adatom.core import Calibration, LabelledFrame, Material
from adatom.core.imaging import Estimate, Imaging
from adatom.frames.simulate.conditions import Conditions, speckle_of
from adatom.frames.simulate.crystal import draw_specimen
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import NOTHING, image_specimen, image_twice, random_pair

# Conditions differ from frame to frame of an experiment, and an estimate is not the truth: what is
# drawn spreads at least so far, in parts of the value.
_LEAST = 0.06
_LEAST_COUNTS = 0.25
_HILLS = 2.5  # a slow background rises from its lowest place, so far below its mean
_CONTAMINATED = 0.25  # share of the frames with contamination: no estimate says where it will be
_WIDE = 0.15  # share of the frames under any of the training's conditions


@dataclass(frozen=True, slots=True)
class SimulatedLike:
    """Source of simulated frames under estimated conditions.

    Parameters
    ----------
    material
        What they show.
    imaging
        Conditions estimated from the experiment's frames.
    field_A
        Edge of the square field, Å.
    scale
        The frames' pixel size as given over the one that their lattice shows: networks see what
        they are given, and must learn it at that scale.
    wide
        Share of the frames under any of the training's conditions, so that nothing is forgotten.
    density_A2
        Of dispersed atoms, as found: how likely an atom is in any place depends on it.
    fewer
        Largest factor by which the counts of some are fewer than those seen.
    contaminated
        Share of the frames of a crystal that have contamination.
    """

    material: Material
    imaging: Imaging
    field_A: float
    scale: float = 1.0
    wide: float = _WIDE
    fewer: float = 1.0
    density_A2: float | None = None
    contaminated: float = _CONTAMINATED

    def __call__(self, rng: np.random.Generator) -> list[LabelledFrame]:
        """Draw two labelled frames of one specimen at different counts, for training."""
        if rng.random() < self.wide:
            return random_pair(self.material, rng, field_A=self.field_A)
        like = conditions_like(self.imaging, self.material, rng, self.contaminated)
        both = (self._fainter(like, rng), self._fainter(like, rng))
        specimen, shape = self._specimen(like, rng, density_A2=self.density_A2)
        frames = image_twice(specimen, shape, self.material, both, rng)
        return [_as_given(f, self.scale) for f in frames]

    def frame(
        self, rng: np.random.Generator, *, whole: bool = False, empty: bool = False
    ) -> LabelledFrame:
        """Draw one labelled frame.

        Parameters
        ----------
        rng
            Source of randomness.
        whole
            One crystal with point defects alone.
        empty
            Nothing but background and noise.
        """
        usual = bool(rng.random() < self.wide)
        if usual:
            conditions = Conditions.random(rng, self.material)
        else:
            conditions = conditions_like(self.imaging, self.material, rng, self.contaminated)
            conditions = self._fainter(conditions, rng)
        density = None if usual else self.density_A2
        specimen, shape = self._specimen(conditions, rng, whole=whole, density_A2=density)
        specimen = NOTHING if empty else specimen
        shown = image_specimen(specimen, shape, self.material, conditions, rng)
        return shown if usual else _as_given(shown, self.scale)

    def _fainter(self, conditions: Conditions, rng: np.random.Generator) -> Conditions:
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
        drawn = draw_specimen(self.material, extent, rng, whole=whole, density_A2=density_A2)
        return drawn, (n, n)


def _as_given(labelled: LabelledFrame, scale: float) -> LabelledFrame:
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
    contaminated: float = _CONTAMINATED,
) -> Conditions:
    """Draw conditions that an experiment's frames allow.

    Parameters
    ----------
    imaging
        What they say of their conditions.
    material
        Decides whether what lies under the atoms is a background or a support.
    rng
        Source of randomness.
    contaminated
        Share of the frames of a crystal that have contamination.
    """
    long, short = (_draw(e, rng, 0.05) for e in imaging.probe_sigma_A)
    slow = max(imaging.background_variation.draw(rng, 0.0, 50.0), 0.0)
    mean = max(imaging.background.draw(rng, 0.0, 500.0) * rng.normal(1.0, _LEAST), 0.0)
    level = mean if material.has_support else max(mean - _HILLS * slow, 0.0)
    length = _draw(imaging.background_length_A, rng, 0.5)
    support = material.has_support
    dirty = not support and rng.random() < contaminated
    drawn = Conditions(
        pixel_size_A=_draw(imaging.pixel_size_A, rng, 1e-3, least=0.01),
        probe_sigma_A=(max(long, short), min(long, short)),
        probe_angle_rad=rng.normal(imaging.probe_angle_rad.value, imaging.probe_angle_rad.sd),
        tail_fraction=imaging.tail_fraction.draw(rng, 0.0, 0.6),
        tail_width=imaging.tail_width.draw(rng, 1.5, 4.0),
        counts=_draw(imaging.counts, rng, 1e-3, least=_LEAST_COUNTS),
        background=0.0 if support else level,
        slow_background=0.0 if support else slow,
        slow_length_A=length,
        contamination=rng.uniform(0.05, 0.6) if dirty else 0.0,
        contamination_level=rng.uniform(1.1, 9.1),
        jitter_A=abs(imaging.jitter_A.draw(rng, 0.0, 1.0)),
        read_noise=max(imaging.read_noise.draw(rng, 0.0, 1e3), 0.0),
        contrast_exponent=material.contrast_exponent + rng.uniform(-0.2, 0.2),
        blur_px=max(imaging.blur_px.draw(rng, 0.0, 5.0), 0.0),
    )
    if support:
        return replace(
            drawn,
            support=level,
            support_hills=min(slow / max(level, 1e-6), 0.8),
            support_speckle=speckle_of(level, rng),
        )
    return drawn


def _draw(estimate: Estimate, rng: np.random.Generator, low: float, least: float = _LEAST) -> float:
    sd = max(estimate.sd, least * abs(estimate.value))
    return max(float(rng.normal(estimate.value, sd)), low, 0.3 * estimate.value)
