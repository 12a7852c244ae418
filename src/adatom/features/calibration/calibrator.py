"""From raw scores to probabilities that can be trusted: fitted on simulated frames with truth."""

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
    fit_classes,
    fit_exists,
    fit_states,
    log_odds,
    logit,
    shares,
    sigmoid,
    state_features,
    state_odds,
)
from adatom.features.candidates.locate import Candidates
from adatom.features.refinement.refine import Refined, RefineOptions
from adatom.features.sublattices import can_speak, fit_order

SURE = 0.5  # a column more probable than this has a say on those around it
MATCH_A = 0.5  # a found atom is right when it lies this near to a true one
_MOVED = (0.0, 0.6, 0.7, 0.8, 0.9, 1.05, 1.3, 1.7, 2.2, 3.5)  # where trust is tabulated
_MEDIAN = 0.6745  # of the absolute value of a standard normal variable
_LARGEST_A = 0.5  # of the errors that counts alone may leave
_ONE_SIGMA = 0.6827
_NEXT_A = 1.9  # a bond, stretched: sites this near are neighbours
_RIGHT_A = 0.3  # atoms next to a defect leave the lattice by as much


class Calibrator(BaseModel):
    """Logistic models of what is at a site, and how far to trust image and networks.

    A position is ``start + trust · (refined - start)``: where counts are plenty the image decides,
    where they are few the networks, who know lattices, do better than any fit. Which of the two a
    frame is shows in how far refinement moves its atoms, in units of its own error: where networks
    are the worse, their error is most of that (empirical Bayes; Efron and Morris, J. Am. Stat.
    Assoc. 68, 117 (1973)). Next to an empty site or a foreign atom, where atoms leave the lattice
    that networks know, the image is trusted sooner. The variance of a position is log-linear in
    what the counts, the members and the surroundings say of it; its shape is that of Fisher's
    covariance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    states: tuple[tuple[float, ...], tuple[float, ...]]
    exists: tuple[tuple[float, ...], tuple[float, ...]]
    foreign: tuple[tuple[float, ...], ...]
    trust: tuple[tuple[float, ...], tuple[float, ...]]  # among usual atoms, next to odd sites
    spread: tuple[float, ...]
    spread_mean: tuple[float, ...]
    spread_scale: tuple[float, ...]
    hosts: tuple[int, ...] = (0,)  # classes that the perfect crystal is made of
    # What a column says itself counts this much, and what those say that lattice vectors lead to.
    order: tuple[float, float] = (1.0, 0.0)

    def p_states(self, candidates: Candidates, refined: Refined) -> tuple[FloatArray, FloatArray]:
        """Probability that each site holds an atom, and that it is an empty lattice site.

        What is left is that nothing is there at all. Each of shape (site,).
        """
        both = state_odds(self.states, state_features(candidates, refined))
        atom, empty = (both / (1.0 + both.sum(axis=1, keepdims=True))).T
        exists = sigmoid(np.interp(log_odds(atom), *self.exists))
        return exists, empty * (1.0 - exists) / np.maximum(1.0 - atom, 1e-12)

    def p_classes(self, candidates: Candidates, refined: Refined) -> FloatArray:
        """Probability of each class for the atom of each site, shape (site, class).

        Classes are the networks' without the last, which are empty sites.
        """
        features = class_features(candidates, refined)
        if features.shape[1] < 4:
            return np.ones((len(features), 1))
        return class_probabilities(self.foreign, features)

    def p_foreign(self, candidates: Candidates, refined: Refined) -> FloatArray:
        """Probability that the atom of each site is not of the first class, shape (site,)."""
        out: FloatArray = self.p_classes(candidates, refined)[:, 1:].sum(axis=1)
        return out

    def position(
        self, candidates: Candidates, refined: Refined, options: RefineOptions
    ) -> FloatArray:
        """Position, shape (site, 2), Å."""
        moved = np.full(len(candidates.xy), _moved(candidates, refined, options))
        trust = _trust(self.trust, moved, _disturbed(candidates, self.hosts))
        out: FloatArray = candidates.xy + trust[:, None] * (refined.xy - candidates.xy)
        return out

    def covariance(
        self, candidates: Candidates, refined: Refined, options: RefineOptions
    ) -> FloatArray:
        """Position covariance, shape (site, 2, 2), Å²."""
        features = _spread_features(candidates, refined, options, self.hosts)
        scaled = (features - self.spread_mean) / self.spread_scale
        variance = np.exp(scaled @ np.asarray(self.spread))
        shape = refined.covariance
        mean = 0.5 * np.einsum("nii->n", shape)
        out: FloatArray = (variance / np.maximum(mean, 1e-12))[:, None, None] * shape
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What was found in one frame whose truth is known."""

    candidates: Candidates
    refined: Refined
    truth: LabelledFrame


def fit_calibrator(
    observations: list[Observation], options: RefineOptions, material: Material = GRAPHENE
) -> Calibrator:
    """Fit on held-out simulated frames.

    Parameters
    ----------
    observations
        Frames that training never saw.
    options
        With which they were refined.
    material
        What they show, in their unit of length.
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
                _counts_sigma(r, options)[right],
                np.full(n, _moved(c, r, options)),
                _disturbed(c, hosts)[right],
                _spread_features(c, r, options, hosts)[right],
                _shape(r)[right],
            )
        )
    error, shift, sigma, moved, disturbed, features, shape = (
        np.concatenate(p) for p in zip(*places, strict=True)
    )
    trust = _fit_trust(error, shift, sigma, moved, disturbed)
    left = error - _trust(trust, moved, disturbed)[:, None] * shift
    spread, mean, scale = _fit_spread(left / shape, features)
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
    return fitted.model_copy(update={"order": _fit_order(fitted, observations, material)})


def _fit_order(
    fitted: Calibrator, observations: list[Observation], material: Material
) -> tuple[float, float]:
    """Fit how much the columns of a lattice say of each other, on those that are found."""
    if not can_speak(material):
        return fitted.order
    parts = []
    for seen in observations:
        c, r = seen.candidates, seen.refined
        match = match_truth(c.xy, seen.truth.xy)
        there = (fitted.p_states(c, r)[0] > SURE) & (match >= 0)
        p = fitted.p_classes(c, r)[there]
        parts.append((c.xy[there], p, seen.truth.species[match[there]]))
    return fit_order(parts, material)


def match_truth(xy: FloatArray, truth: FloatArray, within: float = MATCH_A) -> NDArray[np.int64]:
    """Match found atoms to true ones, one to one, nearest first.

    Parameters
    ----------
    xy, truth
        FoundAtoms and true positions, shape (atom, 2), Å.
    within
        Farthest that a match may lie, in the unit of the positions.

    Returns
    -------
    Index of the true atom that each found one is, -1 for none, shape (atom,).
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


def _counts_sigma(refined: Refined, options: RefineOptions) -> FloatArray:
    """Standard deviation of a position by the counts alone, Å: the prior is taken off again."""
    variance = 0.5 * np.einsum("nii->n", refined.covariance)
    information = 1.0 / np.maximum(variance, 1e-12) - options.start_sigma_A**-2.0
    out: FloatArray = np.maximum(information, _LARGEST_A**-2.0) ** -0.5
    return out


def _moved(candidates: Candidates, refined: Refined, options: RefineOptions) -> float:
    """How far refinement moved the atoms of a frame: median, in units of its own error."""
    if not len(candidates.xy):
        return 0.0
    step = np.abs(refined.xy - candidates.xy)
    return float(np.median(step / _counts_sigma(refined, options)[:, None])) / _MEDIAN


def _disturbed(candidates: Candidates, hosts: tuple[int, ...]) -> FloatArray:
    """How odd the oddest site next to each is, shape (site,): 1 beside an empty or foreign one."""
    out = np.zeros(len(candidates.xy))
    if len(out) > 1:
        odd = np.clip(np.delete(candidates.mass, hosts, axis=1).sum(axis=1), 0.0, 1.0)
        pairs = cKDTree(candidates.xy).query_pairs(_NEXT_A, output_type="ndarray")
        for i, j in (pairs.T, pairs.T[::-1]):
            np.maximum.at(out, i, odd[j])
    return out


def _trust(
    tables: tuple[tuple[float, ...], tuple[float, ...]], moved: FloatArray, disturbed: FloatArray
) -> FloatArray:
    """Look the trust up by how far a frame's atoms were moved, and by what is next to each."""
    usual, next_to_odd = (np.interp(moved, _MOVED, table) for table in tables)
    out: FloatArray = usual + disturbed * (next_to_odd - usual)
    return out


def _fit_trust(
    error: FloatArray,
    shift: FloatArray,
    sigma: FloatArray,
    moved: FloatArray,
    disturbed: FloatArray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Least squares of ``error = trust · shift``, knot by knot of both tables.

    Errors of a wrong match, half an ångström away, are left out. A frame whose atoms moved farther
    is never trusted less: the tables rise.
    """
    good = (np.abs(error) < _RIGHT_A + 4 * np.minimum(sigma, 0.06)[:, None]).all(axis=1)
    knots = len(_MOVED)
    hats = np.stack([np.interp(moved[good], _MOVED, row) for row in np.eye(knots)], axis=1)
    odd = disturbed[good, None]
    hats = np.concatenate([(1 - odd) * hats, odd * hats], axis=1)
    weight = np.repeat(1.0 / np.minimum(sigma[good], 0.06) ** 2, 2)
    design = (hats[:, None, :] * shift[good, :, None]).reshape(-1, 2 * knots)
    normal = (design * weight[:, None]).T @ design + 1e-3 * np.eye(2 * knots)
    right = (design * weight[:, None]).T @ error[good].ravel()
    values = np.clip(np.linalg.solve(normal, right), 0.0, 1.0)
    usual, next_to_odd = (np.maximum.accumulate(v).tolist() for v in np.split(values, 2))
    return tuple(usual), tuple(next_to_odd)


def _fit_spread(
    error: FloatArray, features: FloatArray
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Fit the logarithm of the variance: maximum likelihood, then 68 % within one sigma.

    The likelihood is Student's with four degrees of freedom, not Gaussian: a wrong match, half an
    ångström away, must not widen every other atom's error bar.

    Parameters
    ----------
    error
        Along x and y, shape (atom, 2), Å, with the shape of the covariance taken out.
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
    """Standard deviations along x and y over their mean, shape (atom, 2)."""
    variance = np.einsum("nii->ni", refined.covariance)
    out: FloatArray = np.sqrt(variance / np.maximum(variance.mean(axis=1, keepdims=True), 1e-12))
    return out


def _spread_features(
    candidates: Candidates, refined: Refined, options: RefineOptions, hosts: tuple[int, ...]
) -> FloatArray:
    """What decides how far a position is off, shape (site, feature); the first is one."""
    n = len(candidates.xy)
    if not n:
        return np.zeros((0, 24))
    sigma = _counts_sigma(refined, options)
    counts = np.log(sigma) + 3.0
    scatter = np.log(np.sqrt(0.5 * np.einsum("nii->n", candidates.scatter)) + 1e-4) + 5.0
    sure = logit(shares(candidates)[0])
    irregular = _irregularity(candidates.xy)
    usual = [np.median(v) for v in (scatter, sure, irregular)]
    one = np.ones(n)
    s, t, i = (u * one for u in usual)
    m = np.log(_moved(candidates, refined, options) + 0.05) * one
    lumps = min(np.log(refined.optics.noise.correlation), 2.0) * one
    near = _disturbed(candidates, hosts)
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
    """Logarithm of the distance, Å, of each site from the centroid of its three nearest."""
    if len(xy) < 4:
        return np.zeros(len(xy))
    near = cKDTree(xy).query(xy, k=4)[1][:, 1:]
    out: FloatArray = np.log(np.linalg.norm(xy - xy[near].mean(axis=1), axis=1) + 0.03)
    return out
