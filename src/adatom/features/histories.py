"""History of a tracked defect: where it came from, and how often it hopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from adatom.core.arrays import BoolArray, FloatArray, IntArray
from adatom.features.neighbours import border_distance

FIRST_SEEN, APPEARED, CAME_IN = "first seen", "appeared", "came into the field"
# A defect may be named one frame late. This far inside of the searched field, Å, it would have been
# named before if it had been there.
_SURELY_SEARCHED_A = 1.0
_NEW_SHARE = 0.3  # weight of a new position in the mean place of a defect that did not hop


@dataclass(frozen=True, slots=True, eq=False)
class SearchedField:
    """Where and when defects were searched.

    Parameters
    ----------
    frames
        Numbers of all analysed frames, ascending.
    drift_xy_A
        Shift of the specimen in each of them, shape (frame, 2), Å; NaN where it is not known.
    extent_xy_A
        Far corner x, y of the frames, Å; None if it is not known.
    border_A
        Defects nearer to the border are not named, Å.
    """

    frames: IntArray
    drift_xy_A: FloatArray
    extent_xy_A: tuple[float, float] | None = None
    border_A: float = 1.5

    @property
    def area_A2(self) -> float:
        """Area of the searched field, Å²; 1 if it is not known."""
        if self.extent_xy_A is None:
            return 1.0
        w, h = self.extent_xy_A
        return max((w - 2.0 * self.border_A) * (h - 2.0 * self.border_A), 1.0)

    def drift_of(self, frames: IntArray) -> FloatArray:
        """Shift of the specimen in frames that were analysed, shape (frame, 2), Å."""
        out: FloatArray = self.drift_xy_A[np.searchsorted(self.frames, frames)]
        return out

    def shown(self, place_xy_A: FloatArray) -> BoolArray:
        """Whether each frame was searched at a place, shape (frame,).

        Parameters
        ----------
        place_xy_A
            Shape (2,), Å, without the drift.

        Examples
        --------
        >>> drift = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
        >>> SearchedField(np.arange(3), drift, (20.0, 20.0)).shown(np.array([0.0, 9.0])).tolist()
        [False, False, True]
        """
        return self._deeper(place_xy_A, self.border_A)

    def scanned(self, place_xy_A: FloatArray) -> BoolArray:
        """Whether the beam came to a place in each frame, as `shown`, shape (frame,)."""
        return self._deeper(place_xy_A, 0.0)

    def _deeper(self, place_xy_A: FloatArray, border_A: float) -> BoolArray:
        if self.extent_xy_A is None:
            return np.ones(len(self.frames), dtype=np.bool_)
        depth = border_distance(place_xy_A + self.drift_xy_A, self.extent_xy_A)
        return np.asarray(depth > border_A)

    def origin(self, frame: int, place_xy_A: FloatArray) -> str:
        """Origin of a defect that is first named in a frame.

        Parameters
        ----------
        frame
            Number of this frame.
        place_xy_A
            Where it is then, shape (2,), Å, without the drift.

        Returns
        -------
        ``first seen`` in the first frame. ``came into the field`` if the drift moved its place over
        the border: it lay outside of the searched field, and since then too near to its edge to
        be sure that it was looked at. Else ``appeared``.

        Examples
        --------
        >>> drift = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
        >>> searched = SearchedField(np.arange(3), drift, (20.0, 20.0))
        >>> searched.origin(2, np.array([0.0, 9.0])), searched.origin(2, np.array([8.0, 9.0]))
        ('came into the field', 'appeared')
        """
        before = self.frames < frame
        if not before.any():
            return FIRST_SEEN
        if self.extent_xy_A is None:
            return APPEARED
        depth = border_distance(place_xy_A + self.drift_xy_A[before], self.extent_xy_A)
        depth = depth[np.isfinite(depth)] - self.border_A
        outside = np.flatnonzero(depth < 0.0)
        if not len(outside) or depth[outside[-1] :].max() > _SURELY_SEARCHED_A:
            return APPEARED
        return CAME_IN


def origins(kinds: Sequence[str], first: str, since: Mapping[int, str] | None = None) -> list[str]:
    """Origin in every frame of a track: that of its first, or the kind that it had before.

    Parameters
    ----------
    kinds
        Its kind in each frame.
    first
        Origin in its first frame.
    since
        Origins from some frames on, by their number in the track, where more is known.

    Examples
    --------
    >>> origins(["V1", "V1", "V2", "V2"], "appeared")
    ['appeared', 'appeared', 'from V1', 'from V1']
    """
    out = [first] * min(len(kinds), 1)
    for before, now in pairwise(kinds):
        out.append(out[-1] if now == before else f"from {before}")
    for start, told in sorted((since or {}).items()):
        same = next((k for k in range(start, len(kinds)) if kinds[k] != kinds[start]), len(kinds))
        out[start:same] = [told] * (same - start)
    return out


def hops(places_xy_A: FloatArray, hop_A: float) -> IntArray:
    """Count the hops of a track up to each of its frames, shape (frame,).

    A hop is a move of at least `hop_A` away from the mean place since the last one. The mean
    follows slowly, so that what is left of the drift is no hop.

    Parameters
    ----------
    places_xy_A
        Positions in its frames, shape (frame, 2), Å, without the drift.
    hop_A
        Shortest hop, Å.

    Examples
    --------
    >>> hops(np.array([[0.0, 0.0], [0.2, 0.1], [1.4, 0.0], [1.5, 0.1], [0.1, 0.0]]), 1.0).tolist()
    [0, 0, 1, 1, 2]
    """
    out = np.zeros(len(places_xy_A), dtype=np.int64)
    mean = places_xy_A[0]
    for k, place in enumerate(places_xy_A[1:], 1):
        hopped = np.hypot(*(place - mean)) >= hop_A
        out[k] = out[k - 1] + hopped
        mean = place if hopped else mean + _NEW_SHARE * (place - mean)
    return out
