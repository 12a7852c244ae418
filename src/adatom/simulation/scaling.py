"""Scale supercells to an engine's lattice constant, and measure that constant.

Lattice constants of graphene in different engines differ by 3 %. A supercell at the experimental
constant would be strained in most engines, and the strain would change the results.
"""

from __future__ import annotations

from collections.abc import Callable

import ase
import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from adatom.core import Material
from adatom.errors import BadInput

VACUUM_A = 20.0  # height of the cell of a sheet, Å; GFN1-xTB is faster with it than with 10 Å


def measure_lattice_constant_A(
    energy_eV: Callable[[ase.Atoms], float], material: Material, *, cells: int = 7
) -> float:
    """Measure the lattice constant at which a perfect sheet is free of stress.

    A cubic is fitted to the energies at five lengths, and its minimum is the centre of a second,
    narrower round. The sheet has 7 x 7 cells, for engines with the Γ point only. In a smaller sheet
    or one divisible by three, the sampling of the Dirac point shifts the minimum.

    Parameters
    ----------
    energy_eV
        Potential energy, eV, of a sheet that is periodic in all directions. Where atoms stand above
        each other, it is the energy at the heights of least energy, from the given ones.
    material
        A sheet.
    cells
        Cells along each side of the sheet.

    Returns
    -------
    Length of the first lattice vector, Å.

    Raises
    ------
    BadInput
        If the material is no sheet of known atoms, or the energy has no minimum near its own
        lattice constant.

    Examples
    --------
    Springs of 2.5 Å between the cells of a sheet:

    >>> from adatom.core import GRAPHENE
    >>> def springs(atoms):
    ...     return float((atoms.cell.lengths()[0] / 7 - 2.5) ** 2)
    >>> round(measure_lattice_constant_A(springs, GRAPHENE), 4)
    2.5
    """
    single = set(material.site_species) <= set(atomic_numbers)
    if material.form != "sheet" or not (material.crystal or single):
        raise BadInput(
            f"lattice constant of {material.name}",
            expected="a sheet whose atoms are known in three dimensions",
            got=f"{material.form} of " + ", ".join(sorted(set(material.site_species))),
            todo="Only sheets are simulated.",
        )
    centre = material.lattice_constant_A
    for half_width in (0.04, 0.01):
        lengths = centre * np.linspace(1.0 - half_width, 1.0 + half_width, 5)
        energies = [energy_eV(reference_sheet(material, a, cells)) for a in lengths]
        found = minimum(lengths, np.array(energies))
        if found is None:
            raise BadInput(
                f"lattice constant of {material.name}",
                expected=f"a minimum of the energy near {material.lattice_constant_A:.3f} Å",
                got="none within 4 %",
                todo="Check that the engine is made for this material.",
            )
        centre = found
    return centre


def scale_to(atoms: ase.Atoms, from_A: float, to_A: float) -> ase.Atoms:
    """Scale a sheet in its plane from one lattice constant to another, and add vacuum.

    Parameters
    ----------
    atoms
        Periodic in the plane of the first two cell vectors; positions in Å.
    from_A, to_A
        Lattice constants, Å. Heights above the sheet do not change.

    Returns
    -------
    A copy, periodic in all directions, ``VACUUM_A`` high with the sheet in the middle.
    """
    out: ase.Atoms = atoms.copy()
    cell = out.cell.array.copy()
    cell[:2] *= to_A / from_A
    cell[2] = (0.0, 0.0, VACUUM_A)
    positions = out.get_positions()
    positions[:, :2] *= to_A / from_A
    positions[:, 2] += 0.5 * VACUUM_A - np.median(positions[:, 2])
    out.set_constraint()
    out.set_cell(cell)
    out.set_positions(positions)
    out.pbc = True
    return out


def reference_sheet(material: Material, lattice_A: float, cells: int) -> ase.Atoms:
    """Build a perfect sheet of a material.

    Parameters
    ----------
    material
        A sheet whose `crystal` is known, or of single atoms.
    lattice_A
        Length of its first lattice vector, Å.
    cells
        Cells along each side.

    Returns
    -------
    Periodic in all directions, ``VACUUM_A`` high with the sheet in the middle.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> len(reference_sheet(GRAPHENE, 2.46, 7))
    98
    """
    if material.crystal is not None:
        unit = material.crystal.to_ase()
    else:
        cell = np.zeros((3, 3))
        cell[:2, :2], cell[2, 2] = material.cell(), VACUUM_A
        flat = [(u, v, 0.0) for u, v in material.basis]
        unit = ase.Atoms(material.site_species, scaled_positions=flat, cell=cell)
    return scale_to(unit.repeat((cells, cells, 1)), material.lattice_constant_A, lattice_A)


def minimum(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """Minimum of a cubic through values `y` at `x`, shape (point,); None where it has none."""
    middle = float(x.mean())
    a, b, c, _ = np.polyfit(x - middle, y - y.min(), 3)
    roots = np.roots([3.0 * a, 2.0 * b, c])
    real = roots[np.isreal(roots)].real
    minima = real[6.0 * a * real + 2.0 * b > 0.0]
    return middle + float(minima[np.argmin(np.abs(minima))]) if len(minima) else None
