"""Put observed atoms into the supercell and fill the rest with perfect crystal."""

from __future__ import annotations

import re
from dataclasses import replace

import ase
import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from adatom.core.arrays import FloatArray
from adatom.core.defect_kind import Adatom, DefectKind
from adatom.core.structure import Structure
from adatom.errors import BadInput
from adatom.structures.scene import Observed, Scene, SupercellOptions

FILLED = -1  # source_atom (an index) of an atom that was filled in from the perfect lattice
# Probability given to filled-in atoms. It equals the default of `SupercellOptions.min_p_exists`:
# an observed atom is at least as probable and therefore wins a clash.
_FILL_P = 0.5


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
) -> tuple[Structure, int]:
    """Put observed atoms into the box and fill the rest with perfect crystal.

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

    Returns
    -------
    The structure, and the number of atoms left out because a more probable atom was too near.
    """
    box, radius = scene.box, options.defect_radius_A
    site_in = np.linalg.norm(box.sites - scene.center, axis=1) <= radius
    atom_in = np.linalg.norm(observed.xy - scene.center, axis=1) <= radius
    site_of, atom_of = _match(box.sites, observed.xy, options.match_A)
    # An atom assigned to a site is kept if the site lies within the radius; any other atom is kept
    # if the atom itself does.
    keep_atom = np.where(site_of >= 0, site_in[site_of], atom_in)
    fill = ~site_in | (~scene.trusted & (atom_of < 0))
    n = int(fill.sum())
    # Only an ad-atom may overlap other atoms in projection. In other defects, two detections that
    # close are two candidates for one atom.
    lifted = (site_of < 0) & isinstance(DefectKind.parse_or_none(kind), Adatom)
    high = np.copysign(np.maximum(np.abs(observed.z), options.ad_atom_height_A), observed.z)
    seen = replace(observed, z=np.where(lifted, high, observed.z)).take(keep_atom)
    layer = np.concatenate([lifted[keep_atom], np.zeros(n, dtype=np.bool_)])
    xy = np.concatenate([seen.xy, box.sites[fill]])
    z = np.concatenate([seen.z, np.zeros(n)])
    elements = np.concatenate([seen.elements, np.array(box.species)[fill]])
    probability = np.concatenate([seen.p_exists, np.full(n, _FILL_P)])
    source = np.concatenate([seen.number, np.full(n, FILLED, dtype=np.int64)])
    sigma = np.full((len(xy), 3), scene.lattice.rms_A)
    sigma[: len(seen), :2] = np.sqrt(np.diagonal(seen.covariance, axis1=1, axis2=2))
    impurity = layer | ~np.isin(elements, scene.lattice.material.site_species)
    sigma[:, 2] = np.where(impurity, options.sigma_z_foreign_A, options.sigma_z_host_A)
    keep = _without_clashes(xy, layer, probability, box.edges_A, options.min_distance_A)
    structure = Structure(
        atoms=to_atoms(xy[keep], z[keep], elements[keep], box.edges_A, options),
        name=structure_name(kind, frame, defect, draw),
        kind=kind,
        frame=frame,
        defect=defect,
        draw=draw,
        source_atom=source[keep],
        sigma_A=sigma[keep],
        fixed=np.zeros(int(keep.sum()), dtype=np.bool_),
    )
    return structure, int(np.count_nonzero(~keep))


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
    xy: FloatArray,
    layer: NDArray[np.bool_],
    probability: FloatArray,
    edges_A: FloatArray,
    min_distance_A: float,
) -> NDArray[np.bool_]:
    """Mark the atoms to keep, shape (N,): of two that are too close, the more probable one.

    Only atoms of one layer clash. Distances follow the minimum image convention in the plane.
    """
    d = xy[:, None] - xy[None]
    d -= edges_A * np.round(d / edges_A)
    near = (np.hypot(d[..., 0], d[..., 1]) < min_distance_A) & (layer[:, None] == layer[None])
    np.fill_diagonal(near, val=False)
    keep = np.ones(len(xy), dtype=np.bool_)
    if not near.any():
        return keep
    kept = np.zeros(len(xy), dtype=np.bool_)
    for i in np.argsort(-probability, kind="stable"):
        keep[i] = not np.any(near[i] & kept)
        kept[i] = keep[i]
    return keep


def to_atoms(
    xy: FloatArray,
    z: FloatArray,
    elements: NDArray[np.str_],
    edges_A: FloatArray,
    options: SupercellOptions,
) -> ase.Atoms:
    """Make `ase.Atoms` from positions (N, 2) in cell axes and heights (N,), Å.

    The cell is periodic in z too, with vacuum between the sheets, so that every engine computes
    the same system.
    """
    columns = sorted(set(elements.tolist()) - set(atomic_numbers))
    if columns:
        raise BadInput(
            "supercell",
            expected="one atom a site",
            got="columns of atoms: " + ", ".join(columns),
            todo="Supercells are built of sheets of single atoms only.",
        )
    height = options.cell_height_A
    positions = np.column_stack([xy + edges_A / 2.0, z + height / 2.0])
    atoms = ase.Atoms(
        symbols=[str(e) for e in elements],
        positions=positions,
        cell=[edges_A[0], edges_A[1], height],
        pbc=True,
    )
    atoms.wrap(eps=1e-6)
    return atoms
