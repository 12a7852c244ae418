"""Start a relaxation at the minimum of a classical potential, with its Hessian.

Force evaluations until 0.05 eV/Å, measured on Si3C6 in 112 sites of graphene (111 atoms, GFN1-xTB),
from a draw with 0.07 Å noise:

==================================================  ===========
BFGS, and LBFGS, from the draw                           78
BFGS from the draw, Hessian of the Tersoff potential     37
BFGS after a minimisation in Tersoff                     38
BFGS after that, with its Hessian (this module)          20
==================================================  ===========

The classical minimum and its Hessian take one second in LAMMPS. They also remove the noise of the
draw, whose forces of tens of eV/Å otherwise move atoms far from their sites. If no classical
potential covers the elements, BFGS starts from the draw.
"""

from __future__ import annotations

import ase
import numpy as np
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.errors import AdatomError
from adatom.simulation.buckling import is_one_atom_thick, lowest_minimum
from adatom.simulation.classical import Sheet, choose_potential
from adatom.simulation.engines.lammps import ENGINE as LAMMPS
from adatom.simulation.relaxation import STIFFNESS_EV_A2
from adatom.simulation.scaling import scale_to

# Least stiffness of a mode, eV/Å²: softer modes are ripples, in which the two methods differ.
_SOFTEST_EV_A2 = 3.0
_TOO_NEAR_A = 0.85  # Å; no bond of C or heavier elements is shorter than 1.1 Å


def classical_start(
    given: ase.Atoms,
    fixed: NDArray[np.bool_],
    engine_lattice_A: float,
    material: Material,
    *,
    buckle: bool = True,
) -> tuple[ase.Atoms, FloatArray | None]:
    """Find the classical minimum near a structure; the structure itself if that fails.

    Parameters
    ----------
    given, fixed, engine_lattice_A, material, buckle
        As of `classical_minimum`.

    Returns
    -------
    The structure itself also where no classical potential is fit for it. Otherwise the start
    geometry at the same lattice constant, and the Hessian there, shape (3 atom, 3 atom), in
    eV/Å², or None.
    """
    found = classical_minimum(given, fixed, engine_lattice_A, material, buckle=buckle)
    if found is None:
        return given.copy(), None
    symbols = set(given.get_chemical_symbols())
    stretched = scale_to(found, engine_lattice_A, LAMMPS.lattice_constant_A(material, symbols))
    try:
        with Sheet(stretched, choose_potential(symbols)) as sheet:
            hessian = sheet.hessian(stretched.get_positions())
    except AdatomError:
        return given.copy(), None
    held = np.repeat(fixed, 3)
    hessian[held] = hessian[:, held] = 0.0
    hessian[held, held] = STIFFNESS_EV_A2
    curvature, modes = np.linalg.eigh(hessian)
    stiff: FloatArray = (modes * np.maximum(np.abs(curvature), _SOFTEST_EV_A2)) @ modes.T
    return found, stiff


def classical_minimum(
    given: ase.Atoms,
    fixed: NDArray[np.bool_],
    engine_lattice_A: float,
    material: Material,
    *,
    buckle: bool = True,
) -> ase.Atoms | None:
    """Find the classical minimum near a structure.

    Parameters
    ----------
    given
        Structure at the lattice constant of the engine that will relax it.
    fixed
        Shape (atom,): True where the atom must not move.
    engine_lattice_A
        Lattice constant of that engine, Å.
    material
        The crystal of the structure.
    buckle
        Of a sheet one atom thick, the lowest of several bucklings.

    Returns
    -------
    The minimum at the same lattice constant; None where no classical potential is fit for it, or
    two atoms merge.
    """
    symbols = set(given.get_chemical_symbols())
    if LAMMPS.unfit(given, material):  # it would throw an ad-atom off
        return None
    try:
        potential = choose_potential(symbols)
        classical = LAMMPS.lattice_constant_A(material, symbols)
        stretched = scale_to(given, engine_lattice_A, classical)
        with Sheet(stretched, potential) as sheet:
            sheet.hold(fixed)
            several = buckle and is_one_atom_thick(material)
            stretched.set_positions(
                lowest_minimum(sheet, stretched, fixed) if several else sheet.minimise()
            )
    except AdatomError:  # elements without a potential, no LAMMPS, atoms on top of each other
        return None
    if nearest_distance_A(stretched) < _TOO_NEAR_A:  # two atoms have merged
        return None
    out = scale_to(stretched, classical, engine_lattice_A)
    # Fixed atoms get their exact positions back; scaling and centring round them.
    out.positions[fixed] = given.positions[fixed]
    return out


def nearest_distance_A(atoms: ase.Atoms) -> float:
    """Shortest distance between two atoms, periodic images included, Å."""
    distances = neighbor_list("d", atoms, 1.5)
    return float(distances.min()) if len(distances) else 1.5
