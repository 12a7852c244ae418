"""Joint maximum-likelihood refinement of all atoms of a frame, with covariances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse
from scipy.spatial import cKDTree

from adatom.core import Frame
from adatom.features.model import (
    Noise,
    background_columns,
    estimate_noise,
    sample,
    solve_normal,
    spot_columns,
    tail_image,
)

FloatArray = NDArray[np.float64]


class RefineOptions(BaseModel):
    """How positions are refined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(5, ge=1, description="Gauss-Newton steps")
    start_sigma_A: float = Field(
        0.035, gt=0, description="how far the networks' positions are trusted, Å (1 sigma)"
    )
    tie_sigma_A: float = Field(
        0.08, gt=0, description="how far a regular atom may lie from its neighbours' centroid, Å"
    )
    largest_step_A: float = Field(0.12, gt=0, description="longest move in one iteration, Å")
    largest_shift_A: float = Field(0.45, gt=0, description="farthest from the start, Å")
    probe_sigma_A: float = Field(0.42, gt=0, description="probe width to start from, Å")


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """Refined atoms and the model that they make.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å.
    covariance
        Position covariance, shape (atom, 2, 2), Å².
    amplitude, amplitude_sd
        Peak height and its standard deviation, shape (atom,), intensity.
    probe_sigma_A
        Fitted probe width, Å.
    tail_share
        Intensity in the probe's tail relative to its core.
    noise
        Fitted noise.
    model
        The fitted image, shape (row, col) of the binned frame (`model.sample`), intensity.
    """

    xy: FloatArray
    covariance: FloatArray
    amplitude: FloatArray
    amplitude_sd: FloatArray
    probe_sigma_A: float
    tail_share: float
    noise: Noise
    model: FloatArray


def refine(
    frame: Frame,
    xy: FloatArray,
    options: RefineOptions | None = None,
    ties: sparse.csr_matrix | None = None,
) -> Refined:
    """Refine positions and amplitudes of all atoms together with one probe width.

    Gauss-Newton on the weighted residual with the networks' positions as a prior: where counts
    are plenty the image decides, where they are few the start stays. The information of the frame
    and of the prior add (van Trees), and their inverse is the covariance.

    Parameters
    ----------
    frame
        The image.
    xy
        Start, shape (atom, 2), Å.
    options
        See `RefineOptions`.
    ties
        Forms that vanish on a perfect crystal, shape (tie, atom), from `ties.centroid_ties`.
    """
    options = options or RefineOptions()
    view = sample(frame)
    px = view.calibration.pixel_size_A
    start, shape = view.rc(xy), view.data.shape
    n = len(start)
    knots = background_columns((shape[0], shape[1]), view.calibration)
    sigma = options.probe_sigma_A / px
    rc, tail = start.copy(), np.zeros(shape)
    amplitude, level, share = _linear_start(view.data, rc, sigma, knots)
    own = np.full(2 * n, (px / options.start_sigma_A) ** 2)
    tied = _tie_information(ties, n, (px / options.tie_sigma_A) ** 2)
    prior = (sparse.diags(own) + tied).tocsc()
    noise = Noise(1.0, 0.0, 1.0)
    for iteration in range(options.iterations + 1):
        spots, by_atom = spot_columns((shape[0], shape[1]), rc, amplitude, sigma)
        core = (spots @ amplitude).reshape(shape)
        tail = tail_image(core, sigma)
        background = (knots @ level).reshape(shape) + share * tail
        model = core + background
        noise = estimate_noise(view.data, model)
        derivatives = sparse.hstack(
            [by_atom, sparse.csr_matrix(tail.reshape(-1, 1)), knots]
        ).tocsr()
        weight = 1.0 / noise.variance(model).ravel()
        weighted = sparse.diags(weight) @ derivatives
        information = (derivatives.T @ weighted).tocsc()
        if iteration == options.iterations:
            break
        gradient = weighted.T @ (view.data - model).ravel()
        gradient[: 2 * n] -= own * (rc - start).T.ravel() + tied @ rc.T.ravel()
        step = _solve(information, prior, gradient)
        rc = _move(rc, start, step[: 2 * n].reshape(2, n).T, px, options)
        amplitude = np.maximum(amplitude + step[2 * n : 3 * n], 1e-3 * np.median(amplitude))
        sigma = float(
            np.clip(sigma + np.clip(step[3 * n], -0.1 * sigma, 0.1 * sigma), 0.25 / px, 0.7 / px)
        )
        share = float(np.clip(share + step[3 * n + 1], 0.0, 1.5))
        level = level + step[3 * n + 2 :]
    covariance_rc, amplitude_sd = _covariance(information, prior, rc, view.calibration.pixels(4.0))
    return Refined(
        view.xy(rc), covariance_rc[:, ::-1, ::-1] * px**2, amplitude, amplitude_sd,
        sigma * px, share, noise, model,
    )  # fmt: skip


def _move(
    rc: FloatArray, start: FloatArray, step: FloatArray, px: float, options: RefineOptions
) -> FloatArray:
    """Add a step (atom, 2), limited in length and in distance from the start, pixels."""
    length = np.linalg.norm(step, axis=1, keepdims=True)
    step = step * np.minimum(1.0, options.largest_step_A / px / np.maximum(length, 1e-12))
    away = rc + step - start
    far = np.linalg.norm(away, axis=1, keepdims=True)
    out: FloatArray = start + away * np.minimum(
        1.0, options.largest_shift_A / px / np.maximum(far, 1e-12)
    )
    return out


def _linear_start(
    data: FloatArray, rc: FloatArray, sigma: float, knots: sparse.csr_matrix
) -> tuple[FloatArray, FloatArray, float]:
    """Amplitudes and background together by least squares; no tail yet."""
    spots, _ = spot_columns((data.shape[0], data.shape[1]), rc, np.ones(len(rc)), sigma)
    columns = sparse.hstack([spots, knots]).tocsr()
    normal = (columns.T @ columns).tocsc()
    ridge = np.full(normal.shape[0], 1e-3 * float(normal.diagonal().mean()))
    both = solve_normal((normal + sparse.diags(ridge)).tocsc(), columns.T @ data.ravel())
    amplitude = both[: len(rc)]
    typical = float(np.median(np.abs(amplitude))) if len(rc) else 1.0
    return np.maximum(amplitude, 0.05 * max(typical, 1e-12)), both[len(rc) :], 0.0


def _tie_information(ties: sparse.csr_matrix | None, n: int, weight: float) -> sparse.csc_matrix:
    """Information of the ties on rows and columns of all atoms, shape (2 atom, 2 atom)."""
    if ties is None or ties.shape[0] == 0:
        return sparse.csc_matrix((2 * n, 2 * n))
    one = (ties.T @ ties) * weight
    return sparse.block_diag([one, one], format="csc")


def _with_prior(
    information: sparse.csc_matrix, prior: sparse.csc_matrix, damping: float
) -> sparse.csc_matrix:
    """Add the prior on positions, and a share of the diagonal against singular directions."""
    diagonal = information.diagonal()
    rest = information.shape[0] - prior.shape[0]
    whole = sparse.block_diag([prior, sparse.csc_matrix((rest, rest))], format="csc")
    small = sparse.diags(damping * diagonal + 1e-12 * diagonal.max())
    return (information + whole + small).tocsc()


def _solve(
    information: sparse.csc_matrix, prior: sparse.csc_matrix, gradient: FloatArray
) -> FloatArray:
    """Solve the damped normal equations."""
    out: FloatArray = solve_normal(_with_prior(information, prior, 1e-3), gradient)
    return out


def _covariance(
    information: sparse.csc_matrix, prior: sparse.csc_matrix, rc: FloatArray, reach_px: float
) -> tuple[FloatArray, FloatArray]:
    """Invert the information: position covariance (atom, 2, 2), row and column, and amplitude sd.

    Small frames are inverted whole; in large ones every atom is inverted with the neighbours it
    overlaps, since farther ones do not change it.
    """
    n = len(rc)
    common = np.arange(3 * n, information.shape[0])
    matrix = _with_prior(information, prior, 1e-6).tocsr()
    cov, sd = np.empty((n, 2, 2)), np.empty(n)
    if information.shape[0] <= 1500:
        blocks = [(np.arange(n), np.arange(n))]
    else:
        near = cKDTree(rc).query_ball_point(rc, reach_px, return_sorted=True)
        blocks = [(np.array([i]), np.asarray(near[i])) for i in range(n)]
        common = common[:2]  # far knots do not matter to one atom, the probe does
    for own, members in blocks:
        index = np.concatenate([members, members + n, members + 2 * n, common])
        inverse = np.linalg.inv(matrix[index][:, index].toarray())
        k, at = len(members), np.searchsorted(members, own)
        cov[own, 0, 0], cov[own, 1, 1] = inverse[at, at], inverse[at + k, at + k]
        cov[own, 0, 1] = cov[own, 1, 0] = inverse[at, at + k]
        sd[own] = np.sqrt(np.maximum(inverse[at + 2 * k, at + 2 * k], 0.0))
    return cov, sd
