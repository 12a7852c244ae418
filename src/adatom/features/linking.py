"""Link points of successive frames into tracks, by two linear assignments."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray, IntArray

# The sparse assignment reads a cost of zero as "not allowed", so every cost is raised by this, Å².
TINY_A2 = 1e-6


def link_points(frame: IntArray, position: FloatArray, step_A: float, unseen: int) -> IntArray:
    """Number of the track of every point, by first appearance.

    First the points of successive frames are assigned to each other, then the ends of the tracks
    to the starts of later ones (Jaqaman et al., Nat. Methods 5, 695 (2008), without merging and
    splitting). The cost of a link is its squared length; a point that stays alone costs the square
    of the longest step, so that no link within the longest step is left out for its cost.

    Parameters
    ----------
    frame
        Frame of every point, shape (point,).
    position
        Coordinates in Å, shape (point, dimension), without the drift of the specimen.
    step_A
        Longest step between the two points of a link, Å.
    unseen
        Frames that may lie between them without a point.

    Returns
    -------
    Track of every point, shape (point,), from 0.

    Examples
    --------
    The second point is unseen in frame 1.

    >>> frame = np.array([0, 0, 1, 2, 2])
    >>> position = np.array([[0.0, 0], [5, 0], [0.2, 0], [0.3, 0], [5, 0.1]])
    >>> link_points(frame, position, step_A=1.0, unseen=1).tolist()
    [0, 1, 0, 0, 1]
    """
    rows = _by_frame(frame, np.arange(len(frame)))
    trees = {f: cKDTree(position[r]) for f, r in rows.items()}
    none = np.empty(0, dtype=np.int64)
    links = [(none, none)]
    for f, now in rows.items():
        if f + 1 in rows:
            old, new, cost = _pairs(trees[f], trees[f + 1], step_A)
            i, j = _assign(old, new, cost, step_A**2, now.size, rows[f + 1].size)
            links.append((now[i], rows[f + 1][j]))
    if unseen:
        links.append(_over_gaps(frame, position, links, step_A, unseen))
    first, second = (np.concatenate([pair[k] for pair in links]) for k in (0, 1))
    return _numbers(frame, first, second)


def _by_frame(frame: IntArray, rows: IntArray) -> dict[int, IntArray]:
    """Those rows of each frame, in the order of the frames."""
    rows = rows[np.argsort(frame[rows], kind="stable")]
    frames, start = np.unique(frame[rows], return_index=True)
    return dict(zip(frames.tolist(), np.split(rows, start[1:]), strict=True))


def _pairs(old: cKDTree, new: cKDTree, step_A: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Pairs of points closer than the longest step: index of each, squared distance in Å²."""
    near = old.sparse_distance_matrix(new, step_A, output_type="ndarray")
    near = near[near["v"] < step_A]
    return near["i"], near["j"], near["v"] ** 2


def _assign(
    old: IntArray,
    new: IntArray,
    cost: FloatArray,
    alone: float,
    n_old: int,
    n_new: int,
    beside: float | None = None,
) -> tuple[IntArray, IntArray]:
    """Best assignment of old to new points, each once or not at all.

    The matrix is that of Jaqaman et al., Fig. 1b: links, points that stay alone, and the links once
    more, transposed, whose cost ``beside`` is by default the smallest one of a link.
    """
    if not len(cost):
        return old, new
    size = n_old + n_new
    k_old, k_new = np.arange(n_old), np.arange(n_new)
    row = np.concatenate([old, k_old, n_old + k_new, n_old + new])
    col = np.concatenate([new, n_new + k_old, k_new, n_new + old])
    transposed = np.full(len(cost), cost.min() if beside is None else beside)
    data = np.concatenate([cost, np.full(size, alone), transposed]) + TINY_A2
    matrix = coo_array((data, (row, col)), shape=(size, size)).tocsr()
    rows, cols = min_weight_full_bipartite_matching(matrix)
    linked = (rows < n_old) & (cols < n_new)
    return rows[linked], cols[linked]


def _over_gaps(
    frame: IntArray,
    position: FloatArray,
    links: list[tuple[IntArray, IntArray]],
    step_A: float,
    unseen: int,
) -> tuple[IntArray, IntArray]:
    """Links from the ends of tracks to the starts of tracks up to ``unseen`` frames later."""
    is_end, is_start = np.ones(len(frame), dtype=bool), np.ones(len(frame), dtype=bool)
    for before, after in links:
        is_end[before] = False
        is_start[after] = False
    ends = _by_frame(frame, np.flatnonzero(is_end))
    starts = _by_frame(frame, np.flatnonzero(is_start))
    trees = {f: cKDTree(position[r]) for f, r in starts.items()}
    old, new, cost = [], [], []
    for f, rows in ends.items():
        tree = cKDTree(position[rows])
        for later in range(f + 1, f + unseen + 2):
            if later in starts:
                i, j, c = _pairs(tree, trees[later], step_A)
                old.append(rows[i])
                new.append(starts[later][j])
                cost.append(c)
    if not old:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    all_old, i = np.unique(np.concatenate(old), return_inverse=True)
    all_new, j = np.unique(np.concatenate(new), return_inverse=True)
    alone = step_A**2
    i, j = _assign(i, j, np.concatenate(cost), alone, all_old.size, all_new.size, beside=alone)
    return all_old[i], all_new[j]


def _numbers(frame: IntArray, first: IntArray, second: IntArray) -> IntArray:
    """Track of every point from the links between points, numbered by first appearance."""
    n = len(frame)
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(n, n))
    label = connected_components(graph, directed=False)[1]
    order = np.lexsort((np.arange(n), frame))
    _, at, inverse = np.unique(label[order], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(at))
    track = np.empty(n, dtype=np.int64)
    track[order] = rank[inverse]
    return track
