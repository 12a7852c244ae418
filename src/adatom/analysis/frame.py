"""One frame, an ensemble and its model card: what is found, and how far from training it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from adatom.core import Frame, Material
from adatom.errors import BadInput
from adatom.features.calibration.calibrator import Calibrator
from adatom.features.find import FindOptions, Found, find
from adatom.features.novelty.frame import Novelty, share_sure
from adatom.learning import weights
from adatom.learning.ensemble import predict_tiles

_RARE = 0.006  # of training frames lie this far out: a frame that does is flagged (decision 7)
_HARDLY = 0.2  # of the atoms to expect: a frame with fewer sure ones is flagged (decision 7)


def calibrator_of(ensemble: weights.Ensemble) -> Calibrator:
    """Read the calibration from the model card.

    Raises
    ------
    BadInput
        If the card has none.
    """
    if "calibration" not in ensemble.card:
        raise BadInput(
            "the ensemble's card",
            expected="a calibration of its probabilities",
            got="none",
            todo="Train it with `adatom train`, which fits one on held-out frames.",
        )
    return Calibrator.model_validate(ensemble.card["calibration"])


def look(
    frame: Frame,
    ensemble: weights.Ensemble,
    material: Material,
    options: FindOptions | None = None,
) -> Found:
    """Find what one frame shows, as a calibrated ensemble sees it.

    Raises
    ------
    BadInput
        If the ensemble's card has no calibration.
    """
    tiles = predict_tiles(frame, ensemble)
    return find(frame, tiles, material, calibrator_of(ensemble), options)


def novelty_of(ensemble: weights.Ensemble, which: str = "novelty") -> Novelty | None:
    """Read from the model card how to tell frames unlike training; None where it has none."""
    return Novelty.model_validate(ensemble.card[which]) if which in ensemble.card else None


def conditions_of(
    found: Found, novelty: Novelty | None, local: Novelty | None = None
) -> dict[str, Any]:
    """Conditions that the fit of one frame shows, and how far they are from training.

    ``unlike_regions`` are boxes (left, top, right, bottom, Å) beyond training, and their distances.
    """
    optics = found.refined.optics
    distance = None if novelty is None else novelty.distance(found.description)
    return {
        "probe_sigma_A": optics.sigma_A,
        "probe_ellipticity": optics.ellipticity,
        "jitter_A": optics.jitter_A,
        "noise_correlation": optics.noise.correlation,
        "misfit": found.refined.misfit,
        "novelty": None if distance is None or not np.isfinite(distance) else distance,
        "share_farther": None if novelty is None else novelty.share_farther(distance or 0.0),
        "share_sure": share_sure(found.atoms.column("p_exists")),
        "unlike_regions": [] if local is None else found.regions.beyond(local),
    }


def is_out_of_distribution(conditions: Mapping[str, Any]) -> bool:
    """Tell from `conditions_of` whether a frame is farther from training than nearly all of it."""
    share = conditions.get("share_farther")
    return share is not None and share < _RARE


def has_few_confident_atoms(conditions: Mapping[str, Any]) -> bool:
    """Tell from `conditions_of` whether hardly an atom of a frame is sure, as in noise."""
    share = conditions.get("share_sure")
    return share is not None and share < _HARDLY
