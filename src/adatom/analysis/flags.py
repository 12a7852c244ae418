"""Flags of a frame: its imaging conditions, and whether it is out of distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from adatom.analysis.card import fit_in_card
from adatom.core import Pixels
from adatom.core.arrays import FloatArray
from adatom.features.calibration.calibrator import LIKELY_P
from adatom.features.find import FoundAtoms
from adatom.features.hidden_columns import HiddenColumns
from adatom.features.image_check import COVERED_SHARE
from adatom.features.novelty.frame import OodModel, confident_share

# Both thresholds are dimensionless and come from decision 7. A frame is out of distribution if a
# smaller share of the training frames has a higher score. A frame has few confident atoms if their
# number, divided by the number that its area should hold, is smaller.
_OOD_SHARE = 0.006
_FEW_CONFIDENT = 0.2

_DISPUTED = 2  # a region is flagged for at least as many columns: single ones occur by chance

Box = tuple[float, float, float, float]  # left, top, right, bottom, Å
Region = tuple[float, float, float, float, float]  # a box, and what was found in it


class FrameFlags(BaseModel):
    """Fitted imaging conditions of one frame, and its distance from the training frames.

    Parameters
    ----------
    probe_sigma_A, probe_ellipticity
        Mean width of the probe's core, Å; its long width over its short one.
    jitter_A
        Standard deviation of the shifts of scan lines, Å.
    noise_correlation
        Sum of the noise's autocorrelation: 1 for independent pixels.
    reduced_chi2
        Mean squared residual of the fit over the variance of the noise.
    ood_score
        Distance from the training frames; None if the model card has no data for it.
    share_farther
        Share of the training frames with a higher score; None if the card has no data for it.
    share_sure
        Number of confident atoms divided by the number that the frame's area should hold.
    unlike_regions
        Out-of-distribution regions: left, top, right, bottom (Å) and their score.
    masked
        What does not show the specimen, in words, and its area, Å².
    masked_boxes
        Rectangles that cover it: left, top, right, bottom, Å.
    masked_share
        Share of the frame that does not show the specimen.
    clipped_share
        Share of the pixels that are clipped from below and from above.
    limited_atoms
        Number of atoms under which pixels are clipped, so that their brightness is a limit.
    unsupported_regions
        Regions with columns that the image contradicts, and their number.
    missed_regions
        Regions with columns that are not in the table as likely ones, and their expected number.
    covered_regions
        Regions under contamination, and the share of each that is covered.
    hollows
        Of hollows that seem to be filled by columns that the fit hides: mean brightness in bright
        columns, its standard deviation, and their number in the frame; None where none do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probe_sigma_A: float
    probe_ellipticity: float
    jitter_A: float
    noise_correlation: float
    reduced_chi2: float
    ood_score: float | None
    share_farther: float | None
    share_sure: float
    unlike_regions: tuple[Region, ...]
    masked: tuple[tuple[str, float], ...] = ()
    masked_boxes: tuple[Box, ...] = ()
    masked_share: float = 0.0
    clipped_share: tuple[float, float] = (0.0, 0.0)
    limited_atoms: int = 0
    unsupported_regions: tuple[Region, ...] = ()
    missed_regions: tuple[Region, ...] = ()
    covered_regions: tuple[Region, ...] = ()
    hollows: tuple[float, float, int] | None = None

    @property
    def is_out_of_distribution(self) -> bool:
        """Whether the frame is farther from training than nearly all training frames."""
        return self.share_farther is not None and self.share_farther < _OOD_SHARE

    @property
    def has_few_confident_atoms(self) -> bool:
        """Whether the frame has far fewer confident atoms than it should, as noise has."""
        return self.share_sure < _FEW_CONFIDENT

    @property
    def missed_boxes(self) -> tuple[Box, ...]:
        """Regions with missed columns, without their number."""
        return tuple(
            (left, top, right, bottom) for left, top, right, bottom, _ in self.missed_regions
        )

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Out-of-distribution regions without their scores."""
        return tuple(
            (left, top, right, bottom) for left, top, right, bottom, _ in self.unlike_regions
        )


def ood_model_of(card: Mapping[str, Any], which: str = "novelty") -> OodModel | None:
    """Read the out-of-distribution model from a model card; None if the card has none."""
    return fit_in_card(card, which, OodModel) if which in card else None


def flags_of(found: FoundAtoms, card: Mapping[str, Any]) -> FrameFlags:
    """Collect the flags of one frame.

    Parameters
    ----------
    found
        Result of `find_atoms`.
    card
        Model card of the ensemble; it describes the training frames.
    """
    optics, check = found.refined.optics, found.check
    whole, local = ood_model_of(card), ood_model_of(card, "novelty_of_regions")
    score = None if whole is None else whole.score(found.description)
    pixels = found.frame.pixels or Pixels.all_seen(found.frame.shape)
    px = found.frame.calibration.pixel_size_A
    return FrameFlags(
        probe_sigma_A=optics.sigma_A,
        probe_ellipticity=optics.ellipticity,
        jitter_A=optics.jitter_A,
        noise_correlation=optics.noise.correlation,
        reduced_chi2=found.refined.reduced_chi2,
        ood_score=None if score is None or not np.isfinite(score) else score,
        share_farther=None if whole is None else whole.share_farther(score or 0.0),
        share_sure=_share_sure(found),
        unlike_regions=() if local is None else tuple(found.regions.out_of_distribution(local)),
        masked=tuple((a.kind, a.pixels * px**2) for a in pixels.areas),
        # The centre of pixel 0 is the origin: its edge lies half a pixel before.
        masked_boxes=tuple(
            ((a - 0.5) * px, (b - 0.5) * px, (c - 0.5) * px, (d - 0.5) * px)
            for a, b, c, d in pixels.boxes_px()
        ),
        masked_share=pixels.masked_share,
        clipped_share=(float((pixels.clipped < 0).mean()), float((pixels.clipped > 0).mean())),
        limited_atoms=int((found.clipped & found.atoms.is_likely).sum()),
        unsupported_regions=_regions(check.boxes, check.unsupported, _DISPUTED),
        missed_regions=_regions(check.boxes, check.missed, _DISPUTED),
        covered_regions=_regions(check.boxes, check.covered, COVERED_SHARE),
        hollows=_hollows(check.hidden),
    )


def _hollows(hidden: HiddenColumns | None) -> tuple[float, float, int] | None:
    if hidden is None or not hidden.missed.any():
        return None
    return hidden.brightness, hidden.error, hidden.places


def _share_sure(found: FoundAtoms) -> float:
    """Share of the expected atoms that are confident; on a support, that are likely.

    Hardly a single atom on a support is beyond doubt; in noise hardly one is likely.
    """
    p = found.atoms.column("p_exists")
    if found.refined.texture_contrast is None:
        return confident_share(p)
    return confident_share(p, LIKELY_P)


def _regions(boxes: FloatArray, values: FloatArray, least: float) -> tuple[Region, ...]:
    chosen = values >= least
    rows = np.column_stack([boxes, values])[chosen].tolist()
    return tuple((left, top, right, bottom, value) for left, top, right, bottom, value in rows)
