"""How much dose a field and each place of it may still take."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from adatom.core import ScanRequest
from adatom.core.arrays import FloatArray

_STEP_A = 2.0  # Å: areas are widened to multiples of this, so that repeated frames are one area
_MARGIN_A = 1.0  # Å: the place of a frame on the specimen is not known better than this

_Area = tuple[int, int, int, int]  # left, top, right, bottom, in steps


@dataclass(slots=True)
class DoseBudget:
    """Count the electrons of all frames, and the dose of every place.

    The dose of an atom is that of its place: the sum over all frames that may have shown it. Frames
    are widened by what the drift leaves unknown, so the sum is an upper limit.

    Parameters
    ----------
    most_electrons
        Most electrons of all frames together.
    most_dose_per_A2
        Most electrons per Å² on any place, and so on any atom.
    electrons
        Electrons so far.

    Examples
    --------
    >>> budget = DoseBudget(1e9, 3e5)
    >>> frame = ScanRequest((10.0, 10.0), 20.0, 200, 2e5)
    >>> budget.why_not(frame, (0.0, 0.0))
    ''
    >>> budget.spend(frame, (0.0, 0.0))
    >>> budget.why_not(frame, (0.1, 0.0))
    'a place would get 4e+05 electrons per Å², more than the limit of 3e+05'
    >>> elsewhere = ScanRequest((60.0, 10.0), 20.0, 200, 2e5)
    >>> budget.why_not(elsewhere, (0.0, 0.0))
    ''
    """

    most_electrons: float
    most_dose_per_A2: float
    electrons: float = 0.0
    _doses: dict[_Area, float] = field(default_factory=dict)

    def why_not(self, request: ScanRequest, drift_xy_A: tuple[float, float]) -> str:
        """Say which limit a frame would exceed; an empty string if none.

        Parameters
        ----------
        request
            The frame.
        drift_xy_A
            Drift of the specimen, x and y, Å.
        """
        electrons = self.electrons + request.dose_per_A2 * request.field_of_view_A**2
        if not electrons <= self.most_electrons:  # True for NaN, too
            return f"{electrons:.3g} electrons are more than the limit of {self.most_electrons:.3g}"
        dose = self.highest(request, drift_xy_A) + request.dose_per_A2
        if not dose <= self.most_dose_per_A2:
            return (
                f"a place would get {dose:.3g} electrons per Å², more than the limit of "
                f"{self.most_dose_per_A2:.3g}"
            )
        return ""

    def spend(self, request: ScanRequest, drift_xy_A: tuple[float, float]) -> None:
        """Count a frame; call it before the frame is taken."""
        self.electrons += request.dose_per_A2 * request.field_of_view_A**2
        area = _area(request, drift_xy_A)
        self._doses[area] = self._doses.get(area, 0.0) + request.dose_per_A2

    def highest(self, request: ScanRequest, drift_xy_A: tuple[float, float]) -> float:
        """Highest dose so far of a place in a frame, electrons per Å²."""
        left, top, right, bottom = _area(request, drift_xy_A)
        cut = [
            (max(l_, left), max(t, top), min(r, right), min(b, bottom), dose)
            for (l_, t, r, b), dose in self._doses.items()
        ]
        inside = np.array([c for c in cut if c[0] < c[2] and c[1] < c[3]])
        if not len(inside):
            return 0.0
        xs, ys = (np.unique(inside[:, [k, k + 2]]) for k in (0, 1))
        return float(_summed(inside, xs, ys).max())


def _summed(areas: FloatArray, xs: FloatArray, ys: FloatArray) -> FloatArray:
    """Dose of every cell between the edges of the areas, shape (y, x)."""
    change = np.zeros((len(ys), len(xs)))
    left, right = np.searchsorted(xs, areas[:, 0]), np.searchsorted(xs, areas[:, 2])
    top, bottom = np.searchsorted(ys, areas[:, 1]), np.searchsorted(ys, areas[:, 3])
    for rows, cols, sign in (
        (top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1),
    ):  # fmt: skip
        np.add.at(change, (rows, cols), sign * areas[:, 4])
    out: FloatArray = change.cumsum(axis=0).cumsum(axis=1)
    return out


def _area(request: ScanRequest, drift_xy_A: tuple[float, float]) -> _Area:
    half = request.field_of_view_A / 2 + _MARGIN_A
    x, y = (c - d for c, d in zip(request.center_xy_A, drift_xy_A, strict=True))
    low = [int(np.floor((v - half) / _STEP_A)) for v in (x, y)]
    high = [int(np.ceil((v + half) / _STEP_A)) for v in (x, y)]
    return low[0], low[1], high[0], high[1]
