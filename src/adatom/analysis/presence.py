"""Does a frame show its material? Sure atoms in a part, and sites as bright as they should be.

The networks of a material find weak guesses in anything. In frames of something else hardly one of
them is sure. Contamination or a hole makes a whole frame unsure too, and there some part is not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from adatom.analysis.frame import find_atoms
from adatom.core import AtomTable, Frame, Lattice, Material
from adatom.errors import BadInput
from adatom.features.find import FindOptions
from adatom.learning.ensemble import Ensemble

_PART_A = (11.0, 22.0)  # Å at graphene's scale: smallest and largest edge of a part
_PARTS = 4  # along each edge of the frame
_SURE_P = 0.9  # p_exists of a sure atom
_SHARE = 0.1  # sure atoms over the sites that a part's area should have, in a part that has some
_BOND = (0.7, 1.35)  # distances that may be bonds, over that of the crystal
_BONDS = 2  # bonds of an atom that stands as in the crystal; at edges and in noise some are missing
# Parts that must have some: of the sixteen parts of a frame of noise, one may mislead, rarely two.
_WITH_ATOMS = 2
# Ratio of the brightness of equal sites, from which they are not equal. Aberrations of the probe
# make it up to 1.2 in real graphene; that of boron nitride is 1.55 and more.
_UNEQUAL = 1.25
_SITES = 8  # least number of atoms of each kind of site


def shows_material(
    frame: Frame, ensemble: Ensemble, material: Material, options: FindOptions | None = None
) -> bool:
    """Tell whether at least two parts of a frame have sure atoms, bonded as in the crystal.

    Parameters
    ----------
    frame
        The image.
    ensemble
        Calibrated networks of the material.
    material
        The crystal, or the dispersed atoms.
    options
        How atoms are found.
    """
    found = 0
    for part in _parts(frame, material):
        atoms = find_atoms(part, ensemble, material, options).atoms
        width, height = part.calibration.extent_xy(part.shape)
        sites = width * height / material.site_area_A2
        found += bonded_atoms(atoms, material) >= _SHARE * sites
        if found >= _WITH_ATOMS:
            return True
    return False


def _parts(frame: Frame, material: Material) -> Iterator[Frame]:
    """Cut a frame into overlapping squares; those that cannot be a frame are left out."""
    px, (rows, cols) = frame.calibration.pixel_size_A, frame.shape
    low, high = (edge * material.scale for edge in _PART_A)
    side = min(int(np.clip(min(rows, cols) * px / 3.0, low, high) / px), rows, cols)
    for r in np.unique(np.linspace(0, rows - side, _PARTS).astype(int)):
        for c in np.unique(np.linspace(0, cols - side, _PARTS).astype(int)):
            try:
                yield Frame(
                    frame.data[r : r + side, c : c + side].copy(), frame.calibration,
                    index=frame.index, source=frame.source,
                )  # fmt: skip
            except BadInput:  # constant: outside of the scan
                continue


def bonded_atoms(atoms: AtomTable, material: Material) -> int:
    """Count the sure atoms of a frame that stand as in the crystal.

    Parameters
    ----------
    atoms
        Atoms of one frame.
    material
        What they should be.

    Returns
    -------
    Number of atoms with p_exists above 0.9; in a crystal, of those with two other likely atoms at
    about the distance of a bond (with one, where an atom of the crystal has no more).
    """
    p, xy = atoms.column("p_exists"), atoms.xy
    sure, likely = xy[p > _SURE_P], xy[atoms.is_likely]
    wanted = min(_BONDS, material.coordination)
    if not material.has_lattice:
        return len(sure)
    if len(likely) <= wanted or not len(sure):
        return 0
    near = cKDTree(likely).query(sure, k=wanted + 1)[0][:, 1:]
    low, high = (limit * material.bond_length_A for limit in _BOND)
    return int(((near > low) & (near < high)).all(axis=1).sum())


def unequal_sites(atoms: AtomTable, lattice: Lattice | None) -> float:
    """Ratio of the brightness of sites that should be equal, if it is certainly not one.

    Parameters
    ----------
    atoms
        Atoms of one frame.
    lattice
        Their lattice; the test is for crystals of one kind of site, as in a sheet of one element.

    Returns
    -------
    Median amplitude on the brighter sublattice over that on the other; 1 if they are equal as far
    as three standard errors and the probe's aberrations allow.
    """
    if lattice is None or len(set(lattice.material.site_species)) != 1:
        return 1.0
    if lattice.material.polytypes or lattice.material.is_thick or len(lattice.material.basis) < 2:
        return 1.0
    own = atoms.is_likely & (atoms.elements == lattice.material.host)
    index, offset = lattice.nearest_site(lattice.undistort(atoms.xy[own]))
    near = np.linalg.norm(offset, axis=1) < lattice.material.bond_length_A / 3
    amplitude, site = atoms.column("amplitude")[own][near], index[near, 2]
    groups = [amplitude[site == k] for k in range(len(lattice.material.basis))]
    if min(len(g) for g in groups) < _SITES:
        return 1.0
    middle = np.array([np.median(g) for g in groups])
    if middle.min() <= 0:
        return 1.0
    # The standard error of a median is 1.25 times that of the mean; the standard deviation is 1.48
    # times the median deviation, which impurities and ad-atoms do not widen.
    errors = [
        1.25 * 1.48 * float(np.median(np.abs(g - m))) / len(g) ** 0.5 / m
        for g, m in zip(groups, middle, strict=True)
    ]
    ratio = float(middle.max() / middle.min())
    return ratio if ratio * (1.0 - 3.0 * float(np.hypot(*errors[:2]))) > _UNEQUAL else 1.0
