"""What is at a site: an atom, of which class, an empty lattice site, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray
from adatom.features.candidates.locate import Candidates
from adatom.features.refinement.refine import Refined

Row = tuple[float, ...]
BORDER_A = 1.0
_EXISTS_BINS = 25
_NATURAL = 0.1  # atoms differ a little even without noise: focus, vibration
_SATURATED = 5.0  # log-likelihood ratio beyond which counts say no more
_ENOUGH = 8  # sites of a class whose median is its usual amplitude


def state_features(candidates: Candidates, refined: Refined) -> FloatArray:
    """What tells an atom, an empty site and nothing apart, shape (site, feature); first is one."""
    atom, vacant = (logit(share) for share in shares(candidates))
    counts, few = _counts(candidates, refined)
    ones = np.ones(len(atom))
    return np.stack(
        [
            ones,
            atom,
            # In noise alone every peak is low; a weak atom among strong ones is another matter.
            (float(np.median(atom)) if len(atom) else 0.0) * ones,
            vacant,
            logit(np.clip(candidates.peak, 0, 1)),
            2 * candidates.votes - 1,
            candidates.disagreement,
            counts,
            # Half of an atom at the border is not in the frame: there, and only there, many err.
            np.clip(1.0 - candidates.border_A / BORDER_A, 0.0, 1.5),
            # Where counts are few, networks and counts are worth less, each in its own measure.
            few * ones,
            few * counts,
            few * vacant,
        ],
        axis=1,
    )


def _counts(candidates: Candidates, refined: Refined) -> tuple[FloatArray, float]:
    """What the counts say, and how few they are.

    The log-likelihood ratio of no atom against a usual one needs the scatter of amplitudes. What
    the fit says of it leaves out contamination, blur and whatever else a frame has, so it is taken
    from the frame's own atoms, on the dim side (an empirical null; Efron, J. Am. Stat. Assoc. 99,
    96 (2004)). The ratio saturates: one atom in a hundred may be dim for a reason of its own.

    Returns
    -------
    Ratio, shape (site,), and the logarithm of an amplitude's relative error: 0 at 5 %, 1 at 50 %.
    """
    usual = _usual_amplitude(candidates, refined)
    ratio, sd = refined.amplitude / usual, refined.amplitude_sd / usual
    if not len(ratio):
        return np.zeros(0), 0.0
    sure = shares(candidates)[0] > 0.5
    low, middle = np.quantile(ratio[sure] if sure.sum() >= _ENOUGH else ratio, (0.16, 0.5))
    noise = max(float(middle - low), 0.05) ** 2 + _NATURAL**2
    counts = _SATURATED * np.tanh((0.5 - np.clip(ratio, 0.0, 1.0)) / noise / _SATURATED)
    few = np.log(max(float(np.median(sd)), 1e-6) / 0.05) / np.log(10.0)
    return counts, float(np.clip(few, 0.0, 1.2))


def state_odds(states: tuple[Row, Row], features: FloatArray) -> FloatArray:
    """Odds of an atom and of an empty site against nothing, shape (site, 2)."""
    out: FloatArray = np.exp(np.clip(features @ np.asarray(states).T, -30, 30))
    return out


def fit_states(parts: list[tuple[FloatArray, NDArray[np.int64]]]) -> tuple[Row, Row]:
    """Fit atom (1) and empty site (2) against nothing (0) by multinomial logistic regression."""
    x, y = (np.concatenate(p) for p in zip(*parts, strict=True))
    # One made-up site of each kind, so that a sample without one still has a fit.
    x = np.concatenate([x, np.repeat(x.mean(axis=0, keepdims=True), 3, axis=0)])
    y = np.concatenate([y, np.arange(3)])
    scale = _scale(x)
    model = _multinomial(x / scale, y)
    nothing, atom, empty = model.coef_ / scale
    return tuple((atom - nothing).tolist()), tuple((empty - nothing).tolist())


def _multinomial(x: FloatArray, y: NDArray[np.int64]) -> Any:
    """Fit a multinomial regression without intercept, nearly without a penalty."""
    # scikit-learn takes a second to load, and only fitting needs it.
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=100.0, fit_intercept=False, max_iter=3000).fit(x, y)


def fit_exists(
    parts: list[tuple[FloatArray, NDArray[np.int64]]], states: tuple[Row, Row]
) -> tuple[Row, Row]:
    """Bend the log-odds of existence to the shares that are true, where the model is too straight.

    Bins of equal numbers of sites, isotonic over them (Zadrozny and Elkan, KDD 2002, 694). A
    supercell has a hundred sure atoms: one in a thousand less sure, and a draw in ten lacks one.

    Returns
    -------
    Log-odds by the model, and those that are true, at the knots of a table.
    """
    x, y = (np.concatenate(p) for p in zip(*parts, strict=True))
    both = state_odds(states, x)
    raw = log_odds(both[:, 0] / (1.0 + both.sum(axis=1)))
    order = np.argsort(raw)
    groups = [g for g in np.array_split(order, min(_EXISTS_BINS, len(order))) if len(g)]
    knots = np.array([raw[g].mean() for g in groups])
    count = np.array([len(g) for g in groups], dtype=np.float64)
    # Half a site of each kind more: of so many, none may err, and yet the next may.
    share = np.array([((y[g] == 1).sum() + 0.5) / (len(g) + 1.0) for g in groups])
    from sklearn.isotonic import IsotonicRegression

    share = IsotonicRegression().fit(knots, share, sample_weight=count).predict(knots)
    return tuple(knots.tolist()), tuple(log_odds(share).tolist())


def class_features(candidates: Candidates, refined: Refined) -> FloatArray:
    """What tells the classes of atoms apart, shape (site, classes + 2); the first is one.

    Each class's share of the expected atoms but the first's, and the amplitude over that of a
    usual atom of the first class.
    """
    mass = _atoms(candidates)
    share = mass[:, 1:] / np.maximum(mass.sum(axis=1, keepdims=True), 1e-6)
    first = _usual_of_class(candidates, refined, 0)
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
    """Probability of each class of atoms, shape (site, class).

    Parameters
    ----------
    rows
        Weights of every class against the first, from `fit_classes`.
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
    # Of a class that the sample lacks, one made-up atom like all the others.
    absent = np.setdiff1d(np.arange(classes), y)
    usual = x.mean(axis=0) if len(x) else np.ones(x.shape[1])
    x = np.concatenate([x, np.repeat(usual[None], len(absent), axis=0)])
    y = np.concatenate([y, absent])
    scale = _scale(x)
    model = _multinomial(x / scale, y)
    coefficients = model.coef_ / scale
    rows = coefficients if classes == 2 else coefficients[1:] - coefficients[0]
    return tuple(tuple(row) for row in rows.tolist())


def shares(candidates: Candidates) -> tuple[FloatArray, FloatArray]:
    """Expected number of atoms, and of empty sites (the last class), at each site."""
    mass = candidates.mass
    vacant = mass[:, -1] if mass.shape[1] > 1 else np.zeros(len(mass))
    return _atoms(candidates).sum(axis=1), vacant


def logit(p: FloatArray) -> FloatArray:
    """Log-odds of expected numbers, which may lie outside of 0 to 1."""
    q = np.clip(p, 2e-3, 1 - 2e-3)
    out: FloatArray = np.log(q / (1 - q))
    return out


def log_odds(p: FloatArray) -> FloatArray:
    """Log-odds of probabilities."""
    q = np.clip(p, 1e-9, 1 - 1e-9)
    out: FloatArray = np.log(q / (1 - q))
    return out


def sigmoid(x: FloatArray) -> FloatArray:
    """Probabilities of log-odds."""
    out: FloatArray = 1.0 / (1.0 + np.exp(-np.clip(x, -30, 30)))
    return out


def _atoms(candidates: Candidates) -> FloatArray:
    """Expected number of each class of atoms, shape (site, class)."""
    mass = candidates.mass
    out: FloatArray = mass[:, :-1] if mass.shape[1] > 1 else mass
    return out


def _usual_amplitude(candidates: Candidates, refined: Refined) -> FloatArray:
    """Amplitude that an atom of each site's likeliest class has, shape (site,)."""
    mass = _atoms(candidates)
    out: FloatArray = np.full(len(mass), _median(refined.amplitude))
    likeliest = np.argmax(mass, axis=1)
    for k in range(mass.shape[1]):
        usual = _usual_of_class(candidates, refined, k)
        if usual is not None:
            out[likeliest == k] = usual
    np.maximum(out, 1e-12, out=out)
    return out


def _usual_of_class(candidates: Candidates, refined: Refined, k: int) -> float | None:
    """Median amplitude of the sites that rather hold an atom of a class than anything else."""
    mass = _atoms(candidates)
    mine = (np.argmax(mass, axis=1) == k) & (mass.sum(axis=1) > 0.5)
    return _median(refined.amplitude[mine]) if mine.sum() >= _ENOUGH else None


def _median(amplitude: FloatArray) -> float:
    return float(np.median(amplitude)) if len(amplitude) else 1.0


def _scale(x: FloatArray) -> FloatArray:
    """Spread of each feature; of the first, which is one, one."""
    scale: FloatArray = x.std(axis=0) + 1e-9
    scale[0] = 1.0
    return scale
