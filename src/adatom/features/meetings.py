"""Defects that meet and become one, and those that come apart, such as two V1 and a V2.

A track holds one defect. Where it changes its kind in the same frame in which others end beside it,
and all together hold the same missing and foreign atoms before and after, they have merged. A split
is the same with time reversed (Jaqaman et al., Nat. Methods 5, 695 (2008), link tracks so by their
brightness).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from adatom.core import Adatom, Cluster, DefectTable, Vacancy
from adatom.core.arrays import FloatArray, IntArray
from adatom.core.defect_kind import DefectKind

_MOST_OTHERS = 3  # defects that join another one between two frames
_NEAREST = 6  # of those that end beside it, so many are tried
_BONDS_IN_PLACE = 3  # an atom with so many bonds replaces one; one bond more, and it fills a gap


@dataclass(frozen=True, slots=True)
class Meeting:
    """A merge or a split, as rows of a table of linked defects.

    Parameters
    ----------
    parts
        The defects that are apart; the first is of the track of `whole`.
    whole
        The one that they are together.
    splits
        Whether the parts come after it.
    """

    parts: tuple[int, ...]
    whole: int
    splits: bool

    @property
    def step(self) -> tuple[int, int]:
        """Rows of the track that goes on, before and after."""
        return (self.whole, self.parts[0]) if self.splits else (self.parts[0], self.whole)

    def name(self, kinds: Sequence[str]) -> str:
        """Name the parts together, `V1 + V1`, from the kinds of all rows."""
        return " + ".join(sorted(kinds[row] for row in self.parts))


def meetings(
    defects: DefectTable, place_xy_A: FloatArray, step_A: float, reach_A: float
) -> list[Meeting]:
    """Find where tracks merge and split.

    Parameters
    ----------
    defects
        Defects of several frames, linked.
    place_xy_A
        Their places without the drift, shape (defect, 2), Å.
    step_A, reach_A
        Longest way between two frames of a defect of the host, and of foreign atoms, Å.

    Returns
    -------
    Merges and splits, in the order of frames.

    Examples
    --------
    >>> from adatom.core import Vacancy
    >>> table = DefectTable.concat(
    ...     DefectTable.build(
    ...         frame=f, kinds=[Vacancy(n) for n in sizes], xy=np.array([[5.0, 5.0], [6.5, 5.0]])[
    ...         : len(sizes)], p=[0.9] * len(sizes), atoms=[[]] * len(sizes),
    ...     ) for f, sizes in enumerate(([1, 1], [2]))
    ... )
    >>> linked = DefectTable(table.data.with_columns(track=np.array([0, 1, 0], dtype=np.int32)))
    >>> meetings(linked, linked.xy, 3.0, 6.5)
    [Meeting(parts=(0, 1), whole=2, splits=False)]
    """
    frame = defects.data["frame"].to_numpy().astype(np.int64)
    track = defects.data["track"].to_numpy().astype(np.int64)
    held = [_Content.of(DefectKind.parse_or_none(kind)) for kind in defects.kinds]
    reach = np.array([reach_A if c is not None and c.atoms else step_A for c in held])
    found = [
        Meeting(*one, splits=splits)
        for splits in (False, True)
        for one in _merges(-frame if splits else frame, track, place_xy_A, held, reach)
    ]
    return sorted(found, key=lambda one: frame[one.step[1]])


@dataclass(frozen=True, slots=True)
class _Content:
    """What a defect holds: foreign atoms, and sites without an atom where that is known."""

    atoms: Counter[str]
    gaps: Counter[str] | None

    @classmethod
    def of(cls, kind: DefectKind | None) -> _Content | None:
        """Content of a kind; None where it cannot take part."""
        if isinstance(kind, Vacancy):
            return cls(Counter(), Counter(kind.sites or [""] * kind.count))
        if isinstance(kind, (Cluster, Adatom)):
            return cls(Counter(dict(kind.atoms)), _gaps_of(kind))
        return None

    def is_of(self, parts: Sequence[_Content]) -> bool:
        """Whether some parts hold the same together."""
        atoms = sum((p.atoms for p in parts), Counter[str]())
        known = [p.gaps for p in parts if p.gaps is not None]
        if self.gaps is None or len(known) < len(parts):
            return atoms == self.atoms and not any(p.gaps and not p.atoms for p in parts)
        return atoms == self.atoms and sum(known, Counter[str]()) == self.gaps


def _gaps_of(kind: Cluster | Adatom) -> Counter[str] | None:
    """Sites that a foreign atom leaves empty; None for several atoms, whose names do not tell."""
    if isinstance(kind, Adatom):
        return Counter()
    if sum(n for _, n in kind.atoms) > 1:
        return None
    more = sum(n for _, n in kind.bonded) - _BONDS_IN_PLACE
    return Counter({"": more} if more > 0 else {})


def _merges(
    frame: IntArray,
    track: IntArray,
    place: FloatArray,
    held: Sequence[_Content | None],
    reach: FloatArray,
) -> list[tuple[tuple[int, ...], int]]:
    """Rows of the parts and of the whole of every merge; the nearest first where two compete."""
    steps = _steps(frame, track)
    possible: list[tuple[float, tuple[int, ...], int]] = []
    for before, after in steps:
        if after < 0 or held[before] is None or held[after] in (None, held[before]):
            continue
        ends = [
            row for row, following in steps
            if frame[before] <= frame[row] < frame[after] and track[row] != track[before]
            and (following < 0 or frame[following] > frame[after]) and held[row] is not None
        ]  # fmt: skip
        away = {row: float(np.hypot(*(place[row] - place[after]))) for row in ends}
        near = sorted((row for row in ends if away[row] < reach[row]), key=lambda row: away[row])
        for count in range(1, _MOST_OTHERS + 1):
            for others in combinations(near[:_NEAREST], count):
                if _adds_up(held, (before, *others), after):
                    total = sum(away[row] for row in others)
                    possible.append((total, (before, *others), after))
    out: list[tuple[tuple[int, ...], int]] = []
    taken: set[int] = set()
    for _, parts, whole in sorted(possible):
        if not taken & {*parts, whole}:
            taken |= {*parts, whole}
            out.append((parts, whole))
    return out


def _adds_up(held: Sequence[_Content | None], parts: Sequence[int], whole: int) -> bool:
    content = held[whole]
    own = [c for c in (held[row] for row in parts) if c is not None]
    return content is not None and content.is_of(own)


def _steps(frame: IntArray, track: IntArray) -> list[tuple[int, int]]:
    """Pairs of successive rows of every track; the last row of each with -1."""
    rows: dict[int, list[int]] = defaultdict(list)
    for row in np.argsort(frame, kind="stable"):
        if track[row] >= 0:
            rows[int(track[row])].append(int(row))
    return [pair for own in rows.values() for pair in zip(own, [*own[1:], -1], strict=True)]
