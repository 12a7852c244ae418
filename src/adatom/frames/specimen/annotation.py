"""Text and bars that a program wrote into a frame with its highest or lowest value.

A letter has edges that are sharper than any spot of the probe, and a line of text is a small part
of the frame. Clipped atoms have the same value everywhere but soft edges, and lie all over it.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adatom.core.arrays import BoolArray, Image
from adatom.frames.specimen.letters import lines_of_text
from adatom.frames.specimen.levels import Levels

_SAMPLE = 2**16  # most pixels of which the median is taken
_LEAST_EXACT = 6  # pixels that have the value: fewer are chance
_SHARP = 0.85  # least share of the way to the frame's median that is covered two pixels outside
# A value nearer to the median, in its robust standard deviations, is no annotation, and one nearer
# than the second limit no text either.
_FAR_SD, _FAR_TEXT_SD = 1.5, 0.8
_GAP = 0.8  # half of the largest gap between letters or words, in units of their height
_LEAST_GAP_PX = 4  # the same at least, pixels
_TALLEST = 0.2  # tallest line of text, share of the frame's rows
_LARGEST = 0.25  # largest annotation, share of the frame
_OWN = 0.8  # least share of the pixels of the value that annotation has, if there is no bar
_RIM_PX = 2  # rim that is masked around annotation, pixels: letters have soft edges
_LEAST_LETTERS, _MOST_LETTERS = 2, 100  # strokes of a text, and of all text
_PLAIN = 0.1  # least share of the pixels of text that have the value itself
# Beside a bar a label is expected: strokes may have softer edges there, among a bright lattice.
_SHARP_BY_BAR, _PLAIN_BY_BAR = 0.6, 0.2
_LABEL = 0.1  # reach of a label from its bar, share of the frame's rows
_LONG = 1.8  # a stroke longer than this, in widths, is no spot
_OPEN = 0.6  # nor is one that fills less of its box: a round spot fills 0.79


def annotation(image: Image, levels: Levels, masked: BoolArray, bars: BoolArray) -> BoolArray:
    """Find text, and small bars, in the frame's highest or lowest value.

    Parameters
    ----------
    image
        Shape (row, col), intensity.
    levels
        Its grey levels.
    masked
        Pixels that are known not to be specimen, shape (row, col).
    bars
        Those of them in bars and boxes: text near a bar is its label.

    Returns
    -------
    Shape (row, col): the rectangles around annotation.
    """
    out = np.zeros(image.shape, dtype=np.bool_)
    seen = image[~masked]
    seen = seen[:: max(seen.size // _SAMPLE, 1)]
    if seen.size < 64:
        return out
    middle = float(np.median(seen))
    spread = 1.4826 * float(np.median(np.abs(seen - middle)))
    for value in (levels.high, levels.low):
        away = abs(value - middle)
        if away > _FAR_TEXT_SD * spread and away > levels.same:
            plain = away > _FAR_SD * spread
            out |= _written_in(image, value, middle, levels.same, masked, bars, plain=plain)
    return out & ~masked


def _written_in(
    image: Image, value: float, middle: float, same: float, masked: BoolArray, bars: BoolArray,
    *, plain: bool,
) -> BoolArray:  # fmt: skip
    """Rectangles around the sharp strokes of one value; those of any form only if it is plain."""
    out = np.zeros(image.shape, dtype=np.bool_)
    exact = (np.abs(image - value) <= same) & ~masked
    count = int(exact.sum())
    if count > _LARGEST * image.size:
        return out
    # Letters are smoothed at their edges: a stroke is all that reaches half way to the value.
    fallen = (value - image) / (value - middle)
    strokes = (fallen < 0.5) & ~masked
    labels, _ = ndimage.label(strokes, np.ones((3, 3)))
    sharp = cache(partial(_sharpness, labels, fallen))
    by_bar = _surroundings(bars, masked & ~bars)
    for box in lines_of_text(labels, fallen, masked, sharp, by_bar):
        out[_to_box(image, _with_rim(*box), same)] = True
    if count < _LEAST_EXACT or not plain:
        return out
    sharpness = sharp()
    written = np.unique(labels[exact])
    beside = np.unique(labels[exact & by_bar])
    written = np.union1d(
        written[sharpness[written] > _SHARP], beside[sharpness[beside] > _SHARP_BY_BAR]
    )
    if not 0 < len(written) <= _MOST_LETTERS:
        return out
    strokes = np.isin(labels, written)
    boxes = ndimage.find_objects(labels)
    height = float(np.median([boxes[k - 1][0].stop - boxes[k - 1][0].start for k in written]))
    gap = int(max(_GAP * height, _LEAST_GAP_PX))
    groups, _ = ndimage.label(ndimage.maximum_filter(strokes, 2 * gap + 1))
    for k, (rows, cols) in enumerate(ndimage.find_objects(groups), start=1):
        own = strokes[rows, cols] & (groups[rows, cols] == k)
        true = int((own & exact[rows, cols]).sum())
        r, c = np.nonzero(own)
        if np.ptp(r) > _TALLEST * image.shape[0]:
            continue
        letters = np.where(own, labels[rows, cols], 0)
        alone = true >= max(_OWN * count, _PLAIN * len(r)) and _is_text(letters)
        if alone or ((own & by_bar[rows, cols]).any() and true >= _PLAIN_BY_BAR * len(r)):
            top, left = int(r.min()) + rows.start, int(c.min()) + cols.start
            box = slice(top, top + int(np.ptp(r)) + 1), slice(left, left + int(np.ptp(c)) + 1)
            out[_to_box(image, _with_rim(*box), same)] = True
    return out


def _with_rim(rows: slice, cols: slice) -> tuple[slice, slice]:
    top, left = (max(s.start - _RIM_PX, 0) for s in (rows, cols))
    return slice(top, rows.stop + _RIM_PX), slice(left, cols.stop + _RIM_PX)


def _to_box(image: Image, box: tuple[slice, slice], same: float) -> tuple[slice, slice]:
    """Grow the rectangle of a text to that of the box around it, line by line of one value."""
    low = [along.start for along in box]
    high = [min(along.stop, n) for along, n in zip(box, image.shape, strict=True)]
    lines = {
        (0, -1): lambda: image[low[0] - 1, low[1] : high[1]],
        (0, 1): lambda: image[high[0], low[1] : high[1]],
        (1, -1): lambda: image[low[0] : high[0], low[1] - 1],
        (1, 1): lambda: image[low[0] : high[0], high[1]],
    }
    grown = True
    while grown:
        grown = False
        for (axis, side), line in lines.items():
            free = low[axis] > 0 if side < 0 else high[axis] < image.shape[axis]
            if free and np.ptp(line()) <= same:
                low[axis] -= side < 0
                high[axis] += side > 0
                grown = True
    return slice(low[0], high[0]), slice(low[1], high[1])


def _is_text(letters: NDArray[np.int32]) -> bool:
    """Whether several strokes stand together, one of them no round spot."""
    numbers = np.unique(letters[letters > 0])
    if len(numbers) < _LEAST_LETTERS:
        return False
    for k in numbers:
        rows, cols = np.nonzero(letters == k)
        tall, wide = int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1
        if max(tall, wide) > _LONG * min(tall, wide) or len(rows) < _OPEN * tall * wide:
            return True
    return False


def _surroundings(bars: BoolArray, border: BoolArray) -> BoolArray:
    """Where a bar's label may stand; the rest of a line at the end of a half scan is no bar."""
    if border.any() and bars.any():
        labels, _ = ndimage.label(bars, np.ones((3, 3)))
        bars = bars & ~np.isin(labels, labels[ndimage.maximum_filter(border, 3)])
    if not bars.any():
        return bars
    reach = max(int(_LABEL * bars.shape[0]), _LEAST_GAP_PX)
    near: BoolArray = ndimage.maximum_filter(bars, 2 * reach + 1)
    return near


def _sharpness(labels: NDArray[np.int32], fallen: Image) -> NDArray[np.float64]:
    """How far each part falls to the level of the frame within two pixels, shape (part + 1,)."""
    inner = labels > 0
    ring = ndimage.maximum_filter(labels, 5)
    ring[ndimage.maximum_filter(inner, 3)] = 0
    count = int(labels.max()) + 1
    total = np.bincount(ring.ravel(), weights=fallen.ravel(), minlength=count)
    number = np.bincount(ring.ravel(), minlength=count)
    out = total / np.maximum(number, 1)
    out[0] = 0.0
    return np.asarray(out, dtype=np.float64)
