"""What a frame says of its atoms: the Fisher information of all of them together.

Two spots of one Gaussian probe overlap in a Gaussian at their midpoint, so that every term of the
information is a moment of the pixels' weights there: one smooth image, its gradient and its
curvature give the whole matrix (van Aert et al., J. Struct. Biol. 138, 21 (2002), eq. 9, with the
integrals done). Position, position and amplitude of an atom are one block of three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from adatom.features.spots import Grid, Image, Probe

FloatArray = NDArray[np.float64]
_REACH = 4.8  # spots farther apart than this many widths share no information
_LEFT = 0.3  # of its own information that neighbours cannot take from an atom
_ROUNDS = 4  # of messages between neighbours; each takes in atoms one bond farther


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Atoms whose spots overlap, both ways round, in order of the first.

    Parameters
    ----------
    first, second
        Shape (pair,).
    back
        Index of the pair the other way round, shape (pair,).
    start
        Where each atom's pairs begin, shape (atom + 1,).
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    back: NDArray[np.int64]
    start: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Information:
    """Fisher information in blocks of row, column and amplitude.

    Parameters
    ----------
    own
        Shape (atom, 3, 3).
    shared
        Shape (pair, 3, 3), between the first and the second of `pairs`.
    pairs
        Which.
    level
        Weight of the pixels under each spot's Gaussian, times it, as a function of its position:
        value, gradient (row, column) and curvature (rows, mixed, columns); shape (6, atom).
    spot
        Covariance of that Gaussian, shape (2, 2), pixels².
    """

    own: FloatArray
    shared: FloatArray
    pairs: Pairs
    level: FloatArray
    spot: FloatArray

    def matrix(self, prior: FloatArray) -> sparse.bsr_matrix:
        """Give the sparse matrix, shape (3 atom, 3 atom), with `prior` (atom, 3, 3) added."""
        n, p = len(self.own), self.pairs
        count = np.diff(p.start)
        # Each row of blocks: the diagonal first, then the pairs, as they are sorted already.
        indptr = p.start + np.arange(n + 1)
        data = np.empty((len(p.first) + n, 3, 3))
        indices = np.empty(len(data), dtype=np.int64)
        diagonal = indptr[:-1]
        data[diagonal], indices[diagonal] = self.own + prior, np.arange(n)
        off = np.arange(len(p.first)) + np.repeat(np.arange(n), count) + 1
        data[off], indices[off] = self.shared, p.second
        return sparse.bsr_matrix((data, indices, indptr), shape=(3 * n, 3 * n))

    def covariance(self, prior: FloatArray, known: NDArray[np.bool_] | None = None) -> FloatArray:
        """Invert, block by block of the diagonal: shape (atom, 3, 3).

        Gaussian belief propagation (Weiss and Freeman, Neural Comput. 13, 2173 (2001)): exact on
        trees; around a ring the overlaps have died away. Atoms in `known` (atom,) take nothing from
        their neighbours: of ghosts, of which little shows, rings of messages would make too much.
        """
        p = self.pairs
        own = self.own + prior
        n = len(own)
        if not len(p.first):
            return _inverse(own)
        shared = self.shared
        if known is not None:
            shared = np.where((known[p.first] | known[p.second])[:, None, None], 0.0, shared)
        message = np.zeros_like(shared)  # from the second of each pair to the first
        total = own.copy()
        for _ in range(_ROUNDS):
            without = _at_least(total[p.second] + message[p.back], own[p.second])
            message = shared @ _inverse(without) @ np.swapaxes(shared, 1, 2)
            flat = message.reshape(-1, 9)
            summed = np.stack(
                [np.bincount(p.first, weights=flat[:, k], minlength=n) for k in range(9)], axis=1
            )
            total = _at_least(own - summed.reshape(n, 3, 3), own)
        return _inverse(total)


def find_pairs(rc: FloatArray, probe: Probe) -> Pairs:
    """List the atoms whose spots overlap.

    Parameters
    ----------
    rc
        Shape (atom, 2), pixels.
    probe
        Sets how far spots reach.
    """
    n = len(rc)
    _, covariance = probe.effective()
    reach = _REACH * float(np.linalg.det(covariance)) ** 0.25
    found = cKDTree(rc).query_pairs(reach, output_type="ndarray") if n > 1 else np.zeros((0, 2))
    found = found.astype(np.int64)
    first = np.concatenate([found[:, 0], found[:, 1]])
    second = np.concatenate([found[:, 1], found[:, 0]])
    order = np.lexsort((second, first))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    back = place[(order + len(found)) % max(len(order), 1)]
    start = np.concatenate([[0], np.cumsum(np.bincount(first, minlength=n))]).astype(np.int64)
    return Pairs(first[order], second[order], back, start)


def information(
    grid: Grid, weight: Image, rc: FloatArray, amplitude: FloatArray, probe: Probe, pairs: Pairs
) -> Information:
    """Fisher information of positions and amplitudes.

    Parameters
    ----------
    grid
        The frame's pixels.
    weight
        One over the variance of every pixel, shape (row, col).
    rc, amplitude
        Shape (atom, 2), pixels, and (atom,), intensity.
    probe
        Its effective Gaussian is used.
    pairs
        From `find_pairs`.
    """
    peak, covariance = probe.effective()
    inverse: FloatArray = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
    spot = np.array([covariance[0, 0], covariance[0, 1], covariance[1, 1]])
    moments, sums = grid.coefficients(
        weight, grid.kernel(Probe(spot / 2, np.zeros(2))), grid.kernel(Probe(spot, np.zeros(2)))
    )
    # A wide tail takes from the core's peak what `peak` says; positions live on the core.
    a = np.maximum(amplitude, 1e-9)
    own = _blocks(grid, moments, rc, inverse, np.zeros((len(rc), 2)), (a, a)) * peak**2
    # Of a spot outside of the frame only a slope shows: rounding may leave less than nothing.
    diagonal = np.einsum("nii->ni", own)
    unit = np.sqrt(np.maximum(diagonal, 1e-30 + 1e-12 * diagonal.max(axis=0)))
    blind = np.linalg.eigvalsh(own / (unit[:, :, None] * unit[:, None, :]))[:, 0] < 1e-2
    own[blind] = 0.0
    i, j = pairs.first, pairs.second
    d = rc[j] - rc[i]
    shared = _blocks(grid, moments, (rc[i] + rc[j]) / 2, inverse, d, (a[i], a[j])) * peak**2
    shared[blind[i] | blind[j]] = 0.0
    level = grid.at(sums, rc, ("", "r", "c", "rr", "rc", "cc")) * peak
    level[:, blind] = 0.0
    return Information(own, shared, pairs, level, covariance)


def _blocks(
    grid: Grid,
    moments: Image,
    middle: FloatArray,
    inverse: FloatArray,
    d: FloatArray,
    amplitude: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Blocks (pair, 3, 3) between atoms at ``middle - d/2`` and ``middle + d/2``."""
    m, mr, mc, mrr, mrc, mcc = grid.at(moments, middle, ("", "r", "c", "rr", "rc", "cc"))
    h = d @ inverse / 2
    decay = np.exp(-0.25 * np.einsum("ni,ij,nj->n", d, inverse, d))
    s = 0.5 * np.stack([mr, mc], axis=1)
    second = 0.25 * np.stack([np.stack([mrr, mrc], 1), np.stack([mrc, mcc], 1)], 1)
    second += 0.5 * inverse * m[:, None, None]
    a, b = amplitude
    out = np.empty((len(middle), 3, 3))
    cross = h[:, :, None] * s[:, None, :] - s[:, :, None] * h[:, None, :]
    cross -= h[:, :, None] * h[:, None, :] * m[:, None, None]
    out[:, :2, :2] = (a * b)[:, None, None] * (second + cross)
    out[:, :2, 2] = a[:, None] * (s + h * m[:, None])
    out[:, 2, :2] = b[:, None] * (s - h * m[:, None])
    out[:, 2, 2] = m
    out *= decay[:, None, None]
    return out


def _at_least(blocks: FloatArray, own: FloatArray) -> FloatArray:
    """Leave every block a part of its own information: loops may have taken more."""
    k = np.arange(3)
    blocks[:, k, k] = np.maximum(blocks[:, k, k], _LEFT * own[:, k, k])
    return blocks


def _inverse(blocks: FloatArray) -> FloatArray:
    """Invert (n, 3, 3) positive matrices; correlations are kept from ones that none could have."""
    scale = np.sqrt(np.maximum(np.einsum("nii->ni", blocks), 1e-300))
    unit = blocks / (scale[:, :, None] * scale[:, None, :])
    b, c, f = (np.clip(unit[:, i, j], -0.97, 0.97) for i, j in ((0, 1), (0, 2), (1, 2)))
    a = e = i = np.ones(len(unit))
    out = np.empty_like(unit)
    out[:, 0, 0], out[:, 1, 1], out[:, 2, 2] = e * i - f * f, a * i - c * c, a * e - b * b
    out[:, 0, 1] = out[:, 1, 0] = c * f - b * i
    out[:, 0, 2] = out[:, 2, 0] = b * f - c * e
    out[:, 1, 2] = out[:, 2, 1] = b * c - a * f
    det = a * out[:, 0, 0] + b * out[:, 0, 1] + c * out[:, 0, 2]
    out /= np.maximum(det, 1e-3)[:, None, None]
    out /= scale[:, :, None] * scale[:, None, :]
    return np.asarray(out, dtype=np.float64)
