"""What should be known before the atoms of a frame are trusted."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from adatom.features.find import FoundAtoms
from adatom.features.novelty.frame import OodModel, confident_share
from adatom.learning.weights import Ensemble

# Flagged: a frame farther from training than all but this share of the training frames, and one
# with fewer confident atoms than this share of those that its area should hold (decision 7).
_RARE = 0.006
_FEW_CONFIDENT = 0.2

Box = tuple[float, float, float, float]  # left, top, right, bottom, Å


class FrameFlags(BaseModel):
    """Imaging conditions of one frame as the fit shows them, and its distance from training.

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
        Distance from the training frames; None where the model card cannot tell.
    share_farther
        Share of the training frames that lie farther out; None where the card cannot tell.
    share_sure
        Confident atoms over those that the frame's area should hold.
    unlike_regions
        Parts of the frame beyond training: left, top, right, bottom (Å) and their score.
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
        """Whether the frame is farther from training than nearly all of the training frames."""
        return self.share_farther is not None and self.share_farther < _RARE

    @property
    def has_few_confident_atoms(self) -> bool:
        """Whether hardly an atom of the frame is sure, as in noise."""
        return self.share_sure < _FEW_CONFIDENT

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Parts of the frame beyond training, without their scores."""
        return tuple(
            (left, top, right, bottom) for left, top, right, bottom, _ in self.unlike_regions
        )


def novelty_of(ensemble: Ensemble, which: str = "novelty") -> OodModel | None:
    """Read from the model card how to tell frames unlike training; None where it has none."""
    return OodModel.model_validate(ensemble.card[which]) if which in ensemble.card else None


def flags_of(found: FoundAtoms, ensemble: Ensemble) -> FrameFlags:
    """Tell a frame's conditions and its distance from the ensemble's training.

    Parameters
    ----------
    found
        What the frame shows.
    ensemble
        Its card says what the training frames were like.
    """
    optics = found.refined.optics
    whole, local = novelty_of(ensemble), novelty_of(ensemble, "novelty_of_regions")
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
