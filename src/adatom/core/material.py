"""What the specimen is: crystal, species, expected defects, contrast."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adatom.errors import BadInput


@dataclass(frozen=True, slots=True)
class Material:
    """A two-dimensional crystal as an image shows it.

    Parameters
    ----------
    name
        What the user calls it.
    cell_A
        Two lattice vectors as rows, Å, right-handed.
    basis
        Fractional coordinates of the sites of one cell.
    site_species
        Chemical symbol of every site of the basis.
    species
        Every element that may appear; the order is the order of the networks' classes.
    bond_length_A
        Nearest-neighbour distance of the perfect crystal.
    coordination
        Neighbours of an atom in the perfect crystal.
    ring_size
        Atoms in the rings of the perfect crystal.
    contrast_exponent
        Intensity of an atom goes with Z to this power (annular dark field).
    """

    name: str
    cell_A: tuple[tuple[float, float], tuple[float, float]]
    basis: tuple[tuple[float, float], ...]
    site_species: tuple[str, ...]
    species: tuple[str, ...]
    bond_length_A: float
    coordination: int
    ring_size: int
    contrast_exponent: float = 1.64

    @property
    def host(self) -> str:
        """The element of the perfect crystal's first site."""
        return self.site_species[0]

    def cell(self) -> NDArray[np.float64]:
        """Lattice vectors as the rows of a (2, 2) array, Å."""
        return np.array(self.cell_A, dtype=np.float64)

    @property
    def lattice_constant_A(self) -> float:
        """Length of the first lattice vector, Å."""
        return float(np.linalg.norm(self.cell()[0]))

    @property
    def site_area_A2(self) -> float:
        """Area of the sheet per site, Å²."""
        return float(abs(np.linalg.det(self.cell()))) / len(self.basis)


_A = 2.46
GRAPHENE = Material(
    name="graphene",
    cell_A=((_A, 0.0), (_A / 2.0, _A * 3.0**0.5 / 2.0)),
    basis=((1.0 / 3.0, 1.0 / 3.0), (2.0 / 3.0, 2.0 / 3.0)),
    site_species=("C", "C"),
    species=("C", "Si"),
    bond_length_A=_A / 3.0**0.5,
    coordination=3,
    ring_size=6,
)

MATERIALS: dict[str, Material] = {GRAPHENE.name: GRAPHENE}


def find_material(name: str) -> Material:
    """Look a built-in material up by name.

    Raises
    ------
    BadInput
        If there is no such material; the message names those that there are.
    """
    found = MATERIALS.get(name.strip().lower())
    if found is None:
        close = difflib.get_close_matches(name.lower(), MATERIALS, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise BadInput(
            f"--material {name}",
            expected="one of " + ", ".join(sorted(MATERIALS)),
            got=repr(name),
            todo=hint + "Name one of these.",
        )
    return found
