"""Second derivatives of the energy of some atoms, by central differences of the forces."""

from __future__ import annotations

import ase
import numpy as np
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray

STEP_A = 0.01  # displacement, Å: forces of GFN1-xTB to 1e-4 eV/Å then give 0.01 eV/Å²


def hessian_eV_A2(
    atoms: ase.Atoms, indices: NDArray[np.integer], *, step_A: float = STEP_A
) -> FloatArray:
    """Compute the second derivatives with respect to the coordinates of some atoms.

    Parameters
    ----------
    atoms
        With a calculator of energies in eV; they are moved and put back.
    indices
        Shape (free,): the atoms that are moved; all others are held.
    step_A
        Displacement, Å.

    Returns
    -------
    Shape (3 free, 3 free), eV/Å², symmetric.

    Examples
    --------
    >>> from ase.calculators.lj import LennardJones
    >>> pair = ase.Atoms("Ar2", [[0, 0, 0], [0, 0, 2.0 ** (1 / 6)]], calculator=LennardJones())
    >>> pair.calc.set(rc=10.0)
    {'rc': 10.0}
    >>> round(float(hessian_eV_A2(pair, np.arange(2), step_A=1e-4)[2, 2]), 1)  # 72 / 2^(1/3)
    57.1
    """
    start = atoms.get_positions()
    free = [(int(i), axis) for i in indices for axis in range(3)]
    rows = np.empty((len(free), len(free)))
    for row, (i, axis) in enumerate(free):
        forces = []
        for sign in (1.0, -1.0):
            moved = start.copy()
            moved[i, axis] += sign * step_A
            atoms.set_positions(moved, apply_constraint=False)
            forces.append(atoms.get_forces(apply_constraint=False)[indices].ravel())
        rows[row] = (forces[1] - forces[0]) / (2.0 * step_A)
    atoms.set_positions(start, apply_constraint=False)
    return 0.5 * (rows + rows.T)
