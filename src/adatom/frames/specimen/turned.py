"""Corners of a frame that was turned in its own size, in which the edge is repeated.

The angle alone says where the corners are: beyond the edges of the turned frame. There values do
not change along the normal of the edge; within it they change alike in all directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adatom.core.arrays import BoolArray, FloatArray, Image, IntArray

OUT = ((-1, -1), (-1, 1), (1, -1), (1, 1))  # the corners: sign of row and column
# Angles that are tried first, degrees: corners of a small turn lie within those of a larger one.
_SMALL = (1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 13.0, 18.0, 24.0, 31.0, 38.0)
_ANGLES = (*_SMALL, 45.0, *(90.0 - a for a in _SMALL))
_NEAR_DEG, _FINE_DEG = 7.0, 0.25  # range and step of the search that follows, degrees
_SAMPLE = 100  # pixels of a corner that are looked at first
_STEP_PX = 1.0  # distance of the pixels that are compared, pixels
_RIM_PX = 2  # pixels nearer to the border of the frame are left out
_BAND_PX = (2.0, 8.0)  # distances inside of the edge with which the corners are compared, pixels
_LEAST_PIXELS, _LEAST_IN_CORNER = 80, 12  # of all corners, and of one that has a say
_CORNERS, _IN_CORNER = 2, 0.5  # corners that must agree, at least, and all but one, with this ratio
# Mean squared change along the streaks over that across them in the corners, relative to the same
# ratio inside: of 280 turned frames it was below 0.3, of 100 recorded ones above 0.6.
_STREAKED = 0.45
# What interpolation leaves of the same ratio in a small turn: constant, and per sine of the angle.
_STREAKED_SMALL = (0.04, 1.6)
_CHANGED = 0.02  # least share of the frame's own change that streaks must have across
# Share of the change across that a pixel must lack along the streaks to be in a corner.
_STEP = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class _Corners:
    """What the corners of a turn show.

    Parameters
    ----------
    number, along, across
        Pixels of each corner, and the squared changes along the streaks and across them, (corner,).
    ratio
        Change along over that across, of all corners, relative to the same ratio inside of them.
    """

    number: NDArray[np.int64]
    along: FloatArray
    across: FloatArray
    ratio: float

    def agree(self, least: float) -> bool:
        """Whether all corners but one that change enough across show streaks."""
        told = (self.number >= _LEAST_IN_CORNER) & (self.across > least * self.number)
        streaked = self.along[told] < _IN_CORNER * self.across[told]
        return int(streaked.sum()) >= max(_CORNERS, int(told.sum()) - 1)


def direction(angle_deg: float, out: tuple[int, int]) -> FloatArray:
    """Unit vector (row, column) out of the frame at a corner, for a turn by an angle."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    # The normals of a turned square's edges are a quarter turn apart: one leaves at each corner.
    return np.array([out[0] * s, out[1] * c] if out[0] * out[1] > 0 else [out[0] * c, out[1] * s])


def turned_corners(image: Image, known: BoolArray) -> BoolArray:
    """Find the corners of a frame that was turned in its own size and repeats its edge there.

    Parameters
    ----------
    image
        Shape (row, col), intensity.
    known
        Pixels that are known not to be specimen, shape (row, col): they tell nothing.

    Returns
    -------
    Shape (row, col).

    Examples
    --------
    >>> image = np.random.default_rng(0).poisson(9.0, (96, 96)).astype(np.float32)
    >>> turned = ndimage.rotate(image, 12.0, reshape=False, order=1, mode="nearest")
    >>> none = np.zeros(image.shape, dtype=bool)
    >>> found = turned_corners(turned, none)
    >>> found[[0, 0, 48], [0, 95, 48]].tolist(), turned_corners(image, none).any().tolist()
    ([True, True, False], False)
    """
    mask = np.zeros(image.shape, dtype=np.bool_)
    usual = float(np.mean(np.diff(image[::3, ::3], axis=0).astype(np.float64) ** 2))
    least = _CHANGED * usual
    free = ~ndimage.maximum_filter(known, 5) if known.any() else None
    swaps = (False,) if image.shape[0] == image.shape[1] else (False, True)
    tried = [(_corners(image, free, a, swap, _SAMPLE), a, swap) for swap in swaps for a in _ANGLES]
    streaked = [
        (found.ratio, angle, swap)
        for found, angle, swap in tried
        if found.ratio < _STREAKED and found.agree(least)
    ]
    if not streaked:
        return mask
    _, near, swap = min(streaked)
    fine = [
        (_corners(image, free, a, swap, image.size), a)
        for a in np.arange(near - _NEAR_DEG, near + _NEAR_DEG + _FINE_DEG, _FINE_DEG).tolist()
        if 0.0 < a < 90.0
    ]
    clear = [(c, a) for c, a in fine if c.ratio < _limit(a) and c.agree(least)]
    if not clear:
        return mask
    # The sum of what the change along lacks is largest where the corners are neither cut nor mixed
    # with the specimen.
    best, angle = max(clear, key=lambda f: float((_STEP * f[0].across - f[0].along).sum()))
    if best.number.sum() < _LEAST_PIXELS:
        return mask
    for out in OUT:
        height, quarter = _height(image.shape, angle, out, swap, 0)
        mask[quarter] |= height > 0.0
    return mask


def _limit(angle: float) -> float:
    """Largest ratio of the changes along and across in the corners of a turn by an angle."""
    sine = np.sin(np.radians(min(angle, 90.0 - angle)))
    return min(_STREAKED, _STREAKED_SMALL[0] + _STREAKED_SMALL[1] * float(sine))


def _height(
    shape: tuple[int, ...], angle: float, out: tuple[int, int], swap: bool, rim: int
) -> tuple[FloatArray, tuple[slice, slice]]:
    """Distance of the pixels of a quarter of the frame beyond the turned edge, and the quarter."""
    middle = (np.array(shape) - 1.0) / 2.0
    along = direction(angle, out)
    own = int(abs(along[1]) > abs(along[0]))
    half = middle[1 - own if swap else own]
    quarter = tuple(
        slice(n - n // 2, n - rim) if o > 0 else slice(rim, n // 2)
        for n, o in zip(shape, out, strict=True)
    )
    row, col = (np.arange(s.start, s.stop) - m for s, m in zip(quarter, middle, strict=True))
    return along[0] * row[:, None] + along[1] * col - half, (quarter[0], quarter[1])


def _corners(image: Image, free: BoolArray | None, angle: float, swap: bool, most: int) -> _Corners:
    """Changes in the corners of a turn by an angle, of at most so many pixels of each."""
    number, sums = np.zeros(len(OUT), dtype=np.int64), np.zeros((2, len(OUT), 2))
    for i, out in enumerate(OUT):
        along = direction(angle, out)
        places = (
            _usual_places(image.shape, angle, out, swap, most)
            if free is None and most <= _SAMPLE
            else _places(image.shape, angle, out, swap, most, free)
        )
        for k, rc in enumerate(places):
            if not rc.size:
                continue
            there = [rc - _STEP_PX * s[:, None] for s in (along, np.array([-along[1], along[0]]))]
            moved = ndimage.map_coordinates(image, np.hstack(there), order=1, mode="nearest")
            change = image[rc[0], rc[1]] - moved.reshape(2, -1).astype(np.float64)
            sums[k, i] = (change**2).sum(axis=1)
            number[i] += 0 if k else rc.shape[1]
    (along_out, across_out), (along_in, across_in) = sums.sum(axis=1).tolist()
    ratio = along_out * across_in / max(across_out * along_in, 1e-300)
    return _Corners(number, sums[0, :, 0], sums[0, :, 1], ratio if across_out else np.inf)


def _places(
    shape: tuple[int, ...], angle: float, out: tuple[int, int], swap: bool, most: int,
    free: BoolArray | None = None,
) -> tuple[IntArray, IntArray]:  # fmt: skip
    """Pixels of a corner and of the band inside of its edge, each shape (2, pixel)."""
    height, quarter = _height(shape, angle, out, swap, _RIM_PX)
    inside = (height < -_BAND_PX[0]) & (height > -_BAND_PX[1])
    first = np.array([[quarter[0].start], [quarter[1].start]])

    def some(chosen: BoolArray) -> IntArray:
        at = np.flatnonzero(chosen if free is None else chosen & free[quarter])
        rc = np.stack(np.unravel_index(at[:: len(at) // most + 1], height.shape))
        return np.asarray(rc + first)

    return some(height > _STEP_PX), some(inside)


# Frames of a movie have one shape: where to look first is found once (0.6 MB for all angles).
_usual_places = lru_cache(maxsize=256)(_places)
