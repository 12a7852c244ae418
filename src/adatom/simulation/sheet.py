"""Lay a sheet flat before it is simulated, and check that it is the sheet of a material.

Engines scale a supercell in the plane of its first two cell vectors and put vacuum along z. A
sheet that is wrapped in z, or that stands in the plane of other vectors, would be torn apart.
"""

from __future__ import annotations

from dataclasses import replace

import ase
import numpy as np
from ase.formula import Formula
from ase.neighborlist import neighbor_list

from adatom.core import Material, Structure
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput

# Least free height, Å, that tells the two faces of a sheet from layers of a crystal: the layers of
# graphite, 3.35 Å apart, are no sheet.
_FREE_A = 4.0
_VACUUM_A = 20.0  # Å, where the cell has no vector across the sheet
_IN_PLANE = 1e-6  # slope of a cell vector, dimensionless, below which it lies in the xy plane
# A structure is of a material if at least this share of its atoms are of its elements, and its
# nearest neighbours, seen from above, are as far apart as the material's to within this share.
_HOST_SHARE, _BOND_SHARE = 0.5, 0.12
_ABOVE_A = 0.5  # Å: atoms nearer than this, seen from above, stand above each other


def lay_flat(structure: Structure) -> Structure:
    """Make a sheet whole across its cell boundary, with z along its normal.

    Parameters
    ----------
    structure
        A sheet: two cell vectors span it, in any orientation, and at least 4 Å across it are free.
        Where three vectors could be the third, the sheet is thinnest across it.

    Returns
    -------
    The structure itself where nothing had to be changed. Otherwise the first two cell vectors lie
    in the xy plane, the cell is right-handed, and all atoms are on one side of the vacuum. Order
    of the atoms and their distances are those of the given structure.

    Raises
    ------
    BadInput
        If there are no atoms, no cell, no vacuum, or constraints on single coordinates.

    Examples
    --------
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(4, 4, 1), vacuum=6.0)
    >>> sheet.pbc = True
    >>> sheet.positions[:, 2] = 0.0
    >>> sheet.positions[::2, 2] = 11.9  # 0.1 Å below, and wrapped
    >>> flat = lay_flat(Structure.from_ase(sheet)).atoms
    >>> round(float(np.ptp(flat.positions[:, 2])), 2)
    0.1
    """
    atoms = structure.atoms
    _check(structure)
    if not np.isfinite(atoms.positions).all():
        return structure  # the engine reports it
    across, cell = _third_vector(structure.name, atoms)
    whole = _whole(atoms.positions, cell, across, periodic=bool(atoms.pbc[across]))
    first, second = ((1, 2), (2, 0), (0, 1))[across]
    if np.linalg.det(cell) < 0.0:
        first, second = second, first
    ordered = cell[[first, second, across]]
    flat = across == 2 and first == 0 and np.abs(ordered[:2, 2]).max() < _IN_PLANE
    turn = np.eye(3) if flat and ordered[2, 2] > 0.0 else _upright(ordered)
    same = turn == np.eye(3), whole == atoms.positions, cell == atoms.cell.array
    if all(np.all(each) for each in same):
        return structure
    out = atoms.copy()
    out.set_constraint()
    out.arrays.pop("momenta", None)  # along the old axes
    out.set_cell(ordered @ turn.T)
    out.positions = whole @ turn.T
    out.pbc = True
    return replace(structure, atoms=out)


def without_charges(structure: Structure) -> Structure:
    """Drop charges and moments that another engine left on the atoms.

    tblite's calculator takes them as the charge and the number of unpaired electrons of the system:
    charges that were rounded to two decimals gave -7069 in the place of -2878 eV.

    Parameters
    ----------
    structure
        Any.

    Returns
    -------
    The structure itself where it has none.

    Examples
    --------
    >>> atoms = ase.Atoms("C", cell=[4, 4, 9], pbc=True)
    >>> atoms.set_initial_charges([0.3])
    >>> without_charges(Structure.from_ase(atoms)).atoms.has("initial_charges")
    False
    """
    left = {"initial_charges", "initial_magmoms"} & set(structure.atoms.arrays)
    if not left:
        return structure
    bare = structure.atoms.copy()
    for name in left:
        del bare.arrays[name]
    return replace(structure, atoms=bare)


def check_sheet_of(structure: Structure, material: Material) -> None:
    """Refuse a structure that is not a sheet of a material, which would be scaled by its ratio.

    Parameters
    ----------
    structure
        Flat, as of `lay_flat`.
    material
        The crystal.

    Raises
    ------
    BadInput
        If less than half of the atoms are of the material's elements, one of these is absent, or
        the nearest neighbours are not as far apart as the material's to 12 %.
    """
    symbols = np.array(structure.atoms.get_chemical_symbols())
    hosts = {s for label in material.hosts() for s in Formula(label).count()}
    share = float(np.isin(symbols, sorted(hosts)).mean())
    subject = f"structure {structure.name}"
    todo = "Name the `material` of the structures, or correct their scale."
    if share < _HOST_SHARE or not hosts <= set(symbols.tolist()):
        raise BadInput(
            subject,
            expected=f"a sheet of {material.name}, of {' and '.join(sorted(hosts))}",
            got=structure.atoms.get_chemical_formula(),
            todo=todo,
        )
    bond = _bond_length_A(structure.atoms)
    if not abs(bond / material.bond_length_A - 1.0) < _BOND_SHARE:
        raise BadInput(
            subject,
            expected=f"neighbours about {material.bond_length_A:.2f} Å apart, seen from above, as "
            f"in {material.name}",
            got=f"{bond:.2f} Å",
            todo=todo,
        )


def _check(structure: Structure) -> None:
    atoms = structure.atoms
    subject = f"structure {structure.name}"
    if not len(atoms):
        raise BadInput(subject, expected="atoms", got="none", todo="Give a sheet of atoms.")
    if atoms.cell.rank < 2:
        raise BadInput(
            subject,
            expected="a periodic cell: two vectors that span the sheet",
            got="no cell" if not atoms.cell.rank else "a cell with one vector",
            todo="Set it with atoms.set_cell(...) and atoms.pbc = True, or build a supercell with "
            "adatom.supercells.",
        )
    if atoms.constraints:
        kinds = sorted({type(c).__name__ for c in atoms.constraints})
        raise BadInput(
            subject,
            expected="constraints that fix whole atoms (ase.constraints.FixAtoms)",
            got=", ".join(kinds),
            todo="Fix whole atoms, or remove the constraints with atoms.set_constraint().",
        )


def _third_vector(name: str, atoms: ase.Atoms) -> tuple[int, FloatArray]:
    """Number of the cell vector that leads across the sheet, and the cell, shape (3, 3), Å."""
    cell: FloatArray = np.array(atoms.cell.array, dtype=np.float64)
    absent = [i for i in range(3) if not cell[i].any()]
    if absent:
        axis = absent[0]
        normal = np.cross(cell[(axis + 1) % 3], cell[(axis + 2) % 3])
        normal /= np.linalg.norm(normal)
        cell[axis] = normal * (np.ptp(atoms.positions @ normal) + _VACUUM_A)
        return axis, cell
    open_ways = np.flatnonzero(~atoms.pbc)
    if len(open_ways) == 1:
        return int(open_ways[0]), cell
    free = {}
    for axis in range(3):
        gap, thickness, _ = _free(atoms.positions, cell, axis)
        if gap >= _FREE_A:
            free[axis] = thickness
    if not free:
        raise BadInput(
            f"structure {name}",
            expected=f"a sheet: at least {_FREE_A:g} Å without atoms along one cell vector",
            got="atoms all through the cell",
            todo="Give one layer with vacuum above it: atoms.center(vacuum=8.0, axis=2).",
        )
    return min(free, key=lambda axis: (round(free[axis], 3), -axis)), cell


def _free(positions: FloatArray, cell: FloatArray, axis: int) -> tuple[float, float, float]:
    """Widest gap across one cell vector, what is left of the height, both Å, and the gap's end.

    The end is a fraction of the cell vector, from 0 to 1.
    """
    fraction = np.sort(np.linalg.solve(cell.T, positions.T)[axis] % 1.0)
    height = abs(np.linalg.det(cell)) / np.linalg.norm(
        np.cross(cell[(axis + 1) % 3], cell[(axis + 2) % 3])
    )
    gaps = np.diff(fraction, append=fraction[0] + 1.0)
    widest = int(np.argmax(gaps))
    end = float(fraction[(widest + 1) % len(fraction)])
    return float(gaps[widest] * height), float((1.0 - gaps[widest]) * height), end


def _whole(positions: FloatArray, cell: FloatArray, axis: int, *, periodic: bool) -> FloatArray:
    """Move atoms by whole cell vectors to one side of the vacuum; unchanged where they are."""
    if not periodic:
        return positions
    fraction = np.linalg.solve(cell.T, positions.T)[axis]
    end = _free(positions, cell, axis)[2] - 1e-9  # the first atom stays, in spite of rounding
    steps = np.round(end + (fraction - end) % 1.0 - fraction)
    steps -= np.median(steps)
    return positions if not steps.any() else positions + steps[:, None] * cell[axis]


def _upright(cell: FloatArray) -> FloatArray:
    """Rotation, shape (3, 3), of the first cell vector onto x and the sheet's normal onto z."""
    x = cell[0] / np.linalg.norm(cell[0])
    z = np.cross(cell[0], cell[1])
    z /= np.linalg.norm(z)
    return np.array([x, np.cross(z, x), z])


def _bond_length_A(atoms: ase.Atoms) -> float:
    """Median distance of nearest neighbours, seen from above, Å; infinite without neighbours."""
    seen = atoms.copy()
    seen.set_constraint()
    seen.positions[:, 2] = 0.0
    seen.pbc = (True, True, False)
    i, d = neighbor_list("id", seen, 4.0)
    nearest = np.full(len(atoms), np.inf)
    np.minimum.at(nearest, i[d > _ABOVE_A], d[d > _ABOVE_A])
    return float(np.median(nearest))
