"""How far a frame lies from what the networks were trained on.

A frame is described by what its fit and its networks say of it: the probe, the noise, how well
spots explain it, how sure and how agreed the members are, and how its atoms stand to each other.
Most of these change with the dose; each is compared with what training frames of that dose show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.spatial import cKDTree

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.features.candidates.locate import Candidates
from adatom.features.refinement.refine import Refined, RefineOptions

_BOND = 1.28  # neighbours lie within this many bond lengths
_FEW = 8  # fewer sites tell nothing
_NAMES = (
    "log spot sigma", "log ellipticity", "core tail", "wide tail", "log level", "log misfit",
    "median logit", "low logit", "disagreement", "votes", "log scatter", "amplitude spread",
    "coordination", "log bond", "bond spread", "log density", "log correlation", "log counts",
)  # fmt: skip


# What is compared, in which direction, and the share of training frames that lie beyond the limit.
# Few conditions spoil a specimen's order or the networks' sureness in training: only worse counts.
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
_LEAST_GAP = 0.02  # between the usual and the limit, in the description's unit
_QUANTILES = 401  # that are kept: what is rare is told by the last one in a hundred
_SURE = 0.9  # probability of an atom that is


class Check(BaseModel):
    """The usual value of one description and its limit, each a quadratic of the position error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    usual: tuple[float, float, float]
    limit: tuple[float, float, float]

    def excess(self, value: float, powers: FloatArray) -> float:
        """How far from the usual towards the limit: over one is beyond it."""
        usual, limit = float(powers @ np.array(self.usual)), float(powers @ np.array(self.limit))
        gap = limit - usual
        gap = np.sign(gap or 1.0) * max(abs(gap), _LEAST_GAP)
        return float((value - usual) / gap)


class Novelty(BaseModel):
    """Distance of frames from the training conditions, fitted on held-out simulated frames.

    Parameters
    ----------
    names
        What is described, in the order of descriptions.
    checks
        What of it is compared.
    sigma_range
        Least and largest logarithm of the position error in training.
    quantiles
        Distances that equally spaced shares of training frames, from none to all, stay below.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = _NAMES
    checks: tuple[Check, ...]
    sigma_range: tuple[float, float]
    quantiles: tuple[float, ...]

    def distance(self, description: FloatArray) -> float:
        """Distance of a frame: over one is beyond training; infinite where nothing is seen.

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

    def share_farther(self, distance: float) -> float:
        """Share of training frames that are farther away: small for what was never trained on."""
        shares = np.linspace(0.0, 1.0, len(self.quantiles))
        return float(1.0 - np.interp(distance, self.quantiles, shares))


def share_sure(p_exists: FloatArray) -> float:
    """Share of the atoms to expect in a frame that are sure.

    Noise, dirt and other materials leave networks with many weak guesses and no sure atom, and so
    does a frame of too few counts; where atoms can be seen most are sure.

    Parameters
    ----------
    p_exists
        Calibrated probabilities of everything that may be an atom, shape (site,).

    Returns
    -------
    0 to 1; 0 where nothing is to be expected.
    """
    expected = float(p_exists.sum())
    return float(p_exists[p_exists > _SURE].sum()) / expected if expected > 0 else 0.0


def describe(
    candidates: Candidates, refined: Refined, material: Material, options: RefineOptions
) -> FloatArray:
    """Describe a frame for `Novelty`.

    Parameters
    ----------
    candidates, refined
        What was found in it.
    material
        Gives bond length, coordination and density.
    options
        With which it was refined.

    Returns
    -------
    Logarithm of the position error that the counts allow, then the descriptions; NaN where there
    are too few sites to tell.
    """
    n = len(candidates.xy)
    if n < _FEW:
        return np.full(1 + len(_NAMES), np.nan)
    optics, logit = refined.optics, atom_logit(candidates)
    typical = max(float(np.median(refined.amplitude)), 1e-12)
    scatter = np.sqrt(0.5 * np.einsum("nii->n", candidates.scatter))
    there = candidates.xy[logit > 0] if (logit > 0).sum() >= _FEW else candidates.xy
    distance, neighbours = surroundings(there, material)
    span = np.ptp(there, axis=0) + material.bond_length_A
    density = len(there) * material.site_area_A2 / max(float(span[0] * span[1]), 1e-9)
    values = [
        np.log(max(float(np.median(counts_sigma_A(refined, options))), 1e-4)),
        np.log(optics.sigma_A),
        np.log(optics.ellipticity),
        optics.probe.tails[0],
        optics.probe.tails[1],
        np.log(max(float(np.median(refined.level)) / typical, 0.02)),
        np.log(max(refined.misfit, 1e-2)),
        np.median(logit),
        np.percentile(logit, 15),
        np.mean(candidates.disagreement),
        np.mean(candidates.votes),
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


def fit_novelty(
    descriptions: FloatArray,
    names: tuple[str, ...] = _NAMES,
    chosen: tuple[tuple[str, int, float], ...] = _CHECKS,
) -> Novelty:
    """Fit on frames under training conditions.

    Parameters
    ----------
    descriptions
        Shape (frame, description), from `describe`; rows with NaN are left out.
    names
        Of the descriptions but the first, the logarithm of the position error.
    chosen
        What is compared, in which direction, and the share of training beyond the limit.
    """
    good = descriptions[np.isfinite(descriptions).all(axis=1)]
    sigma = good[:, 0]
    low, high = float(np.percentile(sigma, 0.5)), float(np.percentile(sigma, 99))
    powers = _powers(np.clip(sigma, low, high))
    checks = []
    for name, direction, share in chosen:
        value = good[:, 1 + names.index(name)]
        beyond = 1.0 - share if direction > 0 else share
        usual, limit = (_quantile_fit(powers, value, q) for q in (0.5, beyond))
        checks.append(Check(name=name, usual=usual, limit=limit))
    novelty = Novelty(names=names, checks=tuple(checks), sigma_range=(low, high), quantiles=())
    distances = np.array([novelty.distance(row) for row in good])
    return novelty.model_copy(
        update={"quantiles": tuple(np.quantile(distances, np.linspace(0, 1, _QUANTILES)).tolist())}
    )


def _quantile_fit(
    powers: FloatArray, value: FloatArray, quantile: float
) -> tuple[float, float, float]:
    """Coefficients of a conditional quantile (Koenker and Bassett, Econometrica 46, 33 (1978))."""
    # scikit-learn takes a second to load, and only fitting needs it.
    from sklearn.linear_model import QuantileRegressor

    model = QuantileRegressor(quantile=quantile, alpha=0.0, solver="highs", fit_intercept=False)
    a, b, c = model.fit(powers, value).coef_
    return float(a), float(b), float(c)


def _powers(sigma: FloatArray) -> FloatArray:
    x = sigma + 3.0  # centred: most position errors lie about exp(-3) Å
    return np.stack([np.ones_like(x), x, x**2], axis=1)


def counts_sigma_A(refined: Refined, options: RefineOptions) -> FloatArray:
    """Position error that the counts alone allow, shape (atom,), Å; one at most."""
    variance = 0.5 * np.einsum("nii->n", refined.covariance)
    information = 1.0 / np.maximum(variance, 1e-12) - options.start_sigma_A**-2.0
    out: FloatArray = np.maximum(information, 1.0) ** -0.5
    return out


def atom_logit(candidates: Candidates) -> FloatArray:
    """Log-odds of the expected number of atoms at each site, shape (site,)."""
    mass = candidates.mass
    atom = np.clip(mass[:, :-1].sum(axis=1) if mass.shape[1] > 1 else mass[:, 0], 1e-3, 1 - 1e-3)
    out: FloatArray = np.log(atom / (1 - atom))
    return out


def _quantum(refined: Refined) -> float:
    """Intensity of one detected electron, or what the noise says it is."""
    noise, typical = refined.optics.noise, float(np.median(refined.amplitude))
    level = max(float(np.median(refined.level)), 0.0)
    variance = noise.constant + noise.gain * (typical + level)
    return max(variance / max(typical + level, 1e-12), 1e-12)


def surroundings(xy: FloatArray, material: Material) -> tuple[FloatArray, NDArray[np.int64]]:
    """Distance to the nearest neighbour, and number of neighbours, of every atom."""
    tree = cKDTree(xy)
    distance = tree.query(xy, k=2)[0][:, 1]
    near = tree.query_ball_point(xy, _BOND * material.bond_length_A, return_length=True)
    return distance, np.asarray(near) - 1


def _spread(x: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(x - np.median(x))))
