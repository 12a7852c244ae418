"""Link points of successive frames into tracks, by two linear assignments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from adatom.core.arrays import BoolArray, FloatArray, IntArray

# The sparse assignment reads a cost of zero as "not allowed", so every cost is raised by this, Å².
TINY_A2 = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What links between points cost.

    Parameters
    ----------
    step_A
        Longest link of a point that rests, Å.
    cost_A2
        Function of the rows of the earlier and the later points and of their squared distances,
        each of shape (pair,), Å²; gives the cost of each link, infinite where it is not allowed.
    alone_A2
        Cost of a point without a link, on either side of it, shape (point,), Å². A link is made
        where it costs less than its two points alone.
    reach_A
        Longest link of which one point may move, Å.
    moves
        Points that may move, shape (point,).
    hidden
        Function of the rows of the earlier and the later points; gives the number of frames
        between them that could not show either, shape (pair,).
    """

    step_A: float
    cost_A2: Callable[[IntArray, IntArray, FloatArray], FloatArray]
    alone_A2: FloatArray
    reach_A: float
    moves: BoolArray
    hidden: Callable[[IntArray, IntArray], IntArray]


def nearest(count: int, step_A: float) -> Motion:
    """Motion in which the squared distance is the cost of a link, up to a longest step, Å."""
    return Motion(
        step_A,
        lambda _old, _new, squared: squared,
        np.full(count, step_A**2),
        step_A,
        np.zeros(count, dtype=np.bool_),
        lambda old, _new: np.zeros_like(old),
    )


def link_points(
    frame: IntArray, position: FloatArray, motion: Motion, unseen: int, late: Motion | None = None
) -> IntArray:
    """Number of the track of every point, by first appearance.

    First the points of successive frames are assigned to each other, then the ends of the tracks
    to the starts of later ones (Jaqaman et al., Nat. Methods 5, 695 (2008), without merging and
    splitting).

    Parameters
    ----------
    frame
        Frame of every point, shape (point,).
    position
        Coordinates in Å, shape (point, 2), without the drift of the specimen.
    motion
        What links cost.
    unseen
        Frames that may lie between the points of a link and show their place, but no point.
    late
        What links cost between the ends and starts that are left then; None to leave them.

    Returns
    -------
    Track of every point, shape (point,), from 0.

    Examples
    --------
    The second point is unseen in frame 1.

    >>> frame = np.array([0, 0, 1, 2, 2])
    >>> position = np.array([[0.0, 0], [5, 0], [0.2, 0], [0.3, 0], [5, 0.1]])
    >>> link_points(frame, position, nearest(5, step_A=1.0), unseen=1).tolist()
    [0, 1, 0, 0, 1]
    """
    rows = _by_frame(frame, np.arange(len(frame)))
    pairs = _Pairs(position, motion)
    none = np.empty(0, dtype=np.int64)
    links = [(none, none)]
    for (f, old), (later, new) in pairwise(rows.items()):
        if later - f <= unseen + 1:  # a whole frame may be lost
            links.append(pairs.assign(*pairs.near(old, new)))
    if unseen:
        links.append(_over_gaps(frame, pairs, links, unseen))
    if late is not None:
        links.append(_over_gaps(frame, _Pairs(position, late), links, unseen))
    first, second = (np.concatenate([pair[k] for pair in links]) for k in (0, 1))
    return _numbers(frame, first, second)


def _by_frame(frame: IntArray, rows: IntArray) -> dict[int, IntArray]:
    """Those rows of each frame, in the order of the frames."""
    rows = rows[np.argsort(frame[rows], kind="stable")]
    frames, start = np.unique(frame[rows], return_index=True)
    return dict(zip(frames.tolist(), np.split(rows, start[1:]), strict=True))


class _Pairs:
    """Possible links between points, and the best choice among them."""

    def __init__(self, position: FloatArray, motion: Motion) -> None:
        self._position, self.motion = position, motion

    def near(self, old: IntArray, new: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
        """Links allowed between some rows and others: row of each point, cost in Å²."""
        m = self.motion
        found = [self._within(old, new, m.step_A)]
        moving = [(old[m.moves[old]], new), (old[~m.moves[old]], new[m.moves[new]])]
        found += [self._within(*rows, m.reach_A, beyond_A=m.step_A) for rows in moving]
        first, second, squared = (np.concatenate([part[k] for part in found]) for k in range(3))
        cost = m.cost_A2(first, second, squared)
        allowed = np.isfinite(cost)
        return first[allowed], second[allowed], cost[allowed]

    def _within(
        self, old: IntArray, new: IntArray, reach_A: float, beyond_A: float = -1.0
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """Pairs closer than a distance, and not closer than another: rows, squared distance."""
        if not len(old) or not len(new):
            none = np.empty(0, dtype=np.int64)
            return none, none, np.empty(0)
        trees = (cKDTree(self._position[rows]) for rows in (old, new))
        near = next(trees).sparse_distance_matrix(next(trees), reach_A, output_type="ndarray")
        near = near[(near["v"] < reach_A) & (near["v"] >= beyond_A)]
        return old[near["i"]], new[near["j"]], near["v"] ** 2

    def assign(
        self, first: IntArray, second: IntArray, cost: FloatArray
    ) -> tuple[IntArray, IntArray]:
        """Best assignment of earlier to later points, each once or not at all.

        The matrix is that of Jaqaman et al., Fig. 1b: links, points that stay alone, and the links
        once more, transposed and at no cost. Points without a possible link are left out.
        """
        if not len(cost):
            return first, second
        old, i = np.unique(first, return_inverse=True)
        new, j = np.unique(second, return_inverse=True)
        size, n_old = len(old) + len(new), len(old)
        k_old, k_new = np.arange(len(old)), np.arange(len(new))
        row = np.concatenate([i, k_old, n_old + k_new, n_old + j])
        col = np.concatenate([j, len(new) + k_old, k_new, len(new) + i])
        alone = self.motion.alone_A2[np.concatenate([old, new])]
        data = np.concatenate([cost, alone, np.zeros(len(cost))]) + TINY_A2
        matrix = coo_array((data, (row, col)), shape=(size, size)).tocsr()
        rows, cols = min_weight_full_bipartite_matching(matrix)
        linked = (rows < n_old) & (cols < len(new))
        return old[rows[linked]], new[cols[linked]]


def _over_gaps(
    frame: IntArray, pairs: _Pairs, links: list[tuple[IntArray, IntArray]], unseen: int
) -> tuple[IntArray, IntArray]:
    """Links from the ends of tracks to the starts of tracks up to ``unseen`` frames later."""
    is_end, is_start = np.ones(len(frame), dtype=bool), np.ones(len(frame), dtype=bool)
    for before, after in links:
        is_end[before] = False
        is_start[after] = False
    first, second, cost = pairs.near(np.flatnonzero(is_end), np.flatnonzero(is_start))
    near = frame[second] > frame[first]
    first, second, cost = first[near], second[near], cost[near]
    between = frame[second] - frame[first] - 1
    near = between - pairs.motion.hidden(first, second) <= unseen
    return pairs.assign(first[near], second[near], cost[near])


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
