"""What the ensemble says of one frame, member by member."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adatom.core.calibration import Calibration

Maps = NDArray[np.float32]
_TINY = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Every member's probability maps of one frame; all uncertainty is a function of them.

    Parameters
    ----------
    probabilities
        Shape (member, class, row, col), 0 to 1: the probability that the pixel lies at the centre
        of an atom of that class (a Gaussian of about 0.2 Å around every atom).
    classes
        Chemical symbol of every class.
    calibration
        Pixel size of the maps (the networks' working scale, not the frame's).
    frame
        Index of the frame.
    """

    probabilities: Maps
    classes: tuple[str, ...]
    calibration: Calibration
    frame: int = 0

    @property
    def members(self) -> int:
        """Number of networks."""
        return int(self.probabilities.shape[0])

    def mean(self) -> Maps:
        """Ensemble mean, shape (class, row, col)."""
        return np.asarray(self.probabilities.mean(axis=0), dtype=np.float32)

    def std(self) -> Maps:
        """Standard deviation between members, shape (class, row, col)."""
        return np.asarray(self.probabilities.std(axis=0), dtype=np.float32)

    def entropy(self) -> Maps:
        """Entropy of the mean, nats, shape (class, row, col): total uncertainty."""
        return _binary_entropy(self.mean())

    def mutual_information(self) -> Maps:
        """Entropy of the mean minus mean entropy, nats, shape (class, row, col).

        The part of the uncertainty that comes from the members' disagreement (epistemic):
        Houlsby et al., arXiv:1112.5745, eq. 1.
        """
        each = np.stack([_binary_entropy(p) for p in self.probabilities])
        out: Maps = np.maximum(self.entropy() - each.mean(axis=0), 0.0).astype(np.float32)
        return out


def _binary_entropy(p: Maps) -> Maps:
    q = np.clip(p, _TINY, 1.0 - _TINY)
    out: Maps = (-q * np.log(q) - (1.0 - q) * np.log1p(-q)).astype(np.float32)
    return out
