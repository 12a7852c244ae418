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
_REGION = 60  # atoms of a region: a radius of 7 Å in graphene; their median is good to 10 %
_BY_SHIFT = (15, 16, 17, 23)  # features of a variance that are made of the relative shift
_UNSURE = 0.1  # relative error of the mean square shift of 200 values, some two regions
_LEFT_A = 0.02  # Å: error of the networks' lattice, where the sheet is perfect
_RELAXED_A = 0.1  # Å: how far atoms next to a defect lie from their sites
# Share of an atom's true distance from its site that the networks give back, by the error of the
# image alone, Å: measured on disordered sheets with truth.
_GAIN_SIGMA_A = (0.012, 0.024, 0.047, 0.097, 0.16, 0.3)
_GAIN = (0.65, 0.57, 0.4, 0.17, 0.07, 0.02)
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
    # For normal atoms; next to defects. Calibrations by regions do without.
    trust: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    spread: tuple[float, ...]
    spread_mean: tuple[float, ...]
    spread_scale: tuple[float, ...]
    hosts: tuple[int, ...] = (0,)  # classes of the perfect crystal
    # Weights of the log-likelihoods of a column and of its sublattice (`fit_sublattice_weights`).
    order: tuple[float, float] = (1.0, 0.0)
    # Whether the weight of the image is that of the region: disorder differs within a frame.
    # Calibrations of version 0.1.0 have one weight for a frame.
    regional: bool = False

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
        return self.placed(candidates, refined, options)[0]

    def covariance(
        self, candidates: Candidates, refined: Refined, options: RefineOptions
    ) -> FloatArray:
        """Calibrated position covariances, shape (site, 2, 2), Å²."""
        return self.placed(candidates, refined, options)[1]

    def placed(
        self, candidates: Candidates, refined: Refined, options: RefineOptions
    ) -> tuple[FloatArray, FloatArray]:
        """Calibrated positions, shape (site, 2), Å, and their covariances, (site, 2, 2), Å²."""
        shift = _relative_shift(candidates, refined, options, regional=self.regional)
        near = _defect_proximity(candidates, self.hosts)
        features = _variance_features(
            candidates, refined, options, near, shift, regional=self.regional
        )
        scaled = (features - self.spread_mean) / self.spread_scale
        variance = np.exp(scaled @ np.asarray(self.spread))
        if self.regional:
            tie = _tie(refined, options, shift, near)
            trust, variance = tie.trust, variance * tie.variance_A2
        else:
            trust = _trust(self.trust, shift, near)
        shape = refined.covariance
        mean = 0.5 * np.einsum("nii->n", shape)
        return (
            np.asarray(candidates.xy + trust[:, None] * (refined.xy - candidates.xy)),
            np.asarray((variance / np.maximum(mean, 1e-12))[:, None, None] * shape),
        )


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
        relative = _relative_shift(c, r, options, regional=True)
        vacant = (match_truth(c.xy, seen.truth.vacancies_xy) >= 0) & ~right
        states.append((state_features(c, r), np.where(right, 1, np.where(vacant, 2, 0))))
        classes.append((class_features(c, r)[right], seen.truth.species[match[right]]))
        near = _defect_proximity(c, hosts)
        tie = _tie(r, options, relative, near)
        places.append(
            (
                seen.truth.xy[match[right]] - c.xy[right],
                (tie.trust[:, None] * (r.xy - c.xy))[right],
                _variance_features(c, r, options, near, relative, regional=True)[right],
                (_shape(r) * np.sqrt(tie.variance_A2)[:, None])[right],
            )
        )
    error, shift, features, shape = (np.concatenate(p) for p in zip(*places, strict=True))
    spread, mean, scale = _fit_variance((error - shift) / shape, features)
    weights = fit_states(states)
    fitted = Calibrator(
        states=weights,
        exists=fit_exists(states, weights),
        foreign=fit_classes(classes),
        spread=spread,
        spread_mean=mean,
        spread_scale=scale,
        hosts=hosts,
        regional=True,
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


def _relative_shift(
    candidates: Candidates, refined: Refined, options: RefineOptions, *, regional: bool
) -> FloatArray:
    """Shift of the atoms around each in the refinement, in standard errors, shape (atom,).

    Without regions it is the median over the frame, of shifts as the prior has shortened them. With
    regions it is the root of the mean square of the shifts to the image's own maximum: one if
    counting noise alone causes them, more where the networks' positions are wrong, as on disordered
    sheets. Regions are shrunk to the frame by how much they differ beyond chance (empirical Bayes).
    """
    n = len(candidates.xy)
    if not n:
        return np.zeros(0)
    step = np.abs(refined.xy - candidates.xy)
    sigma = counting_sigma_A(refined, options, _LARGEST_SIGMA_A)[:, None]
    if not regional:
        return np.full(n, float(np.median(step / sigma)) / _MEDIAN)
    square = (step / sigma * (1.0 + (sigma / options.start_sigma_A) ** 2)) ** 2
    # Wrong sites shift far: they count as three times the usual shift at most.
    usual = float(np.median(square)) / _MEDIAN**2
    square = np.minimum(square, 9.0 * usual).mean(axis=1)
    whole = float(square.mean())
    if n <= _REGION:
        return np.full(n, whole**0.5)
    near = cKDTree(candidates.xy).query(candidates.xy, k=_REGION)[1]
    own = square[near.reshape(n, -1)].mean(axis=1)
    differ, chance = float(own.var()), float(square.var()) / _REGION
    trust = max(1.0 - chance / max(differ, 1e-12), 0.0)
    return np.asarray(np.maximum(whole + trust * (own - whole), 0.0) ** 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class _Tie:
    """How strongly the atoms of a region are tied to their lattice, and what follows.

    Parameters
    ----------
    disorder_A
        Standard deviation of atoms about their sites per axis, shape (atom,), Å.
    trust
        Weight of the refined position against that of the networks, shape (atom,).
    variance_A2
        Variance of the weighed position per axis, shape (atom,), Å².
    """

    disorder_A: FloatArray
    trust: FloatArray
    variance_A2: FloatArray


def _tie(
    refined: Refined,
    options: RefineOptions,
    relative_shift: FloatArray,
    near_defect: FloatArray,
) -> _Tie:
    """Learn the disorder of each region from how far the image moves the networks' positions.

    The networks give the site plus the share g of what the image shows beyond it. An image with
    the error s of a sheet with the disorder t therefore moves them by ``(1 - g)² (s² + t²)`` in the
    mean square, besides the error of their lattice. With t known, the best position is the site
    plus the share t² / (t² + s²) (van Trees, Detection, Estimation, and Modulation Theory I (1968),
    ch. 2.4).
    """
    s = counting_sigma_A(refined, options, _LARGEST_SIGMA_A)
    gain = np.interp(np.log(s), np.log(_GAIN_SIGMA_A), _GAIN)
    usual = float(np.median(s)) if len(s) else 1.0
    g = float(np.interp(np.log(usual), np.log(_GAIN_SIGMA_A), _GAIN))
    expected = (1.0 - g) ** 2 + (_LEFT_A / usual) ** 2
    beyond = relative_shift**2 - expected
    # Where no disorder is seen, as much as the mean square's own error may still be there.
    unsure = _UNSURE * expected
    beyond = 0.5 * (beyond + np.sqrt(beyond**2 + 4.0 * unsure**2))
    disorder2 = usual**2 * beyond / (1.0 - g) ** 2
    disorder2 = disorder2 + near_defect * np.maximum(_RELAXED_A**2 - disorder2, 0.0)
    free2 = disorder2 + _LEFT_A**2
    share = free2 / (free2 + s**2)
    trust = np.clip((share - gain) / (1.0 - gain), 0.0, 1.0)
    # The refined position is shortened by the prior of the fit.
    lengthened = 1.0 + (s / options.start_sigma_A) ** 2
    return _Tie(np.sqrt(disorder2), np.minimum(trust * lengthened, 1.0), share * s**2)


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
    candidates: Candidates,
    refined: Refined,
    options: RefineOptions,
    near: FloatArray,
    relative_shift: FloatArray,
    *,
    regional: bool,
) -> FloatArray:
    """Features that predict the error of a position, shape (site, feature); the first is one."""
    n = len(candidates.xy)
    if not n:
        return np.zeros((0, 24 - regional * len(_BY_SHIFT)))
    sigma = counting_sigma_A(refined, options, _LARGEST_SIGMA_A)
    counts = np.log(sigma) + 3.0
    scatter = np.log(np.sqrt(0.5 * np.einsum("nii->n", candidates.scatter)) + 1e-4) + 5.0
    sure = logit(expected_counts(candidates)[0])
    irregular = _irregularity(candidates.xy)
    usual = [np.median(v) for v in (scatter, sure, irregular)]
    one = np.ones(n)
    s, t, i = (u * one for u in usual)
    m = np.log(relative_shift + 0.05)
    lumps = min(np.log(refined.optics.noise.correlation), 2.0) * one
    rim = np.exp(-np.maximum(candidates.border_A, 0.0) / 4.0)
    columns = [
            one, counts, counts**2, scatter - s, s, s**2, counts * s, sure - t, t, lumps,
            lumps * counts, np.log(refined.optics.sigma_A) * one,
            np.clip(1.0 - candidates.border_A / BORDER_A, 0.0, 1.5), rim, rim * s, m, m**2,
            m * counts, np.minimum(irregular - i, 2.0), i, i * counts,
            near, near * counts, near * m,
    ]  # fmt: skip
    if regional:
        # The tie has used the shift, and its variance is the scale: what is left does not grow with
        # the disorder.
        columns = [c for k, c in enumerate(columns) if k not in _BY_SHIFT]
    return np.stack(columns, axis=1)


def _irregularity(xy: FloatArray) -> FloatArray:
    """Logarithm of the distance of each site from the centroid of its three nearest, Å."""
    if len(xy) < 4:
        return np.zeros(len(xy))
    near = cKDTree(xy).query(xy, k=4)[1][:, 1:]
    out: FloatArray = np.log(np.linalg.norm(xy - xy[near].mean(axis=1), axis=1) + 0.03)
    return out
