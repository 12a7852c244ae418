"""From every member's maps to one list of atoms: peaks, votes and the members' scatter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max

from adatom.core import Prediction

FloatArray = NDArray[np.float64]


class LocateOptions(BaseModel):
    """How peaks are found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(0.15, gt=0, lt=1, description="lowest peak of the mean map")
    member_threshold: float = Field(0.2, gt=0, lt=1, description="lowest peak that is a vote")
    separation_A: float = Field(0.7, gt=0, description="closest two atoms may be, Å")
    match_A: float = Field(0.5, gt=0, description="farthest a vote may lie from the atom, Å")


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Atoms as the networks see them, before refinement.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å.
    scatter
        Covariance of the members' positions, shape (atom, 2, 2), Å².
    peak
        Height of the mean map, summed over classes, shape (atom,).
    votes
        Share of the members that saw it, shape (atom,).
    class_share
        Share of the probability that each class has, shape (atom, class); rows sum to one.
    border_A
        Distance from the nearest border of the frame, shape (atom,), Å.
    """

    xy: FloatArray
    scatter: FloatArray
    peak: FloatArray
    votes: FloatArray
    class_share: FloatArray
    border_A: FloatArray


def locate(prediction: Prediction, options: LocateOptions | None = None) -> Candidates:
    """Find atoms in the ensemble's maps.

    The consensus comes from the mean over the members; each member then votes with its own peaks,
    matched one to one, so that a member's miss costs a vote and not the atom.

    Parameters
    ----------
    prediction
        Members' maps.
    options
        See `LocateOptions`.
    """
    options = options or LocateOptions()
    working = prediction.calibration
    mean = prediction.mean()
    total = np.minimum(mean.sum(axis=0), 1.0)
    distance = max(round(working.pixels(options.separation_A) / 2), 1)
    rc = _peaks(total, distance, options.threshold)
    rc = _separate(rc, total, working.pixels(options.separation_A))
    peak = _sample(total, rc)
    share = np.stack([_sample(m, rc) for m in mean], axis=1) + 1e-6
    share /= share.sum(axis=1, keepdims=True)
    votes = np.zeros(len(rc))
    offsets = np.full((prediction.members, len(rc), 2), np.nan)
    for m, maps in enumerate(prediction.probabilities):
        own_total = np.minimum(maps.sum(axis=0), 1.0)
        own = _peaks(own_total, distance, options.member_threshold)
        a, b = _match(rc, own, working.pixels(options.match_A))
        votes[a] += 1
        offsets[m, a] = own[b] - rc[a]
    xy = working.xy(rc)
    scatter = _scatter(offsets[..., ::-1]) * working.pixel_size_A**2  # x, y from row, column
    extent = np.asarray(working.extent_xy((total.shape[0], total.shape[1])))
    border = np.minimum(xy, extent - xy).min(axis=1, initial=np.inf)
    return Candidates(xy, scatter, peak, votes / prediction.members, share, border)


def _peaks(image: NDArray[np.float32], distance: int, threshold: float) -> FloatArray:
    """Local maxima as sub-pixel row, column: a Gaussian through each peak and its neighbours."""
    found = peak_local_max(
        image, min_distance=distance, threshold_abs=threshold, exclude_border=False
    )
    padded = np.log(np.maximum(np.pad(image, 1, mode="edge"), 1e-4)).astype(np.float64)
    r, c = found[:, 0] + 1, found[:, 1] + 1
    rc = found.astype(np.float64)
    for axis, (dr, dc) in enumerate(((1, 0), (0, 1))):
        low, mid, high = padded[r - dr, c - dc], padded[r, c], padded[r + dr, c + dc]
        curvature = low - 2 * mid + high
        shift = np.where(curvature < -1e-9, 0.5 * (low - high) / np.minimum(curvature, -1e-9), 0.0)
        rc[:, axis] += np.clip(shift, -0.5, 0.5)
    return np.asarray(rc, dtype=np.float64)


def _separate(rc: FloatArray, image: NDArray[np.float32], distance_px: float) -> FloatArray:
    """Of peaks closer than `distance_px`, keep the higher."""
    height = _sample(image, rc)
    drop = np.zeros(len(rc), dtype=bool)
    pairs = cKDTree(rc).query_pairs(distance_px, output_type="ndarray")
    order = np.argsort([-max(height[i], height[j]) for i, j in pairs], kind="stable")
    for i, j in pairs[np.asarray(order, dtype=np.int64)]:
        if not (drop[i] or drop[j]):
            drop[j if height[i] >= height[j] else i] = True
    out: FloatArray = rc[~drop]
    return out


def _sample(image: NDArray[np.float32], rc: FloatArray) -> FloatArray:
    """Value at the pixel nearest to each position."""
    r = np.clip(np.round(rc[:, 0]).astype(int), 0, image.shape[0] - 1)
    c = np.clip(np.round(rc[:, 1]).astype(int), 0, image.shape[1] - 1)
    out: FloatArray = image[r, c].astype(np.float64)
    return out


def _match(
    a: FloatArray, b: FloatArray, distance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair two sets of points one to one, within a distance, at the least total distance."""
    none = np.zeros(0, dtype=np.int64)
    if not len(a) or not len(b):
        return none, none
    near = cKDTree(a).sparse_distance_matrix(cKDTree(b), distance, output_type="coo_matrix")
    if near.nnz == 0:
        return none, none
    i, j, d = near.row, near.col, near.data
    # Nearly every point has one partner: pair those at once, assign only what is contested.
    simple = (np.bincount(i, minlength=len(a))[i] == 1) & (np.bincount(j, minlength=len(b))[j] == 1)
    left, right = [i[simple]], [j[simple]]
    if not simple.all():
        ui, uj = np.unique(i[~simple]), np.unique(j[~simple])
        cost = np.full((len(ui), len(uj)), 10.0 * distance)
        cost[np.searchsorted(ui, i[~simple]), np.searchsorted(uj, j[~simple])] = d[~simple]
        p, q = linear_sum_assignment(cost)
        ok = cost[p, q] <= distance
        left.append(ui[p[ok]])
        right.append(uj[q[ok]])
    return np.concatenate(left).astype(np.int64), np.concatenate(right).astype(np.int64)


def _scatter(offsets: FloatArray) -> FloatArray:
    """Covariance (atom, 2, 2) over members of offsets (member, atom, 2), NaN where no vote."""
    seen = np.isfinite(offsets[..., 0])
    count = np.maximum(seen.sum(axis=0), 1)
    filled = np.where(seen[..., None], offsets, 0.0)
    mean = filled.sum(axis=0) / count[:, None]
    centred = np.where(seen[..., None], offsets - mean, 0.0)
    out: FloatArray = np.einsum("mni,mnj->nij", centred, centred)
    out /= np.maximum(count - 1, 1)[:, None, None]
    return out
