"""Fit of what the parts of all frames share: the spot, and the shifts of their scan lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.core.arrays import FloatArray
from adatom.features.conditions.noise import FrameNoise, mixing
from adatom.features.conditions.patch_model import Part, determinant
from adatom.features.conditions.patches import View

TAIL = np.array([0.2, 2.6])  # share and width that microscopes usually have
_TAIL_SD = np.array([0.12, 0.5])  # their spread between microscopes: the prior of the fit
_BOUNDS = ((0.0, 0.6), (1.5, 4.5))  # of tail fraction and width
_WIDTHS_A = (0.15, 1.2)  # of a core
_STEP = (0.3, 0.1, 0.4)  # largest of a core, in units of it; tail fraction; tail width
_POSITIONS = 1.2  # standard deviations are so much larger for positions taken as known
_NOISE_SD = 0.015  # how well the noise is known, as a share of its variance
_PRIOR = np.diag([0.0, 0.0, 0.0, *_TAIL_SD**-2.0])  # information on what parts share


@dataclass(frozen=True, slots=True)
class Jitter:
    """Variance of the scan lines' shifts, Å², and its standard deviation."""

    variance: float = 0.0
    sd: float = 0.0

    @property
    def seen(self) -> bool:
        """Whether it is there beyond doubt."""
        return self.variance > 3 * self.sd


def improve(views: list[View], theta: FloatArray) -> FloatArray:
    """One Gauss-Newton step of everything."""
    equations = [(p, *p.solve(theta, v.noise)) for v in views for p in v.parts]
    normal = _PRIOR + sum(s for _, s, _, _ in equations)
    right = -np.diag(_PRIOR) * (theta - np.array([0, 0, 0, *TAIL]))
    right = right + sum(g for _, _, g, _ in equations)
    core, fraction, width = _STEP
    largest = np.array([*[core * np.sqrt(determinant(theta))] * 3, fraction, width])
    new: FloatArray = theta + np.clip(np.linalg.solve(normal, right), -largest, largest)
    new[3:] = np.clip(new[3:], *np.transpose(_BOUNDS))
    widths, axes = np.linalg.eigh(new[[0, 1, 1, 2]].reshape(2, 2))
    matrix = (axes * np.clip(widths, *np.square(_WIDTHS_A))) @ axes.T
    new[:3] = matrix[0, 0], matrix[0, 1], matrix[1, 1]
    for part, _, _, own in equations:
        part.take(own + part.follows() @ (new - theta))
    return new


def covariance_of_shared(views: list[View], theta: FloatArray) -> FloatArray:
    """Covariance of what parts share: the fit's own, or by the scatter of the parts if larger."""
    equations = [p.solve(theta, v.noise)[:2] for v in views for p in v.parts]
    whole = _PRIOR + np.sum([s for s, _ in equations], axis=0)
    own = np.asarray(np.linalg.inv(whole), dtype=np.float64) * _POSITIONS**2
    scores = np.array([g for _, g in equations])
    n = len(scores)
    if n < 3:
        return own
    scores = scores - scores.mean(axis=0)
    among = own @ (scores.T @ scores * n / (n - 1) + _PRIOR) @ own
    larger = np.sqrt(np.maximum(np.diag(among) / np.diag(own), 1.0))
    out: FloatArray = own * np.outer(larger, larger)
    return out


def settle_lines(views: list[View], theta: FloatArray) -> Jitter:
    """Estimate how much lines shift, and each line's shift, shrunk towards none accordingly."""
    lines = [_Lines.of(p, v.noise, theta) for v in views for p in v.parts]
    jitter = _jitter(lines)
    for one in lines:
        one.settle(jitter)
    return jitter


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """Scores of a part's lines along the eigenvectors of their information.

    Parameters
    ----------
    value, vector
        Eigenvalues, shape (k,), 1/Å², and eigenvectors, shape (line, k).
    score
        Shape (k,), 1/Å.
    by_noise, by_shift
        What the squared scores have of the noise, and per Å² of the shifts' variance.
    """

    part: Part
    value: FloatArray
    vector: FloatArray
    score: FloatArray
    by_noise: FloatArray
    by_shift: FloatArray

    @classmethod
    def of(cls, part: Part, noise: FrameNoise, theta: FloatArray) -> _Lines:
        """Scores have the variance ``λ + λ² j²``; a smoothed frame's have less of both."""
        score, matrix = _line_equations(part, theta, noise)
        value, vector = np.linalg.eigh(matrix)
        value = np.maximum(value, 0.0)
        # Smoothing mixes neighbouring lines, their noise and their shifts alike.
        mixed = mixing(len(score), noise.blur.value / part.bins)
        size = np.sqrt(np.maximum(np.diag(matrix), 1e-6 * np.diag(matrix).max()))
        root = vector * np.sqrt(value)
        by_noise = vector.T @ (size[:, None] * (mixed @ (root / size[:, None])))
        by_shift = (vector * value).T @ mixed
        return cls(
            part,
            value,
            vector,
            vector.T @ score,
            (by_noise**2).sum(axis=1),
            (by_shift**2).sum(axis=1) / part.bins,
        )

    def settle(self, jitter: Jitter) -> None:
        """Shift the part's lines as far as their scores can be trusted."""
        part, vector = self.part, self.vector
        wide = jitter.variance / part.bins if jitter.seen else 0.0
        trust = wide / (1 + wide * self.value)
        part.lines = vector @ (trust * self.score) / part.px
        # Where little is known, as between the atoms, it does not count.
        seen = self.value @ (vector.T**2)
        part.lines_var = float(np.average((vector**2) @ trust, weights=seen))


def _jitter(lines: list[_Lines]) -> Jitter:
    """Variance of the shifts that explains the squared scores."""
    value = np.concatenate([one.value for one in lines])
    good = value > 1e-3 * value.max()
    square = np.concatenate([one.score**2 for one in lines])[good]
    noise = np.concatenate([one.by_noise for one in lines])[good]
    gain = np.concatenate([one.by_shift for one in lines])[good]
    variance = 0.0
    for _ in range(30):
        weight = gain / (noise + gain * max(variance, 0.0)) ** 2
        variance = float((weight * (square - noise)).sum() / (weight * gain).sum())
    noise_sd = _NOISE_SD * float((weight * noise).sum() / (weight * gain).sum())
    return Jitter(variance, float(np.hypot(np.sqrt(2 / (weight * gain).sum()), noise_sd)))


def _line_equations(
    part: Part, theta: FloatArray, noise: FrameNoise
) -> tuple[FloatArray, FloatArray]:
    """Score of unshifted lines, 1/Å, and its covariance from noise alone, 1/Å² (row, row).

    The atoms' positions, which a few lines shift with them, are eliminated.
    """
    slope = part.canvas.slope(theta, part.amplitude, part.lines)
    model = part.model(part.canvas.cores(theta, part.lines))
    weight = part.weight(model, noise)
    weighted = weight * (part.data - model)
    known = (weight * slope**2).sum(axis=1, dtype=np.float64)
    score = -(slope * weighted).sum(axis=1, dtype=np.float64)
    rc, height = part.atoms.rc, part.amplitude[part.atoms.group] * part.atoms.ratio
    # How the information of a line is shared among its atoms.
    away = (rc[:, :1] - np.arange(len(known))) ** 2 * part.px**2 / theta[0]
    inside = (rc[:, 1] > 0) & (rc[:, 1] < part.data.shape[1])
    share = np.exp(-away) * np.where(inside, height**2, 0.0)[:, None]
    share *= known / np.maximum(share.sum(axis=0), 1e-6 * float(height[0] ** 2))
    prior = part.atoms.start_sigma**-2.0
    total = share.sum(axis=1) + prior
    by_atom = height * part.canvas.correlate(theta, weighted, rc) - prior * part.atoms.moved
    score = score - share.T @ (by_atom / total)
    matrix = np.diag(known) - share.T @ (share / total[:, None])
    return (score + matrix @ part.lines) / part.px, matrix / part.px**2
