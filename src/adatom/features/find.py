"""From a frame and its prediction to the table of its atoms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from adatom.core import AtomTable, Frame, Material, Prediction
from adatom.features.calibrate import Calibrator
from adatom.features.locate import Candidates, LocateOptions, locate
from adatom.features.refine import Refined, RefineOptions, refine
from adatom.features.ties import centroid_ties

FloatArray = NDArray[np.float64]


class FindOptions(BaseModel):
    """How atoms are found in a frame."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    locate: LocateOptions = LocateOptions()
    refine: RefineOptions = RefineOptions()
    lowest_p_exists: float = Field(
        0.05, ge=0, le=1, description="atoms less probable than this are left out of the table"
    )


def find_candidates(
    frame: Frame, prediction: Prediction, material: Material, options: FindOptions
) -> tuple[Candidates, Refined]:
    """Locate and refine, before calibration.

    Parameters
    ----------
    frame
        The image.
    prediction
        The ensemble's maps of it.
    material
        Gives the ties between regular atoms.
    options
        See `FindOptions`.
    """
    candidates = locate(prediction, options.locate)
    host = candidates.class_share[:, 0] > 0.5
    ties = centroid_ties(candidates.xy, host, material)
    return candidates, refine(frame, candidates.xy, options.refine, ties)


def find_atoms(
    frame: Frame,
    prediction: Prediction,
    material: Material,
    calibrator: Calibrator,
    options: FindOptions | None = None,
) -> AtomTable:
    """Find every atom of a frame, with position covariance, element and probabilities.

    Parameters
    ----------
    frame
        The image.
    prediction
        The ensemble's maps of it.
    material
        What it shows; regular atoms are tied to their neighbours.
    calibrator
        Fitted with the ensemble.
    options
        See `FindOptions`.
    """
    options = options or FindOptions()
    candidates, refined = find_candidates(frame, prediction, material, options)
    p_exists = calibrator.p_exists(candidates, refined)
    p_foreign = calibrator.p_foreign(candidates, refined)
    classes = prediction.classes
    foreign = candidates.class_share[:, 1:]
    best = np.argmax(foreign, axis=1) + 1 if foreign.shape[1] else np.zeros(len(p_exists), int)
    is_foreign = (p_foreign > 0.5) & (foreign.shape[1] > 0)
    number = np.where(is_foreign, best, 0)
    # With several foreign species the probability is shared as the networks share it.
    total = np.maximum(foreign.sum(axis=1), 1e-12)
    share = np.array(
        [foreign[i, b - 1] / total[i] if b else 1.0 for i, b in enumerate(number)], dtype=float
    )
    p_element = np.where(is_foreign, p_foreign * share, 1.0 - p_foreign)
    keep = p_exists >= options.lowest_p_exists
    return AtomTable.build(
        frame=frame.index,
        xy=refined.xy[keep],
        covariance=calibrator.covariance(candidates, refined)[keep],
        p_exists=p_exists[keep],
        element=[classes[k] for k in number[keep]],
        p_element=p_element[keep],
        votes=candidates.votes[keep],
        amplitude=refined.amplitude[keep],
    )
