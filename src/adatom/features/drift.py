"""Drift of the specimen from all of its atoms; impurities may hop meanwhile.

A crystal lies on itself after a shift by a lattice vector, so the atoms alone leave the drift of a
frame unknown by lattice vectors. What breaks the symmetry decides: impurities, gaps between the
atoms, and the drift of the neighbouring frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from adatom.core import AtomTable
from adatom.core.arrays import BoolArray, FloatArray, IntArray
from adatom.features.motion import is_impurity
from adatom.features.neighbours import touching

_MOST_ATOMS = 3000  # atoms of a frame whose pairs are counted; more do not sharpen a peak
_BIN_A, _BLUR_A = 0.1, 0.2  # bin and Gaussian blur of the histogram of shifts, Å
# A shift is a candidate if it lays this share of the atoms that the best one lays. Half are laid by
# a shift of graphene by a bond, all of them by a lattice vector.
_LAID = 0.75
_MATCH_A = 0.6  # Å: atoms nearer than this are the same one, in all candidates of one pair alike
_ROUNDS = 4  # of closest points, and of the drift of neighbouring frames
# Of the shifts that are left, one that leaves so many more atoms alone is none.
_WORSE = 0.1
# Nats by which the first look at a pair of frames prices a hop, and each Å² of its length.
_HOP, _FARTHER = 4.0, 0.25
_LEAST_JUMPS = 0.02  # jumps a frame of an impurity where none was seen
_LOST = 4.0  # nats: most for an impurity in one of two frames only; less where p_element is lower
_LASTING = 0.3  # prior share of the gaps that are no missed atom, but there in both frames
_SETTLED_A = 1e-3  # Å: a shift that closest points change by less is final
_STAYED_A2 = 0.64  # Å²: an impurity that moved less did not hop
# Steps of the drift are normally distributed round the median of the steps near in time; now and
# then a stage jumps anywhere in reach.
_STAGE_JUMPS = 0.01
# Standard deviation of the steps, Å per axis, and jumps a frame from which the choice begins.
_STARTS = ((1.0, 0.05), (0.1, 2.0))
# Å per axis: standard deviation of the steps where they are all alike, and where they are few.
_LEAST_SCALE_A, _USUAL_SCALE_A = 0.05, 0.3
# Median over standard deviation per axis of the length of a two-dimensional normal vector.
_MEDIAN = np.sqrt(2.0 * np.log(2.0))
_AROUND = 5  # steps before and after that give this median
_KEPT = 0.75  # share of the field that a frame and its reference must have in common


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """Atoms of one frame."""

    xy: FloatArray
    kind: IntArray  # number of the element
    weight: FloatArray  # p_exists
    rare: BoolArray
    lost: FloatArray  # minus log-probability that it is no impurity, nats

    @property
    def size(self) -> FloatArray:
        """Width and height of the field, Å."""
        out: FloatArray = np.ptp(self.xy, axis=0)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Shifts that lay a frame on the one before, with what speaks for each."""

    shift: FloatArray
    evidence: FloatArray  # log-likelihood without the impurities that both frames show, nats
    moved: list[FloatArray]  # squared way of each of these impurities, Å²
    span: int  # frames from one to the other


def drift_of(table: AtomTable, reach_A: float) -> dict[int, tuple[float, float]]:
    """Estimate the drift since the first frame; see `tracking.estimate_drift`.

    Parameters
    ----------
    table
        Atoms of several frames.
    reach_A
        Largest drift between two frames, Å.
    """
    frames = table.frames
    if not frames:
        return {}
    points = _points_of(table)
    site = _site_A2(points[frames[0]])
    pairs = [_candidates(points[a], points[b], reach_A, b - a) for a, b in pairwise(frames)]
    steps = _choose(pairs, site, reach_A)
    total = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    total = _without_wander([points[f] for f in frames], total)
    return {f: (float(x), float(y)) for f, (x, y) in zip(frames, total, strict=True)}


def _points_of(table: AtomTable) -> dict[int, _Points]:
    kind = np.unique(table.elements, return_inverse=True)[1]
    rare = is_impurity(table)
    sure = table.column("p_exists") * table.column("p_element")
    lost = np.minimum(-np.log(np.maximum(1.0 - sure, 1e-9)), _LOST)
    frame, xy, weight = table.column("frame"), table.xy, table.column("p_exists")
    return {
        f: _Points(xy[here], kind[here], weight[here], rare[here], lost[here])
        for f in table.frames
        if (here := frame == f).any()
    }


def _candidates(old: _Points, new: _Points, reach_A: float, span: int) -> _Candidates:
    """Find the shifts that lay atoms on atoms of the same element, and weigh them."""
    trees = {int(k): cKDTree(old.xy[old.kind == k]) for k in np.unique(old.kind)}
    found = (_closest(trees, new, start) for start in _peaks(old, new, reach_A))
    shifts = np.array([s for s in found if s is not None]).reshape(-1, 2)
    if not len(shifts):
        return _Candidates(np.zeros((1, 2)), np.zeros(1), [np.zeros(0)], span)
    rate = np.array([_alone(old, new, s) for s in shifts])
    shifts = shifts[rate <= rate.min() + _WORSE]
    ways = [_ways(old, new, s) for s in shifts]
    evidence = _gap_evidence(old, new, shifts) - np.array([lost for _, lost in ways])
    return _Candidates(shifts, evidence, [moved for moved, _ in ways], span)


def _peaks(old: _Points, new: _Points, reach_A: float) -> FloatArray:
    """Shifts at which many atoms lie on atoms of their element, shape (shift, 2), Å."""
    some = slice(None, None, max(1, len(new.xy) // _MOST_ATOMS))
    steps = int(np.ceil(reach_A / _BIN_A))
    axis = (np.arange(-steps, steps + 1) * _BIN_A).astype(np.float64)
    edges = ((np.arange(-steps, steps + 2) - 0.5) * _BIN_A).astype(np.float64)
    count = np.zeros((len(axis), len(axis)))
    for kind in np.unique(new.kind[some]):
        a, b = old.kind == kind, new.kind[some] == kind
        xy, weight = new.xy[some][b], new.weight[some][b]
        near = cKDTree(xy).query_ball_point(old.xy[a], np.sqrt(2.0) * edges[-1])
        i = np.repeat(np.arange(int(a.sum())), [len(n) for n in near])
        if len(i):
            j = np.concatenate([np.asarray(n, dtype=np.int64) for n in near])
            shift, both = xy[j] - old.xy[a][i], weight[j] * old.weight[a][i]
            count += np.histogram2d(shift[:, 0], shift[:, 1], (edges, edges), weights=both)[0]
    size = np.maximum(new.size, 2.0 * reach_A + 1.0)
    share = np.outer(1.0 - np.abs(axis) / size[0], 1.0 - np.abs(axis) / size[1])
    laid = gaussian_filter(count, _BLUR_A / _BIN_A, mode="constant") / share
    laid[np.hypot(axis[:, None], axis[None]) > reach_A + _BIN_A] = 0.0
    top = (laid == maximum_filter(laid, size=7)) & (laid >= _LAID * laid.max()) & (laid > 0.0)
    out: FloatArray = axis[np.argwhere(top)]
    return out


def _closest(trees: dict[int, cKDTree], new: _Points, start: FloatArray) -> FloatArray | None:
    """Refine a shift by iterative closest points; None if hardly an atom lies on another."""
    shift = start
    for _ in range(_ROUNDS):
        steps = []
        for kind, tree in trees.items():
            xy = new.xy[new.kind == kind]
            if len(xy):
                far, i = tree.query(xy - shift, distance_upper_bound=_MATCH_A)
                steps.append(xy[np.isfinite(far)] - tree.data[i[np.isfinite(far)]])
        step = np.concatenate(steps) if steps else np.zeros((0, 2))
        if len(step) < 3:
            return None
        moved, shift = shift, np.median(step, axis=0)
        if np.abs(shift - moved).max() < _SETTLED_A:
            break
    return shift


def _alone(old: _Points, new: _Points, shift: FloatArray) -> float:
    """Share of the atoms without a partner in the other frame, of those that both should show."""
    alone = seen = 0.0
    for a, b, by in ((old, new, shift), (new, old, -shift)):
        at = a.xy + by
        inside = _inside(at, b)
        far = cKDTree(b.xy).query(at[inside], distance_upper_bound=_MATCH_A)[0]
        alone += float(a.weight[inside][~np.isfinite(far)].sum())
        seen += float(a.weight[inside].sum())
    return alone / seen if seen else 1.0


def _inside(xy: FloatArray, frame: _Points) -> BoolArray:
    """Places in the field of a frame; the partner of one closer to its border may be outside."""
    low, high = frame.xy.min(axis=0) + _MATCH_A, frame.xy.max(axis=0) - _MATCH_A
    out: BoolArray = ((xy > low) & (xy < high)).all(axis=1)
    return out


def _gap_evidence(old: _Points, new: _Points, shifts: FloatArray) -> FloatArray:
    """Log-likelihood of the gaps of two frames under shifts by lattice vectors, shape (shift,).

    A gap lasts, or is an atom that was missed. Lasting ones are where they were; missed atoms are
    anywhere, so two gaps in one place speak for a shift by the more, the fewer gaps there are.
    """
    vectors = shifts[:, None] - shifts[None]
    vectors = vectors[(vectors != 0.0).any(axis=-1)]
    if not len(vectors):
        return np.zeros(len(shifts))
    shortest = np.hypot(*vectors.T).min()
    vectors = vectors[np.hypot(*vectors.T) < shortest + _MATCH_A]
    before, after = _gaps(old, vectors), _gaps(new, vectors)
    if not len(before) or not len(after):
        return np.zeros(len(shifts))
    rate = min((len(after) + 1.0) / (len(new.xy) + 2.0), 0.5)
    gain = np.log(_LASTING / rate + 1.0 - _LASTING)
    tree, out = cKDTree(after), np.zeros(len(shifts))
    for k, shift in enumerate(shifts):
        at = before + shift
        at = at[_inside(at, new)]
        both = int((tree.query(at)[0] < _MATCH_A).sum()) if len(at) else 0
        out[k] = both * gain + (len(at) - both) * np.log(1.0 - _LASTING)
    return out


def _gaps(frame: _Points, vectors: FloatArray) -> FloatArray:
    """Places without an atom, where at least two atoms a lattice vector away call for one, Å."""
    at = (frame.xy[:, None] + vectors[None]).reshape(-1, 2)
    at = at[_inside(at, frame)]
    at = at[~np.isfinite(cKDTree(frame.xy).query(at, distance_upper_bound=_MATCH_A)[0])]
    called = [np.array(g) for g in touching(at, _MATCH_A / 2.0) if len(g) > 2]
    return np.array([at[g].mean(axis=0) for g in called]).reshape(-1, 2)


def _ways(old: _Points, new: _Points, shift: FloatArray) -> tuple[FloatArray, float]:
    """Squared ways of the impurities under a shift, Å²; cost of those in one frame only, nats."""
    a, b = old.xy[old.rare] + shift, new.xy[new.rare]
    here, there = _inside(a, new), _inside(b - shift, old)
    lost_a, lost_b = old.lost[old.rare][here], new.lost[new.rare][there]
    squared = ((a[here][:, None] - b[there][None]) ** 2).sum(axis=-1)
    cost = np.where(squared < _STAYED_A2, 0.0, _HOP + _FARTHER * squared)
    gain = np.minimum(cost - lost_a[:, None] - lost_b[None], 0.0)
    i, j = linear_sum_assignment(gain)
    paired = gain[i, j] < 0.0
    i, j = i[paired], j[paired]
    lost = lost_a.sum() + lost_b.sum() - lost_a[i].sum() - lost_b[j].sum()
    return squared[i, j], float(lost)


def _site_A2(frame: _Points) -> float:
    """Squared distance of nearest neighbours, Å²."""
    if len(frame.xy) < 2:
        return 1.0
    return float(np.median(cKDTree(frame.xy).query(frame.xy, k=2)[0][:, 1]) ** 2)


def _motion(squared: FloatArray, jumps: float, site_A2: float) -> FloatArray:
    """Log-probability of the squared ways of impurities, Å², that make so many jumps a frame.

    It is not below that of one impurity that was lost and another that came.
    A walk of n steps ends on a site with about the density of a normal distribution whose variance
    per axis is n / 2 squared steps. An atom covers 1.3 squared steps in graphene, less elsewhere.
    """
    variance = max(jumps, 1.0) * site_A2 / 2.0
    ended = 1.3 * site_A2 / (2.0 * np.pi * variance) * np.exp(-squared / (2.0 * variance))
    moved = (1.0 - np.exp(-jumps)) * ended
    out: FloatArray = np.log(
        np.where(squared < _STAYED_A2, np.exp(-jumps) + moved, moved) + np.exp(-2.0 * _LOST)
    )
    return out


def _choose(pairs: list[_Candidates], site_A2: float, reach_A: float) -> FloatArray:
    """Choose one shift for each pair of frames, shape (pair, 2), Å.

    The drift of the frames around and the jumps of the impurities follow from the choice, so both
    are repeated, from two starts: a drift that varies, and impurities that jump. The likelier end
    is taken.
    """
    if not pairs:
        return np.zeros((0, 2))
    ends = [_settle(pairs, site_A2, reach_A, *start) for start in _STARTS]
    return max(ends, key=lambda end: end[1])[0]


def _settle(
    pairs: list[_Candidates], site_A2: float, reach_A: float, scale: float, jumps: float
) -> tuple[FloatArray, float]:
    """Shifts from one start of the scale of the steps, Å, and jumps a frame; log-probability."""
    span = np.array([p.span for p in pairs], dtype=np.float64)
    speed, steps, total = np.zeros((len(pairs), 2)), np.zeros((len(pairs), 2)), 0.0
    around = [slice(max(k - _AROUND, 0), k + _AROUND + 1) for k in range(len(pairs))]
    for _ in range(_ROUNDS):
        ways, total = [np.zeros(1)], 0.0
        for k, pair in enumerate(pairs):
            variance = scale**2 * span[k]
            away = ((pair.shift - speed[k] * span[k]) ** 2).sum(axis=1)
            usual = np.exp(-away / (2.0 * variance)) / (2.0 * np.pi * variance)
            prior = np.log(usual + _STAGE_JUMPS / (np.pi * reach_A**2))
            moved = [_motion(m, jumps * span[k], site_A2).sum() for m in pair.moved]
            score = pair.evidence + prior + np.array(moved)
            best = int(np.argmax(score))
            steps[k], total = pair.shift[best], total + float(score[best])
            ways.append(pair.moved[best] / span[k])
        each = steps / span[:, None]
        if len(pairs) > _AROUND:  # the median of fewer would be the step itself
            speed = np.array([np.median(each[part], axis=0) for part in around])
        off = np.hypot(*(each - speed).T) * np.sqrt(span)
        least = _LEAST_SCALE_A if len(pairs) > _AROUND else _USUAL_SCALE_A
        scale = max(float(np.median(off)) / _MEDIAN, least)
        seen = np.concatenate(ways)
        jumps = max(float(np.where(seen < _STAYED_A2, 0.0, seen).mean()) / site_A2, _LEAST_JUMPS)
    return steps, total


def _without_wander(points: list[_Points], total: FloatArray) -> FloatArray:
    """Compare every frame with a reference long before it, so that small errors do not add up."""
    out, reference = total.copy(), 0
    for k in range(1, len(points)):
        new = points[k]
        start = out[k - 1] + total[k] - total[k - 1]
        kept = np.prod(np.clip(1.0 - np.abs(start - out[reference]) / new.size, 0.0, 1.0))
        old = points[reference]
        trees = {int(n): cKDTree(old.xy[old.kind == n]) for n in np.unique(old.kind)}
        refined = _closest(trees, new, start - out[reference])
        out[k] = start if refined is None else out[reference] + refined
        if kept < _KEPT:
            reference = k
    return out
