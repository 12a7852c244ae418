"""Fisher information of the positions and amplitudes of all atoms of a frame.

The product of two equal Gaussian spots is a Gaussian at their midpoint. Every term of the Fisher
information is therefore a moment of the pixel weights at a midpoint: one smoothed image of the
weights, its gradient and its curvature give the whole matrix (van Aert et al., J. Struct. Biol.
138, 21 (2002), eq. 9, with the integrals done). The row, column and amplitude of one atom form a
block of three.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray, Image
from adatom.features.refinement.image_model import Grid, Probe

_REACH = 4.8  # spot widths (sigma): the overlap exp(-d²/4σ²) of more distant spots is below 0.4 %
# Share of its own information that an atom keeps at least: on loops, belief propagation can remove
# more than there is.
_LEAST_SHARE = 0.3
_LEAST_DETERMINANT = 1e-6  # of a matrix of correlations; below, they contradict each other
_ORDERS = ("", "r", "c", "rr", "rc", "cc")  # value and derivatives by row and column
_ROUNDS = 4  # rounds of belief propagation; each includes atoms that are one bond farther away


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of atoms whose spots overlap; each pair is listed in both directions.

    Parameters
    ----------
    first, second
        Indices of the two atoms, shape (pair,), sorted by the first.
    reverse
        Index of the same pair in the other direction, shape (pair,).
    start
        Index of the first pair of each atom, shape (atom + 1,).
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    reverse: NDArray[np.int64]
    start: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Information:
    """Fisher information in blocks of row, column and amplitude.

    Parameters
    ----------
    diagonal
        Block of each atom, shape (atom, 3, 3).
    off_diagonal
        Block between the two atoms of each pair, shape (pair, 3, 3).
    pairs
        The pairs.
    background_moments
        Sum of the pixel weights times the Gaussian spot of each atom, as a function of the position
        of the spot: value, gradient (row, column) and curvature (rows, mixed, columns); shape
        (6, atom).
    spot_covariance
        Covariance of that Gaussian, shape (2, 2), pixels².
    """

    diagonal: FloatArray
    off_diagonal: FloatArray
    pairs: Pairs
    background_moments: FloatArray
    spot_covariance: FloatArray

    def brightened(self, grown: FloatArray) -> Information:
        """Give the information of the same atoms, `grown` (atom,) times as bright."""
        factor = np.ones((len(grown), 3))
        factor[:, :2] = grown[:, None]
        first, second = factor[self.pairs.first], factor[self.pairs.second]
        return replace(
            self,
            diagonal=self.diagonal * factor[:, :, None] * factor[:, None],
            off_diagonal=self.off_diagonal * first[:, :, None] * second[:, None],
        )

    def matrix(self, prior: FloatArray) -> sparse.bsr_matrix:
        """Give the sparse matrix, shape (3 atom, 3 atom); `prior` (atom, 3, 3) is added."""
        n, p = len(self.diagonal), self.pairs
        count = np.diff(p.start)
        # Each row of blocks holds the diagonal block first, then the pairs in their order.
        indptr = p.start + np.arange(n + 1)
        data = np.empty((len(p.first) + n, 3, 3))
        indices = np.empty(len(data), dtype=np.int64)
        diagonal = indptr[:-1]
        data[diagonal], indices[diagonal] = self.diagonal + prior, np.arange(n)
        off = np.arange(len(p.first)) + np.repeat(np.arange(n), count) + 1
        data[off], indices[off] = self.off_diagonal, p.second
        return sparse.bsr_matrix((data, indices, indptr), shape=(3 * n, 3 * n))

    def covariance(self, prior: FloatArray, known: NDArray[np.bool_] | None = None) -> FloatArray:
        """Diagonal blocks of the inverse, shape (atom, 3, 3), by Gaussian belief propagation.

        Weiss and Freeman, Neural Comput. 13, 2173 (2001). The result is exact on trees; on the
        rings of a lattice the error is small, because overlaps decay within a few bonds.

        Parameters
        ----------
        prior
            Information of the prior, shape (atom, 3, 3); it is added.
        known
            Shape (atom,): True for atoms whose coupling to their neighbours is ignored. Atoms
            outside the frame are treated so: little of them is seen, and messages around small
            rings would be overestimated.
        """
        p = self.pairs
        # Block indices come first and atoms last, so that sums over blocks are vectorised.
        own = np.ascontiguousarray(np.moveaxis(self.diagonal + prior, 0, -1))
        if not len(p.first):
            return np.moveaxis(_inverse(own), -1, 0)
        shared = np.ascontiguousarray(np.moveaxis(self.off_diagonal, 0, -1))
        if known is not None:
            shared[:, :, known[p.first] | known[p.second]] = 0.0
        message = np.zeros_like(shared)  # from the second atom of each pair to the first
        total, second = own, np.ascontiguousarray(own[:, :, p.second])
        for _ in range(_ROUNDS):
            without = _at_least(total[:, :, p.second] + message[:, :, p.reverse], second)
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
        Gives the width of a spot.
    """
    n = len(rc)
    _, covariance = probe.effective_gaussian()
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
    """Compute the Fisher information of positions and amplitudes.

    Parameters
    ----------
    grid
        The pixels of the frame.
    weight
        One over the variance of every pixel, shape (row, col).
    rc, amplitude
        Positions, shape (atom, 2), pixels; and peak heights, shape (atom,), intensity.
    probe
        Its effective Gaussian is used.
    pairs
        From `find_pairs`.

    Returns
    -------
    Blocks of 3 by 3 for atoms and pairs (van Aert et al. (2002), eq. 9).
    """
    peak, covariance = probe.effective_gaussian()
    inverse: FloatArray = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
    spot = np.array([covariance[0, 0], covariance[0, 1], covariance[1, 1]])
    moments, sums = grid.correlate(
        weight, grid.kernel(Probe(spot / 2, np.zeros(2))), grid.kernel(Probe(spot, np.zeros(2)))
    )
    # `peak` is the height of the effective Gaussian: a wide tail lowers it. The core alone locates
    # an atom.
    a = np.maximum(amplitude, 1e-9)
    stencil = grid.stencil(rc)
    own = _blocks(
        grid.interpolate(moments, stencil, _ORDERS), inverse, np.zeros((len(rc), 2)), (a, a)
    )
    own *= peak**2
    # Only the flank of a spot outside the frame is visible. Rounding errors can then make its block
    # indefinite, so it is set to zero.
    blind = _is_unseen(own, rc, grid.shape)
    own[blind] = 0.0
    half = np.nonzero(pairs.first < pairs.second)[0]
    i, j = pairs.first[half], pairs.second[half]
    moved = grid.interpolate(moments, (rc[i] + rc[j]) / 2, _ORDERS)
    blocks = _blocks(moved, inverse, rc[j] - rc[i], (a[i], a[j])) * peak**2
    blocks[blind[i] | blind[j]] = 0.0
    shared = np.empty((len(pairs.first), 3, 3))
    shared[half], shared[pairs.reverse[half]] = blocks, np.swapaxes(blocks, 1, 2)
    level = grid.interpolate(sums, stencil, _ORDERS) * peak
    level[:, blind] = 0.0
    return Information(own, shared, pairs, level, covariance)


def _is_unseen(own: FloatArray, rc: FloatArray, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether the block (atom, 3, 3) of each atom is only rounding error, shape (atom,)."""
    out = np.zeros(len(own), dtype=bool)
    diagonal = np.einsum("nii->ni", own)
    least = 1e-30 + 1e-12 * diagonal.max(axis=0, initial=0.0)
    # Eigenvalues are slow, so only blocks that can fail are tested: at least half of a spot in the
    # frame is visible.
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
    """Blocks (pair, 3, 3) of atoms separated by `d` (pair, 2); moments (6, pair) at midpoints."""
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
    """Sum the symmetric blocks (3, 3, pair) of each atom, shape (3, 3, atom)."""
    out = np.empty((3, 3, n))
    for i in range(3):
        for j in range(i + 1):
            out[i, j] = out[j, i] = np.bincount(into, weights=blocks[i, j], minlength=n)
    return out


def _at_least(blocks: FloatArray, own: FloatArray) -> FloatArray:
    """Limit the loss of each block (3, 3, n): keep `_LEAST_SHARE` of its own diagonal."""
    for k in range(3):
        np.maximum(blocks[k, k], _LEAST_SHARE * own[k, k], out=blocks[k, k])
    return blocks


def _inverse(blocks: FloatArray) -> FloatArray:
    """Invert matrices (3, 3, n), each limited to correlations that are possible together.

    Each correlation is at most 0.97. Messages around rings can still give three that contradict
    each other; these are reduced together until the matrix is diagonally dominant, and so positive.
    """
    scale = 1.0 / np.sqrt(np.maximum(np.stack([blocks[k, k] for k in range(3)]), 1e-300))
    b, c, f = (
        np.clip(blocks[i, j] * scale[i] * scale[j], -0.97, 0.97)
        for i, j in ((0, 1), (0, 2), (1, 2))
    )
    contrary = 1.0 - b * b - c * c - f * f + 2.0 * b * c * f < _LEAST_DETERMINANT
    if contrary.any():
        sums = np.abs(b) + np.abs(c), np.abs(b) + np.abs(f), np.abs(c) + np.abs(f)
        less = np.where(contrary, 0.9 / np.maximum(np.max(sums, axis=0), 0.9), 1.0)
        b, c, f = b * less, c * less, f * less
    out = np.empty_like(blocks)
    out[0, 0], out[1, 1], out[2, 2] = 1.0 - f * f, 1.0 - c * c, 1.0 - b * b
    out[0, 1], out[0, 2], out[1, 2] = c * f - b, b * f - c, b * c - f
    scale_by = 1.0 / np.maximum(out[0, 0] + b * out[0, 1] + c * out[0, 2], 1e-3)
    for i in range(3):
        for j in range(i, 3):
            out[i, j] *= scale_by * (scale[i] * scale[j])
            out[j, i] = out[i, j]
    return out
