"""From raw scores to probabilities that can be trusted: fitted on simulated frames with truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from sklearn.linear_model import LogisticRegression

from adatom.core import LabelledFrame
from adatom.features.locate import Candidates
from adatom.features.refine import Refined

FloatArray = NDArray[np.float64]
_BORDER_A = 1.0
MATCH_A = 0.5  # a found atom is right when it lies this near to a true one


class Calibrator(BaseModel):
    """Logistic models of existence and element, and the two weights of the covariance.

    The covariance of an atom is ``fisher² · Fisher covariance + scatter² · members' scatter``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exists: tuple[float, ...]
    foreign: tuple[float, ...]
    fisher: float
    scatter: float

    def p_exists(self, candidates: Candidates, refined: Refined) -> FloatArray:
        """Probability that each atom is there, shape (atom,)."""
        return _sigmoid(_exists_features(candidates, refined) @ np.asarray(self.exists))

    def p_foreign(self, candidates: Candidates, refined: Refined) -> FloatArray:
        """Probability that each atom is not of the host's class, shape (atom,)."""
        return _sigmoid(_foreign_features(candidates, refined) @ np.asarray(self.foreign))

    def covariance(self, candidates: Candidates, refined: Refined) -> FloatArray:
        """Position covariance, shape (atom, 2, 2), Å²."""
        out: FloatArray = self.fisher**2 * refined.covariance + self.scatter**2 * candidates.scatter
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What was found in one frame whose truth is known."""

    candidates: Candidates
    refined: Refined
    truth: LabelledFrame


def fit_calibrator(observations: list[Observation]) -> Calibrator:
    """Fit on held-out simulated frames.

    Parameters
    ----------
    observations
        Frames that training never saw.
    """
    exists_x, exists_y, foreign_x, foreign_y = [], [], [], []
    errors, fisher, scatter = [], [], []
    for seen in observations:
        match = match_truth(seen.refined.xy, seen.truth.xy)
        right = match >= 0
        exists_x.append(_exists_features(seen.candidates, seen.refined))
        exists_y.append(right)
        foreign_x.append(_foreign_features(seen.candidates, seen.refined)[right])
        foreign_y.append(seen.truth.species[match[right]] > 0)
        errors.append(seen.refined.xy[right] - seen.truth.xy[match[right]])
        fisher.append(seen.refined.covariance[right])
        scatter.append(seen.candidates.scatter[right])
    weights = _fit_covariance(
        np.concatenate(errors), np.concatenate(fisher), np.concatenate(scatter)
    )
    return Calibrator(
        exists=_fit_logistic(np.concatenate(exists_x), np.concatenate(exists_y)),
        foreign=_fit_logistic(np.concatenate(foreign_x), np.concatenate(foreign_y)),
        fisher=weights[0],
        scatter=weights[1],
    )


def match_truth(xy: FloatArray, truth: FloatArray) -> NDArray[np.int64]:
    """Match found atoms to true ones, one to one, nearest first, within `MATCH_A`.

    Parameters
    ----------
    xy, truth
        Found and true positions, shape (atom, 2), Å.

    Returns
    -------
    Index of the true atom that each found one is, -1 for none, shape (atom,).
    """
    out = np.full(len(xy), -1, dtype=np.int64)
    if not len(xy) or not len(truth):
        return out
    near = cKDTree(xy).sparse_distance_matrix(cKDTree(truth), MATCH_A, output_type="coo_matrix")
    taken = np.zeros(len(truth), dtype=bool)
    for k in np.argsort(near.data, kind="stable"):
        i, j = int(near.row[k]), int(near.col[k])
        if out[i] < 0 and not taken[j]:
            out[i], taken[j] = j, True
    return out


def _exists_features(candidates: Candidates, refined: Refined) -> FloatArray:
    peak = np.clip(candidates.peak, 1e-3, 1 - 1e-3)
    typical = float(np.median(refined.amplitude)) if len(refined.amplitude) else 1.0
    evidence = (refined.amplitude - 0.5 * typical) / np.maximum(refined.amplitude_sd, 1e-12)
    typical_peak = float(np.median(peak)) if len(peak) else 0.5
    return np.stack(
        [
            np.ones(len(peak)),
            np.log(peak / (1 - peak)),
            # In noise alone every peak is low; a weak atom among strong ones is another matter.
            np.full(len(peak), np.log(typical_peak / (1 - typical_peak))),
            2 * candidates.votes - 1,
            np.clip(evidence, -6.0, 6.0),
            # Half of an atom at the border is not in the frame: there, and only there, many err.
            np.clip(1.0 - candidates.border_A / _BORDER_A, 0.0, 1.5),
        ],
        axis=1,
    )


def _foreign_features(candidates: Candidates, refined: Refined) -> FloatArray:
    share = np.clip(1.0 - candidates.class_share[:, 0], 1e-3, 1 - 1e-3)
    typical = float(np.median(refined.amplitude)) if len(refined.amplitude) else 1.0
    ratio = np.log(np.clip(refined.amplitude / max(typical, 1e-12), 0.1, 10.0))
    return np.stack([np.ones(len(share)), np.log(share / (1 - share)), ratio], axis=1)


def _fit_logistic(x: FloatArray, y: NDArray[np.bool_]) -> tuple[float, ...]:
    model = LogisticRegression(C=100.0, fit_intercept=False, max_iter=500)
    model.fit(x, y)
    return tuple(float(c) for c in model.coef_[0])


def _fit_covariance(
    errors: FloatArray, fisher: FloatArray, scatter: FloatArray
) -> tuple[float, float]:
    """Maximum likelihood of the errors under a Gaussian of the weighted sum of both."""

    def loss(log_weights: FloatArray) -> float:
        a, b = np.exp(2 * log_weights)
        variance = np.stack(
            [a * fisher[:, k, k] + b * scatter[:, k, k] + 1e-8 for k in range(2)], axis=1
        )
        # Student's t with few degrees of freedom in place of a Gaussian: a wrong match, half an
        # angstrom away, must not widen every other atom's error bar.
        chi = errors**2 / variance
        return float((0.5 * np.log(variance) + 4.5 * np.log1p(chi / 8.0)).mean())

    best = minimize(loss, np.array([0.0, -2.0]), method="Nelder-Mead").x
    return float(np.exp(best[0])), float(np.exp(best[1]))


def _sigmoid(x: FloatArray) -> FloatArray:
    out: FloatArray = 1.0 / (1.0 + np.exp(-np.clip(x, -30, 30)))
    return out
