"""Atoms of one frame as the bonded-sheet namer sees them, and the defects that it makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from adatom.core import AtomTable, DefectKind, EmptySites, Lattice, Material
from adatom.core.arrays import BoolArray, FloatArray, IntArray
from adatom.features.defects.base import DefectOptions
from adatom.features.defects.sites import OccupiedSites, Sites
from adatom.features.neighbours import assign_to_sites, border_distance, distinct

_SAME_SPOT_A = 0.35  # a host atom this near to a foreign one is the same spot, detected twice
_FAR_A = 4.5  # a site without an atom this near lies in a hole, or outside of what was searched
_SAME_SITE_A = 0.6  # a tested place this near to a site is that site: below half a bond length


@dataclass(frozen=True, slots=True, eq=False)
class FrameAtoms:
    """One frame's atoms as arrays.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å, undistorted; on a lattice also without its smooth misfit.
    measured
        Shape (atom, 2), Å, measured axes.
    sigma
        Standard deviation of a position per axis, shape (atom,), Å.
    p, p_element
        Probabilities of existence and of the element, shape (atom,).
    element
        Labels, one for each atom.
    number
        Numbers in the atom table, shape (atom,).
    amplitude
        Shape (atom,), intensity of the frame.
    border
        Distance from the frame's border, shape (atom,), Å.
    foreign, host
        Shape (atom,): which atoms are foreign, and which belong to the crystal; doubtful atoms are
        neither.
    """

    xy: FloatArray
    measured: FloatArray
    sigma: FloatArray
    p: FloatArray
    p_element: FloatArray
    element: tuple[str, ...]
    number: IntArray
    amplitude: FloatArray
    border: FloatArray
    foreign: BoolArray
    host: BoolArray


@dataclass(frozen=True, slots=True)
class NamedDefect:
    """A defect of one frame.

    Parameters
    ----------
    kind
        What it is.
    xy
        Centre, Å, measured axes.
    p
        Probability.
    atoms
        Numbers in the atom table.
    sites
        Lattice sites that it explains: no other defect may use them.
    alternatives
        What else it may be, as a table of defects tells it.
    """

    kind: DefectKind
    xy: tuple[float, float]
    p: float
    atoms: tuple[int, ...]
    sites: tuple[int, ...] = ()
    alternatives: str = ""


def read_frame_atoms(
    atoms: AtomTable,
    lattice: Lattice | None,
    material: Material,
    extent_xy_A: tuple[float, float],
    options: DefectOptions,
) -> FrameAtoms:
    """Read the arrays from a table, and tell foreign atoms from those of the crystal.

    An atom is foreign if the crystal does not contain its element, or if another element belongs on
    the site where it is.
    """
    measured = atoms.xy
    element = tuple(str(e) for e in atoms.elements)
    p, p_element = atoms.column("p_exists"), atoms.column("p_element")
    other = ~np.isin(element, material.site_species)
    if lattice is not None:
        index, offset = lattice.nearest_site(lattice.undistort(measured))
        expected = np.array(material.site_species)[index[:, 2]]
        on_site = np.hypot(*offset.T) < options.site_tolerance_A
        other |= on_site & (np.array(element) != expected)
    foreign = distinct(measured, other & (p * p_element >= options.minimum_p), p * p_element)
    host = ~other & (p >= options.minimum_p)
    if foreign.any():
        host &= cKDTree(measured[foreign]).query(measured)[0] > _SAME_SPOT_A
    return FrameAtoms(
        xy=measured if lattice is None else lattice.undistort(measured),
        measured=measured,
        sigma=np.sqrt(np.maximum(np.trace(atoms.covariance, axis1=1, axis2=2) / 2.0, 1e-6)),
        p=p,
        p_element=p_element,
        element=element,
        number=atoms.data["atom"].to_numpy().astype(np.int64),
        amplitude=atoms.column("amplitude"),
        border=border_distance(measured, extent_xy_A),
        foreign=foreign,
        host=host,
    )


def occupy_sites(
    view: FrameAtoms, sites: Sites, empty: EmptySites, options: DefectOptions
) -> tuple[FrameAtoms, OccupiedSites]:
    """Assign the host atoms to the lattice sites; gives the atoms without the smooth misfit."""
    hosts = np.flatnonzero(view.host)
    occupant, xy, trusted = assign_to_sites(
        sites.xy, view.xy, hosts, options.site_tolerance_A, options.displaced_A
    )
    p_empty = np.full(len(sites.xy), np.nan)
    if len(empty):
        distance, which = cKDTree(empty.xy).query(sites.measured_xy)
        near = distance < _SAME_SITE_A
        p_empty[near] = np.clip(empty.p[which[near]], 0.0, 1.0)
    # Far from every atom, only a test tells a hole from a part that nobody looked at.
    alone = np.ones(len(sites.xy), dtype=np.bool_)
    if len(hosts):
        alone = cKDTree(view.xy[hosts]).query(sites.xy, distance_upper_bound=_FAR_A)[0] > _FAR_A
    trusted &= ~alone | np.isfinite(p_empty)
    return replace(view, xy=xy), OccupiedSites(sites, occupant, p_empty, trusted)


def defect_of_atoms(
    kind: DefectKind,
    view: FrameAtoms,
    members: IntArray,
    p: float,
    bonded: Sequence[int],
    *,
    sites: tuple[int, ...] = (),
) -> NamedDefect:
    """Make a defect at the mean position of its atoms; `bonded` atoms are listed after them."""
    x, y = view.measured[members].mean(axis=0)
    number = tuple(int(n) for n in view.number[[*members.tolist(), *bonded]])
    return NamedDefect(kind, (float(x), float(y)), min(p, 1.0), number, sites)
