"""Geometry of points: neighbours, connected groups, and one-to-one matching."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray, IntArray

_AROUND_A = 4.5  # Å; atoms this near share the smooth distortion of the lattice
_CHUNK = 16384  # places whose surroundings are listed at once; limits memory
# Mean loss of the atoms around a site, in units of the squared tolerance: about 0.6 in another
# grain, 0.15 for a position noise of 0.2 Å. From here on the lattice does not fit.
_LARGEST_LOSS = 0.4
_FEWEST_AROUND = 4  # fewer atoms do not tell whether a lattice fits


def groups(n: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """List the connected components of a graph of n nodes, in order of their first node.

    Examples
    --------
    >>> groups(4, [(0, 2), (2, 3)])
    [[0, 2, 3], [1]]
    """
    links = np.array([*pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
    count, label = connected_components(graph, directed=False)
    return [np.flatnonzero(label == k).tolist() for k in range(count)]


def touching(xy: FloatArray, distance_A: float) -> list[list[int]]:
    """List the groups of points (N, 2), Å, that are connected by steps of at most a distance, Å."""
    return groups(len(xy), cKDTree(xy.reshape(-1, 2)).query_pairs(distance_A))


def within(points: FloatArray, centres: FloatArray, radius_A: float) -> list[IntArray]:
    """List the indices of the points (N, 2) within a radius, Å, of each centre (M, 2)."""
    hits = cKDTree(points.reshape(-1, 2)).query_ball_point(centres, radius_A, return_sorted=True)
    return [np.array(h, dtype=np.int64) for h in hits]


def border_distance(xy: FloatArray, extent_xy_A: tuple[float, float]) -> FloatArray:
    """Distance of positions (N, 2), Å, from the border of the frame, (N,), Å; negative outside."""
    w, h = extent_xy_A
    edges = np.stack([xy[:, 0], xy[:, 1], w - xy[:, 0], h - xy[:, 1]], axis=0)
    out: FloatArray = edges.min(axis=0)
    return out


def distinct(xy: FloatArray, chosen: NDArray[np.bool_], p: FloatArray) -> NDArray[np.bool_]:
    """Keep the more probable of two chosen atoms nearer than 1.1 Å; no bond is that short."""
    keep = chosen.copy()
    for i in np.flatnonzero(chosen)[np.argsort(-p[chosen], kind="stable")]:
        if keep[i]:
            keep[(np.hypot(*(xy - xy[i]).T) < 1.1) & (np.arange(len(xy)) != i)] = False
    return keep


def match(a_xy: FloatArray, b_xy: FloatArray, tolerance_A: float) -> IntArray:
    """Match two sets of points one to one, as many and as near as possible.

    The sum of squared distances is minimised; an unmatched point costs the tolerance squared.
    Groups of points that are farther apart than the tolerance are solved separately.

    Parameters
    ----------
    a_xy, b_xy
        Shapes (N, 2) and (M, 2), Å.
    tolerance_A
        Largest distance of a pair, Å.

    Returns
    -------
    Index in `b_xy` of the partner of each point of `a_xy`, shape (N,); -1 for none.

    Examples
    --------
    >>> match(np.array([[0.0, 0.0], [5.0, 5.0]]), np.array([[0.2, 0.0]]), 0.5).tolist()
    [0, -1]
    """
    partner = np.full(len(a_xy), -1, dtype=np.int64)
    if not len(a_xy) or not len(b_xy):
        return partner
    near = cKDTree(a_xy).sparse_distance_matrix(cKDTree(b_xy), tolerance_A, output_type="ndarray")
    n = len(a_xy)
    links = coo_matrix((np.ones(len(near)), (near["i"], near["j"] + n)), shape=(n + len(b_xy),) * 2)
    label = connected_components(links, directed=False)[1][near["i"]]  # of each pair
    alone = np.bincount(label)[label] == 1
    partner[near["i"][alone]] = near["j"][alone]
    several = np.flatnonzero(~alone)
    several = several[np.argsort(label[several], kind="stable")]
    starts = np.flatnonzero(np.diff(label[several])) + 1
    for piece in np.split(several, starts) if len(several) else ():
        part = near[piece]
        rows, r = np.unique(part["i"], return_inverse=True)
        columns, c = np.unique(part["j"], return_inverse=True)
        gain = np.zeros((len(rows), len(columns)))
        gain[r, c] = part["v"] ** 2 - tolerance_A**2
        for i, j in zip(*linear_sum_assignment(gain), strict=True):
            if gain[i, j] < 0.0:
                partner[rows[i]] = columns[j]
    return partner


def assign_to_sites(
    sites_xy: FloatArray, xy: FloatArray, hosts: IntArray, tolerance_A: float, displaced_A: float
) -> tuple[IntArray, FloatArray, NDArray[np.bool_]]:
    """Assign host atoms to lattice sites after subtracting smooth distortions of the lattice.

    Parameters
    ----------
    sites_xy
        Sites of the lattice, shape (site, 2), Å, undistorted.
    xy
        Positions of all atoms, shape (atom, 2), Å, undistorted.
    hosts
        Indices of the host atoms, shape (host,).
    tolerance_A
        Largest distance of an atom from its site, Å.
    displaced_A
        The same for atoms and sites that are left after the first assignment, Å.

    Returns
    -------
    Index of the atom on each site, shape (site,), -1 for none; positions without the smooth
    distortion, shape (atom, 2), Å; and whether the atoms around each site fit the lattice, (site,).
    """
    partner = match(xy[hosts], sites_xy, tolerance_A)
    placed = partner >= 0
    offset = xy[hosts[placed]] - sites_xy[partner[placed]]
    local = np.zeros_like(xy)
    occupant = np.full(len(sites_xy), -1, dtype=np.int64)
    if not placed.any():
        return occupant, xy, np.zeros(len(sites_xy), dtype=np.bool_)
    for part, near, count in _near(xy[hosts[placed]], xy):
        many = count >= 8
        local[part][many] = _medians(offset, near[many], count[many])
    straight = xy - local
    partner = match(straight[hosts], sites_xy, tolerance_A)
    placed = partner >= 0
    gap = straight[hosts[placed]] - sites_xy[partner[placed]]
    loss = np.ones(len(hosts))
    loss[placed] = (gap**2).sum(axis=1) / tolerance_A**2
    trusted = _lattice_fits(loss, straight[hosts], sites_xy)
    occupant[partner[placed]] = hosts[placed]
    rest, free = hosts[~placed], np.flatnonzero(occupant < 0)
    late = match(straight[rest], sites_xy[free], displaced_A)
    occupant[free[late[late >= 0]]] = rest[late >= 0]
    return occupant, straight, trusted


def _lattice_fits(loss: FloatArray, xy: FloatArray, sites_xy: FloatArray) -> NDArray[np.bool_]:
    """Whether the lattice fits the atoms (atom, 2) around each site, shape (site,).

    In the middle of a hole no atom is near, and the nearest ones, at its edge, decide.
    """
    out = np.zeros(len(sites_xy), dtype=np.bool_)
    few = np.zeros(len(sites_xy), dtype=np.bool_)
    for part, near, count in _near(xy, sites_xy):
        mean = np.append(loss, 0.0)[near].sum(axis=1) / np.maximum(count, 1)
        few[part] = count < _FEWEST_AROUND
        out[part] = ~few[part] & (mean < _LARGEST_LOSS)
    if few.any() and len(xy) >= 2 * _FEWEST_AROUND:
        edge = cKDTree(xy).query(sites_xy[few], k=2 * _FEWEST_AROUND)[1]
        out[few] = loss[edge].mean(axis=1) < _LARGEST_LOSS
    return out


def _near(xy: FloatArray, around_xy: FloatArray) -> Iterator[tuple[slice, IntArray, IntArray]]:
    """Points near some places at a time: the places, indices (place, most), and numbers (place,).

    Rows of indices are filled up with the number of points.
    """
    tree = cKDTree(xy)
    for start in range(0, len(around_xy), _CHUNK):
        part = slice(start, start + _CHUNK)
        places = cKDTree(around_xy[part])
        pairs = places.sparse_distance_matrix(tree, _AROUND_A, output_type="ndarray")
        pairs = pairs[np.lexsort((pairs["j"], pairs["i"]))]
        count = np.bincount(pairs["i"], minlength=places.n)
        near = np.full((places.n, int(count.max(initial=0))), len(xy), dtype=np.int64)
        near[np.arange(near.shape[1]) < count[:, None]] = pairs["j"]
        yield part, near, count


def _medians(values: FloatArray, near: IntArray, count: IntArray) -> FloatArray:
    """Median of the values near each place, shape (place, 2), from the indices of `_near`."""
    filled = np.concatenate([values, np.full((1, values.shape[1]), np.inf)])
    ordered = np.sort(filled[near], axis=1)
    row = np.arange(len(near))
    out: FloatArray = (ordered[row, (count - 1) // 2] + ordered[row, count // 2]) / 2.0
    return out
