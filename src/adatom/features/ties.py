"""What the crystal says of its regular atoms: each lies at the centroid of its neighbours.

In a honeycomb, a square or a hexagonal layer an atom of the perfect crystal is the centroid of its
nearest neighbours, whatever the rotation, the strain or the slow distortion of the scan. Where
counts are few this says more of a position than the image does (van Trees' bound); it is said only
of atoms whose whole neighbourhood is regular, so that no defect is straightened.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from adatom.core import Material

FloatArray = NDArray[np.float64]
_BOND = 1.28  # neighbours lie within this many bond lengths
_OPEN = np.deg2rad(28.0)  # largest deviation of an angle between neighbours from the perfect one


def centroid_ties(xy: FloatArray, host: NDArray[np.bool_], material: Material) -> sparse.csr_matrix:
    """Linear forms that vanish on a perfect crystal: atom minus the mean of its neighbours.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å.
    host
        Shape (atom,): True for atoms of the crystal's own element.
    material
        Gives bond length and coordination.

    Returns
    -------
    Shape (tie, atom); one row for every atom that is regular: the right number of neighbours, all
    host and evenly spread around it, each of which has the right number of neighbours itself.
    """
    n, z = len(xy), material.coordination
    empty = sparse.csr_matrix((0, n))
    if n < z + 1:
        return empty
    near = cKDTree(xy).query_ball_point(xy, _BOND * material.bond_length_A)
    neighbours = [[j for j in found if j != i] for i, found in enumerate(near)]
    full = np.array([len(found) == z for found in neighbours]) & host
    full &= np.array([bool(host[found].all()) for found in neighbours])
    rows, columns, values = [], [], []
    count = 0
    for i in np.nonzero(full)[0]:
        around = neighbours[i]
        if not full[around].all() or not _even(xy[around] - xy[i], z):
            continue
        rows += [count] * (z + 1)
        columns += [int(i), *around]
        values += [1.0] + [-1.0 / z] * z
        count += 1
    return sparse.csr_matrix((values, (rows, columns)), shape=(count, n)) if count else empty


def _even(d: FloatArray, z: int) -> bool:
    """Tell whether directions (z, 2) are spread evenly around the circle."""
    angle = np.sort(np.arctan2(d[:, 1], d[:, 0]))
    gaps = np.diff(np.append(angle, angle[0] + 2 * np.pi))
    return bool(np.abs(gaps - 2 * np.pi / z).max() < _OPEN)
