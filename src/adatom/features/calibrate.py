"""From raw scores to probabilities that can be trusted: fitted on simulated frames with truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from adatom.core import LabelledFrame
from adatom.features.locate import Candidates
from adatom.features.refine import Refined, RefineOptions

FloatArray = NDArray[np.float64]
_BORDER_A = 1.0
MATCH_A = 0.5  # a found atom is right when it lies this near to a true one
_MOVED = (0.0, 0.6, 0.7, 0.8, 0.9, 1.05, 1.3, 1.7, 2.2, 3.5)  # where trust is tabulated
_MEDIAN = 0.6745  # of the absolute value of a standard normal variable
_LARGEST_A = 0.5  # of the errors that counts alone may leave
_EXISTS_BINS = 25
_NATURAL = 0.15  # atoms differ a little even without noise: focus, vibration
_ONE_SIGMA = 0.6827


class Calibrator(BaseModel):
    """Logistic models of what is at a site, and how far to trust image and networks.

    A position is ``start + trust · (refined - start)``: where counts are plenty the image decides,
    where they are few the networks, who know lattices, do better than any fit. Which of the two a
    frame is shows in how far refinement moves its atoms, in units of its own error: where networks
    are the worse, their error is most of that (empirical Bayes; Efron and Morris, J. Am. Stat.
    Assoc. 68, 117 (1973)). The variance of a position is log-linear in what the counts, the members
    and the surroundings say of it; its shape is that of Fisher's covariance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    states: tuple[tuple[float, ...], tuple[float, ...]]
    exists: tuple[tuple[float, ...], tuple[float, ...]]
    foreign: tuple[float, ...]
    trust: tuple[float, ...]
    spread: tuple[float, ...]
    spread_mean: tuple[float, ...]
    spread_scale: tuple[float, ...]

    def p_states(self, candidates: Candidates, refined: Refined) -> tuple[FloatArray, FloatArray]:
        """Probability that each site holds an atom, and that it is an empty lattice site.

        What is left is that nothing is there at all. Each of shape (site,).
        """
        logits = _state_features(candidates, refined) @ np.asarray(self.states).T
        both = np.exp(np.clip(logits, -30, 30))
        atom, empty = (both / (1.0 + both.sum(axis=1, keepdims=True))).T
        exists = _sigmoid(np.interp(_log_odds(atom), *self.exists))
        return exists, empty * (1.0 - exists) / np.maximum(1.0 - atom, 1e-12)

    def p_foreign(self, candidates: Candidates, refined: Refined) -> FloatArray:
        """Probability that the atom of each site is not of the host's class, shape (site,)."""
        return _sigmoid(_foreign_features(candidates, refined) @ np.asarray(self.foreign))

    def position(
        self, candidates: Candidates, refined: Refined, options: RefineOptions
    ) -> FloatArray:
        """Position, shape (site, 2), Å."""
        trust = _trust(self.trust, _moved(candidates, refined, options))
        out: FloatArray = candidates.xy + trust * (refined.xy - candidates.xy)
        return out

    def covariance(
        self, candidates: Candidates, refined: Refined, options: RefineOptions
    ) -> FloatArray:
        """Position covariance, shape (site, 2, 2), Å²."""
        features = _spread_features(candidates, refined, options)
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


def fit_calibrator(observations: list[Observation], options: RefineOptions) -> Calibrator:
    """Fit on held-out simulated frames.

    Parameters
    ----------
    observations
        Frames that training never saw.
    options
        With which they were refined.
    """
    states: list[tuple[FloatArray, NDArray[np.int64]]] = []
    foreign: list[tuple[FloatArray, NDArray[np.bool_]]] = []
    places: list[tuple[FloatArray, ...]] = []
    for seen in observations:
        c, r = seen.candidates, seen.refined
        match = match_truth(c.xy, seen.truth.xy)
        right = match >= 0
        vacant = (match_truth(c.xy, seen.truth.vacancies_xy) >= 0) & ~right
        states.append((_state_features(c, r), np.where(right, 1, np.where(vacant, 2, 0))))
        foreign.append((_foreign_features(c, r)[right], seen.truth.species[match[right]] > 0))
        n = int(right.sum())
        places.append(
            (
                seen.truth.xy[match[right]] - c.xy[right],
                (r.xy - c.xy)[right],
                _counts_sigma(r, options)[right],
                np.full(n, _moved(c, r, options)),
                _spread_features(c, r, options)[right],
                _shape(r)[right],
            )
        )
    error, shift, sigma, moved, features, shape = (
        np.concatenate(p) for p in zip(*places, strict=True)
    )
    trust = _fit_trust(error, shift, sigma, moved)
    left = error - _trust(trust, moved)[:, None] * shift
    spread, mean, scale = _fit_spread(left / shape, features)
    weights = _fit_states(states)
    return Calibrator(
        states=weights,
        exists=_fit_exists(states, weights),
        foreign=_fit_logistic(foreign),
        trust=trust,
        spread=spread,
        spread_mean=mean,
        spread_scale=scale,
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


def _trust(table: tuple[float, ...], moved: float | FloatArray) -> FloatArray:
    """Look the trust up by how far a frame's atoms were moved."""
    return np.asarray(np.interp(moved, _MOVED, table), dtype=np.float64)


def _evidence(refined: Refined) -> tuple[FloatArray, FloatArray]:
    """Amplitude over that of a usual atom, and its standard deviation in the same unit."""
    typical = float(np.median(refined.amplitude)) if len(refined.amplitude) else 1.0
    typical = max(typical, 1e-12)
    return refined.amplitude / typical, np.maximum(refined.amplitude_sd / typical, 1e-3)


def _state_features(candidates: Candidates, refined: Refined) -> FloatArray:
    """What tells an atom, an empty site and nothing apart, shape (site, feature); first is one."""
    ratio, sd = _evidence(refined)
    atom, vacant = _shares(candidates)
    mass = _logit(atom)
    typical = float(np.median(mass)) if len(mass) else 0.0
    # Log-likelihood ratio of no atom against a usual one, by the counts.
    noise = sd**2 + _NATURAL**2
    counts = 0.5 * (np.minimum(ratio - 1.0, 0.0) ** 2 - np.maximum(ratio, 0.0) ** 2) / noise
    return np.stack(
        [
            np.ones(len(mass)),
            mass,
            # In noise alone every peak is low; a weak atom among strong ones is another matter.
            np.full(len(mass), typical),
            _logit(vacant),
            _logit(np.clip(candidates.peak, 0, 1)),
            2 * candidates.votes - 1,
            candidates.disagreement,
            np.clip(counts, -12.0, 12.0),
            # Half of an atom at the border is not in the frame: there, and only there, many err.
            np.clip(1.0 - candidates.border_A / _BORDER_A, 0.0, 1.5),
        ],
        axis=1,
    )


def _foreign_features(candidates: Candidates, refined: Refined) -> FloatArray:
    ratio, sd = _evidence(refined)
    classes = candidates.mass.shape[1]
    if classes < 3:
        return np.concatenate([np.ones((len(ratio), 1)), np.zeros((len(ratio), 3))], axis=1)
    atom = candidates.mass[:, :-1]
    share = atom[:, 1:].sum(axis=1) / np.maximum(atom.sum(axis=1), 1e-6)
    return np.stack(
        [
            np.ones(len(share)),
            _logit(share),
            np.log(np.clip(ratio, 0.2, 8.0)),
            np.clip((ratio - 2.0) / np.hypot(sd, 0.15), -6.0, 6.0),
        ],
        axis=1,
    )


def _shares(candidates: Candidates) -> tuple[FloatArray, FloatArray]:
    """Expected number of atoms, and of empty sites (the last class), at each site."""
    mass = candidates.mass
    if mass.shape[1] < 2:
        return mass[:, 0], np.zeros(len(mass))
    return mass[:, :-1].sum(axis=1), mass[:, -1]


def _logit(p: FloatArray) -> FloatArray:
    q = np.clip(p, 2e-3, 1 - 2e-3)
    out: FloatArray = np.log(q / (1 - q))
    return out


def _fit_states(
    parts: list[tuple[FloatArray, NDArray[np.int64]]],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Fit atom (1) and empty site (2) against nothing (0) by multinomial logistic regression."""
    x, y = (np.concatenate(p) for p in zip(*parts, strict=True))
    # One made-up site of each kind, so that a sample without one still has a fit.
    x = np.concatenate([x, np.repeat(x.mean(axis=0, keepdims=True), 3, axis=0)])
    y = np.concatenate([y, np.arange(3)])
    scale = x.std(axis=0) + 1e-9
    scale[0] = 1.0
    model = LogisticRegression(C=100.0, fit_intercept=False, max_iter=3000).fit(x / scale, y)
    nothing, atom, empty = model.coef_ / scale
    return tuple((atom - nothing).tolist()), tuple((empty - nothing).tolist())


def _fit_exists(
    parts: list[tuple[FloatArray, NDArray[np.int64]]],
    states: tuple[tuple[float, ...], tuple[float, ...]],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Bend the log-odds of existence to the shares that are true, where the model is too straight.

    Bins of equal numbers of sites, isotonic over them (Zadrozny and Elkan, KDD 2002, 694). A
    supercell has a hundred sure atoms: one in a thousand less sure, and a draw in ten lacks one.

    Returns
    -------
    Log-odds by the model, and those that are true, at the knots of a table.
    """
    x, y = (np.concatenate(p) for p in zip(*parts, strict=True))
    both = np.exp(np.clip(x @ np.asarray(states).T, -30, 30))
    raw = _log_odds(both[:, 0] / (1.0 + both.sum(axis=1)))
    order = np.argsort(raw)
    groups = [g for g in np.array_split(order, min(_EXISTS_BINS, len(order))) if len(g)]
    knots = np.array([raw[g].mean() for g in groups])
    count = np.array([len(g) for g in groups], dtype=np.float64)
    # Half a site of each kind more: of so many, none may err, and yet the next may.
    share = np.array([((y[g] == 1).sum() + 0.5) / (len(g) + 1.0) for g in groups])
    share = IsotonicRegression().fit(knots, share, sample_weight=count).predict(knots)
    return tuple(knots.tolist()), tuple(_log_odds(share).tolist())


def _fit_logistic(parts: list[tuple[FloatArray, NDArray[np.bool_]]]) -> tuple[float, ...]:
    x = np.concatenate([p[0] for p in parts])
    y = np.concatenate([p[1] for p in parts])
    if y.all() or not y.any():
        # Nothing to tell apart: as sure as the sample allows.
        odds = (y.sum() + 0.5) / (len(y) - y.sum() + 0.5)
        return (float(np.log(odds)), *(0.0 for _ in range(x.shape[1] - 1)))
    scale = x.std(axis=0) + 1e-9
    scale[0] = 1.0
    model = LogisticRegression(C=100.0, fit_intercept=False, max_iter=3000).fit(x / scale, y)
    return tuple((model.coef_[0] / scale).tolist())


def _fit_trust(
    error: FloatArray, shift: FloatArray, sigma: FloatArray, moved: FloatArray
) -> tuple[float, ...]:
    """Least squares of ``error = trust(moved) · shift``, knot by knot.

    Errors of a wrong match, half an ångström away, are left out. A frame whose atoms moved farther
    is never trusted less: the table rises.
    """
    good = (np.abs(error) < 0.1 + 4 * np.minimum(sigma, 0.06)[:, None]).all(axis=1)
    hats = np.stack([_trust(tuple(row), moved[good]) for row in np.eye(len(_MOVED))], axis=1)
    weight = np.repeat(1.0 / np.minimum(sigma[good], 0.06) ** 2, 2)
    design = (hats[:, None, :] * shift[good, :, None]).reshape(-1, len(_MOVED))
    normal = (design * weight[:, None]).T @ design + 1e-3 * np.eye(len(_MOVED))
    right = (design * weight[:, None]).T @ error[good].ravel()
    values = np.clip(np.linalg.solve(normal, right), 0.0, 1.0)
    return tuple(np.maximum.accumulate(values).tolist())


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
    candidates: Candidates, refined: Refined, options: RefineOptions
) -> FloatArray:
    """What decides how far a position is off, shape (site, feature); the first is one."""
    n = len(candidates.xy)
    if not n:
        return np.zeros((0, 21))
    sigma = _counts_sigma(refined, options)
    counts = np.log(sigma) + 3.0
    scatter = np.log(np.sqrt(0.5 * np.einsum("nii->n", candidates.scatter)) + 1e-4) + 5.0
    logit = _logit(_shares(candidates)[0])
    irregular = _irregularity(candidates.xy)
    usual = [np.median(v) for v in (scatter, logit, irregular)]
    one = np.ones(n)
    s, t, i = (u * one for u in usual)
    m = np.log(_moved(candidates, refined, options) + 0.05) * one
    lumps = min(np.log(refined.optics.noise.correlation), 2.0) * one
    rim = np.exp(-np.maximum(candidates.border_A, 0.0) / 4.0)
    return np.stack(
        [
            one, counts, counts**2, scatter - s, s, s**2, counts * s, logit - t, t, lumps,
            lumps * counts, np.log(refined.optics.sigma_A) * one,
            np.clip(1.0 - candidates.border_A / _BORDER_A, 0.0, 1.5), rim, rim * s, m, m**2,
            m * counts, np.minimum(irregular - i, 2.0), i, i * counts,
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


def _log_odds(p: FloatArray) -> FloatArray:
    q = np.clip(p, 1e-9, 1 - 1e-9)
    out: FloatArray = np.log(q / (1 - q))
    return out


def _sigmoid(x: FloatArray) -> FloatArray:
    out: FloatArray = 1.0 / (1.0 + np.exp(-np.clip(x, -30, 30)))
    return out
