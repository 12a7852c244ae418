"""Scores of found atoms against exact truth."""

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

_MARGIN_A = 0.5  # atoms nearer to the border than this count neither way
_BOUND_MARGIN_A = 1.5  # errors are compared with the bound where whole atoms show
_BINS = 15


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What some tool says of one frame.

    Parameters
    ----------
    xy
        Atoms, shape (atom, 2), Å.
    element
        Chemical symbol of each; None where the tool does not tell.
    sigma
        Standard deviations along x and y, shape (atom, 2), Å; None where the tool gives none.
    p_exists, p_element
        Probabilities, shape (atom,); None where the tool gives none.
    vacancies_xy
        Empty sites, shape (site, 2), Å; None where the tool does not look for them.
    """

    xy: FloatArray
    element: NDArray[np.str_] | None = None
    sigma: FloatArray | None = None
    p_exists: FloatArray | None = None
    p_element: FloatArray | None = None
    vacancies_xy: FloatArray | None = None


def answer_of(found: FoundAtoms) -> Answer:
    """Give what adatom found in the form that scores take."""
    table = found.atoms
    return Answer(
        table.xy,
        table.elements,
        table.data.select("sigma_x_A", "sigma_y_A").to_numpy(),
        table.column("p_exists"),
        table.column("p_element"),
        found.vacancies_xy[found.p_empty > 0.5],
    )


@dataclass(slots=True)
class Tally:
    """Counts over many frames, and what follows from them.

    Parameters
    ----------
    within_A
        What was found is right when it lies this near to a true atom, Å.
    """

    within_A: float = MATCH_A
    right: dict[str, int] = field(default_factory=dict)
    said: dict[str, int] = field(default_factory=dict)
    true: dict[str, int] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    errors: list[FloatArray] = field(default_factory=list)
    scaled: list[FloatArray] = field(default_factory=list)
    bounds: list[FloatArray] = field(default_factory=list)
    exists: list[tuple[FloatArray, NDArray[np.bool_]]] = field(default_factory=list)
    element: list[tuple[FloatArray, NDArray[np.bool_]]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, truth: LabelledFrame, answer: Answer, bound: FloatArray | None = None) -> None:
        """Take in one frame.

        Parameters
        ----------
        truth
            The frame and its atoms.
        answer
            What was found.
        bound
            Least standard deviation of each true atom, shape (atom, 2), Å.
        """
        sure = np.ones(len(answer.xy), bool) if answer.p_exists is None else answer.p_exists > 0.5
        xy = answer.xy[sure]
        match = match_truth(xy, truth.xy, self.within_A)
        self._count("atom", xy, match, truth.xy, truth)
        if answer.element is not None:
            self._foreign(xy, answer.element[sure], truth)
        if answer.vacancies_xy is not None:
            v = answer.vacancies_xy
            empty = match_truth(v, truth.vacancies_xy, self.within_A)
            self._count("vacancy", v, empty, truth.vacancies_xy, truth)
        well = (match >= 0) & _inner(xy, truth, _BOUND_MARGIN_A)
        error = xy[well] - truth.xy[match[well]]
        self.errors.append(error)
        if answer.sigma is not None:
            self.scaled.append(error / answer.sigma[sure][well])
        if bound is not None:
            self.bounds.append(bound[match[well]])
        if answer.p_exists is not None and answer.p_element is not None:
            inner = _inner(answer.xy, truth, _MARGIN_A)
            every = match_truth(answer.xy, truth.xy, self.within_A)
            self.exists.append((answer.p_exists[inner], (every >= 0)[inner]))
            ok = inner & (every >= 0) & sure
            names = np.array(truth.classes)[truth.species[every[ok]]]
            said = answer.element[ok] if answer.element is not None else names
            self.element.append((answer.p_element[ok], names == said))

    @classmethod
    def of(cls, parts: Iterable[Tally]) -> Tally:
        """Put the counts of several together."""
        out = cls()
        for part in parts:
            out.within_A = part.within_A
            for name in ("right", "said", "true", "found"):
                mine = getattr(out, name)
                for what, value in getattr(part, name).items():
                    mine[what] = mine.get(what, 0) + value
            for name in ("errors", "scaled", "bounds", "exists", "element"):
                getattr(out, name).extend(getattr(part, name))
            out.seconds += part.seconds
        return out

    def _foreign(self, xy: FloatArray, element: NDArray[np.str_], truth: LabelledFrame) -> None:
        mine, theirs = xy[element != truth.classes[0]], truth.xy[truth.species > 0]
        self._count("Si", mine, match_truth(mine, theirs, self.within_A), theirs, truth)

    def _count(
        self,
        what: str,
        xy: FloatArray,
        match: NDArray[np.int64],
        true: FloatArray,
        truth: LabelledFrame,
    ) -> None:
        seen = np.zeros(len(true), dtype=bool)
        seen[match[match >= 0]] = True
        mine, theirs = _inner(xy, truth, _MARGIN_A), _inner(true, truth, _MARGIN_A)
        for counts, value in (
            (self.right, (match >= 0)[mine].sum()),
            (self.said, mine.sum()),
            (self.found, seen[theirs].sum()),
            (self.true, theirs.sum()),
        ):
            counts[what] = counts.get(what, 0) + int(value)

    def precision(self, what: str) -> float:
        """Share of what was said that is true."""
        return self.right.get(what, 0) / max(self.said.get(what, 0), 1)

    def recall(self, what: str) -> float:
        """Share of the truth that was found."""
        return self.found.get(what, 0) / max(self.true.get(what, 0), 1)

    def f1(self, what: str) -> float:
        """Harmonic mean of precision and recall; NaN for what the tool does not look for."""
        if what not in self.said:
            return float("nan")
        if not self.said[what] and not self.true[what]:
            return 1.0
        p, r = self.precision(what), self.recall(what)
        return 2 * p * r / max(p + r, 1e-12)

    def rmse_A(self) -> float:
        """Root of the mean squared error per axis, Å."""
        error = np.concatenate(self.errors)
        return float(np.sqrt(np.mean(error**2))) if len(error) else float("nan")

    def bound_A(self) -> float:
        """Root of the mean squared bound of the same atoms, Å."""
        if not self.bounds:
            return float("nan")
        bound = np.concatenate(self.bounds)
        return float(np.sqrt(np.nanmean(bound**2)))

    def coverage(self, sigmas: float) -> float:
        """Share of errors within so many standard deviations, per axis."""
        z = np.abs(np.concatenate(self.scaled)) if self.scaled else np.zeros((0, 2))
        return float(np.mean(z < sigmas)) if len(z) else float("nan")

    def calibration_error(self, of: str) -> float:
        """Expected calibration error of ``p_exists`` or ``p_element``, 15 bins of equal width."""
        parts = self.exists if of == "p_exists" else self.element
        if not parts:
            return float("nan")
        p = np.concatenate([a for a, _ in parts])
        right = np.concatenate([b for _, b in parts])
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
    """F1 of positions against others, away from the border.

    Parameters
    ----------
    xy, truth
        Shape (atom, 2), Å.
    far
        Centre of the last pixel, x and y, Å.
    margin_A
        Atoms nearer to the border count neither way, though others may match them.
    distance_A
        Farthest that a match may lie.
    keep
        Tells which positions count, beyond those.

    Returns
    -------
    Zero to one; NaN where no position counts, since nothing was asked then.
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
