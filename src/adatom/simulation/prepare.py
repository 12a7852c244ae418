"""A first guess for a slow engine: the minimum of a classical potential, and its Hessian.

Measured on Si3C6 in 112 sites of graphene (111 atoms, GFN1-xTB), drawn with 0.07 Å noise, to
0.05 eV/Å, in evaluations of the forces:

==================================================  ===========
BFGS, and LBFGS, from the draw                           78
BFGS from the draw, Hessian of the Tersoff potential     37
BFGS after a minimisation in Tersoff                     38
BFGS after that, with its Hessian (this module)          20
==================================================  ===========

The classical minimum and its Hessian cost one second of LAMMPS together; they also take the draw's
noise out, whose forces of tens of eV/Å otherwise throw atoms across the sheet. Where no classical
potential covers the elements, BFGS starts from the draw.
"""

from __future__ import annotations

import ase
import numpy as np
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray
from adatom.errors import AdatomError
from adatom.simulation.classical import Sheet, choose_potential
from adatom.simulation.engines.lammps import ENGINE as LAMMPS
from adatom.simulation.relax import STIFFNESS_EV_A2
from adatom.simulation.scaling import scale_to

_SOFTEST_EV_A2 = 3.0  # softer modes are ripples that the two methods do not share
_TOO_NEAR_A = 0.85  # no bond of C or heavier is shorter than 1.1 Å


def classical_start(
    given: ase.Atoms, fixed: NDArray[np.bool_], own_A: float, material: str
) -> tuple[ase.Atoms, FloatArray | None]:
    """Find the classical minimum near a structure; gives the structure itself where that fails.

    Parameters
    ----------
    given
        Structure at the scale of the engine that will relax it.
    fixed
        Shape (atom,): True where the atom must not move.
    own_A
        Lattice constant of that engine, Å.
    material
        Name of the material.

    Returns
    -------
    Where to start, at the same scale, and the Hessian there, shape (3 atom, 3 atom), eV/Å², or
    None.
    """
    symbols = set(given.get_chemical_symbols())
    try:
        potential = choose_potential(symbols)
        classical = LAMMPS.lattice_constant_A(material, symbols)
        stretched = scale_to(given, own_A, classical)
        with Sheet(stretched, potential) as sheet:
            sheet.hold(fixed)
            stretched.set_positions(sheet.minimise())
            if nearest_distance_A(stretched) < _TOO_NEAR_A:  # the potential has let atoms fuse
                return given.copy(), None
            hessian = sheet.hessian(stretched.get_positions())
    except AdatomError:  # elements without a potential, no LAMMPS, atoms on top of each other
        return given.copy(), None
    held = np.repeat(fixed, 3)
    hessian[held] = hessian[:, held] = 0.0
    hessian[held, held] = STIFFNESS_EV_A2
    curvature, modes = np.linalg.eigh(hessian)
    stiff: FloatArray = (modes * np.maximum(np.abs(curvature), _SOFTEST_EV_A2)) @ modes.T
    out = scale_to(stretched, classical, own_A)
    # Atoms that must not move are where they were, whatever rounding or centring did.
    out.positions[fixed] = given.positions[fixed]
    return out, stiff


def nearest_distance_A(atoms: ase.Atoms) -> float:
    """Shortest distance between two atoms, periodic images included, Å."""
    distances = neighbor_list("d", atoms, 1.5)
    return float(distances.min()) if len(distances) else 1.5
