"""The plan to fill a vacancy: bring an impurity atom to its rim."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from adatom.core.arrays import FloatArray
from adatom.errors import BadInput
from adatom.feedback.plans import Step
from adatom.feedback.sites import Sites

# Two rim atoms point to one vacancy if their places agree to this, bonds: an atom that gives way by
# 0.12 Å points to a place that is off by three times as much. Next holes are 1.7 bonds away.
_SAME_BONDS = 0.7
_RIM = 2  # rim atoms that must agree; three surround a single vacancy


def vacancies_of(sites: Sites) -> list[tuple[FloatArray, tuple[int, ...]]]:
    """Find the single vacancies that the atoms of a sheet surround.

    The bonds of a perfect site add up to zero, so an atom with one bond less points to where its
    neighbour is missing. Where two or three atoms point to one place, it is a vacancy.

    Parameters
    ----------
    sites
        The atoms that are there.

    Returns
    -------
    Place of each vacancy, shape (2,), Å, and the sites of its rim.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> from adatom.frames.simulate.specimen import lattice_points
    >>> xy = lattice_points(GRAPHENE, (20.0, 20.0), 0.0, 0.0)
    >>> middle = int(np.argmin(np.linalg.norm(xy - 10.0, axis=1)))
    >>> (found,) = vacancies_of(Sites.of(np.delete(xy, middle, axis=0), GRAPHENE.bond_length_A))
    >>> bool(np.allclose(found[0], xy[middle])), len(found[1])
    (True, 3)
    """
    bonds = np.bincount(sites.bonds.ravel(), minlength=len(sites.xy))
    usual = int(np.argmax(np.bincount(bonds)))
    places, rims = [], []
    for site in sorted(sites.weak):
        bonded = sites.neighbours(site)
        if len(bonded) != usual - 1:
            continue
        missing = -(sites.xy[bonded] - sites.xy[site]).sum(axis=0)
        places.append(sites.xy[site] + missing)
        rims.append(site)
    low, high = sites.xy.min(axis=0), sites.xy.max(axis=0)  # beyond, nothing is known
    left, out = set(range(len(places))), []
    while left:
        first = min(left)
        near = [i for i in sorted(left) if np.linalg.norm(places[i] - places[first])
                < _SAME_BONDS * sites.bond_length_A]  # fmt: skip
        left -= set(near)
        place = np.mean([places[i] for i in near], axis=0)
        free = np.linalg.norm(sites.xy - place, axis=1).min() > 0.5 * sites.bond_length_A
        inside = np.minimum(place - low, high - place).min() > sites.bond_length_A
        if len(near) >= _RIM and free and inside:
            out.append((place, tuple(rims[i] for i in near)))
    return out


class Fill:
    """Bring an atom to the rim of the vacancy that is nearest to it.

    That is as far as a beam moves it by known rates: an exchange needs a neighbour, and none is in
    the hole. An atom that is larger than the crystal's closes the hole from there,
    as Si does with four bonds; whether it does, the frame at the end shows.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> from adatom.frames.simulate.specimen import lattice_points
    >>> xy = lattice_points(GRAPHENE, (24.0, 24.0), 0.0, 0.0)
    >>> middle = int(np.argmin(np.linalg.norm(xy - 12.0, axis=1)))
    >>> sheet = Sites.of(np.delete(xy, middle, axis=0), GRAPHENE.bond_length_A)
    >>> plan, start = Fill(), sheet.closest(xy[middle] + [6.0, 0.0])
    >>> plan.begin(sheet, [start], ())
    >>> plan.step([start], ()).way[-1] in plan.rim
    True
    """

    done = "the atom on the rim of the vacancy"
    knocks = False

    def begin(
        self,
        sites: Sites,
        where: Sequence[int],
        closed: Collection[int],
        middle_xy: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Choose the vacancy; see `Plan`."""
        del middle_xy
        self._sites = sites
        shut = {*closed, *where[1:]}
        ways = []
        for place, rim in vacancies_of(sites):
            for goal in rim:
                try:
                    way = sites.route(where[0], goal, shut)
                except BadInput:
                    continue
                ways.append((len(way), tuple(place.tolist()), rim))
        if not ways:
            raise BadInput(
                "vacancy to fill",
                expected="a single vacancy in the first frame, and a way to its rim",
                got=f"{len(vacancies_of(sites))} vacancies, none with a way to it",
                todo="Move the field of view to a vacancy and an atom, or make one by --vacancy.",
            )
        self.rim: tuple[int, ...] = min(ways)[2]

    def step(self, where: Sequence[int], closed: Collection[int]) -> Step | None:
        """Give the way to the rim; see `Plan`."""
        if where[0] in self.rim:
            return None
        shut = {*closed, *where[1:]}
        ways = []
        for goal in self.rim:
            try:
                ways.append(self._sites.route(where[0], goal, shut))
            except BadInput as error:
                last = error
        if not ways:
            raise last
        way = min(ways, key=lambda w: (len(w), w))
        return Step(0, way, len(way) - 1)
