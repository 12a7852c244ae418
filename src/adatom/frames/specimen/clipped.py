"""Pixels at which the detector, or whoever stored the frame, cut the intensity off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adatom.core.arrays import BoolArray, Image
from adatom.frames.specimen.levels import Levels

_LEAST_PIXELS = 8  # fewer equal pixels at the end are chance
_LEAST_SHARE = 2e-4  # of a continuum, less of the frame at its end is chance
# A clipped end has this many times the pixels of the levels next to it. Without a cut the number
# falls towards the end.
_PILE = 1.5
_NEXT = 3  # number of these levels
_REACH = 64.0  # levels from the end in which these are looked for
_LEAST_LEVELS = 6  # with fewer levels, the end of a frame of few counts looks the same
# Least variance over mean, in steps, of a frame that is not made of counts. Frames of counts have
# one, and their zeros are no cut.
_NO_COUNTS = 2.5


def clipped_pixels(image: Image, levels: Levels, masked: BoolArray) -> NDArray[np.int8]:
    """Find the pixels that are clipped at either end.

    Of a continuum hardly two pixels are equal, so equal ones at the end are clipped. Of values on a
    ladder of levels, a clipped end holds all that lies beyond it, more pixels than the levels next
    to it. Zeros of counts pile up in the same way; they are told by the noise, which
    for counts has the variance of the mean.

    Parameters
    ----------
    image
        Shape (row, col), intensity.
    levels
        Its grey levels.
    masked
        Pixels that are not specimen, shape (row, col).

    Returns
    -------
    Shape (row, col): 1 where clipped from above, -1 from below, else 0.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.frames.specimen.levels import grey_levels
    >>> image = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    >>> image = np.minimum(image, 1.5)
    >>> clipped = clipped_pixels(image, grey_levels(image), np.zeros((64, 64), dtype=bool))
    >>> bool((clipped == (image == 1.5)).all())
    True
    """
    out = np.zeros(image.shape, dtype=np.int8)
    seen = image[~masked]
    if not seen.size:
        return out
    for sign, end in ((1, float(seen.max())), (-1, float(seen.min()))):
        at_end = (np.abs(image - end) <= levels.same) & ~masked
        if _piles_up(seen, end, int(at_end.sum()), levels, sign) and (
            sign > 0 or not _is_counts(image, levels, masked)
        ):
            out[at_end] = sign
    return out


def _piles_up(seen: Image, end: float, number: int, levels: Levels, sign: int) -> bool:
    """Whether more pixels have the end value than a smooth histogram would have there."""
    if number < max(_LEAST_PIXELS, _LEAST_SHARE * seen.size):
        return False
    if levels.step is None:
        return True
    depth = sign * (end - seen) / levels.step
    if depth.max() < _LEAST_LEVELS:
        return False
    # Stored frames may leave out levels (a stretched contrast): count those that occur.
    near = np.bincount(np.round(depth[depth < _REACH]).astype(np.int64))[1:]
    occupied = near[near > 0][:_NEXT]
    return not len(occupied) or number > _PILE * float(occupied.max())


def _is_counts(image: Image, levels: Levels, masked: BoolArray) -> bool:
    """Whether the noise of the dark half has the variance of counts."""
    if levels.step is None:
        return False
    value = (image - levels.low) / levels.step
    around = (9.0 * ndimage.uniform_filter(value, 3) - value) / 8.0
    dark = (around <= np.median(around[~masked])) & ~ndimage.maximum_filter(masked, 3)
    if dark.sum() < 64:
        return False
    # The mean of eight neighbours has an eighth of a pixel's variance.
    variance = float(((value - around)[dark] ** 2).mean()) * 8.0 / 9.0
    return variance < _NO_COUNTS * max(float(value[dark].mean()), 1e-3)
