"""Logistic models of the occupancy of a site: an atom of some class, a vacancy, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray
from adatom.features.candidates.locate import Candidates
from adatom.features.refinement.refine import Refined

Row = tuple[float, ...]
BORDER_A = 1.0  # distance from the border below which a spot is cut off, Å
_EXISTS_BINS = 25  # bins of the isotonic recalibration, of equal numbers of sites
# Relative scatter of amplitudes without noise (focus, vibration). Here it is a floor below the
# scatter measured in the same frame; the vacancy test, which has no such measurement, uses 0.12.
_NATURAL_SCATTER = 0.1
_SATURATED = 5.0  # limit of the log-likelihood ratio: rare dim atoms exist for other reasons
_ENOUGH = 8  # least number of sites of a class for a median amplitude


def state_features(candidates: Candidates, refined: Refined) -> FloatArray:
    """Features for atom, vacancy or nothing, shape (site, feature); the first is one.

    Parameters
    ----------
    candidates, refined
        Sites before and after refinement.
    """
    atom, vacant = (logit(share) for share in expected_counts(candidates))
    evidence, noise = _amplitude_evidence(candidates, refined)
    ones = np.ones(len(atom))
    contrast = refined.texture_contrast
    texture = [] if contrast is None else _texture_features(contrast)
    return np.stack(
        [
            ones,
            atom,
            # The median over the frame tells frames of pure noise, where every peak is low.
            (float(np.median(atom)) if len(atom) else 0.0) * ones,
            vacant,
            logit(np.clip(candidates.peak, 0, 1)),
            2 * candidates.vote_fraction - 1,
            candidates.disagreement,
            evidence,
            # Half of a spot at the border is outside the frame, and there errors are frequent.
            np.clip(1.0 - candidates.border_A / BORDER_A, 0.0, 1.5),
            # At a low dose, maps and amplitudes are less reliable, each to its own degree.
            noise * ones,
            noise * evidence,
            noise * vacant,
            *texture,
        ],
        axis=1,
    )


def _texture_features(contrast: FloatArray) -> list[FloatArray]:
    """Features from the contrast of sites to the texture of a support, each of shape (site,).

    Below a contrast of 3 most sites are texture. Where the usual site of a frame stands out far or
    hardly, the same contrast means less or more.
    """
    usual, high = np.quantile(contrast, (0.5, 0.9)) if len(contrast) else (0.0, 0.0)
    one = np.ones(len(contrast))
    return [
        contrast,
        np.minimum(contrast, 3.0),
        contrast**2 / 10.0,
        usual * one,
        high * one,
        high * contrast,
    ]


def _amplitude_evidence(candidates: Candidates, refined: Refined) -> tuple[FloatArray, float]:
    """Log-likelihood ratio of "no atom" against "a normal atom", from the fitted amplitudes.

    The ratio needs the scatter of amplitudes. The covariance of the fit does not include
    contamination or blur, so the scatter is measured from the dim half of the atoms of the frame
    (an empirical null; Efron, J. Am. Stat. Assoc. 99, 96 (2004)). The ratio saturates, because
    about one atom in a hundred is dim for another reason.

    Returns
    -------
    The ratio, shape (site,); and the common logarithm of the median relative error of an amplitude
    divided by 0.05: 0 at 5 %, 1 at 50 %.
    """
    usual = class_amplitudes(candidates, refined)
    ratio, sd = refined.amplitude / usual, refined.amplitude_sd / usual
    if not len(ratio):
        return np.zeros(0), 0.0
    sure = expected_counts(candidates)[0] > 0.5
    low, middle = np.quantile(ratio[sure] if sure.sum() >= _ENOUGH else ratio, (0.16, 0.5))
    noise = max(float(middle - low), 0.05) ** 2 + _NATURAL_SCATTER**2
    evidence = _SATURATED * np.tanh((0.5 - np.clip(ratio, 0.0, 1.0)) / noise / _SATURATED)
    relative_error = np.log(max(float(np.median(sd)), 1e-6) / 0.05) / np.log(10.0)
    return evidence, float(np.clip(relative_error, 0.0, 1.2))


def state_odds(states: tuple[Row, Row], features: FloatArray) -> FloatArray:
    """Odds of an atom and of a vacancy against nothing, shape (site, 2).

    Parameters
    ----------
    states
        Weights of both classes, from `fit_states`.
    features
        From `state_features`.
    """
    weights = np.asarray(states)
    # Weights fitted by earlier versions know nothing of texture, whose features are the last.
    known = features[:, : weights.shape[1]]
    out: FloatArray = np.exp(np.clip(known @ weights.T, -30, 30))
    return out


def fit_states(parts: list[tuple[FloatArray, NDArray[np.int64]]]) -> tuple[Row, Row]:
    """Fit atom (1) and vacancy (2) against nothing (0) by multinomial logistic regression.

    Parameters
    ----------
    parts
        Features of the sites of each frame, shape (site, feature), and their states, (site,).
    """
    x, y = (np.concatenate(p) for p in zip(*parts, strict=True))
    # Add one average site to each class, so that a sample without a class can be fitted.
    x = np.concatenate([x, np.repeat(x.mean(axis=0, keepdims=True), 3, axis=0)])
    y = np.concatenate([y, np.arange(3)])
    scale = _scale(x)
    model = _multinomial(x / scale, y)
    nothing, atom, empty = model.coef_ / scale
    return tuple((atom - nothing).tolist()), tuple((empty - nothing).tolist())


def _multinomial(x: FloatArray, y: NDArray[np.int64]) -> Any:
    """Multinomial logistic regression without intercept and with a weak L2 penalty."""
    # scikit-learn takes a second to import, and only fitting needs it.
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=100.0, fit_intercept=False, max_iter=3000).fit(x, y)


def fit_exists(
    parts: list[tuple[FloatArray, NDArray[np.int64]]], states: tuple[Row, Row]
) -> tuple[Row, Row]:
    """Isotonic recalibration of p_exists on held-out sites.

    Isotonic regression over bins of equal numbers of sites (Zadrozny and Elkan, KDD 2002, 694).
    Probabilities near one matter: with an error of 0.001 in each of the hundred atoms of a
    supercell, one sample in ten lacks an atom.

    Returns
    -------
    Log-odds of the model and recalibrated log-odds, at the knots of a table.
    """
    x, y = (np.concatenate(p) for p in zip(*parts, strict=True))
    both = state_odds(states, x)
    raw = log_odds(both[:, 0] / (1.0 + both.sum(axis=1)))
    order = np.argsort(raw)
    groups = [g for g in np.array_split(order, min(_EXISTS_BINS, len(order))) if len(g)]
    knots = np.array([raw[g].mean() for g in groups])
    count = np.array([len(g) for g in groups], dtype=np.float64)
    # Half a pseudo-count per class keeps every bin off 0 and 1 (Jeffreys prior).
    share = np.array([((y[g] == 1).sum() + 0.5) / (len(g) + 1.0) for g in groups])
    from sklearn.isotonic import IsotonicRegression

    share = IsotonicRegression().fit(knots, share, sample_weight=count).predict(knots)
    return tuple(knots.tolist()), tuple(log_odds(share).tolist())


def class_features(candidates: Candidates, refined: Refined) -> FloatArray:
    """Features that separate the classes of atoms, shape (site, classes + 2); the first is one.

    The features are the share of each class but the first in the expected number of atoms, and the
    amplitude relative to the median of the first class.
    """
    mass = _atoms(candidates)
    share = mass[:, 1:] / np.maximum(mass.sum(axis=1, keepdims=True), 1e-6)
    first = _median_of_class(candidates, refined, 0)
    usual = max(_median(refined.amplitude) if first is None else first, 1e-12)
    ratio, sd = refined.amplitude / usual, np.maximum(refined.amplitude_sd / usual, 1e-3)
    return np.concatenate(
        [
            np.ones((len(ratio), 1)),
            logit(share),
            np.log(np.clip(ratio, 0.2, 8.0))[:, None],
            np.clip((ratio - 2.0) / np.hypot(sd, 0.15), -6.0, 6.0)[:, None],
        ],
        axis=1,
    )


def class_probabilities(rows: tuple[Row, ...], features: FloatArray) -> FloatArray:
    """Probability of each class of atoms at each site, shape (site, class).

    Parameters
    ----------
    rows
        Weights of every class but the first, from `fit_classes`.
    features
        From `class_features`.
    """
    against = np.clip(features @ np.asarray(rows).reshape(-1, features.shape[1]).T, -30, 30)
    logits = np.concatenate([np.zeros((len(features), 1)), against], axis=1)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    out: FloatArray = odds / odds.sum(axis=1, keepdims=True)
    return out


def fit_classes(parts: list[tuple[FloatArray, NDArray[np.int64]]]) -> tuple[Row, ...]:
    """Fit every class of atoms against the first by multinomial logistic regression.

    Parameters
    ----------
    parts
        Features of the atoms of each frame, shape (atom, classes + 2), and their classes.

    Returns
    -------
    Weights of every class but the first.
    """
    x, y = (np.concatenate(p) for p in zip(*parts, strict=True))
    classes = x.shape[1] - 2
    if classes < 2:
        return ()
    # Add one average atom to each class that the sample lacks.
    absent = np.setdiff1d(np.arange(classes), y)
    usual = x.mean(axis=0) if len(x) else np.ones(x.shape[1])
    x = np.concatenate([x, np.repeat(usual[None], len(absent), axis=0)])
    y = np.concatenate([y, absent])
    scale = _scale(x)
    model = _multinomial(x / scale, y)
    coefficients = model.coef_ / scale
    rows = coefficients if classes == 2 else coefficients[1:] - coefficients[0]
    return tuple(tuple(row) for row in rows.tolist())


def expected_counts(candidates: Candidates) -> tuple[FloatArray, FloatArray]:
    """Expected number of atoms and of vacancies (the last class) at each site, both (site,)."""
    mass = candidates.mass
    vacant = mass[:, -1] if mass.shape[1] > 1 else np.zeros(len(mass))
    return _atoms(candidates).sum(axis=1), vacant


def logit(p: FloatArray) -> FloatArray:
    """Log-odds of expected numbers; values are clipped to 0.002 to 0.998."""
    q = np.clip(p, 2e-3, 1 - 2e-3)
    out: FloatArray = np.log(q / (1 - q))
    return out


def log_odds(p: FloatArray) -> FloatArray:
    """Log-odds of probabilities; values are clipped to 1e-9 from 0 and 1."""
    q = np.clip(p, 1e-9, 1 - 1e-9)
    out: FloatArray = np.log(q / (1 - q))
    return out


def sigmoid(x: FloatArray) -> FloatArray:
    """Probabilities of log-odds; the inverse of `log_odds`."""
    out: FloatArray = 1.0 / (1.0 + np.exp(-np.clip(x, -30, 30)))
    return out


def _atoms(candidates: Candidates) -> FloatArray:
    """Expected number of each class of atoms, shape (site, class)."""
    mass = candidates.mass
    out: FloatArray = mass[:, :-1] if mass.shape[1] > 1 else mass
    return out


def class_amplitudes(candidates: Candidates, refined: Refined) -> FloatArray:
    """Median amplitude of the most probable class of each site, shape (site,), intensity."""
    mass = _atoms(candidates)
    out: FloatArray = np.full(len(mass), _median(refined.amplitude))
    likeliest = np.argmax(mass, axis=1)
    for k in range(mass.shape[1]):
        usual = _median_of_class(candidates, refined, k)
        if usual is not None:
            out[likeliest == k] = usual
    np.maximum(out, 1e-12, out=out)
    return out


def _median_of_class(candidates: Candidates, refined: Refined, k: int) -> float | None:
    """Median amplitude of the sites where class `k` is the most probable; None if too few."""
    mass = _atoms(candidates)
    mine = (np.argmax(mass, axis=1) == k) & (mass.sum(axis=1) > 0.5)
    return _median(refined.amplitude[mine]) if mine.sum() >= _ENOUGH else None


def _median(amplitude: FloatArray) -> float:
    return float(np.median(amplitude)) if len(amplitude) else 1.0


def _scale(x: FloatArray) -> FloatArray:
    """Standard deviation of each feature; one for the first, which is constant."""
    scale: FloatArray = x.std(axis=0) + 1e-9
    scale[0] = 1.0
    return scale
