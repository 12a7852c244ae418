"""The grey levels of a frame: are its values multiples of one step, and how often do they repeat.

Counts, and images with few bits, stay multiples of a step after any linear change of scale and
offset. Nothing here depends on either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adatom.core.arrays import Image

_SAMPLE = 2**16  # most pixels that are sorted
_MOST_LEVELS = 2**16  # more levels are as good as a continuum
# Largest distance of a value from its level, in steps. Single precision resolves a level to far
# less unless there are too many levels.
_OFF_LEVEL = 0.05
_SAME = 1e-5  # values nearer than this share of the frame's range are equal


@dataclass(frozen=True, slots=True)
class Levels:
    """Grey levels of a frame.

    Parameters
    ----------
    low, high
        Least and largest value, intensity.
    step
        Difference of neighbouring levels, intensity; None if the values form a continuum.
    same
        Values that differ by no more are equal, intensity.
    """

    low: float
    high: float
    step: float | None
    same: float


def grey_levels(image: Image) -> Levels:
    """Find the step of which all values are multiples, if there is one.

    Parameters
    ----------
    image
        Shape (row, col), intensity.

    Examples
    --------
    >>> import numpy as np
    >>> counts = np.random.default_rng(0).poisson(5.0, (32, 32))
    >>> levels = grey_levels((counts * 1e-10 - 3e-7).astype(np.float32))
    >>> round(levels.step * 1e10, 3)
    1.0
    """
    stride = max(image.size // _SAMPLE, 1)
    low, high = float(image.min()), float(image.max())
    values = np.unique(image.ravel()[::stride]).astype(np.float64)
    step = _common_step(values - values[0]) if len(values) > 1 else None
    same = 0.25 * step if step is not None else _SAME * (high - low)
    return Levels(low, high, step, same)


def _common_step(values: NDArray[np.float64]) -> float | None:
    """Find the step of sorted values; the estimate is refined over a growing range of them."""
    gaps = np.diff(values)
    rounding = 4.0 * np.finfo(np.float32).eps * float(np.abs(values).max())
    gaps = gaps[gaps > rounding]
    if not len(gaps):
        return None
    least = float(gaps.min())
    step = float(np.median(gaps[gaps < 1.5 * least]))
    span = float(values[-1] - values[0])
    if span / step > _MOST_LEVELS or span / step > 0.5 * span / rounding:
        return None
    reach = 8.0 * step
    while True:
        within = values <= reach
        level = np.round(values[within] / step)
        if np.abs(values[within] / step - level).max() > 4 * _OFF_LEVEL:
            return None
        if level.any():
            step = float((level @ values[within]) / (level @ level))
        if within.all():
            break
        reach *= 2.0
    off = np.abs(values / step - np.round(values / step))
    return step if off.max() < _OFF_LEVEL else None
