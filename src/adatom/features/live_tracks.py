"""Follow atoms from frame to frame as the frames come; memory does not grow with their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core.arrays import BoolArray, FloatArray, IntArray

_SAME = 0.4  # of the distance of neighbours: nearer atoms of two frames are the same one
_ROUNDS = 4  # of closest points
# Share of the atoms that a shift lays on known ones, from which it is taken if impurities agree
_SURE_SHARE = 0.8
_STRANGE_NATS = 2.0  # cost of an atom beside known ones: one in eight is missed or false
_RARE_NATS = 3.0  # of an impurity not on a known one: it hops between frames one time in twenty
_SAME_SHIFT_A = 2e-3  # Å: shifts that differ less are one; closest points end within 1e-3
_OVERLAP = 0.7  # of the atoms that the usual shift lays beside known ones, another must lay so many
# A place is known where so many of its nearest known atoms lie within so many distances of
# neighbours, with their middle nearer than this share of it.
_AROUND, _LEAST_AROUND, _BESIDE, _CENTRED = 6, 3, 1.85, 0.3
_STAGE_JUMP_NATS = 10.0  # most that an unusual step of the stage costs, and half a nat for each Å
_FIRST_STEP_A, _LEAST_STEP_A = 0.5, 0.15  # Å per axis: usual drift from frame to frame
_LEAST_SHARE = 0.65  # below this the frame shows another place
_IMPURITY_SHARE = 0.1  # share of the atoms up to which an element is an impurity
_FORGOTTEN = 30  # frames after which an atom that is missing is forgotten
_KEEP = 0.8  # weight of the place so far against that of a new frame


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """What a frame tells beside its atoms.

    Parameters
    ----------
    shift_xy_A
        Drift of the specimen since the first frame, shape (2,), Å.
    share
        Share of the atoms that are known.
    tracks
        Number of the track of every atom, shape (atom,).
    appeared, vanished
        Places of atoms that are new in an area that was seen before, and of atoms that are gone
        from the field, shape (event, 2), Å, without drift.
    moved
        Atoms that changed places with another: element, and both places, Å, without drift.
    lost
        True where the frame could not be laid on the earlier ones, and following began anew.
    """

    shift_xy_A: FloatArray
    share: float
    tracks: IntArray
    appeared: FloatArray
    vanished: FloatArray
    moved: tuple[tuple[str, tuple[float, float], tuple[float, float]], ...]
    lost: bool


class LiveTracks:
    """Atoms as they are known after the frames so far.

    Parameters
    ----------
    spacing_A
        Distance of neighbours, Å.
    reach_A
        Largest drift from frame to frame, Å.
    start_xy_A
        Drift at the start, Å.

    Examples
    --------
    >>> rows, cols = np.mgrid[:6, :6] * 1.4
    >>> xy = np.stack([cols.ravel(), rows.ravel()], axis=1)
    >>> before, after = np.full(36, "C", dtype="<U2"), np.full(36, "C", dtype="<U2")
    >>> before[14], after[15] = "Si", "Si"
    >>> tracks = LiveTracks(1.4)
    >>> _ = tracks.see(xy, before, xy.min(0), xy.max(0))
    >>> seen = tracks.see(xy + 0.2, after, xy.min(0), xy.max(0))
    >>> seen.shift_xy_A.round(2).tolist(), seen.moved
    ([0.2, 0.2], (('Si', (2.8, 2.8), (4.2, 2.8)),))
    """

    def __init__(
        self,
        spacing_A: float,
        reach_A: float = 3.0,
        start_xy_A: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self._same_A, self._reach_A = _SAME * spacing_A, reach_A
        self._beside_A = _BESIDE * spacing_A
        self._shift = np.asarray(start_xy_A, dtype=np.float64)
        self._next, self._step_A = 0, _FIRST_STEP_A
        self._begin(np.zeros((0, 2)), np.zeros(0, dtype=str))

    @property
    def shift_xy_A(self) -> FloatArray:
        """Drift of the specimen at the last frame, shape (2,), Å."""
        return self._shift

    def see(
        self,
        xy: FloatArray,
        elements: NDArray[np.str_],
        low_xy: FloatArray,
        high_xy: FloatArray,
    ) -> Followed:
        """Take the atoms of the next frame.

        Parameters
        ----------
        xy
            Shape (atom, 2), Å, in the axes of the stage.
        elements
            Shape (atom,).
        low_xy, high_xy
            Corners of the area in which atoms can be seen, shape (2,), Å.
        """
        nothing = np.zeros((0, 2))
        if not len(xy):
            return Followed(
                self._shift, 0.0, np.zeros(0, np.int64), nothing, nothing, (), lost=False
            )
        first = not len(self._xy)
        shift, share = (self._shift, 1.0) if first else self._drift(xy, elements)
        if first or share < _LEAST_SHARE:
            self._begin(xy - self._shift, elements)
            return Followed(
                self._shift, share, self._number.copy(), nothing, nothing, (), lost=not first
            )
        self._shift = shift
        return self._match(xy - shift, elements, share, low_xy - shift, high_xy - shift)

    def _begin(self, xy: FloatArray, elements: NDArray[np.str_]) -> None:
        self._xy, self._elements = xy.copy(), elements.astype(object)
        self._missing = np.zeros(len(xy), dtype=np.int64)
        self._number = np.arange(self._next, self._next + len(xy))
        self._next += len(xy)

    def _drift(self, xy: FloatArray, elements: NDArray[np.str_]) -> tuple[FloatArray, float]:
        """Find the likeliest shift, and the share of the atoms that it lays on known ones.

        A crystal lies on itself after a shift by a lattice vector. What the stage usually does, and
        impurities, decide between those.
        """
        here = self._missing == 0
        here = here if here.any() else np.ones(len(here), dtype=bool)
        tree, known = cKDTree(self._xy[here]), self._elements[here]
        rare = elements != _commonest(self._elements)

        def unusual(shift: FloatArray) -> float:
            step = float(np.sum((shift - self._shift) ** 2))
            return float(min(0.5 * step / self._step_A**2, _STAGE_JUMP_NATS + 0.5 * step**0.5))

        def nats(shift: FloatArray) -> tuple[float, float, int, bool]:
            away, nearest = tree.query(xy - shift)
            same = away < self._same_A
            seen = same | self._surrounded(tree, xy - shift)  # outside, nothing is known
            agrees = same & (known[nearest] == elements)
            strange = _STRANGE_NATS * (seen & ~same).sum() + _RARE_NATS * (rare & ~agrees).sum()
            share = float(same.sum() / max(seen.sum(), 1))
            return (
                -unusual(shift) - float(strange),
                share,
                int(seen.sum()),
                bool(agrees[rare].all()),
            )

        best, _ = self._settled(tree, xy, self._shift)
        most, share, overlap, agree = nats(best)
        if share < _SURE_SHARE or not agree:
            grid = np.arange(-self._reach_A, self._reach_A + 1e-9, self._same_A)
            tried = [best]
            for start in np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2):
                # The step alone makes what is farther less likely than the best so far. A start
                # within a cell of the grid leads to each shift.
                back = max(1.0 - self._same_A / max(float(np.linalg.norm(start)), 1e-9), 0.0)
                if -unusual(self._shift + back * start) <= most:
                    continue
                shift, _ = self._settled(tree, xy, self._shift + start)
                known_one = np.abs(np.array(tried) - shift).max(axis=1).min() < _SAME_SHIFT_A
                if known_one or -unusual(shift) <= most:
                    continue
                tried.append(shift)
                value, laid, common, _ = nats(shift)
                if value > most and common > _OVERLAP * overlap:
                    best, most, share = shift, value, laid
        step = min(float(np.linalg.norm(best - self._shift)), 3 * self._step_A)
        self._step_A = max(_LEAST_STEP_A, 0.9 * self._step_A + 0.1 * step)
        return best, share

    def _surrounded(self, tree: cKDTree, xy: FloatArray) -> BoolArray:
        """Whether known atoms are on all sides of each place."""
        away, nearest = tree.query(xy, k=_AROUND, distance_upper_bound=self._beside_A)
        there = np.isfinite(away)
        points = np.concatenate([tree.data, np.zeros((1, 2))])[nearest]
        points = np.where(there[..., None], points - xy[:, None], 0.0)
        count = there.sum(axis=1)
        centre = points.sum(axis=1) / np.maximum(count, 1)[:, None]
        out: BoolArray = (count >= _LEAST_AROUND) & (
            np.linalg.norm(centre, axis=1) < _CENTRED * self._beside_A
        )
        return out

    def _settled(
        self, tree: cKDTree, xy: FloatArray, guess: FloatArray
    ) -> tuple[FloatArray, float]:
        shift, share = guess, 0.0
        for _ in range(_ROUNDS):
            away, nearest = tree.query(xy - shift, distance_upper_bound=self._same_A)
            same = np.isfinite(away)
            share = float(same.mean())
            if not same.any():
                break
            step = np.median(xy[same] - shift - tree.data[nearest[same]], axis=0)
            shift = shift + step
            if np.abs(step).max() < 1e-3:
                break
        return shift, share

    def _match(
        self,
        xy: FloatArray,
        elements: NDArray[np.str_],
        share: float,
        low: FloatArray,
        high: FloatArray,
    ) -> Followed:
        away, nearest = cKDTree(self._xy).query(xy, distance_upper_bound=self._same_A)
        old = np.isfinite(away)
        known = nearest[old]
        changed = self._elements[known] != elements[old]
        moved = self._moves(known[changed], elements[old][changed])
        self._xy[known] += (1 - _KEEP) * (xy[old] - self._xy[known])
        self._elements[known] = elements[old]
        seen = np.zeros(len(self._xy), dtype=bool)
        seen[known] = True
        rim = 2 * self._same_A  # at the border, atoms come and go with the noise
        inside = np.all((self._xy > low + rim) & (self._xy < high - rim), axis=1)
        gone = inside & ~seen & (self._missing == 0)
        vanished = self._xy[gone].copy()
        self._missing = np.where(seen, 0, self._missing + (inside & ~seen))
        tracks = np.empty(len(xy), dtype=np.int64)
        tracks[old] = self._number[known]
        tracks[~old] = np.arange(self._next, self._next + (~old).sum())
        # An atom beside known ones is new; where nothing was known, the field has moved.
        near = cKDTree(self._xy).query(xy[~old])[0] < 4 * self._same_A
        near &= np.all((xy[~old] > low + rim) & (xy[~old] < high - rim), axis=1)
        appeared = xy[~old][near]
        self._add(xy[~old], elements[~old])
        return Followed(self._shift, share, tracks, appeared, vanished, moved, lost=False)

    def _add(self, xy: FloatArray, elements: NDArray[np.str_]) -> None:
        """Add new atoms, and forget those that are missing for long."""
        keep: BoolArray = self._missing < _FORGOTTEN
        self._xy = np.concatenate([self._xy[keep], xy])
        self._elements = np.concatenate([self._elements[keep], elements.astype(object)])
        self._missing = np.concatenate([self._missing[keep], np.zeros(len(xy), dtype=np.int64)])
        new = np.arange(self._next, self._next + len(xy))
        self._number = np.concatenate([self._number[keep], new])
        self._next += len(xy)

    def _moves(
        self, sites: IntArray, now: NDArray[np.str_]
    ) -> tuple[tuple[str, tuple[float, float], tuple[float, float]], ...]:
        """Pair sites that an element left with the nearest ones where it came."""
        out, before = [], self._elements[sites]
        for element in sorted(set(now.tolist())):
            came = [int(s) for s, e in zip(sites, now, strict=True) if e == element]
            left = [int(s) for s, e in zip(sites, before, strict=True) if e == element]
            # An exchange moves both elements: it is told once, of the rarer one. Between the
            # elements of a crystal it is a wrong element, as a rule.
            if (self._elements == element).sum() > _IMPURITY_SHARE * len(self._elements):
                continue
            for start in left:
                if came:
                    away = np.linalg.norm(self._xy[came] - self._xy[start], axis=1)
                    end = came.pop(int(np.argmin(away)))
                    (x, y), (u, v) = self._xy[start].round(3), self._xy[end].round(3)
                    out.append((element, (float(x), float(y)), (float(u), float(v))))
        return tuple(out)


def _commonest(elements: NDArray[np.object_]) -> str:
    values, counts = np.unique(elements.astype(str), return_counts=True)
    return str(values[np.argmax(counts)])
