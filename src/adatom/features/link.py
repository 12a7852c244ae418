"""Tell which point is which: atoms and defects from frame to frame, atoms and lattice sites.

Frames are linked after the drift of the sheet is taken off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from adatom.core import AtomTable, DefectTable
from adatom.errors import BadInput

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Drift = Mapping[int, tuple[float, float]]


class LinkOptions(BaseModel):
    """How far things may move between frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    atom_step_A: float = Field(default=1.0, gt=0.0, description="Longest step of an atom, Å")
    defect_step_A: float = Field(default=3.0, gt=0.0, description="Longest step of a defect, Å")
    gap_frames: int = Field(default=3, ge=0, description="Frames in which it may be unseen")
    drift_A: float = Field(default=4.0, ge=0.0, description="Largest drift between frames, Å")
    element_penalty_A: float = Field(
        default=0.5, ge=0.0, description="Extra distance where the element changes, Å"
    )


def estimate_drift(
    table: AtomTable, options: LinkOptions | None = None
) -> dict[int, tuple[float, float]]:
    """Estimate how far the sheet has moved since the first frame.

    A shift by a lattice vector maps a perfect crystal onto itself. So every shift between two
    frames that lays atoms on atoms is a candidate, and among them the one is taken that also
    lays the foreign atoms (every element but the commonest) on foreign atoms; without any, the
    smallest.

    Parameters
    ----------
    table
        Atoms of several frames.
    options
        Largest drift between frames.

    Returns
    -------
    For every frame with atoms, the shift x, y in Å of its sheet from the first frame's: subtract
    it from the positions to lay the frames on each other.
    """
    o = options or LinkOptions()
    frames = table.frames
    if not frames:
        return {}
    elements = table.elements
    names, counts = np.unique(elements, return_counts=True)
    common = names[np.argmax(counts)]
    at, xy = table.data["frame"].to_numpy(), table.xy
    total = np.zeros(2)
    drift = {frames[0]: (0.0, 0.0)}
    for before, now in pairwise(frames):
        old, new = at == before, at == now
        foreign = elements != common
        total = total + _shift(xy[old], xy[new], xy[old & foreign], xy[new & foreign], o)
        drift[now] = (float(total[0]), float(total[1]))
    return drift


def _shift(
    old: FloatArray, new: FloatArray, old_mark: FloatArray, new_mark: FloatArray, o: LinkOptions
) -> FloatArray:
    """Shift x, y in Å that lays the new frame's atoms and marks best on the old ones."""
    marked = bool(len(old_mark) and len(new_mark))
    reach = o.drift_A if marked else min(o.drift_A, 1.8)
    steps = np.arange(-np.ceil(reach / 0.3), np.ceil(reach / 0.3) + 1.0) * 0.3
    starts = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    starts = starts[np.hypot(*starts.T) <= reach + 1e-9]
    if marked:  # only shifts that lay marks near marks are worth a look at all the atoms
        laid = _overlay(old_mark, new_mark, starts)
        starts = starts[laid >= 0.6 * laid.max()]
    tree = cKDTree(old)
    # A sample of the atoms is enough to tell where atoms fall on atoms.
    sample = new[:: max(1, len(new) // 120)]
    far = tree.query(sample[None] - starts[:, None], distance_upper_bound=1.0)[0]
    fit = np.exp(-((np.minimum(far, 1.0) / 0.45) ** 2)).mean(axis=1)
    fit -= 0.01 * np.hypot(*starts.T)
    if marked:
        fit += 0.5 * _overlay(old_mark, new_mark, starts)
    best = None
    for k in np.argsort(-fit)[:12]:
        shift = starts[k]
        for _ in range(4):  # iterative closest point
            d, i = tree.query(new - shift, distance_upper_bound=0.6)
            near = np.isfinite(d)
            if near.sum() < 3:
                break
            shift = np.median(new[near] - old[i[near]], axis=0)
        d = np.minimum(tree.query(new - shift, distance_upper_bound=1.0)[0], 1.0)
        score = float(np.exp(-((d / 0.3) ** 2)).mean()) - 0.02 * float(np.hypot(*shift))
        if marked:
            score += 0.5 * float(_overlay(old_mark, new_mark, shift[None])[0])
        if best is None or score > best[0]:
            best = (score, shift)
    out: FloatArray = np.zeros(2) if best is None else best[1]
    return out


def _overlay(old: FloatArray, new: FloatArray, shifts: FloatArray) -> FloatArray:
    """How well marks fall on marks for every shift, shape (shift,), 0 to 1.

    Wide (1 Å), because the marks themselves may hop or turn while the sheet drifts.
    """
    d = cKDTree(old).query(new[None] - shifts[:, None])[0]
    out: FloatArray = np.exp(-((d / 1.0) ** 2)).mean(axis=1)
    return out


def link_atoms(
    table: AtomTable, drift_xy_A: Drift | None = None, options: LinkOptions | None = None
) -> AtomTable:
    """Number the tracks of atoms over the frames.

    Linear assignment between frames and over gaps (Jaqaman et al., Nat. Methods 5, 695 (2008), as
    laptrack implements it) of the positions after the drift is taken off.

    Parameters
    ----------
    table
        Atoms of several frames.
    drift_xy_A
        Shift x, y in Å of every frame; `estimate_drift` finds it where it is not given.
    options
        Longest step, gaps, penalty for a change of element.

    Returns
    -------
    The same atoms with ``track`` filled, numbered by first appearance.

    Raises
    ------
    BadInput
        If the drift of a frame is missing.
    """
    o = options or LinkOptions()
    if not len(table):
        return table
    drift = estimate_drift(table, o) if drift_xy_A is None else drift_xy_A
    frame = table.data["frame"].to_numpy().astype(np.int64)
    symbols = sorted(set(table.elements))
    # The element is a third coordinate: a change costs distance, but is not forbidden.
    code = np.array([symbols.index(e) for e in table.elements]) * o.element_penalty_A
    position = np.column_stack([table.xy - _drift_of(drift, frame), code])
    return table.with_tracks(_tracks(frame, position, o.atom_step_A, o.gap_frames))


def _drift_of(drift: Drift, frame: IntArray) -> FloatArray:
    missing = sorted({int(f) for f in frame} - set(drift))
    if missing:
        raise BadInput(
            "drift",
            expected="a shift for every frame",
            got=f"none for frame {missing[0]}",
            todo="Estimate the drift from the same atom table, or leave it out.",
        )
    return np.array([drift[int(f)] for f in frame], dtype=np.float64).reshape(-1, 2)


def _tracks(frame: IntArray, position: FloatArray, step_A: float, gap: int) -> IntArray:
    """Track number of every row, by first appearance; frames that are absent count as gaps."""
    span = range(int(frame.min()), int(frame.max()) + 1)
    rows = [np.flatnonzero(frame == f) for f in span]
    from laptrack import LapTrack  # takes a second to load, and only linking needs it

    # Left to itself laptrack takes the cost of not linking from the frame's own distances, which
    # loses the few that moved most: here anything within the step links.
    alone = ("track_start", "track_end", "segment_start", "segment_end")
    limits: dict[str, Any] = {
        "cutoff": step_A**2,
        "gap_closing_cutoff": step_A**2 if gap else False,
        "gap_closing_max_frame_count": gap,
        **{f"{name}_cost": step_A**2 for name in alone},
    }
    tree = LapTrack(**limits).predict([position[r] for r in rows])
    members = [
        sorted(int(rows[f][i]) for f, i in part)
        for part in nx.connected_components(tree.to_undirected())
    ]
    track = np.full(len(frame), -1, dtype=np.int64)
    for number, part in enumerate(sorted(members, key=lambda m: (int(frame[m].min()), m[0]))):
        track[part] = number
    return track


def link_defects(
    table: DefectTable,
    drift_xy_A: Drift | None = None,
    *,
    frames: Iterable[int] | None = None,
    options: LinkOptions | None = None,
) -> DefectTable:
    """Number the tracks of defects over the frames and say where each came from.

    Parameters
    ----------
    table
        Defects of several frames.
    drift_xy_A
        Shift x, y in Å of every frame, as `estimate_drift` finds it from the atoms. Without it
        the common shift of all the defects of two frames is taken as the drift, if there are at
        least two; a single defect cannot tell its own motion from the sheet's.
    frames
        Every frame that was looked at, those without defects too; a defect of the first of them is
        ``first seen``. Without it the frames of the table.
    options
        Longest step and gaps.

    Returns
    -------
    The same defects with ``track``, ``first_frame`` and ``origin`` filled: ``first seen`` in the
    first frame, ``appeared`` later, ``from <kind>`` since a track changed its kind.

    Raises
    ------
    BadInput
        If the drift of a frame is missing.
    """
    o = options or LinkOptions()
    if not len(table):
        return table
    frame = table.data["frame"].to_numpy().astype(np.int64)
    start = min([*([] if frames is None else frames), int(frame.min())])
    drift = _defect_drift(table, frame, o) if drift_xy_A is None else drift_xy_A
    position = table.xy - _drift_of(drift, frame)
    track = _tracks(frame, position, o.defect_step_A, o.gap_frames)
    kinds = table.kinds
    origin, first = [""] * len(frame), np.zeros(len(frame), dtype=np.int64)
    for number in range(int(track.max()) + 1):
        rows = np.flatnonzero(track == number)
        rows = rows[np.argsort(frame[rows], kind="stable")]
        first[rows] = frame[rows[0]]
        since = "first seen" if frame[rows[0]] == start else "appeared"
        for k, row in enumerate(rows):
            if k and kinds[row] != kinds[rows[k - 1]]:
                since = f"from {kinds[rows[k - 1]]}"
            origin[row] = since
    return DefectTable(
        table.data.with_columns(
            pl.Series("track", track, dtype=pl.Int32),
            pl.Series("first_frame", first, dtype=pl.Int32),
            pl.Series("origin", origin, dtype=pl.String),
        )
    )


def _defect_drift(
    table: DefectTable, frame: IntArray, o: LinkOptions
) -> dict[int, tuple[float, float]]:
    """Drift from the defects alone: the median step, where two or more agree on it."""
    present: Sequence[int] = sorted({int(f) for f in frame})
    xy, total = table.xy, np.zeros(2)
    drift = {present[0]: (0.0, 0.0)}
    for before, now in pairwise(present):
        old, new = xy[frame == before], xy[frame == now]
        steps = (new[:, None] - old[None]).reshape(-1, 2)
        steps = steps[np.hypot(*steps.T) <= o.drift_A]
        if min(len(old), len(new)) >= 2 and len(steps):
            d = cKDTree(old).query(new[None] - steps[:, None])[0]
            hits = (d < 0.7).sum(axis=1) - 0.1 * np.hypot(*steps.T)
            best = steps[np.argmax(hits)]
            agree = np.hypot(*(steps - best).T) < 0.7
            if agree.sum() >= 2:
                total = total + np.median(steps[agree], axis=0)
        drift[now] = (float(total[0]), float(total[1]))
    return drift


def groups(n: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """List the connected groups of n things, in order of their first member."""
    links = np.array([*pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
    count, label = connected_components(graph, directed=False)
    return [np.flatnonzero(label == k).tolist() for k in range(count)]


def touching(xy: FloatArray, distance_A: float) -> list[list[int]]:
    """List the groups of points (N, 2) that hang together by steps of at most a distance, Å."""
    return groups(len(xy), cKDTree(xy.reshape(-1, 2)).query_pairs(distance_A))


def within(points: FloatArray, centres: FloatArray, radius_A: float) -> list[IntArray]:
    """List the points (N, 2) within a radius in Å of every centre (M, 2)."""
    hits = cKDTree(points.reshape(-1, 2)).query_ball_point(centres, radius_A, return_sorted=True)
    return [np.array(h, dtype=np.int64) for h in hits]


def border_distance(xy: FloatArray, extent_xy_A: tuple[float, float]) -> FloatArray:
    """Distance of measured positions (N, 2) from the frame's border, Å; negative outside."""
    w, h = extent_xy_A
    edges = np.stack([xy[:, 0], xy[:, 1], w - xy[:, 0], h - xy[:, 1]], axis=0)
    out: FloatArray = edges.min(axis=0)
    return out


def distinct(xy: FloatArray, chosen: NDArray[np.bool_], p: FloatArray) -> NDArray[np.bool_]:
    """Keep the likelier of two chosen atoms nearer than 1.1 Å: no bond is that short."""
    keep = chosen.copy()
    for i in np.flatnonzero(chosen)[np.argsort(-p[chosen], kind="stable")]:
        if keep[i]:
            keep[(np.hypot(*(xy - xy[i]).T) < 1.1) & (np.arange(len(xy)) != i)] = False
    return keep


def match(a_xy: FloatArray, b_xy: FloatArray, tolerance_A: float) -> IntArray:
    """Match two sets of points one to one, as many and as near as possible.

    Minimises the sum of squared distances, where leaving a pair out costs the tolerance squared;
    pieces that no tolerance connects are solved one by one.

    Parameters
    ----------
    a_xy, b_xy
        Shapes (N, 2) and (M, 2), Å.
    tolerance_A
        Largest distance of a pair, Å.

    Returns
    -------
    Shape (N,): partner of every point of `a_xy` in `b_xy`, -1 for none.
    """
    partner = np.full(len(a_xy), -1, dtype=np.int64)
    if not len(a_xy) or not len(b_xy):
        return partner
    near = cKDTree(a_xy).sparse_distance_matrix(cKDTree(b_xy), tolerance_A, output_type="ndarray")
    n = len(a_xy)
    links = coo_matrix((np.ones(len(near)), (near["i"], near["j"] + n)), shape=(n + len(b_xy),) * 2)
    count, label = connected_components(links, directed=False)
    pieces: list[list[int]] = [[] for _ in range(count)]
    for k in range(len(near)):
        pieces[label[near["i"][k]]].append(k)
    for piece in pieces:
        if len(piece) == 1:
            partner[near["i"][piece[0]]] = near["j"][piece[0]]
        elif piece:
            part = near[piece]
            rows, r = np.unique(part["i"], return_inverse=True)
            columns, c = np.unique(part["j"], return_inverse=True)
            gain = np.zeros((len(rows), len(columns)))
            gain[r, c] = part["v"] ** 2 - tolerance_A**2
            for i, j in zip(*linear_sum_assignment(gain), strict=True):
                if gain[i, j] < 0.0:
                    partner[rows[i]] = columns[j]
    return partner


def occupy(
    sites_xy: FloatArray, xy: FloatArray, hosts: IntArray, tolerance_A: float, displaced_A: float
) -> tuple[IntArray, FloatArray, NDArray[np.bool_]]:
    """Seat host atoms on lattice sites, after taking off the smooth part of the misfit.

    Parameters
    ----------
    sites_xy
        The lattice's sites, shape (site, 2), Å, undistorted.
    xy
        Positions of all atoms, shape (atom, 2), Å, undistorted.
    hosts
        Which of them are host atoms, shape (host,).
    tolerance_A
        Largest distance of an atom from its site, Å.
    displaced_A
        The same for atoms and sites left over from the first round, Å.

    Returns
    -------
    Atom on every site, shape (site,), -1 for none; positions without the smooth misfit, shape
    (atom, 2), Å; and, shape (site,), True where the lattice holds.
    """
    partner = match(xy[hosts], sites_xy, tolerance_A)
    seated = partner >= 0
    offset = xy[hosts[seated]] - sites_xy[partner[seated]]
    local = np.zeros_like(xy)
    trusted = np.zeros(len(sites_xy), dtype=np.bool_)
    occupant = np.full(len(sites_xy), -1, dtype=np.int64)
    if not seated.any():
        return occupant, xy, trusted
    for i, near in enumerate(cKDTree(xy[hosts[seated]]).query_ball_point(xy, 4.5)):
        if len(near) >= 8:
            local[i] = np.median(offset[near], axis=0)
    straight = xy - local
    partner = match(straight[hosts], sites_xy, tolerance_A)
    seated = partner >= 0
    gap = straight[hosts[seated]] - sites_xy[partner[seated]]
    loss = np.ones(len(hosts))
    loss[seated] = (gap**2).sum(axis=1) / tolerance_A**2
    # In another grain about 0.6 of the squared tolerance is lost on average, in noise of 0.2 Å
    # about 0.15: beyond 0.4 the lattice does not hold there and must name nothing.
    for k, near in enumerate(cKDTree(straight[hosts]).query_ball_point(sites_xy, 4.5)):
        trusted[k] = len(near) >= 4 and float(loss[near].mean()) < 0.4
    occupant[partner[seated]] = hosts[seated]
    rest, free = hosts[~seated], np.flatnonzero(occupant < 0)
    late = match(straight[rest], sites_xy[free], displaced_A)
    occupant[free[late[late >= 0]]] = rest[late >= 0]
    return occupant, straight, trusted
