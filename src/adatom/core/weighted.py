"""Mean and spread of weighted values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def weighted_mean_sd(values: Sequence[float], weights: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of samples with importance weights.

    The standard deviation is ``sqrt(sum w (x - mean)² / (1 - sum w²))`` with weights of sum one
    (reliability weights): of equal weights it is the usual one, with ``n - 1``.

    Parameters
    ----------
    values
        One or more numbers.
    weights
        As many, not negative. Where one is NaN, or all are zero, all count the same.

    Returns
    -------
    Mean and standard deviation; the latter is NaN where one value has all of the weight.

    Examples
    --------
    >>> weighted_mean_sd([1.0, 3.0], [0.5, 0.5])
    (2.0, 1.4142135623730951)
    >>> weighted_mean_sd([1.0, 1.0, 4.0], [0.5, 0.5, 0.0])
    (1.0, 0.0)
    """
    x, w = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if not w.sum() > 0:  # also where one is NaN
        w = np.ones(len(x))
    w = w / w.sum()
    mean = float(w @ x)
    left = 1.0 - float(w @ w)
    # Rounding leaves some 1e-16 where one value has all of the weight.
    sd = float(np.sqrt(w @ (x - mean) ** 2 / left)) if left > 1e-9 else float("nan")
    return mean, sd
