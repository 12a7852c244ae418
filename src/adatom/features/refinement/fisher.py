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

from adatom.core.arrays import FloatArray, Image
from adatom.features.refinement.image_model import Grid, Probe

_REACH = 4.8  # spots farther apart than this many widths share no information
_LEFT = 0.3  # of its own information that neighbours cannot take from an atom
_ORDERS = ("", "r", "c", "rr", "rc", "cc")
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
        # Blocks come first and atoms last: sums over blocks run in vectors.
        own = np.ascontiguousarray(np.moveaxis(self.own + prior, 0, -1))
        if not len(p.first):
            return np.moveaxis(_inverse(own), -1, 0)
        shared = np.ascontiguousarray(np.moveaxis(self.shared, 0, -1))
        if known is not None:
            shared[:, :, known[p.first] | known[p.second]] = 0.0
        message = np.zeros_like(shared)  # from the second of each pair to the first
        total, second = own, np.ascontiguousarray(own[:, :, p.second])
        for _ in range(_ROUNDS):
            without = _at_least(total[:, :, p.second] + message[:, :, p.back], second)
            half = np.einsum("abn,bcn->acn", shared, _inverse(without))
            message = np.einsum("acn,dcn->adn", half, shared)
            total = _at_least(own - _summed(message, p.first, own.shape[2]), own)
        return np.ascontiguousarray(np.moveaxis(_inverse(total), -1, 0))


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
    order = np.argsort(first * n + second)
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
    places = grid.places(rc)
    own = _blocks(grid.at(moments, places, _ORDERS), inverse, np.zeros((len(rc), 2)), (a, a))
    own *= peak**2
    # Of a spot outside of the frame only a slope shows: rounding may leave less than nothing.
    blind = _blind(own, rc, grid.shape)
    own[blind] = 0.0
    half = np.nonzero(pairs.first < pairs.second)[0]
    i, j = pairs.first[half], pairs.second[half]
    moved = grid.at(moments, (rc[i] + rc[j]) / 2, _ORDERS)
    blocks = _blocks(moved, inverse, rc[j] - rc[i], (a[i], a[j])) * peak**2
    blocks[blind[i] | blind[j]] = 0.0
    shared = np.empty((len(pairs.first), 3, 3))
    shared[half], shared[pairs.back[half]] = blocks, np.swapaxes(blocks, 1, 2)
    level = grid.at(sums, places, _ORDERS) * peak
    level[:, blind] = 0.0
    return Information(own, shared, pairs, level, covariance)


def _blind(own: FloatArray, rc: FloatArray, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell whose own information (atom, 3, 3) is but rounding, shape (atom,)."""
    out = np.zeros(len(own), dtype=bool)
    diagonal = np.einsum("nii->ni", own)
    least = 1e-30 + 1e-12 * diagonal.max(axis=0, initial=0.0)
    # Eigenvalues are slow, and of a spot in the frame at least a half shows.
    beyond = np.any((rc < 0.5) | (rc > np.array(shape) - 1.5), axis=1)
    asked = np.nonzero(beyond | (diagonal <= least).any(axis=1))[0]
    unit = np.sqrt(np.maximum(diagonal[asked], least))
    out[asked] = np.linalg.eigvalsh(own[asked] / (unit[:, :, None] * unit[:, None, :]))[:, 0] < 1e-2
    return out


def _blocks(
    moments: FloatArray,
    inverse: FloatArray,
    d: FloatArray,
    amplitude: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Blocks (pair, 3, 3) between atoms `d` (pair, 2) apart; moments (6, pair) midway."""
    m, mr, mc, mrr, mrc, mcc = moments
    h = d @ inverse / 2
    decay = np.exp(-0.25 * np.einsum("ni,ij,nj->n", d, inverse, d))
    s = 0.5 * np.stack([mr, mc], axis=1)
    second = 0.25 * np.stack([np.stack([mrr, mrc], 1), np.stack([mrc, mcc], 1)], 1)
    second += 0.5 * inverse * m[:, None, None]
    a, b = amplitude
    out = np.empty((len(d), 3, 3))
    cross = h[:, :, None] * s[:, None, :] - s[:, :, None] * h[:, None, :]
    cross -= h[:, :, None] * h[:, None, :] * m[:, None, None]
    out[:, :2, :2] = (a * b)[:, None, None] * (second + cross)
    out[:, :2, 2] = a[:, None] * (s + h * m[:, None])
    out[:, 2, :2] = b[:, None] * (s - h * m[:, None])
    out[:, 2, 2] = m
    out *= decay[:, None, None]
    return out


def _summed(blocks: FloatArray, into: NDArray[np.int64], n: int) -> FloatArray:
    """Sum symmetric blocks (3, 3, pair) that go to the same atom, shape (3, 3, atom)."""
    out = np.empty((3, 3, n))
    for i in range(3):
        for j in range(i + 1):
            out[i, j] = out[j, i] = np.bincount(into, weights=blocks[i, j], minlength=n)
    return out


def _at_least(blocks: FloatArray, own: FloatArray) -> FloatArray:
    """Leave every block (3, 3, n) a part of its own information: loops may have taken more."""
    for k in range(3):
        np.maximum(blocks[k, k], _LEFT * own[k, k], out=blocks[k, k])
    return blocks


def _inverse(blocks: FloatArray) -> FloatArray:
    """Invert (3, 3, n) positive matrices; correlations are kept from ones that none could have."""
    scale = 1.0 / np.sqrt(np.maximum(np.stack([blocks[k, k] for k in range(3)]), 1e-300))
    b, c, f = (
        np.clip(blocks[i, j] * scale[i] * scale[j], -0.97, 0.97)
        for i, j in ((0, 1), (0, 2), (1, 2))
    )
    out = np.empty_like(blocks)
    out[0, 0], out[1, 1], out[2, 2] = 1.0 - f * f, 1.0 - c * c, 1.0 - b * b
    out[0, 1], out[0, 2], out[1, 2] = c * f - b, b * f - c, b * c - f
    scale_by = 1.0 / np.maximum(out[0, 0] + b * out[0, 1] + c * out[0, 2], 1e-3)
    for i in range(3):
        for j in range(i, 3):
            out[i, j] *= scale_by * (scale[i] * scale[j])
            out[j, i] = out[i, j]
    return out
