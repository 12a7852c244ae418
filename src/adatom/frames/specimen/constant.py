"""Parts of a frame with constant values: padding, corners after a rotation, boxes, bars.

A detector's noise makes equal neighbours rare. A square block of equal pixels, as large as chance
does not give one, was not recorded. In frames of few counts many pixels are zero, so the block
must be larger there, and the part must have straight edges: a hole of a specimen has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from adatom.core.arrays import BoolArray, Image
from adatom.frames.specimen.levels import Levels

_SMALLEST_BLOCK = 3  # pixels: bars are seldom thinner
_LARGEST_BLOCK = 41  # pixels: in frames where chance gives larger ones, only whole lines count
_LOG_CHANCE = -18.0  # logarithm of the chance that a frame has one such block by accident
_FEW_SQUARES = 200  # fewer squares are drawn one by one
_TILE = 32  # edge of the tiles in which the share of equal neighbours is measured, pixels
_BUSY_TILES = 90  # percentile over the tiles: holes have more equal neighbours than the rest
_FULL = 0.97  # least share of the rim of a box that has its value
# A box of the highest or lowest value ends within two pixels, a clipped atom does not: least share
# of the way to the frame's median.
_SHARP = 0.7
_AROUND_PX = 8  # distance at which the level round a box is measured, pixels
_BOX = 0.4  # least share of a whole box: text and bars have the rest
_HULL = 0.93  # least share of its convex hull that a corner or strip has
_LEAST_PIXELS = 36  # smaller boxes may be clipped atoms
_LARGER = (0, 2, 6)  # how much larger than needed blocks are tried, pixels
_MOST_PARTS = 40  # parts of which pairs are tried
_LEAST_CORNER = 40  # least pixels of a corner that is no rectangle


@dataclass(frozen=True, slots=True, eq=False)
class ConstantParts:
    """Parts with constant values.

    Parameters
    ----------
    border
        Parts that touch the frame's border, shape (row, col).
    inner
        Parts inside the frame, same shape: boxes and bars.
    """

    border: BoolArray
    inner: BoolArray


def constant_parts(image: Image, levels: Levels) -> ConstantParts:
    """Find the parts of a frame that have constant values and were not recorded.

    Parameters
    ----------
    image
        Shape (row, col), intensity.
    levels
        Its grey levels.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.frames.specimen.levels import grey_levels
    >>> image = np.random.default_rng(0).normal(5.0, 1.0, (64, 64)).astype(np.float32)
    >>> image[:10] = 4.0
    >>> constant_parts(image, grey_levels(image)).border.sum(axis=1).tolist()[8:12]
    [64, 64, 0, 0]
    """
    corners, equal, edge = _corners(image, levels.same)
    border = _whole_lines(image, levels.same, equal)
    inner = np.zeros_like(border)
    middle = float(np.median(image[::2, ::2]))
    # Dark specimen clings to a box: larger blocks leave it.
    searches = [(corners, edge, larger) for larger in (_LARGER if edge else ())]
    if edge != _SMALLEST_BLOCK:
        # In few counts chance makes blocks of zeros; of other values it makes far smaller ones.
        rare, _, least = _corners(image, levels.same, _usual_value(image, levels))
        searches += [(rare, least, larger) for larger in (_LARGER if least else ())]
    for searched, edge, larger in searches:
        blocks = _blocks(searched, edge + larger)
        labels, count = ndimage.label(blocks & ~border & ~inner, np.ones((3, 3)))
        boxes = ndimage.find_objects(labels)[:count]
        parts = [labels[box] == k for k, box in enumerate(boxes, start=1)]
        values = [float(np.median(image[box][p])) for box, p in zip(boxes, parts, strict=True)]
        for box, value in [*zip(boxes, values, strict=True), *_pairs(boxes, values, levels.same)]:
            soft = _is_extreme(value, levels) and _edge_fall(image, box, value, middle) < _SHARP
            if _is_box(image[box], value, levels.same) and not soft:
                (border if _spans(box, image.shape) else inner)[box] = True
        for k, (box, part, value) in enumerate(zip(boxes, parts, values, strict=True), start=1):
            corner = _touches(box, image.shape) and part.sum() >= _LEAST_CORNER
            if corner and not (border | inner)[box][part].all() and _hull_share(part) > _HULL:
                equals = np.abs(image - value) <= levels.same
                border |= _regrown(labels == k, equals, edge + larger)
    return ConstantParts(border, inner)


def _is_extreme(value: float, levels: Levels) -> bool:
    return value - levels.low <= levels.same or levels.high - value <= levels.same


def _edge_fall(image: Image, box: tuple[slice, slice], value: float, middle: float) -> float:
    """Share of the way from the value to the specimen's level that the pixels round a box cover.

    The level is the frame's median, or the mean some pixels away where the box lies in a darker or
    brighter part.
    """
    ring = _ring(image, box, 2)
    if value == middle or not len(ring):
        return np.inf
    near, around = float(ring.mean()), _ring(image, box, _AROUND_PX)
    shares = [(value - near) / (value - middle)]
    if len(around) and (value - around.mean()) * (value - middle) > 0:
        shares.append((value - near) / (value - float(around.mean())))
    return max(shares)


def _ring(image: Image, box: tuple[slice, slice], away: int) -> Image:
    """Pixels round a box, so many pixels away from it."""
    (top, bottom), (left, right) = ((s.start - away, s.stop + away - 1) for s in box)
    lines = [image[r, max(left, 0) : right + 1] for r in (top, bottom) if 0 <= r < len(image)]
    lines += [image[max(top, 0) : bottom + 1, c] for c in (left, right) if 0 <= c < image.shape[1]]
    return np.concatenate(lines) if lines else np.zeros(0, dtype=image.dtype)


def _pairs(
    boxes: list[tuple[slice, slice]], values: list[float], same: float
) -> list[tuple[tuple[slice, slice], float]]:
    """Rectangles around two parts of one value, one above the other: a box with text between."""
    out = []
    for i, j in combinations(range(min(len(boxes), _MOST_PARTS)), 2):
        (ri, ci), (rj, cj) = boxes[i], boxes[j]
        common = min(ci.stop, cj.stop) - max(ci.start, cj.start)
        wide = max(ci.stop, cj.stop) - min(ci.start, cj.start)
        if abs(values[i] - values[j]) <= same and common >= 0.8 * wide:
            rows = slice(min(ri.start, rj.start), max(ri.stop, rj.stop))
            cols = slice(min(ci.start, cj.start), max(ci.stop, cj.stop))
            out.append(((rows, cols), values[i]))
    return out


def _is_box(image: Image, value: float, same: float) -> bool:
    """Whether a rectangle has one value all round and in most of its inside: text is in boxes."""
    equal = np.abs(image - value) <= same
    if equal.size < _LEAST_PIXELS:
        return False
    rim = np.concatenate([equal[0], equal[-1], equal[1:-1, 0], equal[1:-1, -1]])
    return bool(rim.mean() >= _FULL and equal.mean() >= _BOX)


def _regrown(part: BoolArray, equal: BoolArray, edge: int) -> BoolArray:
    """Add what the squares did not reach: the tips of a part, up to the edge of a square."""
    reach = ndimage.binary_dilation(part, np.ones((3, 3)), iterations=edge)
    thick = ndimage.binary_opening(equal & reach, np.ones((2, 2)))
    out: BoolArray = ndimage.binary_propagation(part, mask=thick | part)
    return out


def _usual_value(image: Image, levels: Levels) -> float:
    """Value that most pixels have."""
    if levels.step is None:
        return levels.low
    level = np.round((image - levels.low) / levels.step).astype(np.int64)
    return levels.low + levels.step * int(np.bincount(level.ravel()).argmax())


def _corners(
    image: Image, same: float, without: float | None = None
) -> tuple[BoolArray, float, int]:
    """Find the least edge of a square of equal pixels that chance does not make.

    Parameters
    ----------
    image
        Shape (row, col), intensity.
    same
        Values that differ by no more are equal, intensity.
    without
        Value whose pixels equal none.

    Returns
    -------
    Pixels that equal the next one in both directions, shape (row - 1, col - 1); share of equal
    neighbours; and the edge, pixels: 0 if chance makes squares of every size.
    """
    right = np.abs(np.diff(image, axis=1)) <= same
    down = np.abs(np.diff(image, axis=0)) <= same
    if without is not None:
        other = np.abs(image - without) > same
        right, down = right & other[:, 1:], down & other[1:]
    corners = right[:-1] & down[:, :-1]
    edge = _SMALLEST_BLOCK
    while True:
        equal = _equal_neighbours(right, _rectangles(corners, edge, edge))
        # Pixels of an independent value p are equal in pairs with probability p², and all n of a
        # block with probability p^n: the square root of that of the pairs, to the power n.
        log_chance = np.log(image.size) + 0.5 * edge**2 * np.log(max(equal, 1e-12))
        if log_chance < _LOG_CHANCE:
            return corners, equal, edge
        if edge > _LARGEST_BLOCK or edge > min(image.shape) // 3:
            return corners, equal, 0
        edge += 2


def _blocks(corners: BoolArray, edge: int) -> BoolArray:
    """Pixels in squares of equal pixels, and in bars as improbable as these."""
    flat = _rectangles(corners, edge, edge)
    if edge > _SMALLEST_BLOCK:
        long = -(-(edge**2) // _SMALLEST_BLOCK)
        flat |= _rectangles(corners, _SMALLEST_BLOCK, long)
        flat |= _rectangles(corners, long, _SMALLEST_BLOCK)
    return flat


def _rectangles(corners: BoolArray, height: int, width: int) -> BoolArray:
    """Pixels of the rectangles whose `corners`, shape (row - 1, col - 1), are all True.

    Shifts are combined in powers of two: a filter of scipy takes twenty times as long.
    """
    whole = corners
    for axis, size in enumerate((height, width)):
        lines = np.moveaxis(whole, axis, 0)
        have, need = 1, size - 1
        while have < need:
            more = min(have, need - have)
            lines = lines[:-more] & lines[more:]
            have += more
        whole = np.moveaxis(lines, 0, axis)
    out = np.zeros((corners.shape[0] + 1, corners.shape[1] + 1), dtype=np.bool_)
    for r, c in np.argwhere(whole) if whole.sum() < _FEW_SQUARES else ():
        out[r : r + height, c : c + width] = True
    if whole.sum() >= _FEW_SQUARES:
        out[: whole.shape[0], : whole.shape[1]] = whole
        for axis, size in enumerate((height, width)):
            lines = np.moveaxis(out, axis, 0)
            have = 1
            while have < size:
                more = min(have, size - have)
                lines[more:] |= lines[:-more].copy()
                have += more
    return out


def _equal_neighbours(right: BoolArray, left_out: BoolArray) -> float:
    """Share of pixels equal to their right neighbour, in tiles where that is most frequent."""
    used = ~(left_out[:, 1:] & left_out[:, :-1])
    starts = [np.arange(0, max(n - _TILE // 2, 1), _TILE) for n in right.shape]

    def per_tile(image: BoolArray) -> NDArray[np.int64]:
        by_row = np.add.reduceat(image, starts[0], axis=0, dtype=np.int64)
        return np.asarray(np.add.reduceat(by_row, starts[1], axis=1))

    number, hits = per_tile(used), per_tile(right & used)
    enough = number > 0.3 * number.max(initial=1)
    return float(np.percentile(hits[enough] / number[enough], _BUSY_TILES)) if enough.any() else 0.0


def _whole_lines(image: Image, same: float, equal: float) -> BoolArray:
    """Lines at the border that are constant over their whole length, side by side."""
    out = np.zeros(image.shape, dtype=np.bool_)
    low, high = [0, 0], list(image.shape)
    changed = True
    while changed and min(high[0] - low[0], high[1] - low[1]) > 2:
        changed = False
        inner = image[low[0] : high[0], low[1] : high[1]]
        for axis in (0, 1):
            lines = np.moveaxis(inner, axis, 0)
            constant = np.ptp(lines.reshape(len(lines), -1), axis=1) <= same
            # A run of dark lines in a frame of few counts is no padding.
            least = int(np.ceil(_LOG_CHANCE / (lines.shape[1] * np.log(max(equal, 1e-12) + 1e-9))))
            first = int(np.argmin(constant)) if not constant.all() else 0
            last = int(np.argmin(constant[::-1])) if not constant.all() else 0
            if first >= max(least, 1):
                low[axis] += first
                changed = True
            if last >= max(least, 1):
                high[axis] -= last
                changed = True
            if changed:
                break
    out[:] = True
    out[low[0] : high[0], low[1] : high[1]] = False
    return out


def _spans(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Whether a rectangle is a strip along a whole side of the frame."""
    whole = any(s.start == 0 and s.stop == n for s, n in zip(box, shape, strict=True))
    return whole and _touches(box, shape)


def _touches(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return any(s.start == 0 or s.stop == n for s, n in zip(box, shape, strict=True))


def _hull_share(part: BoolArray) -> float:
    """Share of the pixels in the convex hull of a part that belong to it."""
    rc = np.argwhere(part ^ ndimage.binary_erosion(part))
    try:
        faces = ConvexHull(rc).equations
    except QhullError:  # all in one line
        return 0.0
    every = np.indices(part.shape).reshape(2, -1)
    inside = (faces[:, :2] @ every + faces[:, 2:] <= 1e-9).all(axis=0)
    return float(part.sum() / inside.sum())
