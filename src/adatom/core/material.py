"""What the specimen is: crystal, species, contrast."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from ase.data import atomic_numbers
from ase.formula import Formula
from numpy.typing import NDArray

from adatom.errors import BadInput

Form = Literal["sheet", "columns", "atoms"]
ANY = "X"  # the species of a column whose contents nobody named
_GRAPHENE_BOND_A = 2.46 / 3.0**0.5
_USUAL_PROBE_A = 0.43  # the middle of graphene's range of probes


@dataclass(frozen=True, slots=True)
class Material:
    """A crystal as an image shows it: a sheet, columns of atoms end on, or atoms on a support.

    Parameters
    ----------
    name
        What the user calls it.
    cell_A
        Two lattice vectors as rows, Å, right-handed.
    basis
        Fractional coordinates of the sites of one cell.
    site_species
        What stands at every site of the basis: a chemical symbol, or the formula of a column of
        atoms that lie over each other, such as ``S2``.
    species
        Everything that may appear, host first; the order is that of the networks' classes.
    bond_length_A
        Nearest-neighbour distance of the perfect crystal.
    coordination
        Neighbours of an atom in the perfect crystal.
    ring_size
        Atoms in the rings of the perfect crystal.
    contrast_exponent
        Intensity of an atom goes with Z to this power (annular dark field).
    polytypes
        Other arrangements in the same cell, such as stackings of two layers: of each, what stands
        where, as (species, fractional x, fractional y).
    form
        ``sheet``: one layer; ``columns``: a crystal thick enough for its columns to differ in
        brightness; ``atoms``: atoms dispersed on an amorphous support, without a lattice (the cell
        and the basis say nothing then, the bond length is how close two atoms come).
    probe_sigma_A
        Narrowest and widest probe with which it is imaged, Å; None: as fine as its pattern needs.
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
    polytypes: tuple[tuple[tuple[str, float, float], ...], ...] = ()
    form: Form = "sheet"
    probe_sigma_A: tuple[float, float] | None = None

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

    @property
    def scale(self) -> float:
        """Length of what an image of it shows, in units of graphene's, for working scales.

        Networks see every material at about the same pixels a bond (or a probe, where that is
        wider). A probe is still sampled where bonds are long: hence the largest.
        """
        finest = float(np.clip(self.bond_length_A / _GRAPHENE_BOND_A, 0.85, 1.5))
        if self.probe_sigma_A is None:
            return finest
        return max(finest, float(np.mean(self.probe_sigma_A)) / _USUAL_PROBE_A)

    def hosts(self) -> set[str]:
        """Species that the crystal, or one of its polytypes, is made of."""
        return {s for each in self.arrangements() for s in each.site_species}

    def arrangements(self) -> tuple[Material, ...]:
        """Give the crystal and each of its polytypes, as crystals of their own."""
        others = [
            replace(
                self,
                basis=tuple((x, y) for _, x, y in sites),
                site_species=tuple(label for label, _, _ in sites),
                polytypes=(),
            )
            for sites in self.polytypes
        ]
        return (self, *others)

    def brightness(self, exponent: float | None = None) -> NDArray[np.float64]:
        """Intensity of each species over the host's, shape (species,).

        Parameters
        ----------
        exponent
            Of the atomic number; the material's own by default. A column is the sum of its atoms.
        """
        power = self.contrast_exponent if exponent is None else exponent
        value = np.array([_intensity(label, power) for label in self.species])
        out: NDArray[np.float64] = value / _intensity(self.host, power)
        return out


def _intensity(label: str, exponent: float) -> float:
    """Sum of Zⁿ over the atoms of a label; any column that has no name has one."""
    if label == ANY:
        return 1.0
    return float(sum(n * atomic_numbers[s] ** exponent for s, n in Formula(label).count().items()))


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
            f"`material` {name}",
            expected="one of " + ", ".join(sorted(MATERIALS)),
            got=repr(name),
            todo=hint + "Name one of these.",
        )
    return found
