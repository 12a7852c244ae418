"""The lattice of a frame, by the atoms that were found in it."""

from __future__ import annotations

from adatom.core import AtomTable, Lattice, Material
from adatom.frames.lattice.fit import fit_lattice

_POSITION_SD_A = 0.05  # scatter of atoms about their sites beyond their error bars, thermal mostly


def lattice_of(atoms: AtomTable, material: Material) -> Lattice | None:
    """Fit the lattice to the likely atoms of one frame, each weighted by its precision.

    Parameters
    ----------
    atoms
        Of one frame.
    material
        The crystal.

    Returns
    -------
    The lattice, or None where the atoms show none.
    """
    likely = atoms.is_likely
    host = likely & (atoms.elements == material.host)
    variance = atoms.covariance.trace(axis1=1, axis2=2)
    weights = 1.0 / (variance[host] + _POSITION_SD_A**2)
    return fit_lattice(
        atoms.xy[host], material, weights=weights, others_xy=atoms.xy[likely & ~host]
    )
