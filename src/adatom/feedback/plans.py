"""Plans for impurity atoms on the sites of a sheet: which atom goes where next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from adatom.errors import BadInput
from adatom.feedback.sites import Sites


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next.

    Parameters
    ----------
    atom
        Which of the atoms moves: its number in the order in which they are given.
    way
        Sites along bonds, from that of the atom to its goal.
    hops
        Hops that are left, to the last goal.
    knock
        No atom moves: that on the only site of the way is to be knocked out.
    """

    atom: int
    way: tuple[int, ...]
    hops: int
    knock: bool = False


class Plan(Protocol):
    """A plan for atoms: made before the sites are known, begun when they are.

    Attributes
    ----------
    done
        What a frame shows when it is carried out.
    knocks
        Whether it knocks atoms out; else it moves impurity atoms, and needs one.
    """

    done: str
    knocks: bool

    def begin(
        self,
        sites: Sites,
        where: Sequence[int],
        closed: Collection[int],
        middle_xy: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Choose goals.

        Parameters
        ----------
        sites
            The sheet.
        where
            Sites of the atoms that may be moved, that nearest to the middle first.
        closed
            Sites of other impurity atoms.
        middle_xy
            Middle of the first frame, Å.

        Raises
        ------
        BadInput
            If the plan cannot be carried out here. Nothing was moved.
        """
        ...

    def step(self, where: Sequence[int], closed: Collection[int]) -> Step | None:
        """Give the next step; None where the atoms are on their goals.

        Parameters
        ----------
        where, closed
            As of `begin`, by now; sites that lost their atom are closed, too.

        Raises
        ------
        BadInput
            If there is no way any more.
        """
        ...


class Along:
    """Move the first atom from goal to goal; a goal on the way that lost its atom is left out.

    Parameters
    ----------
    by_A
        Goals in turn: displacements from the atom's first site, x and y, Å.

    Examples
    --------
    >>> chain = Sites.of(np.array([[0.0, 0.0], [1.4, 0.0], [2.8, 0.1]]), 1.42)
    >>> plan = Along([(2.8, 0.0)])
    >>> plan.begin(chain, [0], ())
    >>> plan.step([0], ()), plan.step([2], ())
    (Step(atom=0, way=(0, 1, 2), hops=2, knock=False), None)
    """

    done = "the atom on its goal"
    knocks = False

    def __init__(self, by_A: Sequence[tuple[float, float]]) -> None:
        self._by_A = by_A
        self._goals: list[int] = []

    def begin(
        self,
        sites: Sites,
        where: Sequence[int],
        closed: Collection[int],
        middle_xy: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Find the sites of the goals, and make sure that there is a way; see `Plan`."""
        del middle_xy
        self._sites = sites
        start = sites.xy[where[0]]
        self._goals = [sites.nearest(start + np.asarray(by)) for by in self._by_A]
        shut = {*closed, *where[1:]}
        for one, other in zip([where[0], *self._goals], self._goals, strict=False):
            sites.route(one, other, shut)

    def step(self, where: Sequence[int], closed: Collection[int]) -> Step | None:
        """Give the way to the next goal; see `Plan`."""
        shut = {*closed, *where[1:]}
        while len(self._goals) > 1 and (where[0] == self._goals[0] or self._goals[0] in shut):
            self._goals.pop(0)
        if not self._goals or where[0] == self._goals[0]:
            return None
        way = self._sites.route(where[0], self._goals[0], shut)
        return Step(0, way, len(way) - 1 + len(self._goals) - 1)


class Away(Along):
    """Move the first atom a number of sites away, to the goal with most perfect crystal around it.

    Parameters
    ----------
    hops
        Number of sites.

    Examples
    --------
    >>> chain = Sites.of(np.array([[1.4 * n, 0.0] for n in range(9)]), 1.42)
    >>> plan = Away(2)
    >>> plan.begin(chain, [1], ())
    >>> plan.step([1], ()).way
    (1, 2, 3)
    """

    def __init__(self, hops: int) -> None:
        super().__init__(())
        self._hops = hops

    def begin(
        self,
        sites: Sites,
        where: Sequence[int],
        closed: Collection[int],
        middle_xy: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Choose the goal; see `Plan`."""
        del middle_xy
        self._sites = sites
        shut = {*closed, *where[1:]}
        spoiled = sorted(sites.weak | shut)
        best: tuple[float, int] | None = None
        for goal, steps in sites.distances(where[0]).items():
            if steps != self._hops or goal in shut or goal in sites.weak:
                continue
            if len(sites.route(where[0], goal, shut)) - 1 != self._hops:
                continue  # the short way leads past a vacancy
            room = np.linalg.norm(sites.xy[spoiled] - sites.xy[goal], axis=1).min(initial=np.inf)
            if best is None or room > best[0]:
                best = float(room), goal
        if best is None:
            raise BadInput(
                "path",
                expected=f"a site {self._hops} bonds away, with perfect crystal around it",
                got="none: vacancies, other impurity atoms or the border are in the way",
                todo="Choose another field of view.",
            )
        self._goals = [best[1]]


class Together:
    """Bring two atoms together, until they are neighbours.

    The two with the shortest way between them are taken. One moves, the other stays: the pair is
    made where most perfect crystal is around it.

    Examples
    --------
    >>> chain = Sites.of(np.array([[1.4 * n, 0.0] for n in range(9)]), 1.42)
    >>> plan = Together()
    >>> plan.begin(chain, [6, 3], ())
    >>> plan.step([6, 3], ()), plan.step([6, 5], ())
    (Step(atom=0, way=(6, 5, 4), hops=2, knock=False), None)
    """

    done = "the two atoms side by side"
    knocks = False

    def begin(
        self,
        sites: Sites,
        where: Sequence[int],
        closed: Collection[int],
        middle_xy: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Choose the two, and which of them moves; see `Plan`."""
        del middle_xy
        self._sites = sites
        ways: list[tuple[float, tuple[int, int]]] = []
        for a, b in combinations(range(len(where)), 2):
            try:
                way = sites.route(where[a], where[b], {*closed, *where} - {where[a], where[b]})
            except BadInput:
                continue
            ways.append((sites.cost(way), (a, b)))
        if not ways:
            raise BadInput(
                "two atoms to bring together",
                expected="two of the same element in the first frame, with a way between them",
                got=f"{len(where)}" + ("" if len(where) < 2 else ", none with a way"),
                todo="Move the field of view to two atoms.",
            )
        pair = min(ways)[1]
        spoiled = sorted(sites.weak | set(closed))

        def room(atom: int) -> float:
            away = np.linalg.norm(sites.xy[spoiled] - sites.xy[where[atom]], axis=1)
            return float(away.min(initial=np.inf))

        self._stays, self._moves = sorted(pair, key=room, reverse=True)

    def step(self, where: Sequence[int], closed: Collection[int]) -> Step | None:
        """Give the way of the one that moves to the neighbour of the other; see `Plan`."""
        one, other = where[self._moves], where[self._stays]
        way = self._sites.route(one, other, {*closed, *where} - {one, other})
        if len(way) == 2:
            return None
        return Step(self._moves, way[:-1], len(way) - 2)


class Vacancy:
    """Knock out the atom that is nearest to a place.

    Parameters
    ----------
    at_A
        The place: displacement from the middle of the first frame, x and y, Å.

    Examples
    --------
    >>> chain = Sites.of(np.array([[1.4 * n, 0.0] for n in range(9)]), 1.42)
    >>> plan = Vacancy((1.5, 0.2))
    >>> plan.begin(chain, [], (), (5.6, 0.0))
    >>> plan.step([], ()), plan.step([], {5})
    (Step(atom=-1, way=(5,), hops=1, knock=True), None)
    """

    done = "no atom there"
    knocks = True

    def __init__(self, at_A: tuple[float, float]) -> None:
        self._at_A = at_A

    def begin(
        self,
        sites: Sites,
        where: Sequence[int],
        closed: Collection[int],
        middle_xy: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Find the site; see `Plan`."""
        self._site = sites.nearest(np.add(middle_xy, self._at_A), reach_bonds=1.1)
        if self._site in {*where, *closed}:
            raise BadInput(
                "place of the vacancy",
                expected="an atom of the crystal",
                got="an impurity atom",
                todo="Choose another place.",
            )

    def step(self, where: Sequence[int], closed: Collection[int]) -> Step | None:
        """Give the site, until it is empty; see `Plan`."""
        del where
        return None if self._site in closed else Step(-1, (self._site,), 1, knock=True)
