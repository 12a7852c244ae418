"""Saddles: refined from a guess, or searched for from one state, by the dimer method.

The dimer (Henkelman & Jonsson, J. Chem. Phys. 111, 7010 (1999)) is ASE's; it needs forces alone.
"""

from __future__ import annotations

import time

import ase
import numpy as np
from ase.mep import DimerControl, MinModeAtoms, MinModeTranslate
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray
from adatom.simulation.hessian import hessian_eV_A2

_FLAT_EV_A2 = 0.05  # modes softer than this are ripples of the sheet, of either sign


def refine_saddle(
    atoms: ase.Atoms, way: FloatArray, fmax_eV_A: float, max_steps: int, deadline: float
) -> str:
    """Move atoms to the saddle near them, uphill along their softest mode.

    Parameters
    ----------
    atoms
        With a calculator, near a saddle; they are moved.
    way
        Shape (atom, 3): a direction across the saddle, any length.
    fmax_eV_A
        Largest force at the end, eV/Å.
    max_steps
        Most steps of the dimer.
    deadline
        Time of `time.perf_counter` at which to stop, s.

    Returns
    -------
    ``done`` or ``not converged``.
    """
    if np.linalg.norm(atoms.get_forces(), axis=1).max() < fmax_eV_A:
        return "done"
    free = np.ones(len(atoms), dtype=np.bool_)
    for constraint in atoms.constraints:
        free[constraint.get_indices()] = False
    start = way * free[:, None]
    with DimerControl(
        initial_eigenmode_method="displacement",
        displacement_method="vector",
        logfile=None,
        eigenmode_logfile=None,
        max_num_rot=4,
    ) as control:
        dimer = MinModeAtoms(atoms, control, eigenmodes=[start / np.linalg.norm(start)])
        for converged in MinModeTranslate(dimer, logfile=None).irun(
            fmax=fmax_eV_A, steps=max_steps
        ):
            if converged:
                return "done"
            if time.perf_counter() > deadline:
                break
    return "not converged"


def softest_modes(
    atoms: ase.Atoms, indices: NDArray[np.integer], *, flat: bool = False
) -> tuple[int, FloatArray]:
    """Count the negative modes of the Hessian of some atoms, and give the softest one.

    The count for some of the atoms is at most that of all of them (Cauchy's interlacing theorem).

    Parameters
    ----------
    atoms
        With a calculator.
    indices
        Shape (free,): the atoms that are moved.
    flat
        Leave out the motion in z.

    Returns
    -------
    The number of modes below -0.05 eV/Å² (softer ones are ripples of the sheet), and the lowest
    mode, shape (atom, 3), of length one.
    """
    hessian = hessian_eV_A2(atoms, indices)
    kept = np.tile([True, True, not flat], len(indices))
    curvature, modes = np.linalg.eigh(hessian[np.ix_(kept, kept)])
    lowest = np.zeros(3 * len(indices))
    lowest[kept] = modes[:, 0]
    softest = np.zeros((len(atoms), 3))
    softest[indices] = lowest.reshape(-1, 3)
    return int((curvature < -_FLAT_EV_A2).sum()), softest
