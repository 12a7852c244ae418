"""How atoms move between frames: most rest on their site, impurities hop from site to site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import cKDTree

from adatom.core import AtomTable
from adatom.core.arrays import BoolArray, FloatArray, IntArray
from adatom.core.defect_kind import (
    Adatom,
    Cluster,
    DefectKind,
    Interstitial,
    Substitution,
)
from adatom.features.linking import Motion

_RARE = 0.05  # an element with a smaller share of all atoms is an impurity
# Å² for each nat by which the two labels of a link contradict each other: weighs a mistaken element
# against an atom that moved.
_LABEL_A2 = 1.0
# Two labels that contradict each other with a probability below this are of two atoms.
_LEAST_P = 0.05
# Links beyond the step of a resting atom cost less for each Å²: one hop in place of several labels.
_HOP = 0.5
# Å²: added for two defects of other impurity atoms, so that a vacancy and an impurity next to each
# other do not exchange their tracks.
_OTHER_KIND_A2 = 4.0
_DISPLACED_A2 = 1.5  # Å²: added to what a displaced atom costs alone; a hop in graphene costs 1.5
_BORDER_A = 0.7  # Å: closer to the border, an atom is not seen in every frame
_CHUNK = 4096  # pairs that are looked at together; limits memory


class LinkOptions(BaseModel):
    """Limits of the motion of atoms and defects between frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    atom_step_A: float = Field(
        default=1.0, gt=0.0, description="longest step of an atom between two frames, Å"
    )
    defect_step_A: float = Field(
        default=3.0, gt=0.0, description="longest step of a defect between two frames, Å"
    )
    gap_frames: int = Field(
        default=3, ge=0, description="frames in which a tracked atom or defect may be unseen"
    )
    drift_A: float = Field(
        default=4.0, ge=0.0, description="largest drift of the specimen between two frames, Å"
    )
    hop_A: float = Field(
        default=1.0, gt=0.0, description="shortest hop of a tracked defect to another site, Å"
    )
    hop_reach_A: float = Field(
        default=6.5, gt=0.0, description="longest way of an impurity atom between two frames, Å"
    )


def is_impurity(table: AtomTable) -> BoolArray:
    """Atoms of an element that is rare in the whole table, and more likely than not, (atom,).

    Parameters
    ----------
    table
        Atoms of several frames.
    """
    names, kind = np.unique(table.elements, return_inverse=True)
    share = np.bincount(kind, minlength=len(names)) / max(len(kind), 1)
    sure = table.column("p_exists") * table.column("p_element") > 0.5
    out: BoolArray = (share < _RARE)[kind] & sure
    return out


@dataclass(frozen=True, slots=True, eq=False)
class FieldOfView:
    """The field of view over the specimen, frame by frame.

    Parameters
    ----------
    frames
        Numbers of the frames that were taken, shape (frame,), ascending.
    low_xy_A, high_xy_A
        Corners of what each of them shows for sure, without the drift, shape (frame, 2), Å.
    """

    frames: IntArray
    low_xy_A: FloatArray
    high_xy_A: FloatArray

    def hidden(self, since: IntArray, until: IntArray, place_xy_A: FloatArray) -> IntArray:
        """Count the frames between two that do not show a place, or were not taken.

        Parameters
        ----------
        since, until
            Numbers of the two frames, shape (place,).
        place_xy_A
            Places without the drift, shape (place, 2), Å.

        Examples
        --------
        >>> low = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 0.0]])
        >>> field = FieldOfView(np.arange(3), low, low + 10.0)
        >>> field.hidden(np.array([0, 0]), np.array([2, 2]), np.array([[1.0, 1], [6, 1]])).tolist()
        [1, 0]
        """
        out = until - since - 1
        for start in range(0, len(since), _CHUNK):
            part = slice(start, start + _CHUNK)
            place = place_xy_A[part, None]
            shown = ((place > self.low_xy_A) & (place < self.high_xy_A)).all(axis=-1)
            shown &= (self.frames > since[part, None]) & (self.frames < until[part, None])
            out[part] -= shown.sum(axis=1)
        return out


def hopping(
    table: AtomTable,
    position: FloatArray,
    drift_xy_A: FloatArray,
    step_A: float,
    reach_A: float,
) -> Motion:
    """Costs of links between atoms of which impurities hop from site to site.

    An atom rests within `step_A` of its place. An impurity may go farther. A hop exchanges two
    atoms, so a host atom may leave a site that an impurity took, or take one that an impurity left.
    Where two labels contradict each other, either an atom has moved or a label is wrong; the
    probabilities of the labels decide.

    Parameters
    ----------
    table
        Atoms of several frames.
    position
        Their positions without the drift, shape (atom, 2), Å.
    drift_xy_A
        Drift of the specimen in the frame of each, shape (atom, 2), Å.
    step_A, reach_A
        Longest way between two frames of an atom that rests, and of one that hops, Å.
    """
    kind = np.unique(table.elements, return_inverse=True)[1]
    p, rare = table.column("p_element"), is_impurity(table)
    left, taken = (_met(table, position, rare, since, step_A) for since in (-1, 1))

    def cost(old: IntArray, new: IntArray, squared: FloatArray) -> FloatArray:
        rests, other = squared < step_A**2, kind[old] != kind[new]
        moved = np.where(rests, squared, step_A**2 + _HOP * (squared - step_A**2))
        # The probability that both are of one element, that of the first or of the second label.
        agree = p[old] * (1.0 - p[new]) + p[new] * (1.0 - p[old])
        moved = moved - np.where(other, _LABEL_A2 * np.log(np.maximum(agree, _LEAST_P)), 0.0)
        moved = np.where(other & (agree < _LEAST_P), np.inf, moved)
        hops = ~other & (rare[old] | taken[old] | left[new])
        return np.where(rests | hops, moved, np.inf)

    frame = table.column("frame").astype(np.int64)
    frames, first = np.unique(frame, return_index=True)
    xy, shift = position + drift_xy_A, drift_xy_A[first]
    low, high = xy.min(axis=0) + _BORDER_A, xy.max(axis=0) - _BORDER_A
    # An atom that a hop displaced would rather have moved than be lost.
    alone = step_A**2 + np.where(rare, _HOP * reach_A**2, np.where(taken | left, _DISPLACED_A2, 0))
    return Motion(
        step_A, cost, alone, reach_A, rare | taken | left,
        hidden_between(frame, position, FieldOfView(frames, low - shift, high - shift)),
    )  # fmt: skip


def hidden_between(
    frame: IntArray, position: FloatArray, field: FieldOfView
) -> Callable[[IntArray, IntArray], IntArray]:
    """Make the function `linking.Motion.hidden` of points and a field of view.

    Parameters
    ----------
    frame
        Frame of every point, shape (point,).
    position
        Their positions without the drift, shape (point, 2), Å.
    field
        What the frames show.
    """

    def hidden(old: IntArray, new: IntArray) -> IntArray:
        return field.hidden(frame[old], frame[new], (position[old] + position[new]) / 2.0)

    return hidden


def wandering(
    kinds: Sequence[str],
    hidden: Callable[[IntArray, IntArray], IntArray],
    step_A: float,
    reach_A: float,
) -> Motion:
    """Costs of links between defects of which impurities wander from site to site.

    Parameters
    ----------
    kinds
        Kind of each defect, shape (defect,).
    hidden
        See `linking.Motion`.
    step_A, reach_A
        Longest way between two frames of a defect of the host, and of an impurity, Å.
    """
    names = [_impurities(DefectKind.parse_or_none(kind)) for kind in kinds]
    what = np.unique(names, return_inverse=True)[1]
    moves = np.array([name != "" for name in names], dtype=np.bool_)

    def cost(old: IntArray, new: IntArray, squared: FloatArray) -> FloatArray:
        near = np.where(squared < step_A**2, squared, step_A**2 + _HOP * (squared - step_A**2))
        other = what[old] != what[new]
        # Other atoms may come to a place or leave it, but not go elsewhere.
        return np.where(other & (squared >= step_A**2), np.inf, near + _OTHER_KIND_A2 * other)

    alone = step_A**2 + np.where(moves, _HOP * reach_A**2, 0.0)
    return Motion(step_A, cost, alone, max(reach_A, step_A), moves, hidden)


def _impurities(kind: DefectKind | None) -> str:
    """Elements of the impurity atoms of a kind, as one word; empty for a defect of the host."""
    if isinstance(kind, (Cluster, Adatom)):
        return " ".join(symbol for symbol, _ in kind.atoms)
    return kind.present if isinstance(kind, (Substitution, Interstitial)) else ""


def _met(
    table: AtomTable, position: FloatArray, rare: BoolArray, since: int, step_A: float
) -> BoolArray:
    """Atoms on whose place an impurity is in the next (1) or the last frame (-1), (atom,)."""
    frame = np.unique(table.column("frame"), return_inverse=True)[1]
    out = np.zeros(len(frame), dtype=np.bool_)
    for k in np.unique(frame[rare]) - since:
        there, here = position[rare & (frame == k + since)], np.flatnonzero(frame == k)
        if len(here):
            far = cKDTree(there).query(position[here], distance_upper_bound=step_A / 2.0)[0]
            out[here] = np.isfinite(far)
    return out
