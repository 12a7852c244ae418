"""The atoms of a crystal in three dimensions, behind the columns that a projection shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import ase
import numpy as np
from ase.data import atomic_masses, atomic_numbers
from ase.units import kg

from adatom.core.arrays import FloatArray

Vector = tuple[float, float, float]
_SAME_A = 0.35  # Å: atoms nearer than this in projection stand above each other
_VACUUM_A = 15.0  # Å of free height above a sheet in `Crystal.to_ase`
_GAP_A = 4.0  # Å: least free height of a sheet; the layers of graphite are 3.35 Å apart
_DIGITS = 6  # of a height in Å
_AROUND = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)], dtype=np.float64)
_CM3_PER_A3 = 1e-24


@dataclass(frozen=True, slots=True)
class Column:
    """The atoms above each other at one place of the plane.

    Parameters
    ----------
    xy_A
        The place, Å.
    symbols
        Their chemical symbols, by rising height.
    heights_A
        Their heights along the beam, Å; in a bulk crystal those of one period, from 0 to below it.
    """

    xy_A: tuple[float, float]
    symbols: tuple[str, ...]
    heights_A: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Crystal:
    """A crystal in the axes of its projection: x right, y down, z along the beam, right-handed.

    Parameters
    ----------
    vectors_A
        Two lattice vectors, Å. Their x and y span the cell that is seen; z tells by how much the
        next cell is shifted along the beam.
    period_A
        Repeat along the beam, Å; None for a sheet.
    atoms
        Chemical symbol and x, y, z in Å of every atom of one cell. The height of a sheet is counted
        from its middle.

    Examples
    --------
    >>> sheet = Crystal(((2.5, 0.0, 0.0), (0.0, 4.3, 0.0)), None, (("C", 0.0, 0.0, 0.0),))
    >>> sheet.is_sheet, sheet.formula
    (True, 'C')
    """

    vectors_A: tuple[Vector, Vector]
    period_A: float | None
    atoms: tuple[tuple[str, float, float, float], ...]

    @property
    def is_sheet(self) -> bool:
        """Whether it ends above and below."""
        return self.period_A is None

    @property
    def symbols(self) -> tuple[str, ...]:
        """Chemical symbol of every atom of one cell."""
        return tuple(symbol for symbol, *_ in self.atoms)

    @property
    def positions_A(self) -> FloatArray:
        """Positions of the atoms of one cell, shape (atom, 3), Å."""
        return np.array([xyz for _, *xyz in self.atoms], dtype=np.float64).reshape(-1, 3)

    @property
    def formula(self) -> str:
        """Elements of one cell with their numbers over the greatest common divisor, sorted."""
        count = Counter(self.symbols)
        common = int(np.gcd.reduce(list(count.values())))
        return "".join(f"{s}{n // common if n > common else ''}" for s, n in sorted(count.items()))

    @property
    def density_g_cm3(self) -> float:
        """Mass over volume, g/cm³; of a sheet with 15 Å of vacuum."""
        cell = self.to_ase()
        mass_g = sum(atomic_masses[atomic_numbers[s]] for s in self.symbols) / kg * 1e3
        return float(mass_g / (cell.get_volume() * _CM3_PER_A3))

    def to_ase(self) -> ase.Atoms:
        """Copy one cell out, periodic in three directions; a sheet with 15 Å of vacuum above it."""
        height = self.period_A or float(np.ptp(self.positions_A[:, 2])) + _VACUUM_A
        cell = np.array([*self.vectors_A, (0.0, 0.0, height)])
        return ase.Atoms(self.symbols, positions=self.positions_A, cell=cell, pbc=True)

    def columns(self) -> tuple[Column, ...]:
        """Group the atoms of one cell into columns: those within 0.35 Å in projection.

        Returns
        -------
        The columns of one cell, in the order of their first atoms.

        Examples
        --------
        >>> atoms = (("S", 0.0, 0.0, 1.5), ("Mo", 0.0, 1.8, 0.0), ("S", 0.0, 0.0, -1.5))
        >>> sheet = Crystal(((3.2, 0.0, 0.0), (0.0, 5.5, 0.0)), None, atoms)
        >>> [(column.symbols, column.heights_A) for column in sheet.columns()]
        [(('S', 'S'), (-1.5, 1.5)), (('Mo',), (0.0,))]
        """
        vectors = np.array(self.vectors_A)
        places: list[FloatArray] = []
        members: list[list[tuple[float, str]]] = []
        for symbol, xyz in zip(self.symbols, self.positions_A, strict=True):
            for place, inside in zip(places, members, strict=True):
                # In a skew cell the rounded step may not be the nearest: its neighbours are tried.
                steps = np.round((xyz - place)[:2] @ np.linalg.inv(vectors[:, :2])) + _AROUND
                moved = xyz - steps @ vectors
                off = np.linalg.norm((moved - place)[:, :2], axis=1)
                if off.min() < _SAME_A:
                    inside.append((self._height(moved[int(np.argmin(off)), 2]), symbol))
                    break
            else:
                places.append(xyz)
                members.append([(self._height(xyz[2]), symbol)])
        return tuple(
            Column(
                (float(place[0]), float(place[1])),
                tuple(symbol for _, symbol in sorted(inside)),
                tuple(z for z, _ in sorted(inside)),
            )
            for place, inside in zip(places, members, strict=True)
        )

    def _height(self, z_A: float) -> float:
        """Round a height, and bring that of a bulk crystal into the first period."""
        if self.period_A is None:
            return round(float(z_A), _DIGITS)
        up = round(float(z_A) % self.period_A, _DIGITS)
        return up if up < self.period_A - 2.0 * 10.0**-_DIGITS else 0.0  # a hair below is none

    def as_sheet(self) -> Crystal:
        """Give a bulk crystal with vacuum across the beam as a sheet, whole and centred.

        Returns
        -------
        The crystal itself where less than 4 Å are free, or its cells are shifted along the beam.
        """
        if self.period_A is None:
            return self
        steps = np.array([z for *_, z in self.vectors_A]) / self.period_A
        heights = self.positions_A[:, 2] % self.period_A
        order = np.sort(heights)
        gaps = np.diff(order, append=order[0] + self.period_A)
        widest = int(np.argmax(gaps))
        if gaps[widest] < _GAP_A or np.abs(steps - np.round(steps)).max() > 1e-3:
            return self
        first = order[(widest + 1) % len(order)] - 1e-9  # the first atom stays, despite rounding
        whole = (heights - first) % self.period_A
        whole -= (whole.min() + whole.max()) / 2.0
        (ax, ay, _), (bx, by, _) = self.vectors_A
        return Crystal(
            ((ax, ay, 0.0), (bx, by, 0.0)),
            None,
            tuple(
                (s, x, y, round(float(z), 9))
                for (s, x, y, _), z in zip(self.atoms, whole, strict=True)
            ),
        )
