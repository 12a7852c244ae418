"""The lattice of a frame, fitted to its atoms."""

from __future__ import annotations

from adatom.core import AtomTable, Lattice, Material
from adatom.core.arrays import BoolArray, FloatArray
from adatom.frames.lattice.fit import fit_lattice

# Scatter of atoms about their lattice sites beyond their error bars, Å: mostly thermal motion.
_POSITION_SD_A = 0.05


def lattice_of(atoms: AtomTable, material: Material) -> Lattice | None:
    """Fit the lattice to the likely atoms of one frame, each weighted by its precision.

    Parameters
    ----------
    atoms
        Atoms of one frame.
    material
        The crystal.

    Returns
    -------
    The lattice, or None if the atoms do not lie on one.
    """
    host, weights = host_weights(atoms, material)
    others = atoms.is_likely & ~host
    return fit_lattice(atoms.xy[host], material, weights=weights, others_xy=atoms.xy[others])


def host_weights(atoms: AtomTable, material: Material) -> tuple[BoolArray, FloatArray]:
    """Which atoms are the host's, shape (atom,), and the weights of those in the fit."""
    host = atoms.is_likely & (atoms.elements == material.host)
    variance = atoms.covariance.trace(axis1=1, axis2=2)
    return host, 1.0 / (variance[host] + _POSITION_SD_A**2)
