"""Out-of-distribution score of a frame: its distance from the frames of training.

A frame is described by numbers from its fit and its networks: probe, noise, reduced χ², confidence
and agreement of the members, and the geometry of its atoms. Most of them depend on the dose, so
each is compared with training frames of the same dose.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.spatial import cKDTree

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.features.candidates.locate import Candidates
from adatom.features.refinement.refine import Refined, RefineOptions, counting_sigma_A

_BOND = 1.28  # largest distance of neighbours, bond lengths: below the second shell (1.41 or more)
_FEW = 8  # a frame with fewer sites is not described
LARGEST_SIGMA_A = 1.0  # limit of the position error from counting noise, Å
# Names of the descriptions; model cards hold them, so they stay.
DESCRIPTIONS = (
    "log spot sigma", "log ellipticity", "core tail", "wide tail", "log level", "log misfit",
    "median logit", "low logit", "disagreement", "votes", "log scatter", "amplitude spread",
    "coordination", "log bond", "bond spread", "log density", "log correlation", "log counts",
)  # fmt: skip


# Description, direction, and share of the training frames beyond the limit. Training conditions
# rarely disturb the order of a specimen or the confidence of the networks, so only the direction
# that is worse is tested for these.
_CHECKS: tuple[tuple[str, int, float], ...] = (
    ("log spot sigma", +1, 0.05),
    ("log spot sigma", -1, 0.005),
    ("log ellipticity", +1, 0.02),
    ("log counts", -1, 0.01),
    ("median logit", -1, 0.005),
    ("coordination", -1, 0.005),
    ("bond spread", +1, 0.005),
    ("log bond", +1, 0.005),
    ("log bond", -1, 0.005),
)
_LEAST_GAP = 0.02  # least distance of the limit from the median, in the unit of the description
_QUANTILES = 401  # stored quantiles of the scores: four within each per cent
_LEAST_ROWS = 3  # rows that a quadratic needs, a count
_CONFIDENT_P = 0.9  # p_exists above which an atom is confident


class Check(BaseModel):
    """Median and limit of one description, each a quadratic in the log position error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    usual: tuple[float, float, float]
    limit: tuple[float, float, float]

    def excess(self, value: float, powers: FloatArray) -> float:
        """Distance from the median in units of that of the limit; above one is beyond the limit."""
        usual, limit = float(powers @ np.array(self.usual)), float(powers @ np.array(self.limit))
        gap = limit - usual
        gap = np.sign(gap or 1.0) * max(abs(gap), _LEAST_GAP)
        return float((value - usual) / gap)


class OodModel(BaseModel):
    """Model of the out-of-distribution score, fitted on held-out simulated frames.

    Parameters
    ----------
    names
        Names of the descriptions, in their order.
    checks
        Descriptions that are compared, with their limits.
    sigma_range
        Least and largest logarithm of the position error in training.
    quantiles
        Quantiles of the scores of training frames at equally spaced probabilities from 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = DESCRIPTIONS
    checks: tuple[Check, ...]
    sigma_range: tuple[float, float]
    quantiles: tuple[float, ...]

    def score(self, description: FloatArray) -> float:
        """Score of a frame: above one is beyond training; infinite without enough sites.

        Parameters
        ----------
        description
            From `describe`.
        """
        if not np.isfinite(description).all():
            return float("inf")
        low, high = self.sigma_range
        inside = float(np.clip(description[0], low, high))
        beyond = 1.0 + (description[0] - high) / 0.1 if description[0] > high else 0.0
        powers = _powers(np.array([inside]))[0]
        return max(
            beyond,
            *(c.excess(description[1 + self.names.index(c.name)], powers) for c in self.checks),
        )

    def share_farther(self, score: float) -> float:
        """Share of training frames with a higher score; near zero if out of distribution."""
        shares = np.linspace(0.0, 1.0, len(self.quantiles))
        return float(1.0 - np.interp(score, self.quantiles, shares))


def confident_share(p_exists: FloatArray, least_p: float = _CONFIDENT_P) -> float:
    """Share of the expected atoms of a frame whose probability exceeds 0.9, or another limit.

    In noise, contamination, other materials, or at too low a dose, networks give many weak guesses
    and no confident atom. Where atoms are visible, most are confident.

    Parameters
    ----------
    p_exists
        Calibrated probability of every possible atom, shape (site,).
    least_p
        The limit.

    Returns
    -------
    0 to 1; 0 if no atom is expected.

    Examples
    --------
    >>> round(confident_share(np.array([0.99, 0.99, 0.1, 0.1])), 2)
    0.91
    >>> confident_share(np.array([0.3, 0.2]))
    0.0
    """
    expected = float(p_exists.sum())
    return float(p_exists[p_exists > least_p].sum()) / expected if expected > 0 else 0.0


def describe(
    candidates: Candidates, refined: Refined, material: Material, options: RefineOptions
) -> FloatArray:
    """Compute the descriptions of a frame for `OodModel`.

    Parameters
    ----------
    candidates, refined
        Sites of the frame, before and after refinement.
    material
        Gives bond length, coordination number and density.
    options
        Options of the refinement.

    Returns
    -------
    Logarithm of the position error from counting noise, then the descriptions; all NaN if there are
    fewer than eight sites.
    """
    n = len(candidates.xy)
    if n < _FEW:
        return np.full(1 + len(DESCRIPTIONS), np.nan)
    optics, logit = refined.optics, atom_log_odds(candidates)
    typical = max(float(np.median(refined.amplitude)), 1e-12)
    scatter = np.sqrt(0.5 * np.einsum("nii->n", candidates.scatter))
    there = candidates.xy[logit > 0] if (logit > 0).sum() >= _FEW else candidates.xy
    distance, neighbours = neighbour_statistics(there, material)
    span = np.ptp(there, axis=0) + material.bond_length_A
    density = len(there) * material.site_area_A2 / max(float(span[0] * span[1]), 1e-9)
    values = [
        np.log(max(float(np.median(counting_sigma_A(refined, options, LARGEST_SIGMA_A))), 1e-4)),
        np.log(optics.sigma_A),
        np.log(optics.ellipticity),
        optics.probe.tails[0],
        optics.probe.tails[1],
        np.log(max(float(np.median(refined.background)) / typical, 0.02)),
        np.log(max(refined.reduced_chi2, 1e-2)),
        np.median(logit),
        np.percentile(logit, 15),
        np.mean(candidates.disagreement),
        np.mean(candidates.vote_fraction),
        np.log(max(float(np.median(scatter)), 1e-4)),
        _spread(np.log(np.clip(refined.amplitude / typical, 0.05, 20.0))),
        np.mean(neighbours == material.coordination),
        np.log(float(np.median(distance)) / material.bond_length_A),
        _spread(distance),
        np.log(density),
        np.log(optics.noise.correlation),
        np.log(max(typical * 2 * np.pi * optics.probe.sigma() ** 2 / _quantum(refined), 0.05)),
    ]
    return np.array(values, dtype=np.float64)


def fit_ood_model(
    descriptions: FloatArray,
    names: tuple[str, ...] = DESCRIPTIONS,
    chosen: tuple[tuple[str, int, float], ...] = _CHECKS,
) -> OodModel | None:
    """Fit an `OodModel` on frames under training conditions.

    Parameters
    ----------
    descriptions
        Shape (frame, description), from `describe`; rows with NaN are ignored.
    names
        Names of the descriptions after the first, which is the logarithm of the position error.
    chosen
        Descriptions to compare: name, direction, and share of the training frames beyond the limit.

    Returns
    -------
    The model; None if fewer than three rows are complete, as where atoms stand so far apart that no
    region holds enough of them.
    """
    good = descriptions[np.isfinite(descriptions).all(axis=1)]
    if len(good) < _LEAST_ROWS:
        return None
    sigma = good[:, 0]
    low, high = float(np.percentile(sigma, 0.5)), float(np.percentile(sigma, 99))
    powers = _powers(np.clip(sigma, low, high))
    checks = []
    for name, direction, share in chosen:
        value = good[:, 1 + names.index(name)]
        beyond = 1.0 - share if direction > 0 else share
        usual, limit = (_quantile_fit(powers, value, q) for q in (0.5, beyond))
        checks.append(Check(name=name, usual=usual, limit=limit))
    model = OodModel(names=names, checks=tuple(checks), sigma_range=(low, high), quantiles=())
    scores = np.array([model.score(row) for row in good])
    return model.model_copy(
        update={"quantiles": tuple(np.quantile(scores, np.linspace(0, 1, _QUANTILES)).tolist())}
    )


def _quantile_fit(
    powers: FloatArray, value: FloatArray, quantile: float
) -> tuple[float, float, float]:
    """Quantile regression (Koenker and Bassett, Econometrica 46, 33 (1978))."""
    # scikit-learn takes a second to import, and only fitting needs it.
    from sklearn.linear_model import QuantileRegressor

    regression = QuantileRegressor(
        quantile=quantile, alpha=0.0, solver="highs", fit_intercept=False
    )
    a, b, c = regression.fit(powers, value).coef_
    return float(a), float(b), float(c)


def _powers(sigma: FloatArray) -> FloatArray:
    x = sigma + 3.0  # centred: typical position errors are near exp(-3) Å = 0.05 Å
    return np.stack([np.ones_like(x), x, x**2], axis=1)


def atom_log_odds(candidates: Candidates) -> FloatArray:
    """Log-odds of the expected number of atoms at each site, shape (site,)."""
    mass = candidates.mass
    atom = np.clip(mass[:, :-1].sum(axis=1) if mass.shape[1] > 1 else mass[:, 0], 1e-3, 1 - 1e-3)
    out: FloatArray = np.log(atom / (1 - atom))
    return out


def _quantum(refined: Refined) -> float:
    """Intensity of one detected electron: variance of the noise over the signal."""
    noise, typical = refined.optics.noise, float(np.median(refined.amplitude))
    level = max(float(np.median(refined.background)), 0.0)
    variance = noise.constant + noise.gain * (typical + level)
    return max(variance / max(typical + level, 1e-12), 1e-12)


def neighbour_statistics(
    xy: FloatArray, material: Material
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Distance of the nearest neighbour, Å, and number of neighbours, of every atom, (atom,)."""
    tree = cKDTree(xy)
    distance = tree.query(xy, k=2)[0][:, 1]
    near = tree.query_ball_point(xy, _BOND * material.bond_length_A, return_length=True)
    return distance, np.asarray(near) - 1


def _spread(x: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(x - np.median(x))))
