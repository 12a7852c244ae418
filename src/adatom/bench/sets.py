"""Simulated frames for `adatom bench find`: one set by convolution, one by multislice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adatom.core import GRAPHENE, Calibration, Frame, LabelledFrame
from adatom.core.arrays import FloatArray
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.sheet import graphene_sheet
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import expected_image

SPOT_PX, SPOT_A = 161, 0.05  # edge, pixels, and pixel size, Å, of the image of one atom
_CENTER_A = (SPOT_PX - 1) / 2 * SPOT_A
_LONE = Specimen(np.array([[_CENTER_A, _CENTER_A]]), np.zeros(1, dtype=np.int64), np.zeros((0, 2)))
DOSES = (0.1, 0.3, 1.0, 5.0, 20.0, 100.0)  # counts at the peak of a carbon atom, per pixel
SEED = 31_000_000  # far from those of training and calibration
_PIXELS = 256  # edge of a frame, pixels
_MULTISLICE_SILICON = 4.65  # brightness of Si over C, measured at the peaks of multislice images
_BACKGROUND = 0.1  # in carbon peaks; added to multislice images, which have no background


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Expected image of a specimen, before a dose is chosen.

    Parameters
    ----------
    expected
        Intensity in units of a carbon peak, shape (row, col).
    pixel_size_A
        Pixel size, Å.
    specimen
        All atoms, also those outside the border.
    spot
        Image of one carbon atom, `SPOT_PX` square pixels of `SPOT_A`, centred, peak about one.
    conditions
        Conditions at one count; None for multislice scenes.
    silicon
        Brightness of a Si atom over that of C; by default that of Z^1.64.
    """

    expected: FloatArray
    pixel_size_A: float
    specimen: Specimen
    spot: FloatArray
    conditions: Conditions | None = None
    silicon: float = (14 / 6) ** 1.64

    def without_silicon(self) -> Scene:
        """Give the scene with carbon in the place of Si; only of a convolution set."""
        s, c = self.specimen, self.conditions
        assert c is not None  # convolution_set gave them  # noqa: S101
        carbon = Specimen(s.xy, np.zeros_like(s.species), s.vacancies_xy)
        shape = (self.expected.shape[0], self.expected.shape[1])
        image = expected_image(carbon, shape, GRAPHENE, c, np.random.default_rng(0))
        return replace(self, expected=image, specimen=carbon)

    def frame(self, dose: float, seed: int) -> LabelledFrame:
        """Simulate a frame with Poisson noise; `dose` in counts at the peak of a carbon atom."""
        rng = np.random.default_rng([SEED, seed, round(dose * 1000)])
        counts = rng.poisson(self.expected * dose).astype(np.float32)
        calibration = Calibration(self.pixel_size_A)
        shape = (counts.shape[0], counts.shape[1])
        s = self.specimen
        inside, empty = (_inside(xy, calibration, shape) for xy in (s.xy, s.vacancies_xy))
        return LabelledFrame(
            Frame(counts, calibration, index=seed, source="benchmark"),
            s.xy[inside],
            s.species[inside],
            GRAPHENE.species,
            s.vacancies_xy[empty],
        )


def convolution_set(
    count: int,
    *,
    pixels: int = _PIXELS,
    pixel_range_A: tuple[float, float] = (0.11, 0.19),
    probe_A: tuple[float, float] = (0.37, 0.46),
    astigmatism: float = 1.0,
    jitter_A: float = 0.0,
) -> list[Scene]:
    """Simulate graphene with vacancies and Si, imaged by a probe with a tail.

    Parameters
    ----------
    count
        Number of scenes.
    pixels
        Rows and columns.
    pixel_range_A
        Smallest and largest pixel size, Å.
    probe_A
        Narrowest and widest probe, Å.
    astigmatism
        Length of the probe over its width.
    jitter_A
        Standard deviation of the shifts of scan lines, Å.
    """
    scenes = []
    for i, px in enumerate(np.linspace(*pixel_range_A, count) if count > 1 else [0.15]):
        rng = np.random.default_rng([SEED, i])
        width, stretch = rng.uniform(*probe_A), rng.uniform(1.0, 1.06) * astigmatism**0.5
        conditions = Conditions(
            pixel_size_A=float(px),
            probe_sigma_A=(width * stretch, width / stretch),
            probe_angle_rad=rng.uniform(0, np.pi),
            tail_fraction=rng.uniform(0.0, 0.2),
            counts=1.0,
            background=rng.uniform(0.05, 0.2),
            jitter_A=jitter_A,
        )
        extent = Calibration(float(px)).extent_xy((pixels, pixels))
        area = extent[0] * extent[1] / 1000.0
        specimen = graphene_sheet(
            extent, rng, vacancies=max(round(3 * area), 1), silicon=max(round(3 * area), 1)
        )
        image = expected_image(specimen, (pixels, pixels), GRAPHENE, conditions, rng)
        fine = replace(conditions, pixel_size_A=SPOT_A, background=0.0, jitter_A=0.0)
        spot = expected_image(_LONE, (SPOT_PX, SPOT_PX), GRAPHENE, fine, rng)
        scenes.append(Scene(image, float(px), specimen, spot, conditions))
    return scenes


def multislice_set(count: int, cache: Path | None) -> list[Scene]:
    """Simulate graphene with defects by abTEM's multislice, which the training does not use.

    Parameters
    ----------
    count
        Number of scenes.
    cache
        Directory that keeps the images for later calls; None to keep none.
    """
    from adatom.frames.simulate.multislice import prism_set, prism_spot

    return [
        Scene(
            np.maximum(t.image, 0.0) + _BACKGROUND,
            t.pixel_size_A,
            t.specimen,
            prism_spot(SPOT_PX, SPOT_A, t.options, cache=cache) / t.height,
            silicon=_MULTISLICE_SILICON,
        )
        for t in prism_set(count, cache=cache)
    ]


def _inside(xy: FloatArray, calibration: Calibration, shape: tuple[int, int]) -> NDArray[np.bool_]:
    far = np.asarray(calibration.extent_xy(shape))
    out: NDArray[np.bool_] = np.all((xy >= 0) & (xy <= far), axis=1)
    return out
