"""Graphene frames with a known lattice, as tables of atoms, and supercells of them."""

from __future__ import annotations

import numpy as np

from adatom.core import GRAPHENE, Affine, AtomTable, Lattice
from adatom.structures import SupercellOptions, build_supercell

EXTENT = (40.0, 36.0)
CENTER = (20.0, 18.0)
BOND = GRAPHENE.bond_length_A


def make_lattice(angle=0.3, stretch=(0.03, -0.04, 0.02), bend=0.0, origin=(0.31, -0.42), rms=0.05):
    affine = Affine(((1 + stretch[0], stretch[2]), (stretch[2], 1 + stretch[1])))
    curve = bend * np.array([[1.0, -0.5, 0.2], [0.3, 0.8, -0.6]])
    return Lattice(GRAPHENE, CENTER, affine, curve, angle, origin, rms, 1.0)


def sites_of(lattice):
    """Indices and measured positions of the sites in the frame."""
    return lattice.sites_within(EXTENT)


def table(xy, elements=None, *, sigma=0.05, p=1.0, p_element=1.0, frame=0, covariance=None):
    n = len(xy)
    cov = np.tile(np.eye(2) * sigma**2, (n, 1, 1)) if covariance is None else covariance
    return AtomTable.build(
        frame=frame,
        xy=np.asarray(xy, dtype=float),
        covariance=cov,
        p_exists=np.broadcast_to(p, n),
        element=elements if elements is not None else ["C"] * n,
        p_element=np.broadcast_to(p_element, n),
        votes=np.ones(n),
        amplitude=np.ones(n),
    )


def build(atoms, lattice, center=CENTER, **options):
    return build_supercell(
        atoms,
        lattice,
        EXTENT,
        center_xy_A=center,
        kind="test",
        frame=0,
        defect=0,
        options=SupercellOptions(**options),
    )


def nearest(xy, point):
    return int(np.argmin(np.linalg.norm(xy - np.asarray(point), axis=1)))


def substituted(xy, which):
    return ["Si" if i in which else "C" for i in range(len(xy))]


def rotation(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])
