"""Lines of text by their letters: strokes that noise does not make, on one baseline.

Of thin smoothed letters hardly a pixel has the value in which they are written. A letter is told by
other things: its pixels are so near to that value that independent ones would not stand together,
the nearest of them reach it, its edges are sharper than those of a spot of the probe, and the next
letter stands on the same line.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adatom.core.arrays import BoolArray, Image

_SAMPLE = 2**14  # most pixels that are sorted
_SHARP = 0.8  # least share of the way to the frame's median that is covered two pixels outside
# Logarithm of the growth of the number of connected shapes with their pixels, at least: shapes of
# s pixels that touch at edges or corners number about 7^s.
_LOG_SHAPES = 1.95
_IMPROBABLE = 12.0  # minus the logarithm of the chance that a frame has such a stroke, at least
_DENSITY, _DENSITY_BY_BAR = 2.0, 0.8  # the same for each pixel of a stroke, at least
# Largest mean distance of the nearest third of a stroke's pixels from the value, as a share of that
# between the value and the frame's median. Of 220 texts in 1,200 simulated frames none was above
# 0.11 (mean of its letters), of what else stood together 19 of 20 were.
_CORE, _CORE_IN_LINE = 0.2, 0.3  # of a letter, and of what stands in a line of them
_LETTERS = (2, 30)  # letters of a line, at least and at most
_GAP, _LEAST_GAP_PX = 0.8, 4  # half of the largest gap in a line, in heights and in pixels
_BASELINE = 0.1  # largest median distance of letters from their baseline, in heights
_LINE = 1.6  # largest height of a line, in heights of its tallest letter
_TALLEST = 0.12  # tallest letter and line, share of the frame's rows
_MOST_STROKES = 400  # with more of them the frame is full of such parts

Box = tuple[slice, slice]


def lines_of_text(
    labels: NDArray[np.int32],
    fallen: Image,
    masked: BoolArray,
    sharpness: Callable[[], NDArray[np.float64]],
    by_bar: BoolArray,
) -> list[Box]:
    """Find lines of text.

    Parameters
    ----------
    labels
        Number of each pixel's stroke, 0 outside of all, shape (row, col).
    fallen
        Distance of each pixel from the value of the text, in units of that of the frame's median,
        shape (row, col).
    masked
        Pixels that are known not to be specimen, shape (row, col).
    sharpness
        Gives the mean of `fallen` around each stroke, shape (stroke + 1,).
    by_bar
        Where the label of a bar may stand, shape (row, col): one letter is enough there.

    Returns
    -------
    The rows and columns of each line.

    Examples
    --------
    >>> from PIL import Image as Picture, ImageDraw
    >>> page = Picture.new("F", (96, 64), 0.0)
    >>> ImageDraw.Draw(page).text((20, 30), "10 nm", fill=9.0)
    >>> image = np.random.default_rng(0).normal(0.0, 1.0, (64, 96)) + np.asarray(page)
    >>> fallen = (9.0 - image) / 9.0
    >>> labels, count = ndimage.label(fallen < 0.5, np.ones((3, 3)))
    >>> none = np.zeros(image.shape, dtype=bool)
    >>> [(rows, cols)] = lines_of_text(labels, fallen, none, lambda: np.ones(count + 1), none)
    >>> 28 < rows.start < rows.stop < 44 and 18 < cols.start < cols.stop < 60
    True
    """
    log_chance, size = _log_chance(labels, fallen, masked)
    beside = np.zeros(len(size), dtype=np.bool_)
    beside[labels[by_bar]] = True
    density = np.where(beside, _DENSITY_BY_BAR, _DENSITY)
    letters = (-log_chance > _IMPROBABLE) & (-log_chance > density * size)
    letters[0] = False
    if not letters.any():
        return []
    boxes, tallest = ndimage.find_objects(labels), _TALLEST * len(labels)

    def of(chosen: BoolArray, core: float) -> list[int]:
        """Those of some strokes that are sharp and reach the value."""
        numbers = [int(k) for k in np.flatnonzero(chosen)]
        numbers = [k for k in numbers if _reaches(fallen, labels, boxes, k, core)]
        return [k for k in numbers if sharpness()[k] > _SHARP]

    letters &= np.array([False, *(_height(box) <= tallest for box in boxes)])
    numbers = of(letters, _CORE)
    if not numbers or len(numbers) > _MOST_STROKES:
        return []
    height = float(np.median([boxes[k - 1][0].stop - boxes[k - 1][0].start for k in numbers]))
    gap = int(max(_GAP * height, _LEAST_GAP_PX))
    written = np.isin(labels, numbers)
    groups, count = ndimage.label(ndimage.maximum_filter(written, (2 * gap + 1)))
    members: list[list[Box]] = [[] for _ in range(count)]
    labels_of_bars: list[list[Box]] = [[] for _ in range(count)]
    for k in numbers:
        box = boxes[k - 1]
        own = labels[box] == k
        group = int(groups[box][own][0]) - 1
        members[group].append(box)
        labels_of_bars[group] += [box] if by_bar[box][own].any() else []
    # Strokes that are no letters by themselves, as the dot of an i, belong to a line they stand in.
    more = [boxes[k - 1] for k in of(log_chance < 0.0, _CORE_IN_LINE)]
    lines = [
        _completed(line if _is_line(line) else label, more, gap)
        for line, label in zip(members, labels_of_bars, strict=True)
        if label or _is_line(line)
    ]
    return [line for line in lines if _height(line) <= tallest]


def _log_chance(
    labels: NDArray[np.int32], fallen: Image, masked: BoolArray
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logarithm of the chance that a frame of independent pixels has each stroke, and its size.

    Each pixel counts with the share of the frame's pixels that come as near to the value; the
    number of shapes and of places is taken into account. Both have shape (stroke + 1,).
    """
    seen = np.sort(fallen[~masked][:: max(fallen.size // _SAMPLE, 1)])
    inner = labels > 0
    nearer = np.searchsorted(seen, fallen[inner], side="right")
    each = np.log((nearer + 1.0) / (len(seen) + 1.0)) + _LOG_SHAPES
    count = int(labels.max()) + 1
    out = np.bincount(labels[inner], weights=each, minlength=count) + np.log(fallen.size)
    out[0] = 0.0
    return out, np.bincount(labels[inner], minlength=count)


def _reaches(
    fallen: Image, labels: NDArray[np.int32], boxes: list[Box], k: int, core: float
) -> bool:
    """Whether the nearest third of a stroke's pixels have the value, or nearly so."""
    box = boxes[k - 1]
    values = np.sort(fallen[box][labels[box] == k])
    return float(values[: max(len(values) // 3, 1)].mean()) < core


def _is_line(line: list[Box]) -> bool:
    """Whether letters stand on one baseline."""
    if not _LETTERS[0] <= len(line) <= _LETTERS[1]:
        return False
    top, bottom = np.array([(rows.start, rows.stop) for rows, _ in line]).T
    height = bottom - top
    aside = float(np.median(np.abs(bottom - np.median(bottom))))
    whole = float(bottom.max() - top.min())
    return aside <= _BASELINE * float(np.median(height)) and whole <= _LINE * float(height.max())


def _completed(line: list[Box], more: list[Box], gap: int) -> Box:
    """Rectangle around a line with all other strokes that stand in it."""
    top, bottom = min(r.start for r, _ in line), max(r.stop for r, _ in line)
    left, right = min(c.start for _, c in line), max(c.stop for _, c in line)
    rest = [(r, c) for r, c in more if r.start >= top - 1 and r.stop <= bottom + 1]
    grown = True
    while grown:
        near = [c for _, c in rest if c.start <= right + gap and c.stop >= left - gap]
        new = min([left, *(c.start for c in near)]), max([right, *(c.stop for c in near)])
        grown = new != (left, right)
        left, right = new
    return slice(top, bottom), slice(left, right)


def _height(box: Box) -> int:
    return int(box[0].stop - box[0].start)
