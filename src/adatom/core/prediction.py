"""The probability maps of the ensemble's members for one frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adatom.core.calibration import Calibration

Maps = NDArray[np.float32]
_SMALLEST_P = 1e-6  # probabilities are kept this far from 0 and 1, so that logarithms are finite
VACANCY = "vacancy"  # the class of empty lattice sites, beside the chemical symbols


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Every member's probability maps of one frame, or of a tile of a large one.

    All measures of uncertainty are computed from these maps.

    Parameters
    ----------
    probabilities
        Shape (member, class, row, col), 0 to 1: the probability that the pixel lies at the centre
        of an atom of that class (a Gaussian of `spot_A` around every atom).
    classes
        What each map shows: a chemical symbol, or `VACANCY` for lattice sites left empty.
    calibration
        Pixel size of the maps (the networks' working scale, not the frame's).
    frame
        Index of the frame.
    spot_A
        Standard deviation of the Gaussian spot of one atom, Å.
    origin
        Row and column of this tile's first pixel in the maps of the whole frame.
    whole
        Rows and columns of the whole frame's maps; of these maps by default.
    inner
        Rows and columns of this tile without its overlap with others; all by default.
    """

    probabilities: Maps
    classes: tuple[str, ...]
    calibration: Calibration
    frame: int = 0
    spot_A: float = 0.25
    origin: tuple[int, int] = (0, 0)
    whole: tuple[int, int] = (0, 0)
    inner: tuple[slice, slice] = (slice(0, 0), slice(0, 0))

    def __post_init__(self) -> None:
        rows, cols = self.probabilities.shape[2:]
        if self.whole == (0, 0):
            object.__setattr__(self, "whole", (rows, cols))
        if self.inner == (slice(0, 0), slice(0, 0)):
            object.__setattr__(self, "inner", (slice(0, rows), slice(0, cols)))

    @property
    def members(self) -> int:
        """Number of networks."""
        return int(self.probabilities.shape[0])

    def mean(self) -> Maps:
        """Ensemble mean, shape (class, row, col)."""
        return np.asarray(self.probabilities.mean(axis=0), dtype=np.float32)

    def std(self) -> Maps:
        """Standard deviation between members, shape (class, row, col)."""
        mean = self.mean()
        out: Maps = np.sqrt(self._average(lambda p: (p - mean) ** 2))
        return out

    def entropy(self) -> Maps:
        """Entropy of the mean, nats, shape (class, row, col): total uncertainty."""
        return _binary_entropy(self.mean())

    def mutual_information(self) -> Maps:
        """Entropy of the mean minus mean entropy, nats, shape (class, row, col).

        The part of the uncertainty that comes from the members' disagreement (epistemic):
        Houlsby et al., arXiv:1112.5745, eq. 1.
        """
        out: Maps = np.maximum(self.entropy() - self._average(_binary_entropy), 0.0)
        return out

    def _average(self, of: Callable[[Maps], Maps]) -> Maps:
        """Average over the members, one at a time: all at once would double the memory."""
        total = np.zeros(self.probabilities.shape[1:], dtype=np.float32)
        for member in self.probabilities:
            total += of(member)
        out: Maps = total / np.float32(len(self.probabilities))
        return out


def _binary_entropy(p: Maps) -> Maps:
    q = np.clip(p, _SMALLEST_P, 1.0 - _SMALLEST_P)
    out: Maps = (-q * np.log(q) - (1.0 - q) * np.log1p(-q)).astype(np.float32)
    return out
