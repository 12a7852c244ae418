"""Test by the intensity whether the sites of a hole are empty.

Networks are trained on vacancies of a few sites. In a larger hole they show neither atoms nor
vacancies, as they do under contamination. The intensity tells the two apart: a hole is as dark as
the background between the atoms around it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import AtomTable, Frame
from adatom.core.arrays import BoolArray, FloatArray
from adatom.features.defects.vacancy_test import p_empty_of_amplitudes, typical_amplitudes
from adatom.features.neighbours import groups
from adatom.features.refinement.binning import bin_frame
from adatom.features.refinement.image_model import Grid
from adatom.features.refinement.refine import Refined
from adatom.features.refinement.spots import spot_amplitudes
from adatom.features.scaled_lengths import frame_in_units

HOLE_SITES = 4  # the networks list the sites of smaller holes; larger ones fade from eight on
_CLEAR_BONDS = 0.7  # a site with an atom this near is not free; relaxed neighbours are farther
_LINK_BONDS = 1.25  # sites nearer than this are neighbours; second neighbours are at 1.73
_AROUND = 8  # atoms around a site that tell its background
_UNEVEN = 0.1  # least standard deviation of the background, in amplitudes of an atom
# A sheet out of focus or under contamination is brighter than a hole. Level from which a place is
# covered, in amplitudes of an atom; blurred graphene has 0.4 to 0.5.
_COVERED = 0.3
_SAME_LEVEL_A = 2.6  # radius in which the level is averaged: second neighbours in graphene, Å
# The networks see no atom, which a hole explains and a sheet does not: neither is likelier before
# the intensity is asked.
_PRIOR = 0.5


def sites_of_holes(sites_xy: FloatArray, atoms_xy: FloatArray, bond_A: float) -> BoolArray:
    """Which lattice sites are free and lie in a group of at least four free sites, shape (site,).

    Parameters
    ----------
    sites_xy
        Sites of the fitted lattice, shape (site, 2), Å.
    atoms_xy
        Likely atoms, shape (atom, 2), Å.
    bond_A
        Bond length of the crystal, Å.

    Examples
    --------
    >>> sites = np.array([[1.4 * k, 0.0] for k in range(8)])
    >>> sites_of_holes(sites, sites[:3], 1.4).tolist()
    [False, False, False, True, True, True, True, True]
    """
    out = np.zeros(len(sites_xy), dtype=np.bool_)
    if not len(atoms_xy) or len(sites_xy) < HOLE_SITES:
        return out
    free = np.flatnonzero(cKDTree(atoms_xy).query(sites_xy)[0] > _CLEAR_BONDS * bond_A)
    if len(free) < HOLE_SITES:
        return out
    links = cKDTree(sites_xy[free]).query_pairs(_LINK_BONDS * bond_A)
    for group in groups(len(free), links):
        if len(group) >= HOLE_SITES:
            out[free[group]] = True
    return out


def hole_evidence(
    frame: Frame,
    atoms: AtomTable,
    refined: Refined,
    sites_xy: FloatArray,
    labels: NDArray[np.str_],
    scale: float,
) -> FloatArray:
    """Probability that each site of a hole is empty, from the intensity there.

    What the atoms around explain is subtracted from the frame. In what is left, a spot and the
    level under it are fitted at each site; the level is expected to be that between the nearest
    atoms. The amplitude of the spot is compared with zero and with that of an atom, as in
    `site_evidence`. Where the level is much brighter, contamination covers the site, and it is not
    called empty.

    Parameters
    ----------
    frame
        The image.
    atoms
        Its atoms; the likely ones count.
    refined
        The fit behind them.
    sites_xy
        Free sites, shape (site, 2), Å, measured axes.
    labels
        What the crystal has at each site, shape (site,).
    scale
        `Material.scale`: the unit of length of the fit, Å.

    Returns
    -------
    Probability, shape (site,).
    """
    likely = AtomTable(atoms.data.filter(atoms.is_likely))
    binned = bin_frame(frame_in_units(frame, scale))
    rc = binned.rc(likely.xy / scale)
    grid = Grid((binned.data.shape[0], binned.data.shape[1]))
    amplitude = likely.column("amplitude")
    spots = grid.image(grid.spectrum(rc, amplitude), grid.kernel(refined.optics.probe))
    own = cKDTree(refined.xy).query(likely.xy)[1]
    around = cKDTree(likely.xy).query(sites_xy, k=min(_AROUND, len(likely)))[1]
    near = refined.background[own][around.reshape(len(sites_xy), -1)]
    typical = typical_amplitudes(amplitude, likely, labels)
    background = np.median(near, axis=1)
    unsure = np.hypot(near.std(axis=1), _UNEVEN * typical)
    value, sd, level = spot_amplitudes(
        binned.data - spots, binned.rc(sites_xy / scale), background, unsure, refined.optics
    )
    p = p_empty_of_amplitudes(value, sd, typical, _PRIOR)
    # The level of one site is noisy: sites next to each other have one level.
    near = cKDTree(sites_xy).query_ball_point(sites_xy, _SAME_LEVEL_A * scale)
    level = np.array([level[k].mean() for k in near])
    return np.where(level > _COVERED * typical, 0.0, p)
