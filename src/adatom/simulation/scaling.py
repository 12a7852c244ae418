"""Every engine's own lattice constant, and the scaling of a supercell to it.

Engines disagree on the lattice constant of graphene by 3 %. A supercell at the experimental one
would be strained in most of them, and the strain would look like physics.
"""

from __future__ import annotations

import ase
import numpy as np
from numpy.typing import NDArray

from adatom.core import Material
from adatom.errors import BadInput, EngineMissing
from adatom.materials.library import load_material
from adatom.simulation.classical import POTENTIALS, ClassicalCalculator, Sheet
from adatom.simulation.engines import load_tblite

VACUUM_A = 20.0
GFN1 = "gfn1-xtb"

# Measured by `measure_lattice_constant_A`, which a test repeats.
LATTICE_CONSTANTS_A: dict[tuple[str, str], float] = {
    (GFN1, "graphene"): 2.4566,
    ("lammps/lcbop", "graphene"): 2.4593,
    ("lammps/tersoff", "graphene"): 2.5298,
}


def lattice_constant_A(method: str, material_name: str) -> float:
    """Give the lattice constant at which a perfect sheet is free of stress in an engine.

    Parameters
    ----------
    method
        ``gfn1-xtb``, or ``lammps/`` and the name of a potential.
    material_name
        Name of the material.

    Returns
    -------
    Length of the first lattice vector, Å.

    Raises
    ------
    BadInput
        If the material is unknown, or the engine cannot simulate it.
    EngineMissing
        If the method was not measured for it and its engine cannot be loaded.
    """
    material = load_material(material_name)
    if method.split("/", maxsplit=1)[0] not in material.simulated_by:
        raise BadInput(
            f"simulation of {material.name}",
            expected="one of its engines: " + (", ".join(material.simulated_by) or "it has none"),
            got=method,
            todo="`simulated_by` in a material's file names the engines for it.",
        )
    known = LATTICE_CONSTANTS_A.get((method, material.name))
    return measure_lattice_constant_A(method, material_name) if known is None else known


def measure_lattice_constant_A(method: str, material_name: str) -> float:
    """Measure that lattice constant: the minimum of the energy over the length of a flat sheet.

    A cubic through the energies of five lengths around the best, two rounds. The sheet is 7 x 7
    cells in GFN1-xTB, which adatom runs at the Γ point alone: smaller, or divisible by three, and
    the sampling of the Dirac point moves the minimum.

    Parameters
    ----------
    method, material_name
        As for `lattice_constant_A`.

    Raises
    ------
    BadInput
        If the material is unknown.
    EngineMissing
        If the engine is missing.
    """
    material = load_material(material_name)
    centre = material.lattice_constant_A
    for half_width in (0.04, 0.01):
        lengths = centre * np.linspace(1.0 - half_width, 1.0 + half_width, 5)
        energies = [_energy_eV(method, _flat_sheet(material, a)) for a in lengths]
        centre = _minimum(lengths, np.array(energies))
    return centre


def scale_to(atoms: ase.Atoms, from_A: float, to_A: float) -> ase.Atoms:
    """Stretch a sheet in its plane from one lattice constant to another, and give it vacuum.

    Parameters
    ----------
    atoms
        Periodic in the plane of the first two cell vectors; positions in Å.
    from_A, to_A
        Lattice constants, Å. Heights above the sheet stay as they are.

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


def _flat_sheet(material: Material, lattice_A: float) -> ase.Atoms:
    cell = np.zeros((3, 3))
    cell[:2, :2] = material.cell() * lattice_A / material.lattice_constant_A
    cell[2, 2] = VACUUM_A
    fractions = [(u, v, 0.5) for u, v in material.basis]
    unit = ase.Atoms(material.site_species, scaled_positions=fractions, cell=cell, pbc=True)
    sheet: ase.Atoms = unit.repeat((7, 7, 1))
    return sheet


def _energy_eV(method: str, atoms: ase.Atoms) -> float:
    if method == GFN1:
        atoms.calc = load_tblite()(method="GFN1-xTB", verbosity=0)
        return float(atoms.get_potential_energy())
    for potential in POTENTIALS:
        if method == f"lammps/{potential.name}":
            with Sheet(atoms, potential) as sheet:
                atoms.calc = ClassicalCalculator(sheet)
                return float(atoms.get_potential_energy())
    raise EngineMissing(
        f"lattice constant in {method}",
        expected=f"{GFN1} or " + " or ".join(f"lammps/{p.name}" for p in POTENTIALS),
        got=method,
        todo="Use one of these.",
    )


def _minimum(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    middle = float(x.mean())
    a, b, c, _ = np.polyfit(x - middle, y - y.min(), 3)
    roots = np.roots([3.0 * a, 2.0 * b, c])
    real = roots[np.isreal(roots)].real
    minima = real[6.0 * a * real + 2.0 * b > 0.0]
    return middle + float(minima[np.argmin(np.abs(minima))])
