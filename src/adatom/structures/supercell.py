"""Build a periodic supercell around one defect from one frame's atoms.

This is the only place where image axes (x right, y down) become a right-handed cell (y up, z
towards the reader). Near the defect the atoms are the observed ones. Away from it the crystal is
perfect, so that supercells of different frames are comparable, and so that a missed atom far from
the defect does not change the energy.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray
from adatom.core.atoms import AtomTable
from adatom.core.lattice import Lattice
from adatom.core.material import Material
from adatom.core.structure import Structure
from adatom.errors import BadInput
from adatom.structures.assemble import FILLED, assemble, to_atoms
from adatom.structures.scene import Box, Observed, Scene, SupercellOptions

# Å: atoms up to this far outside the defect radius are matched to sites too (about two bonds of
# graphene), so that the assignment at the edge of the radius does not depend on where it is cut.
_REACH_A = 3.0


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
        Orthorhombic and periodic in all three directions, at the material's own lattice constant.

    Raises
    ------
    BadInput
        If the atoms are not all of this frame, none lies near the defect, the centre is not finite,
        the defect is too wide for the box, or the crystal has no rectangular supercell.
    """
    options = options or SupercellOptions()
    scene = prepare(atoms, lattice, extent_xy_A, center_xy_A=center_xy_A, frame=frame,
                    options=options)  # fmt: skip
    probable = scene.observed.take(scene.observed.p_exists >= options.min_p_exists)
    structure, _ = assemble(
        scene, probable, kind=kind, frame=frame, defect=defect, draw=-1, options=options
    )
    return structure


def pristine_supercell(material: Material, options: SupercellOptions | None = None) -> Structure:
    """Build the perfect crystal in a box of the same size, the reference for energies.

    Parameters
    ----------
    material
        The crystal.
    options
        Size of the box.

    Raises
    ------
    BadInput
        If the crystal has no rectangular supercell.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> pristine_supercell(GRAPHENE).atoms.get_chemical_formula()
    'C112'
    """
    options = options or SupercellOptions()
    edges, sites, species = _rectangle(material, options.min_width_A, anchor=0)
    n = len(sites)
    return Structure(
        atoms=to_atoms(sites, np.zeros(n), np.array(species), edges, options),
        name=f"{material.name}-pristine",
        kind="pristine",
        frame=-1,
        defect=-1,
        draw=-1,
        source_atom=np.full(n, FILLED, dtype=np.int64),
        sigma_A=np.tile([0.0, 0.0, options.sigma_z_host_A], (n, 1)),
        fixed=np.zeros(n, dtype=np.bool_),
    )


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
    box = _box_around(lattice, middle, options)
    center = box.from_image(middle)[0]
    observed = _observe(atoms, lattice, box, options)
    near = np.linalg.norm(observed.xy - center, axis=1)
    if not np.any(near <= options.defect_radius_A):
        raise BadInput(
            f"defect at ({center_xy_A[0]:.1f}, {center_xy_A[1]:.1f}) Å of frame {frame}",
            expected=f"observed atoms within {options.defect_radius_A} Å of it",
            got="none",
            todo="Check that the centre is in Å, in the axes of the frame.",
        )
    observed = observed.take(near <= options.defect_radius_A + _REACH_A)
    seen = lattice.distort(box.to_image(box.sites))
    low, high = options.border_A, np.asarray(extent_xy_A) - options.border_A
    trusted = np.all((seen >= low) & (seen <= high), axis=1)
    return Scene(lattice, box, observed, center, trusted)


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
        If the defect radius does not fit into the box.
    """
    edges, _, _ = _rectangle(material, options.min_width_A, anchor=0)
    widest = float(edges.min()) / 2.0 - material.bond_length_A
    if options.defect_radius_A > widest:
        raise BadInput(
            "defect_radius_A",
            expected=f"at most {widest:.2f} Å in a box of {edges[0]:.1f} x {edges[1]:.1f} Å",
            got=f"{options.defect_radius_A} Å",
            todo="Make min_width_A larger, so that the defect does not meet its own image.",
        )


def _box_around(lattice: Lattice, middle: FloatArray, options: SupercellOptions) -> Box:
    index, _ = lattice.nearest_site(middle)
    edges, sites, species = _rectangle(
        lattice.material, options.min_width_A, anchor=int(index[0, 2])
    )
    check_room(lattice.material, options)
    c, s = math.cos(lattice.angle_rad), math.sin(lattice.angle_rad)
    rotation = np.array([[c, s], [-s, c]])  # by -angle, in image axes
    flip = np.diag([1.0, -1.0])  # image rows run down, the cell's y axis points up
    return Box(edges, sites, species, flip @ rotation, lattice.site_xy(index)[0])


def _rectangle(
    material: Material, min_width_A: float, anchor: int
) -> tuple[FloatArray, FloatArray, tuple[str, ...]]:
    """Find the smallest rectangular supercell wide enough: edges (2,), sites (N, 2), species.

    Sites are in cell axes (y up), relative to site `anchor` of the basis, within half an edge.
    """
    cell = material.cell()
    across = _perpendicular(material)
    step = float(np.linalg.norm(across @ cell))
    # In a calculation at Γ alone, a zigzag repeat divisible by 3 folds the Dirac point K onto Γ.
    n = math.ceil(min_width_A / material.lattice_constant_A - 1e-9)
    n += int(n % 3 == 0)
    m = math.ceil(min_width_A / step - 1e-9)
    edges = np.array([n * material.lattice_constant_A, m * step])
    # Representatives of the lattice modulo n (1, 0) and m (across).
    grid = np.array(
        list(
            itertools.product(range(n), range(m * abs(int(across[1]))), range(len(material.basis)))
        )
    )
    basis = np.asarray(material.basis)
    xy = (grid[:, :2] + basis[grid[:, 2]] - basis[anchor]) @ cell
    axis = cell[0] / np.linalg.norm(cell[0])
    xy = xy @ np.array([[axis[0], -axis[1]], [axis[1], axis[0]]])  # first vector onto x
    xy[:, 1] *= -1.0  # the material's cell is written in image axes, like Lattice.vectors
    xy -= edges * np.floor(xy / edges + 0.5 - 1e-9)
    species = tuple(material.site_species[b] for b in grid[:, 2])
    return edges, xy, species


def _perpendicular(material: Material) -> NDArray[np.int64]:
    """Shortest lattice translation at right angles to the first vector, as two integers."""
    cell = material.cell()
    found = [
        (float(np.linalg.norm(np.array(t) @ cell)), t)
        for t in itertools.product(range(-6, 7), range(1, 7))
        if abs(float(np.array(t) @ cell @ cell[0])) < 1e-6 * float(cell[0] @ cell[0])
    ]
    if not found:
        raise BadInput(
            f"material {material.name}",
            expected="a lattice with a rectangular supercell",
            got=f"cell {material.cell_A}",
            todo="Give a cell with a lattice translation at right angles to its first vector.",
        )
    return np.array(min(found)[1], dtype=np.int64)


def _observe(atoms: AtomTable, lattice: Lattice, box: Box, options: SupercellOptions) -> Observed:
    measured = atoms.xy
    jacobian = _local_map(lattice, measured)
    total = np.einsum("ij,njk->nik", box.to_cell, jacobian)
    elements = atoms.elements
    impurity = ~np.isin(elements, lattice.material.site_species)
    return Observed(
        xy=box.from_image(lattice.undistort(measured)),
        covariance=np.einsum("nij,njk,nlk->nil", total, atoms.covariance, total),
        z=np.where(impurity, options.foreign_height_A, 0.0),
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
