"""Put observed atoms into the supercell and fill the rest with perfect crystal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ase
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray
from adatom.core.defect_kind import Adatom, DefectKind
from adatom.core.structure import Structure
from adatom.structures.scene import Box, Observed, Scene, Stack, SupercellOptions
from adatom.structures.stacks import Filled, fill

FILLED = -1  # source_atom (an index) of an atom that was filled in from the perfect lattice
# Probability given to filled-in atoms. It equals the default of `SupercellOptions.min_p_exists`:
# an observed atom is at least as probable and therefore wins a clash.
_FILL_P = 0.5
_OVER_A = 0.4  # Å: an impurity this near to an atom of the sheet lies over it
_CLASH_BONDS = 0.6  # two columns never clash that are this share of the crystal's bond apart


def structure_name(kind: str, frame: int, defect: int, draw: int) -> str:
    """Name a structure so that the name is readable and valid in a file system.

    Parameters
    ----------
    kind
        Name of the defect; characters that are unsafe in file names become ``_``.
    frame, defect
        Numbers of the frame and of the defect in it.
    draw
        Number of the random sample; -1 for the most probable structure.

    Examples
    --------
    >>> structure_name("Si3C6", 12, 0, 2), structure_name("rings 5-7", 3, 1, -1)
    ('Si3C6-f012-d02', 'rings_5-7-f003-n01')
    """
    name = f"{re.sub(r'[^A-Za-z0-9.+-]', '_', kind)}-f{frame:03d}"
    if defect > 0:  # keeps two defects of one kind in one frame apart
        name += f"-n{defect:02d}"
    return name if draw < 0 else f"{name}-d{draw:02d}"


def assemble(
    scene: Scene,
    observed: Observed,
    *,
    kind: str,
    frame: int,
    defect: int,
    draw: int,
    options: SupercellOptions,
    rng: np.random.Generator | None = None,
) -> tuple[Structure, int]:
    """Put observed columns into the box and fill the rest with perfect crystal.

    Parameters
    ----------
    scene
        The defect and its box.
    observed
        The atoms that exist: the probable ones, or one random sample.
    kind, frame, defect, draw
        Name of the defect, frame, number of the defect in it, number of the sample (-1: none).
    options
        Sizes and limits.
    rng
        Draws on which of several like places an atom is missing or foreign; None for the highest.

    Returns
    -------
    The structure, and the number of atoms left out because a more probable atom was too near.
    ``atoms.info["changes"]`` lists every atom that the crystal does not have, or that it has and
    the structure does not, with its probability.
    """
    box = scene.box
    columns = _columns(scene, observed, isinstance(DefectKind.parse_or_none(kind), Adatom), options)
    bond = scene.lattice.material.bond_length_A
    nearest = min(options.min_distance_A, _CLASH_BONDS * bond)
    keep = _without_clashes(columns, box.vectors[:2, :2], nearest)
    xyz, symbols, source, sigma = [], [], [], []
    changes: list[str] = []
    for column in (c for c, kept in zip(columns, keep, strict=True) if kept):
        filled = fill(column.stack, column.label, rng)
        for symbol, z in zip(filled.symbols, filled.heights_A, strict=True):
            xyz.append((*column.xy, z + column.z))
            symbols.append(symbol)
            source.append(column.source)
            sigma.append(column.sigma)
        changes += _said(column, filled)
    atoms = to_atoms(np.array(xyz).reshape(-1, 3), symbols, box)
    atoms.info["changes"] = changes
    atoms.info["left_as_crystal"] = list(scene.others)
    structure = Structure(
        atoms=atoms,
        name=structure_name(kind, frame, defect, draw),
        kind=kind,
        frame=frame,
        defect=defect,
        draw=draw,
        source_atom=np.array(source, dtype=np.int64),
        sigma_A=np.array(sigma).reshape(-1, 3),
        fixed=np.zeros(len(symbols), dtype=np.bool_),
    )
    return structure, int(np.count_nonzero(~keep))


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One column of the supercell: its place and height, what is there and what the crystal has."""

    xy: FloatArray
    z: float
    label: str
    stack: Stack
    p: float
    source: int
    sigma: tuple[float, float, float]
    layer: int  # columns of one layer may clash; 1 for an ad-atom, -1 for what is not seen


def _columns(
    scene: Scene, observed: Observed, may_lift: bool, options: SupercellOptions
) -> list[_Column]:
    """List the columns of the cell: observed ones near the defect, those of the crystal elsewhere.

    An atom that is assigned to a site is kept if the site lies within the radius; any other atom is
    kept if the atom itself does.
    """
    box, material = scene.box, scene.lattice.material
    site_in = np.linalg.norm(box.sites - scene.center, axis=1) <= options.defect_radius_A
    atom_in = np.linalg.norm(observed.xy - scene.center, axis=1) <= options.defect_radius_A
    # An impurity over an atom of the sheet is seen on the same site: the atom has it.
    own = np.isin(observed.elements, material.site_species)
    on_sites = np.ones(len(own), dtype=np.bool_)
    if may_lift and own.any() and not own.all():
        on_sites = own | (cKDTree(observed.xy[own]).query(observed.xy)[0] > _OVER_A)
    site_of = np.full(len(own), -1, dtype=np.int64)
    site_of[on_sites], atom_of = match(box, observed.xy[on_sites], options.match_A)
    atom_of = np.append(np.flatnonzero(on_sites), -1)[atom_of]
    columns = []
    # Rounding makes the variance of an atom on the border of a frame negative.
    root = np.sqrt(np.maximum(np.diagonal(observed.covariance, axis1=1, axis2=2), 0.0))
    for i in np.flatnonzero(np.where(site_of >= 0, site_in[site_of], atom_in)):
        label, xy, site = str(observed.elements[i]), observed.xy[i], int(site_of[i])
        # Only an ad-atom may overlap other atoms in projection. In other defects, two detections
        # that are close are two candidates for one atom.
        lifted = site < 0 and may_lift
        z = float(observed.z[i])
        if lifted:
            z = float(np.copysign(box.half_thickness_A, z)) + (
                float(np.copysign(max(abs(z), options.ad_atom_height_A), z))
            )
        if site >= 0:
            xy = box.sites[site] + _share(xy, scene, options) * (xy - box.sites[site])
        foreign = lifted or label not in material.site_species
        sigma_z = options.sigma_z_foreign_A if foreign else options.sigma_z_host_A
        columns.append(
            _Column(
                xy, z, label, _stack_for(box, site, label, lifted), float(observed.p_exists[i]),
                int(observed.number[i]), (float(root[i, 0]), float(root[i, 1]), sigma_z),
                int(lifted),
            )
        )  # fmt: skip
    spread = (scene.lattice.rms_A, scene.lattice.rms_A, options.sigma_z_host_A)
    for j in np.flatnonzero(atom_of < 0):
        stack = box.stacks[j]
        vacant = stack.visible and bool(site_in[j]) and bool(scene.trusted[j])
        columns.append(
            _Column(
                box.sites[j], 0.0, "" if vacant else stack.label, stack,
                float(scene.p_empty[j]) if vacant else _FILL_P, FILLED, spread,
                -1 if vacant or not stack.visible else 0,
            )
        )  # fmt: skip
    far = np.flatnonzero((atom_of >= 0) & ~site_in)
    columns += [
        _Column(box.sites[j], 0.0, box.stacks[j].label, box.stacks[j], _FILL_P, FILLED, spread, 0)
        for j in far
    ]
    return columns


def _share(xy: FloatArray, scene: Scene, options: SupercellOptions) -> float:
    """Share of an atom's displacement that is kept: 1 in the core, 0 at the defect's radius."""
    core = min(options.core_radius_A, options.defect_radius_A)
    width = max(options.defect_radius_A - core, 1e-9)
    away = float(np.linalg.norm(xy - scene.center))
    return float(np.clip(1.0 - (away - core) / width, 0.0, 1.0))


def _stack_for(box: Box, site: int, label: str, lifted: bool) -> Stack:
    """The crystal's column at a site; off the sites that of a column like the observed one."""
    if site >= 0:
        return box.stacks[site]
    nowhere = Stack("", (), ())
    like = next((s for s in box.stacks if s.visible and s.label == label), nowhere)
    return nowhere if lifted or not like.label else replace(like, label=label)


def _said(column: _Column, filled: Filled) -> list[str]:
    """What is missing and what is added in a column, one text an atom."""
    x, y = (round(float(v), 2) for v in column.xy)
    where = f"at {x} {y} p {column.p:.3f}"
    return [
        *(f"{symbol} missing {where}" for symbol in filled.missing),
        *(f"{symbol} added {where}" for symbol in filled.added),
    ]


def match(box: Box, xy: FloatArray, limit_A: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Assign atoms to the visible sites of a box, one to one.

    Parameters
    ----------
    box
        The cell.
    xy
        Shape (atom, 2), Å, cell axes.
    limit_A
        Largest distance of an atom from its site, Å.

    Returns
    -------
    Site of each atom and atom of each site, shapes (atom,) and (site,); -1 where there is none.
    """
    seen = np.flatnonzero(box.visible)
    site_of, atom_of = _match(box.sites[seen], xy, limit_A)
    whole = np.full(len(box.sites), -1, dtype=np.int64)
    whole[seen] = atom_of
    return np.where(site_of >= 0, seen[site_of], -1), whole


def _match(
    sites: FloatArray, xy: FloatArray, limit_A: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Assign atoms to sites one to one: site of each atom, atom of each site; -1 where none.

    The assignment minimises the sum of squared distances.
    """
    site_of = np.full(len(xy), -1, dtype=np.int64)
    atom_of = np.full(len(sites), -1, dtype=np.int64)
    square = np.sum((xy[:, None] - sites[None]) ** 2, axis=2)
    # All pairs beyond the limit cost the same, so a far atom cannot displace a near one.
    rows, columns = linear_sum_assignment(np.minimum(square, limit_A**2))
    near = square[rows, columns] < limit_A**2
    site_of[rows[near]], atom_of[columns[near]] = columns[near], rows[near]
    return site_of, atom_of


def _without_clashes(
    columns: list[_Column], edges: FloatArray, min_distance_A: float
) -> NDArray[np.bool_]:
    """Mark the columns to keep, shape (N,): of two that are too close, the more probable one.

    Only columns of one layer clash. Distances follow the minimum image convention in the plane.
    """
    xy = np.array([c.xy for c in columns]).reshape(-1, 2)
    layer = np.array([c.layer for c in columns])
    d = xy[:, None] - xy[None]
    d -= np.round(d @ np.linalg.inv(edges)) @ edges
    near = (np.hypot(d[..., 0], d[..., 1]) < min_distance_A) & (layer[:, None] == layer[None])
    near &= (layer >= 0)[:, None]
    np.fill_diagonal(near, val=False)
    keep = np.ones(len(xy), dtype=np.bool_)
    if not near.any():
        return keep
    kept = np.zeros(len(xy), dtype=np.bool_)
    for i in np.argsort([-c.p for c in columns], kind="stable"):
        keep[i] = not np.any(near[i] & kept)
        kept[i] = keep[i]
    return keep


def to_atoms(xyz: FloatArray, symbols: Sequence[str], box: Box) -> ase.Atoms:
    """Make `ase.Atoms` from positions (N, 3) in cell axes around the central site, Å.

    The cell is periodic in z too, a sheet with vacuum above it, so that every engine computes the
    same system.
    """
    middle = box.vectors[0] / 2.0 + box.vectors[1] / 2.0
    if box.is_sheet:
        middle = middle + box.vectors[2] / 2.0
    atoms = ase.Atoms(list(symbols), positions=xyz + middle, cell=box.vectors, pbc=True)
    atoms.wrap(eps=1e-6)
    return atoms
