"""Fit of the spot shape, which all patches of all frames share, and of the line shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.core.arrays import FloatArray
from adatom.features.conditions.noise import FrameNoise, smoothing_matrix
from adatom.features.conditions.patch_model import Patch, SpotShape
from adatom.features.conditions.patches import FramePatches

TAIL = np.array([0.2, 2.6])  # usual tail fraction, and tail width in units of the core
_TAIL_SD = np.array([0.12, 0.5])  # their spread between microscopes: the prior of the fit
_BOUNDS = ((0.0, 0.6), (1.5, 4.5))  # limits of tail fraction and tail width
_WIDTHS_A = (0.15, 1.2)  # limits of the width (sigma) of the core, Å
_STEP = (0.3, 0.1, 0.4)  # largest step of the core (relative), the tail fraction and the tail width
_POSITIONS = 1.2  # factor on standard deviations, because positions are treated as known
_NOISE_SD = 0.015  # relative error of the variance of the noise
_PRIOR = np.diag([0.0, 0.0, 0.0, *_TAIL_SD**-2.0])  # information of the prior on the spot shape


@dataclass(frozen=True, slots=True)
class Jitter:
    """Variance of the shifts of the scan lines, Å², and its standard deviation."""

    variance: float = 0.0
    sd: float = 0.0

    @property
    def seen(self) -> bool:
        """Whether the variance exceeds three standard deviations."""
        return self.variance > 3 * self.sd


def gauss_newton_step(patched: list[FramePatches], spot: SpotShape) -> SpotShape:
    """Take one Gauss-Newton step of the spot shape and of the parameters of all patches."""
    equations = [(p, *p.solve(spot, v.noise)) for v in patched for p in v.patches]
    normal = _PRIOR + sum(s for _, s, _, _ in equations)
    right = -np.diag(_PRIOR) * (spot.values - np.array([0, 0, 0, *TAIL]))
    right = right + sum(g for _, _, g, _ in equations)
    core, fraction, width = _STEP
    largest = np.array([*[core * np.sqrt(spot.determinant())] * 3, fraction, width])
    new: FloatArray = spot.values + np.clip(np.linalg.solve(normal, right), -largest, largest)
    new[3:] = np.clip(new[3:], *np.transpose(_BOUNDS))
    widths, axes = np.linalg.eigh(new[[0, 1, 1, 2]].reshape(2, 2))
    matrix = (axes * np.clip(widths, *np.square(_WIDTHS_A))) @ axes.T
    new[:3] = matrix[0, 0], matrix[0, 1], matrix[1, 1]
    for patch, _, _, own in equations:
        patch.apply_step(own + patch.response_to_shared() @ (new - spot.values))
    return SpotShape(new)


def covariance_of_shared(patched: list[FramePatches], spot: SpotShape) -> FloatArray:
    """Covariance of the spot shape (5, 5): from the fit, or from the scatter of patches if larger.

    The scatter of the scores gives the sandwich estimate of White, Econometrica 50, 1 (1982).
    """
    equations = [p.solve(spot, v.noise)[:2] for v in patched for p in v.patches]
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


def fit_line_shifts(patched: list[FramePatches], spot: SpotShape) -> Jitter:
    """Estimate the variance of the line shifts, and each shift, shrunk towards zero by it."""
    lines = [_Lines.of(p, v.noise, spot) for v in patched for p in v.patches]
    jitter = _jitter(lines)
    for one in lines:
        one.shift_lines(jitter)
    return jitter


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """Scores of the lines of a patch along the eigenvectors of their information.

    Parameters
    ----------
    value, vector
        Eigenvalues, shape (k,), 1/Å², and eigenvectors, shape (line, k).
    score
        Shape (k,), 1/Å.
    by_noise, by_shift
        Expected squared scores from noise, and per Å² of the variance of the shifts.
    """

    patch: Patch
    value: FloatArray
    vector: FloatArray
    score: FloatArray
    by_noise: FloatArray
    by_shift: FloatArray

    @classmethod
    def of(cls, patch: Patch, noise: FrameNoise, spot: SpotShape) -> _Lines:
        """Scores have the variance ``λ + λ² j²``; smoothing of the frame reduces both terms."""
        score, matrix = _line_equations(patch, spot, noise)
        value, vector = np.linalg.eigh(matrix)
        value = np.maximum(value, 0.0)
        # Smoothing averages neighbouring lines, both their noise and their shifts.
        mixed = smoothing_matrix(len(score), noise.blur.value / patch.bins)
        size = np.sqrt(np.maximum(np.diag(matrix), 1e-6 * np.diag(matrix).max()))
        root = vector * np.sqrt(value)
        by_noise = vector.T @ (size[:, None] * (mixed @ (root / size[:, None])))
        by_shift = (vector * value).T @ mixed
        return cls(
            patch,
            value,
            vector,
            vector.T @ score,
            (by_noise**2).sum(axis=1),
            (by_shift**2).sum(axis=1) / patch.bins,
        )

    def shift_lines(self, jitter: Jitter) -> None:
        """Set the line shifts of the patch to their shrunk estimates (empirical Bayes)."""
        patch, vector = self.patch, self.vector
        wide = jitter.variance / patch.bins if jitter.seen else 0.0
        trust = wide / (1 + wide * self.value)
        patch.lines = vector @ (trust * self.score) / patch.px
        # Lines with little information, as between atoms, have little weight.
        seen = self.value @ (vector.T**2)
        patch.lines_var = float(np.average((vector**2) @ trust, weights=seen))


def _jitter(lines: list[_Lines]) -> Jitter:
    """Variance of the shifts that explains the squared scores, by weighted moments."""
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
    patch: Patch, spot: SpotShape, noise: FrameNoise
) -> tuple[FloatArray, FloatArray]:
    """Score of unshifted lines, 1/Å, and its covariance from noise alone, 1/Å² (row, row).

    The positions of the atoms, which a common shift of a few lines changes, are eliminated.
    """
    slope = patch.renderer.slope(spot, patch.amplitude, patch.lines)
    model = patch.model(patch.renderer.cores(spot, patch.lines))
    weight = patch.weight(model, noise)
    weighted = weight * (patch.data - model)
    known = (weight * slope**2).sum(axis=1, dtype=np.float64)
    score = -(slope * weighted).sum(axis=1, dtype=np.float64)
    rc, height = patch.atoms.rc, patch.amplitude[patch.atoms.group] * patch.atoms.ratio
    # Share of each atom in the information of a line.
    away = (rc[:, :1] - np.arange(len(known))) ** 2 * patch.px**2 / spot.core[0]
    inside = (rc[:, 1] > 0) & (rc[:, 1] < patch.data.shape[1])
    share = np.exp(-away) * np.where(inside, height**2, 0.0)[:, None]
    share *= known / np.maximum(share.sum(axis=0), 1e-6 * float(height[0] ** 2))
    prior = patch.atoms.start_sigma**-2.0
    total = share.sum(axis=1) + prior
    by_atom = (
        height * patch.renderer.correlate_slope(spot, weighted, rc) - prior * patch.atoms.moved
    )
    score = score - share.T @ (by_atom / total)
    matrix = np.diag(known) - share.T @ (share / total[:, None])
    return (score + matrix @ patch.lines) / patch.px, matrix / patch.px**2
