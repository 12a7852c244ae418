"""Build a periodic supercell around one defect from one frame's atoms.

Image axes (x right, y down) become a right-handed cell (y up, z towards the reader) by
`structures/cell.py` alone. Near the defect the atoms are the observed ones. Away from it the
crystal is perfect, so that supercells of different frames are comparable, and so that a missed atom
far from the defect does not change the energy.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from adatom.core.arrays import FloatArray
from adatom.core.atoms import AtomTable
from adatom.core.empty_sites import EmptySites
from adatom.core.lattice import Lattice
from adatom.core.material import Material
from adatom.core.structure import Structure
from adatom.errors import BadInput
from adatom.structures.assemble import FILLED, assemble, match, to_atoms
from adatom.structures.cell import copies_apart_A, make_box, shortest_A
from adatom.structures.places import hole_reaches_out
from adatom.structures.scene import Box, Observed, Scene, SupercellOptions
from adatom.structures.stacks import buckles

# Å: atoms up to this far outside the defect radius are matched to sites too (about two bonds of
# graphene), so that the assignment at the edge of the radius does not depend on where it is cut.
_REACH_A = 3.0
_SAME_A = 1e-4  # Å: vectors of cells that differ by less are the same; files keep 1e-8


class NoPeriodicCell(BadInput):
    """Raised where a defect has no perfect crystal around it: an edge, or a wide hole."""


def build_supercell(
    atoms: AtomTable,
    lattice: Lattice,
    extent_xy_A: tuple[float, float],
    *,
    center_xy_A: tuple[float, float],
    kind: str,
    frame: int,
    defect: int,
    options: SupercellOptions | None = None,
) -> Structure:
    """Build the most probable periodic supercell around one defect.

    Within `options.defect_radius_A` of the centre the atoms are the observed ones, at their
    undistorted positions. A site there without an atom is a vacancy if it lies inside the frame by
    more than `options.border_A`. Everywhere else the crystal is perfect. Impurity atoms start above
    the sheet: one projection does not show the side (`sample_structures` tries both).

    Parameters
    ----------
    atoms
        Atoms of one frame, Å, measured axes.
    lattice
        The perfect crystal with its position, rotation and distortion in that frame.
    extent_xy_A
        Position of the frame's last pixel, Å (`Calibration.extent_xy`).
    center_xy_A
        Centre of the defect, Å, measured axes.
    kind
        Name of the defect, such as ``Si1C3``.
    frame, defect
        Numbers of the frame and of the defect in it.
    options
        Sizes and limits.

    Returns
    -------
    Structure
        Right-handed and periodic in all three directions, at the material's own lattice constant.

    Raises
    ------
    NoPeriodicCell
        If empty sites go on beyond the defect radius; `build_flake` takes these.
    BadInput
        If the atoms are not all of this frame, none lies near the defect, the centre is not finite,
        the defect is too wide for the box, or the material's atoms in depth are not known.
    """
    options = options or SupercellOptions()
    scene = prepare(atoms, lattice, extent_xy_A, center_xy_A=center_xy_A, frame=frame,
                    options=options)  # fmt: skip
    probable = scene.observed.take(scene.observed.p_exists >= options.min_p_exists)
    structure, _ = assemble(
        scene, probable, kind=kind, frame=frame, defect=defect, draw=-1, options=options
    )
    return structure


def pristine_supercell(
    material: Material, options: SupercellOptions | None = None, *, extent_A: float = 0.0
) -> Structure:
    """Build the perfect crystal in a box of the same size, the reference for energies.

    Parameters
    ----------
    material
        The crystal.
    options
        Size of the box.
    extent_A
        Width of the defect for which it is the reference, Å.

    Raises
    ------
    BadInput
        If the material's atoms in depth are not known.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> pristine_supercell(GRAPHENE).atoms.get_chemical_formula()
    'C98'
    """
    options = options or SupercellOptions()
    box = make_box(material, options, anchor=0, extent_A=extent_A)
    columns = list(zip(box.sites, box.stacks, strict=True))
    xyz = np.array([(x, y, z) for (x, y), stack in columns for z in stack.heights_A])
    symbols = [symbol for stack in box.stacks for symbol in stack.symbols]
    n = len(symbols)
    return Structure(
        atoms=to_atoms(xyz, symbols, box),
        name=f"{material.name}-pristine",
        kind="pristine",
        frame=-1,
        defect=-1,
        draw=-1,
        source_atom=np.full(n, FILLED, dtype=np.int64),
        sigma_A=np.tile([0.0, 0.0, options.sigma_z_host_A], (n, 1)),
        fixed=np.zeros(n, dtype=np.bool_),
    )


def pristine_like(
    structure: Structure, material: Material, options: SupercellOptions | None = None
) -> Structure | None:
    """Build the perfect crystal in the very cell of a structure, the reference for its energy.

    Parameters
    ----------
    structure
        From `build_supercell` or `sample_structures`.
    material
        Its crystal.
    options
        Those that it was built with.

    Returns
    -------
    The perfect crystal, named ``reference-`` and its formula; None for a flake, and for a cell that
    `build_supercell` does not make.

    Raises
    ------
    BadInput
        If the material's atoms in depth are not known.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> wide = pristine_supercell(GRAPHENE, SupercellOptions(min_width_A=19.0))
    >>> pristine_like(wide, GRAPHENE).name
    'reference-C128'
    """
    if structure.atoms.info.get("form") == "flake":
        return None
    cell = structure.atoms.cell
    width_A = shortest_A(cell.array[:2, :2]) - _SAME_A
    sheet = material.crystal is not None and material.crystal.is_sheet
    # Energies of some engines depend on the vacuum, so that of the structure is kept.
    height = {"cell_height_A": float(cell.array[2, 2])} if sheet else {}
    same = {"min_width_A": width_A, "min_separation_A": 0.0, **height}
    made = pristine_supercell(material, (options or SupercellOptions()).model_copy(update=same))
    if not np.allclose(made.atoms.cell.array, cell.array, atol=_SAME_A):
        return None
    return replace(made, name=f"reference-{made.atoms.get_chemical_formula()}")


def prepare(
    atoms: AtomTable,
    lattice: Lattice,
    extent_xy_A: tuple[float, float],
    *,
    center_xy_A: tuple[float, float],
    frame: int,
    options: SupercellOptions,
) -> Scene:
    """Place the box around a defect and convert the atoms near it to cell axes.

    Parameters and errors are those of `build_supercell`.
    """
    if any(f != frame for f in atoms.frames):
        raise BadInput(
            f"supercell of frame {frame}",
            expected="the atoms of this frame alone",
            got=f"atoms of frames {atoms.frames[:5]}",
            todo="Select them with atoms.of_frame(frame).",
        )
    if not np.all(np.isfinite([*center_xy_A, *extent_xy_A])):
        raise BadInput(
            f"supercell of frame {frame}",
            expected="a finite centre and extent in Å",
            got=f"centre {center_xy_A}, extent {extent_xy_A}",
            todo="Give the defect's position in the frame.",
        )
    middle = lattice.undistort(np.array([center_xy_A]))
    box = box_at(lattice, middle, options)
    center = box.from_image(middle)[0]
    observed = observe(atoms, lattice, box, options)
    near = np.linalg.norm(observed.xy - center, axis=1)
    at = center_xy_A
    if hole_reaches_out(atoms, lattice, extent_xy_A, center_xy_A=at, options=options):
        raise NoPeriodicCell(
            f"defect at ({at[0]:.1f}, {at[1]:.1f}) Å of frame {frame}",
            expected=f"a defect within {options.defect_radius_A} Å, for a periodic cell",
            got="an edge, or a hole that goes on beyond",
            todo="Build a flake of it (`adatom.structures.build_flake`).",
        )
    if not np.any(near <= options.defect_radius_A):
        raise BadInput(
            f"defect at ({center_xy_A[0]:.1f}, {center_xy_A[1]:.1f}) Å of frame {frame}",
            expected=f"observed atoms within {options.defect_radius_A} Å of it",
            got="none",
            todo="Check that the centre is in Å, in the axes of the frame.",
        )
    close = observed.take(near <= options.defect_radius_A + _REACH_A)
    scene = _scene(atoms, lattice, box, close, center, extent_xy_A, options)
    differs = _differences(scene, close, options)
    wide = float(cdist(differs, differs).max()) if len(differs) else 0.0
    if wide + options.min_separation_A > options.min_width_A:
        larger = box_at(lattice, middle, options, extent_A=wide)
        scene = _scene(atoms, lattice, larger, close, center, extent_xy_A, options)
    return replace(scene, others=_others(scene, observed, options))


def check_room(material: Material, options: SupercellOptions) -> None:
    """Refuse a defect that is too wide for its box: it would touch its own periodic image.

    Parameters
    ----------
    material
        The crystal.
    options
        Size of the supercell and of the defect.

    Raises
    ------
    BadInput
        If the defect radius does not fit into the box, or the material's atoms in depth are not
        known.
    """
    copies = copies_apart_A(material, options)
    widest = copies / 2.0 - material.bond_length_A
    if options.defect_radius_A > widest:
        raise BadInput(
            "defect_radius_A",
            expected=f"at most {widest:.2f} Å where copies are {copies:.1f} Å apart",
            got=f"{options.defect_radius_A} Å",
            todo="Make min_width_A larger, so that the defect does not meet its own image.",
        )


def box_at(
    lattice: Lattice, middle: FloatArray, options: SupercellOptions, *, extent_A: float = 0.0
) -> Box:
    """Make the box around the site nearest to a point (1, 2) in undistorted axes, Å."""
    index, _ = lattice.nearest_site(middle)
    check_room(lattice.material, options)
    x, y = lattice.site_xy(index)[0].tolist()
    return make_box(
        lattice.material,
        options,
        anchor=int(index[0, 2]),
        extent_A=extent_A,
        angle_rad=lattice.angle_rad,
        anchor_xy_A=(x, y),
    )


def _scene(
    atoms: AtomTable,
    lattice: Lattice,
    box: Box,
    observed: Observed,
    center: FloatArray,
    extent_xy_A: tuple[float, float],
    options: SupercellOptions,
) -> Scene:
    seen = lattice.distort(box.to_image(box.sites))
    low, high = options.border_A, np.asarray(extent_xy_A) - options.border_A
    trusted = np.all((seen >= low) & (seen <= high), axis=1)
    p_empty = np.ones(len(box.sites))
    if atoms.empty_sites is not None and len(atoms.empty_sites):
        tested = EmptySites.from_table(atoms.empty_sites)
        distance, at = cKDTree(tested.xy).query(seen)
        p_empty = np.where(distance < options.match_A, tested.p[at], p_empty)
    return Scene(lattice, box, observed, center, trusted, p_empty, ())


def _differences(scene: Scene, observed: Observed, options: SupercellOptions) -> FloatArray:
    """Places, shape (n, 2), Å, where the likely atoms near the defect differ from the crystal."""
    likely = observed.take(observed.p_exists >= options.min_p_exists)
    site_of, atom_of = match(scene.box, likely.xy, options.match_A)
    sites = scene.box.sites
    near = np.linalg.norm(sites - scene.center, axis=1) <= options.defect_radius_A
    empty = near & scene.trusted & scene.box.visible & (atom_of < 0)
    labels = np.array([stack.label for stack in scene.box.stacks])
    foreign = (site_of < 0) | (likely.elements != labels[site_of])
    foreign &= np.linalg.norm(likely.xy - scene.center, axis=1) <= options.defect_radius_A
    return np.concatenate([sites[empty], likely.xy[foreign]])


def _others(scene: Scene, observed: Observed, options: SupercellOptions) -> tuple[str, ...]:
    """Say what else of the frame differs from the crystal inside the box."""
    likely = observed.take(observed.p_exists >= options.min_p_exists)
    _, atom_of = match(scene.box, likely.xy, options.match_A)
    far = np.linalg.norm(scene.box.sites - scene.center, axis=1) > options.defect_radius_A
    said: Counter[str] = Counter()
    for j in np.flatnonzero(far & scene.trusted & scene.box.visible):
        label = scene.box.stacks[j].label
        if atom_of[j] < 0:
            said[f"empty {label}"] += 1
        elif likely.elements[atom_of[j]] != label:
            said[f"{likely.elements[atom_of[j]]} on {label}"] += 1
    return tuple(f"{n} {what}" for what, n in sorted(said.items()))


def observe(atoms: AtomTable, lattice: Lattice, box: Box, options: SupercellOptions) -> Observed:
    """Turn all atoms of a frame into the axes of a box."""
    measured = atoms.xy
    jacobian = _local_map(lattice, measured)
    total = np.einsum("ij,njk->nik", box.to_cell, jacobian)
    elements = atoms.elements
    return Observed(
        xy=box.from_image(lattice.undistort(measured)),
        covariance=np.einsum("nij,njk,nlk->nil", total, atoms.covariance, total),
        z=np.where(buckles(elements, lattice.material), options.foreign_height_A, 0.0),
        elements=elements,
        p_exists=atoms.column("p_exists"),
        p_element=atoms.column("p_element"),
        number=atoms.data["atom"].cast(pl.Int64).to_numpy().astype(np.int64),
    )


def _local_map(lattice: Lattice, measured_xy: FloatArray) -> FloatArray:
    """Derivative (N, 2, 2) of `Lattice.undistort` at measured positions (N, 2)."""
    x, y = (measured_xy - np.asarray(lattice.center_xy_A)).T
    zero = np.zeros_like(x)
    slope = np.stack([np.stack([2 * x, zero], -1), np.stack([y, x], -1),
                      np.stack([zero, 2 * y], -1)], axis=1)  # fmt: skip
    out: FloatArray = lattice.affine.array() + np.einsum("ik,nkj->nij", lattice.bend, slope)
    return out
