"""Scores of found atoms against simulated truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import LabelledFrame
from adatom.core.arrays import FloatArray
from adatom.features.calibration.calibrator import MATCH_A, match_truth
from adatom.features.find import FoundAtoms

# Å. The border cuts nearer atoms: they are neither right nor wrong. About one probe width (0.4 Å).
_BORDER_A = 0.5
# Å. The Cramér-Rao bound holds for atoms whose whole image is inside the frame: three probe widths.
_BOUND_BORDER_A = 1.5
# Bins of equal width of the expected calibration error, as in Guo et al., ICML 2017.
_BINS = 15


@dataclass(frozen=True, slots=True, eq=False)
class ToolResult:
    """Atoms and vacancies that a tool found in one frame, adatom or another one.

    Parameters
    ----------
    xy
        Atoms, shape (atom, 2), Å.
    element
        Chemical symbol of each atom; None if the tool names none.
    sigma
        Standard deviations along x and y, shape (atom, 2), Å; None if the tool gives none.
    p_exists, p_element
        Probabilities, shape (atom,); None if the tool gives none.
    vacancies_xy
        Vacant sites, shape (site, 2), Å; None if the tool does not look for them.
    """

    xy: FloatArray
    element: NDArray[np.str_] | None = None
    sigma: FloatArray | None = None
    p_exists: FloatArray | None = None
    p_element: FloatArray | None = None
    vacancies_xy: FloatArray | None = None


def result_of(found: FoundAtoms) -> ToolResult:
    """Give the atoms and vacancies that adatom found as a `ToolResult`."""
    table = found.atoms
    return ToolResult(
        table.xy,
        table.elements,
        table.data.select("sigma_x_A", "sigma_y_A").to_numpy(),
        table.column("p_exists"),
        table.column("p_element"),
        found.vacancies_xy[found.p_empty > 0.5],
    )


@dataclass(slots=True)
class Tally:
    """Counts of right and wrong detections over many frames, and the scores from them.

    The counts are kept per kind: ``atom``, ``vacancy`` and ``Si``, which stands for every impurity
    atom.

    Parameters
    ----------
    within_A
        Largest distance between a detection and the true atom that it matches, Å.

    Examples
    --------
    Two of four atoms are found, and one detection is wrong.

    >>> import numpy as np
    >>> from adatom.core import Calibration, Frame, LabelledFrame
    >>> from adatom.training.scores import Tally, ToolResult
    >>> frame = Frame(np.eye(101, dtype=np.float32), Calibration(0.1))
    >>> true_xy = np.array([[2.0, 2.0], [2.0, 8.0], [8.0, 2.0], [8.0, 8.0]])
    >>> carbon = np.zeros(4, dtype=int)
    >>> truth = LabelledFrame(frame, true_xy, carbon, ("C", "Si"), np.zeros((0, 2)))
    >>> tally = Tally()
    >>> tally.add(truth, ToolResult(np.array([[2.1, 2.0], [2.0, 8.0], [5.0, 5.0]])))
    >>> round(tally.precision("atom"), 3), tally.recall("atom"), round(tally.f1("atom"), 3)
    (0.667, 0.5, 0.571)
    """

    within_A: float = MATCH_A
    correct: dict[str, int] = field(default_factory=dict)  # detections that match a true one
    detected: dict[str, int] = field(default_factory=dict)  # all detections
    true: dict[str, int] = field(default_factory=dict)  # all true ones
    found: dict[str, int] = field(default_factory=dict)  # true ones that a detection matches
    errors: list[FloatArray] = field(default_factory=list)
    scaled: list[FloatArray] = field(default_factory=list)
    bounds: list[FloatArray] = field(default_factory=list)
    exists: list[tuple[FloatArray, NDArray[np.bool_]]] = field(default_factory=list)
    element: list[tuple[FloatArray, NDArray[np.bool_]]] = field(default_factory=list)
    seconds: float = 0.0

    def add(
        self, truth: LabelledFrame, result: ToolResult, bound: FloatArray | None = None
    ) -> None:
        """Count one frame.

        Parameters
        ----------
        truth
            The frame and its atoms.
        result
            Atoms and vacancies that a tool found in it.
        bound
            Cramér-Rao bound of the standard deviation of each true atom, shape (atom, 2), Å.
        """
        likely = np.ones(len(result.xy), bool) if result.p_exists is None else result.p_exists > 0.5
        xy = result.xy[likely]
        match = match_truth(xy, truth.xy, self.within_A)
        self._count("atom", xy, match, truth.xy, truth)
        if result.element is not None:
            self._count_impurities(xy, result.element[likely], truth)
        if result.vacancies_xy is not None:
            v = result.vacancies_xy
            empty = match_truth(v, truth.vacancies_xy, self.within_A)
            self._count("vacancy", v, empty, truth.vacancies_xy, truth)
        compared = (match >= 0) & _inner(xy, truth, _BOUND_BORDER_A)
        error = xy[compared] - truth.xy[match[compared]]
        self.errors.append(error)
        if result.sigma is not None:
            self.scaled.append(error / result.sigma[likely][compared])
        if bound is not None:
            self.bounds.append(bound[match[compared]])
        if result.p_exists is not None and result.p_element is not None:
            inner = _inner(result.xy, truth, _BORDER_A)
            every = match_truth(result.xy, truth.xy, self.within_A)
            self.exists.append((result.p_exists[inner], (every >= 0)[inner]))
            ok = inner & (every >= 0) & likely
            names = np.array(truth.classes)[truth.species[every[ok]]]
            named = result.element[ok] if result.element is not None else names
            self.element.append((result.p_element[ok], names == named))

    @classmethod
    def merged(cls, parts: Iterable[Tally]) -> Tally:
        """Add the counts of several tallies."""
        out = cls()
        for part in parts:
            out.within_A = part.within_A
            for name in ("correct", "detected", "true", "found"):
                own = getattr(out, name)
                for kind, value in getattr(part, name).items():
                    own[kind] = own.get(kind, 0) + value
            for name in ("errors", "scaled", "bounds", "exists", "element"):
                getattr(out, name).extend(getattr(part, name))
            out.seconds += part.seconds
        return out

    def _count_impurities(
        self, xy: FloatArray, element: NDArray[np.str_], truth: LabelledFrame
    ) -> None:
        own, theirs = xy[element != truth.classes[0]], truth.xy[truth.species > 0]
        self._count("Si", own, match_truth(own, theirs, self.within_A), theirs, truth)

    def _count(
        self,
        kind: str,
        xy: FloatArray,
        match: NDArray[np.int64],
        true: FloatArray,
        truth: LabelledFrame,
    ) -> None:
        found = np.zeros(len(true), dtype=bool)
        found[match[match >= 0]] = True
        own, theirs = _inner(xy, truth, _BORDER_A), _inner(true, truth, _BORDER_A)
        for counts, value in (
            (self.correct, (match >= 0)[own].sum()),
            (self.detected, own.sum()),
            (self.found, found[theirs].sum()),
            (self.true, theirs.sum()),
        ):
            counts[kind] = counts.get(kind, 0) + int(value)

    def precision(self, kind: str) -> float:
        """Share of the detections that are true."""
        return self.correct.get(kind, 0) / max(self.detected.get(kind, 0), 1)

    def recall(self, kind: str) -> float:
        """Share of the true ones that were found."""
        return self.found.get(kind, 0) / max(self.true.get(kind, 0), 1)

    def f1(self, kind: str) -> float:
        """Harmonic mean of precision and recall; NaN for a kind that the tool does not look for."""
        if kind not in self.detected:
            return float("nan")
        if not self.detected[kind] and not self.true[kind]:
            return 1.0
        p, r = self.precision(kind), self.recall(kind)
        return 2 * p * r / max(p + r, 1e-12)

    def rmse_A(self) -> float:
        """Root-mean-square error of the positions per axis, Å."""
        error = np.concatenate(self.errors)
        return float(np.sqrt(np.mean(error**2))) if len(error) else float("nan")

    def bound_A(self) -> float:
        """Root-mean-square Cramér-Rao bound of the same atoms per axis, Å."""
        if not self.bounds:
            return float("nan")
        bound = np.concatenate(self.bounds)
        return float(np.sqrt(np.nanmean(bound**2)))

    def coverage(self, sigmas: float) -> float:
        """Share of the errors per axis within `sigmas` standard deviations."""
        z = np.abs(np.concatenate(self.scaled)) if self.scaled else np.zeros((0, 2))
        return float(np.mean(z < sigmas)) if len(z) else float("nan")

    def calibration_error(self, column: str) -> float:
        """Expected calibration error of ``p_exists`` or ``p_element``, 0 to 1."""
        parts = self.exists if column == "p_exists" else self.element
        if not parts:
            return float("nan")
        p = np.concatenate([a for a, _ in parts])
        right = np.concatenate([b for _, b in parts])
        return expected_calibration_error(p, right)


def expected_calibration_error(p: FloatArray, right: NDArray[np.bool_]) -> float:
    """Mean gap between stated probability and share that is right (Guo et al., ICML 2017, eq. 3).

    Parameters
    ----------
    p
        Stated probabilities, shape (case,).
    right
        Whether each case is right, shape (case,).

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.training.scores import expected_calibration_error
    >>> round(expected_calibration_error(np.full(4, 0.8), np.array([True, True, False, False])), 3)
    0.3
    """
    which = np.minimum((p * _BINS).astype(int), _BINS - 1)
    gaps = [
        (which == b).mean() * abs(float(p[which == b].mean() - right[which == b].mean()))
        for b in range(_BINS)
        if (which == b).any()
    ]
    return float(sum(gaps))


def f1_within(
    xy: FloatArray,
    truth: FloatArray,
    far: FloatArray,
    margin_A: float,
    distance_A: float,
    keep: Callable[[FloatArray], NDArray[np.bool_]] | None = None,
) -> float:
    """F1 of two sets of positions, away from the border.

    A position matches if any position of the other set is near: several may match the same one.

    Parameters
    ----------
    xy, truth
        Shape (atom, 2), Å.
    far
        Centre of the last pixel, x and y, Å.
    margin_A
        Positions nearer to the border are not counted, but others may match them.
    distance_A
        Largest distance of a match, Å.
    keep
        Tells for positions, shape (atom, 2), which are counted, shape (atom,); by default all.

    Returns
    -------
    0 to 1; NaN if no position is counted.
    """
    if not len(xy) or not len(truth):
        return float("nan") if len(xy) == len(truth) else 0.0
    shares = []
    for own, other in ((xy, truth), (truth, xy)):
        inner = np.all((own > margin_A) & (own < far - margin_A), axis=1)
        if keep is not None:
            inner &= keep(own)
        near = cKDTree(other).query(own[inner])[0] < distance_A
        shares.append(float(near.mean()) if len(near) else float("nan"))
    return 2 * shares[0] * shares[1] / max(sum(shares), 1e-12)


def _inner(xy: FloatArray, truth: LabelledFrame, margin_A: float) -> NDArray[np.bool_]:
    far = np.asarray(truth.frame.calibration.extent_xy(truth.frame.shape))
    out: NDArray[np.bool_] = np.all((xy > margin_A) & (xy < far - margin_A), axis=1)
    return out
