"""Flags of a frame: its imaging conditions, and whether it is out of distribution."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from adatom.analysis.card import fit_in_card
from adatom.features.find import FoundAtoms
from adatom.features.novelty.frame import OodModel, confident_share
from adatom.learning.weights import Ensemble

# Both thresholds are dimensionless and come from decision 7. A frame is out of distribution if a
# smaller share of the training frames has a higher score. A frame has few confident atoms if their
# number, divided by the number that its area should hold, is smaller.
_OOD_SHARE = 0.006
_FEW_CONFIDENT = 0.2

Box = tuple[float, float, float, float]  # left, top, right, bottom, Å


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
    unlike_regions: tuple[tuple[float, float, float, float, float], ...]

    @property
    def is_out_of_distribution(self) -> bool:
        """Whether the frame is farther from training than nearly all training frames."""
        return self.share_farther is not None and self.share_farther < _OOD_SHARE

    @property
    def has_few_confident_atoms(self) -> bool:
        """Whether the frame has far fewer confident atoms than it should, as noise has."""
        return self.share_sure < _FEW_CONFIDENT

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Out-of-distribution regions without their scores."""
        return tuple(
            (left, top, right, bottom) for left, top, right, bottom, _ in self.unlike_regions
        )


def ood_model_of(ensemble: Ensemble, which: str = "novelty") -> OodModel | None:
    """Read the out-of-distribution model from a model card; None if the card has none."""
    return fit_in_card(ensemble.card, which, OodModel) if which in ensemble.card else None


def flags_of(found: FoundAtoms, ensemble: Ensemble) -> FrameFlags:
    """Collect the flags of one frame.

    Parameters
    ----------
    found
        Result of `find_atoms`.
    ensemble
        Its model card describes the training frames.
    """
    optics = found.refined.optics
    whole, local = ood_model_of(ensemble), ood_model_of(ensemble, "novelty_of_regions")
    score = None if whole is None else whole.score(found.description)
    return FrameFlags(
        probe_sigma_A=optics.sigma_A,
        probe_ellipticity=optics.ellipticity,
        jitter_A=optics.jitter_A,
        noise_correlation=optics.noise.correlation,
        reduced_chi2=found.refined.reduced_chi2,
        ood_score=None if score is None or not np.isfinite(score) else score,
        share_farther=None if whole is None else whole.share_farther(score or 0.0),
        share_sure=confident_share(found.atoms.column("p_exists")),
        unlike_regions=() if local is None else tuple(found.regions.out_of_distribution(local)),
    )
