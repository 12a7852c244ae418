"""Calibrated probabilities and position errors, fitted on simulated frames with known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from adatom.core import GRAPHENE, LabelledFrame, Material
from adatom.core.arrays import FloatArray
from adatom.features.calibration.occupancy import (
    BORDER_A,
    class_features,
    class_probabilities,
    expected_counts,
    fit_classes,
    fit_exists,
    fit_states,
    log_odds,
    logit,
    sigmoid,
    state_features,
    state_odds,
)
from adatom.features.candidates.locate import Candidates
from adatom.features.refinement.refine import Refined, RefineOptions, counting_sigma_A
from adatom.features.sublattices import fit_sublattice_weights, has_distinct_sublattices

LIKELY_P = 0.5  # p_exists above which a column counts as evidence for its sublattice
MATCH_A = 0.5  # a found atom is correct within this distance of a true one, Å (a third of a bond)
# Relative shifts (see `_relative_shift`) at which the weight of the image is tabulated; the steps
# are fine near one, where networks and image are equally accurate.
_SHIFT_KNOTS = (0.0, 0.6, 0.7, 0.8, 0.9, 1.05, 1.3, 1.7, 2.2, 3.5)
_MEDIAN = 0.6745  # median of the absolute value of a standard normal variable
_LARGEST_SIGMA_A = 0.5  # limit of the position error from counting noise, Å
_ONE_SIGMA = 0.6827  # probability of a normal variable within one standard deviation
_NEIGHBOUR_A = 1.9  # largest distance of neighbours: a strained bond to an impurity, Å
_RELAXATION_A = 0.3  # largest displacement of atoms next to a defect, Å


class Calibrator(BaseModel):
    """Calibrated probabilities of occupancy, calibrated positions and position covariances.

    A position is ``start + trust · (refined - start)``, where `start` comes from the networks. At a
    high dose the fit to the image is more accurate. At a low dose the networks are, because they
    were trained on lattices. The median shift in the refinement, in units of its standard error,
    shows which case a frame is: if the networks are less accurate, their error causes most of the
    shift (empirical Bayes; Efron and Morris, J. Am. Stat. Assoc. 68, 117 (1973)). Next to a vacancy
    or an impurity, atoms are displaced from the lattice, and the image has more weight. The
    logarithm of the variance of a position is linear in features of the dose, the members and the
    surroundings. The shape of the covariance is that of the inverse Fisher information.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    states: tuple[tuple[float, ...], tuple[float, ...]]
    exists: tuple[tuple[float, ...], tuple[float, ...]]
    foreign: tuple[tuple[float, ...], ...]
    trust: tuple[tuple[float, ...], tuple[float, ...]]  # for normal atoms; next to defects
    spread: tuple[float, ...]
    spread_mean: tuple[float, ...]
    spread_scale: tuple[float, ...]
    hosts: tuple[int, ...] = (0,)  # classes of the perfect crystal
    # Weights of the log-likelihoods of a column and of its sublattice (`fit_sublattice_weights`).
    order: tuple[float, float] = (1.0, 0.0)

    def p_states(self, candidates: Candidates, refined: Refined) -> tuple[FloatArray, FloatArray]:
        """Probability that each site holds an atom, and that it is a vacancy; both (site,).

        The remaining probability is that there is no lattice site.
        """
        both = state_odds(self.states, state_features(candidates, refined))
        atom, empty = (both / (1.0 + both.sum(axis=1, keepdims=True))).T
        exists = sigmoid(np.interp(log_odds(atom), *self.exists))
        return exists, empty * (1.0 - exists) / np.maximum(1.0 - atom, 1e-12)

    def p_classes(self, candidates: Candidates, refined: Refined) -> FloatArray:
        """Probability of each class for the atom at each site, shape (site, class).

        The classes are those of the networks without the last, which is the vacancy.
        """
        features = class_features(candidates, refined)
        if features.shape[1] < 4:
            return np.ones((len(features), 1))
        return class_probabilities(self.foreign, features)

    def position(
        self, candidates: Candidates, refined: Refined, options: RefineOptions
    ) -> FloatArray:
        """Calibrated positions, shape (site, 2), Å."""
        relative_shift = np.full(len(candidates.xy), _relative_shift(candidates, refined, options))
        trust = _trust(self.trust, relative_shift, _defect_proximity(candidates, self.hosts))
        out: FloatArray = candidates.xy + trust[:, None] * (refined.xy - candidates.xy)
        return out

    def covariance(
        self, candidates: Candidates, refined: Refined, options: RefineOptions
    ) -> FloatArray:
        """Calibrated position covariances, shape (site, 2, 2), Å²."""
        features = _variance_features(candidates, refined, options, self.hosts)
        scaled = (features - self.spread_mean) / self.spread_scale
        variance = np.exp(scaled @ np.asarray(self.spread))
        shape = refined.covariance
        mean = 0.5 * np.einsum("nii->n", shape)
        out: FloatArray = (variance / np.maximum(mean, 1e-12))[:, None, None] * shape
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """Candidates and refined atoms of one frame whose truth is known."""

    candidates: Candidates
    refined: Refined
    truth: LabelledFrame


def fit_calibrator(
    observations: list[Observation], options: RefineOptions, material: Material = GRAPHENE
) -> Calibrator:
    """Fit a `Calibrator` on held-out simulated frames.

    Parameters
    ----------
    observations
        Frames that were not used in training.
    options
        Options of their refinement.
    material
        Material of the frames, in their unit of length.
    """
    states: list[tuple[FloatArray, NDArray[np.int64]]] = []
    classes: list[tuple[FloatArray, NDArray[np.int64]]] = []
    places: list[tuple[FloatArray, ...]] = []
    hosts = tuple(k for k, s in enumerate(material.species) if s in material.hosts())
    for seen in observations:
        c, r = seen.candidates, seen.refined
        match = match_truth(c.xy, seen.truth.xy)
        right = match >= 0
        vacant = (match_truth(c.xy, seen.truth.vacancies_xy) >= 0) & ~right
        states.append((state_features(c, r), np.where(right, 1, np.where(vacant, 2, 0))))
        classes.append((class_features(c, r)[right], seen.truth.species[match[right]]))
        n = int(right.sum())
        places.append(
            (
                seen.truth.xy[match[right]] - c.xy[right],
                (r.xy - c.xy)[right],
                counting_sigma_A(r, options, _LARGEST_SIGMA_A)[right],
                np.full(n, _relative_shift(c, r, options)),
                _defect_proximity(c, hosts)[right],
                _variance_features(c, r, options, hosts)[right],
                _shape(r)[right],
            )
        )
    error, shift, sigma, relative_shift, near_defect, features, shape = (
        np.concatenate(p) for p in zip(*places, strict=True)
    )
    trust = _fit_trust(error, shift, sigma, relative_shift, near_defect)
    left = error - _trust(trust, relative_shift, near_defect)[:, None] * shift
    spread, mean, scale = _fit_variance(left / shape, features)
    weights = fit_states(states)
    fitted = Calibrator(
        states=weights,
        exists=fit_exists(states, weights),
        foreign=fit_classes(classes),
        trust=trust,
        spread=spread,
        spread_mean=mean,
        spread_scale=scale,
        hosts=hosts,
    )
    return fitted.model_copy(
        update={"order": _fit_sublattice_weights(fitted, observations, material)}
    )


def _fit_sublattice_weights(
    fitted: Calibrator, observations: list[Observation], material: Material
) -> tuple[float, float]:
    """Fit the weights of a column and of its sublattice on the columns that were found."""
    if not has_distinct_sublattices(material):
        return fitted.order
    parts = []
    for seen in observations:
        c, r = seen.candidates, seen.refined
        match = match_truth(c.xy, seen.truth.xy)
        there = (fitted.p_states(c, r)[0] > LIKELY_P) & (match >= 0)
        p = fitted.p_classes(c, r)[there]
        parts.append((c.xy[there], p, seen.truth.species[match[there]]))
    return fit_sublattice_weights(parts, material)


def match_truth(xy: FloatArray, truth: FloatArray, within: float = MATCH_A) -> NDArray[np.int64]:
    """Match found atoms to true ones, one to one, nearest first.

    Parameters
    ----------
    xy, truth
        Found and true positions, shape (atom, 2), Å.
    within
        Largest distance of a match, in the unit of the positions.

    Returns
    -------
    Index of the true atom of each found atom, -1 for none, shape (atom,).

    Examples
    --------
    >>> found, truth = np.array([[0.1, 0.0], [3.0, 0.0]]), np.array([[9.0, 9.0], [0.0, 0.0]])
    >>> match_truth(found, truth).tolist()
    [1, -1]
    """
    out = np.full(len(xy), -1, dtype=np.int64)
    if not len(xy) or not len(truth):
        return out
    near = cKDTree(xy).sparse_distance_matrix(cKDTree(truth), within, output_type="coo_matrix")
    taken = np.zeros(len(truth), dtype=bool)
    for k in np.argsort(near.data, kind="stable"):
        i, j = int(near.row[k]), int(near.col[k])
        if out[i] < 0 and not taken[j]:
            out[i], taken[j] = j, True
    return out


def _relative_shift(candidates: Candidates, refined: Refined, options: RefineOptions) -> float:
    """Median shift of the atoms of a frame in the refinement, in standard errors."""
    if not len(candidates.xy):
        return 0.0
    step = np.abs(refined.xy - candidates.xy)
    return (
        float(np.median(step / counting_sigma_A(refined, options, _LARGEST_SIGMA_A)[:, None]))
        / _MEDIAN
    )


def _defect_proximity(candidates: Candidates, hosts: tuple[int, ...]) -> FloatArray:
    """Largest probability of a defect among the neighbours of each site, shape (site,)."""
    out = np.zeros(len(candidates.xy))
    if len(out) > 1:
        odd = np.clip(np.delete(candidates.mass, hosts, axis=1).sum(axis=1), 0.0, 1.0)
        pairs = cKDTree(candidates.xy).query_pairs(_NEIGHBOUR_A, output_type="ndarray")
        for i, j in (pairs.T, pairs.T[::-1]):
            np.maximum.at(out, i, odd[j])
    return out


def _trust(
    tables: tuple[tuple[float, ...], tuple[float, ...]],
    relative_shift: FloatArray,
    near_defect: FloatArray,
) -> FloatArray:
    """Interpolate the weight of the image, shape (atom,), in the two tables."""
    usual, next_to_odd = (np.interp(relative_shift, _SHIFT_KNOTS, table) for table in tables)
    out: FloatArray = usual + near_defect * (next_to_odd - usual)
    return out


def _fit_trust(
    error: FloatArray,
    shift: FloatArray,
    sigma: FloatArray,
    relative_shift: FloatArray,
    near_defect: FloatArray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Least squares of ``error = trust · shift`` for the knots of both tables.

    Errors that come from wrong matches (about half an ångström) are excluded. The tables are made
    non-decreasing: a larger relative shift never lowers the weight of the image.
    """
    good = (np.abs(error) < _RELAXATION_A + 4 * np.minimum(sigma, 0.06)[:, None]).all(axis=1)
    knots = len(_SHIFT_KNOTS)
    hats = np.stack(
        [np.interp(relative_shift[good], _SHIFT_KNOTS, row) for row in np.eye(knots)], axis=1
    )
    odd = near_defect[good, None]
    hats = np.concatenate([(1 - odd) * hats, odd * hats], axis=1)
    weight = np.repeat(1.0 / np.minimum(sigma[good], 0.06) ** 2, 2)
    design = (hats[:, None, :] * shift[good, :, None]).reshape(-1, 2 * knots)
    normal = (design * weight[:, None]).T @ design + 1e-3 * np.eye(2 * knots)
    right = (design * weight[:, None]).T @ error[good].ravel()
    values = np.clip(np.linalg.solve(normal, right), 0.0, 1.0)
    usual, next_to_odd = (np.maximum.accumulate(v).tolist() for v in np.split(values, 2))
    return tuple(usual), tuple(next_to_odd)


def _fit_variance(
    error: FloatArray, features: FloatArray
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Fit the logarithm of the variance by maximum likelihood; then scale to 68 % in one sigma.

    The likelihood is Student's t with four degrees of freedom, so that wrong matches, about half an
    ångström away, do not widen the error bars of all atoms.

    Parameters
    ----------
    error
        Errors along x and y divided by `_shape`, shape (atom, 2), Å.
    features
        Shape (atom, feature); the first is one.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    mean[0], scale[0] = 0.0, 1.0
    z = (features - mean) / scale

    def loss(w: FloatArray) -> tuple[float, FloatArray]:
        log_variance = z @ w
        ratio = error**2 * np.exp(-log_variance)[:, None] / 4.0
        value = 0.5 * log_variance[:, None] + 2.5 * np.log1p(ratio)
        slope = (0.5 - 2.5 * ratio / (1.0 + ratio)).sum(axis=1) / error.size
        return float(value.mean() + 1e-5 * (w @ w)), z.T @ slope + 2e-5 * w

    start = np.zeros(z.shape[1])
    start[0] = np.log(np.median(error**2) + 1e-8)
    w = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    scaled = np.abs(error) * np.exp(-0.5 * (z @ w))[:, None]
    w[0] += 2 * np.log(np.quantile(scaled, _ONE_SIGMA))
    return tuple(w.tolist()), tuple(mean.tolist()), tuple(scale.tolist())


def _shape(refined: Refined) -> FloatArray:
    """Standard deviations along x and y over their root mean square, shape (atom, 2)."""
    variance = np.einsum("nii->ni", refined.covariance)
    out: FloatArray = np.sqrt(variance / np.maximum(variance.mean(axis=1, keepdims=True), 1e-12))
    return out


def _variance_features(
    candidates: Candidates, refined: Refined, options: RefineOptions, hosts: tuple[int, ...]
) -> FloatArray:
    """Features that predict the error of a position, shape (site, feature); the first is one."""
    n = len(candidates.xy)
    if not n:
        return np.zeros((0, 24))
    sigma = counting_sigma_A(refined, options, _LARGEST_SIGMA_A)
    counts = np.log(sigma) + 3.0
    scatter = np.log(np.sqrt(0.5 * np.einsum("nii->n", candidates.scatter)) + 1e-4) + 5.0
    sure = logit(expected_counts(candidates)[0])
    irregular = _irregularity(candidates.xy)
    usual = [np.median(v) for v in (scatter, sure, irregular)]
    one = np.ones(n)
    s, t, i = (u * one for u in usual)
    m = np.log(_relative_shift(candidates, refined, options) + 0.05) * one
    lumps = min(np.log(refined.optics.noise.correlation), 2.0) * one
    near = _defect_proximity(candidates, hosts)
    rim = np.exp(-np.maximum(candidates.border_A, 0.0) / 4.0)
    return np.stack(
        [
            one, counts, counts**2, scatter - s, s, s**2, counts * s, sure - t, t, lumps,
            lumps * counts, np.log(refined.optics.sigma_A) * one,
            np.clip(1.0 - candidates.border_A / BORDER_A, 0.0, 1.5), rim, rim * s, m, m**2,
            m * counts, np.minimum(irregular - i, 2.0), i, i * counts,
            near, near * counts, near * m,
        ],
        axis=1,
    )  # fmt: skip


def _irregularity(xy: FloatArray) -> FloatArray:
    """Logarithm of the distance of each site from the centroid of its three nearest, Å."""
    if len(xy) < 4:
        return np.zeros(len(xy))
    near = cKDTree(xy).query(xy, k=4)[1][:, 1:]
    out: FloatArray = np.log(np.linalg.norm(xy - xy[near].mean(axis=1), axis=1) + 0.03)
    return out
