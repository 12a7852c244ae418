"""Lines at the border of a frame that repeat their neighbour, and columns of the fly-back."""

from __future__ import annotations

import numpy as np

from adatom.core.arrays import BoolArray, FloatArray, Image

_LOG_CHANCE = -30.0  # logarithm of the chance that recorded lines are equal
_FEWEST = 2  # copies: some microscopes store one line twice, which does no harm
_INNER = 0.12  # share of the lines on each side that fly-back may take
_FAR = 1.0  # how far fly-back lies outside of the range of all inner columns, in units of that
_STEP = 0.6  # least step from the fly-back to the first recorded column, in the same unit


def repeated_lines(image: Image, same: float) -> BoolArray:
    """Find lines at the border that equal their inner neighbour, as a shift or a rotation pads.

    Parameters
    ----------
    image
        Shape (row, col), intensity.
    same
        Values that differ by no more are equal, intensity.

    Returns
    -------
    Shape (row, col): True for the copies, not for the recorded line.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    >>> image[:4] = image[4]
    >>> repeated_lines(image, 1e-6).all(axis=1).tolist()[:6]
    [True, True, True, True, False, False]
    """
    low, high = [0, 0], list(image.shape)
    for axis in (0, 1):
        lines = np.moveaxis(image[low[0] : high[0], low[1] : high[1]], axis, 0)
        equal = np.abs(np.diff(lines, axis=0)) <= same
        share = equal.mean(axis=1)
        usual = float(np.median(share))
        whole = share == 1.0
        first = int(np.argmin(whole)) if not whole.all() else 0
        last = int(np.argmin(whole[::-1])) if not whole.all() else 0
        log_line = lines.shape[1] * np.log(max(usual, 1e-9))
        low[axis] += first if first >= _FEWEST and first * log_line < _LOG_CHANCE else 0
        high[axis] -= last if last >= _FEWEST and last * log_line < _LOG_CHANCE else 0
    out = np.ones(image.shape, dtype=np.bool_)
    out[low[0] : high[0], low[1] : high[1]] = False
    return out


def fly_back(image: Image, masked: BoolArray) -> BoolArray:
    """Find columns at the left or right border that the beam crossed on its way back.

    They are far brighter or darker than every other column of the frame, and end in a step. A
    detector sees rows in the same way where the scan runs along columns.

    Parameters
    ----------
    image, masked
        Shape (row, col).

    Returns
    -------
    Shape (row, col).

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).poisson(9.0, (64, 64)).astype(np.float32)
    >>> image[:, :3] += 60.0
    >>> fly_back(image, np.zeros((64, 64), dtype=bool)).any(axis=0).tolist()[:5]
    [True, True, True, False, False]
    """
    out = np.zeros(image.shape, dtype=np.bool_)
    for axis in (0, 1):
        lines, hidden = np.moveaxis(image, axis, 0), np.moveaxis(masked | out, axis, 0)
        seen = (~hidden).sum(axis=1)
        usable = seen > 0.3 * lines.shape[1]
        number = np.flatnonzero(usable)
        if len(number) < 16:
            continue
        mean = np.where(hidden, 0.0, lines).sum(axis=1)[usable] / seen[usable]
        first, last = _far_ends(mean.astype(np.float64))
        for k in (*number[:first], *number[len(number) - last :]):
            np.moveaxis(out, axis, 0)[k] = True
    return out


def _far_ends(mean: FloatArray) -> tuple[int, int]:
    """Count the means at both ends that lie far outside of the range of the inner ones."""
    edge = max(int(_INNER * len(mean)), 2)
    inner = mean[edge:-edge]
    # The extremes of a few columns may be a bright defect; the range is that of nearly all.
    low, high = float(inner.min()), float(inner.max())
    reach = max(high - low, 1e-30)
    far = (mean > high + _FAR * reach) | (mean < low - _FAR * reach)
    counts = []
    for side, means in ((far, mean), (far[::-1], mean[::-1])):
        count = int(np.argmin(side[:edge])) if not side[:edge].all() else edge
        step = abs(means[count - 1] - means[count]) if count else 0.0
        counts.append(count if count and step > _STEP * reach else 0)
    return counts[0], counts[1]
