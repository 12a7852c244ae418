"""Where a frame shows perfect crystal, and where it shows too much else for a periodic cell."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray
from adatom.core.atoms import AtomTable
from adatom.core.lattice import Lattice
from adatom.structures.scene import SupercellOptions

_NEXT_SITE = 1.25  # empty sites within this many bond lengths of each other are one hole


def perfect_place(
    atoms: AtomTable,
    lattice: Lattice,
    extent_xy_A: tuple[float, float],
    options: SupercellOptions | None = None,
) -> tuple[float, float] | None:
    """Find the site nearest to the middle of a frame around which no site is empty or foreign.

    Parameters
    ----------
    atoms, lattice, extent_xy_A
        As for `build_supercell`.
    options
        The defect radius is that of the perfect surroundings.

    Returns
    -------
    x and y, Å, measured axes; None where there is no such place.
    """
    options = options or SupercellOptions()
    sites, odd, _ = _sites(atoms, lattice, extent_xy_A, options)
    if not len(sites):
        return None
    clear = np.full(len(sites), np.inf)
    if odd.any():
        clear = cKDTree(sites[odd]).query(sites)[0]
    good = np.flatnonzero(clear > options.defect_radius_A + lattice.material.bond_length_A)
    if not len(good):
        return None
    away = np.linalg.norm(sites[good] - np.asarray(extent_xy_A) / 2.0, axis=1)
    x, y = sites[good[int(np.argmin(away))]].tolist()
    return x, y


def hole_reaches_out(
    atoms: AtomTable,
    lattice: Lattice,
    extent_xy_A: tuple[float, float],
    *,
    center_xy_A: tuple[float, float],
    options: SupercellOptions,
) -> bool:
    """Tell whether empty sites within the defect radius go on beyond it: an edge, or a wide hole.

    Parameters
    ----------
    atoms, lattice, extent_xy_A, center_xy_A, options
        As for `build_supercell`.
    """
    sites, _, empty = _sites(atoms, lattice, extent_xy_A, options)
    holes = lattice.undistort(sites[empty])
    if not len(holes):
        return False
    reach = _NEXT_SITE * lattice.material.bond_length_A
    pairs = cKDTree(holes).query_pairs(reach, output_type="ndarray")
    n = len(holes)
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    group = connected_components(links, directed=False)[1]
    away = np.linalg.norm(holes - lattice.undistort(np.array([center_xy_A])), axis=1)
    near = away <= options.defect_radius_A
    return bool(np.isin(group[~near], group[near]).any())


def _sites(
    atoms: AtomTable,
    lattice: Lattice,
    extent_xy_A: tuple[float, float],
    options: SupercellOptions,
) -> tuple[FloatArray, np.ndarray, np.ndarray]:
    """Sites well inside the frame, Å; which of them are empty or foreign; which are empty."""
    index, sites = lattice.sites_within(extent_xy_A, options.border_A)
    likely = atoms.column("p_exists") >= options.min_p_exists
    if not likely.any() or not len(sites):
        nothing = np.ones(len(sites), dtype=np.bool_)
        return sites, nothing, nothing
    distance, at = cKDTree(atoms.xy[likely]).query(sites)
    empty = distance > options.match_A
    labels = np.array(lattice.material.site_species)[index[:, 2]]
    return sites, empty | (atoms.elements[likely][at] != labels), empty
