"""Put a defect's supercell into a wider one, to see what its size does to an energy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray
from adatom.core.material import Material
from adatom.core.structure import Structure
from adatom.structures.assemble import FILLED, to_atoms
from adatom.structures.cell import make_box, shortest_A
from adatom.structures.scene import Box, SupercellOptions

_SAME_A = 1e-4  # Å: vectors of cells that differ by less are the same; files keep 1e-8
_FAR_SHARE = 0.5  # atoms of this share are farthest from the middle: there the crystal is perfect
_FITS_A = 0.3  # Å: the far atoms lie that near to the crystal's columns


def widen(
    structure: Structure,
    material: Material,
    options: SupercellOptions | None = None,
    *,
    factor: float = 1.4,
) -> Structure | None:
    """Put the atoms of a supercell into the middle of a wider one, with perfect crystal around.

    Parameters
    ----------
    structure
        From `build_supercell` or `sample_structures`, also after a relaxation, at the lattice
        constant of the material.
    material
        Its crystal.
    options
        Those that it was built with.
    factor
        Least width of the new cell over that of the old one.

    Returns
    -------
    The structure with ``-wide`` in its name; None for a flake, and for a cell that
    `build_supercell` does not make.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> from adatom.structures import pristine_supercell
    >>> one = pristine_supercell(GRAPHENE)
    >>> len(one.atoms), len(widen(one, GRAPHENE).atoms)
    (98, 200)
    """
    if structure.atoms.info.get("form") == "flake":
        return None
    options = options or SupercellOptions()
    cell = structure.atoms.cell.array
    width_A = shortest_A(cell[:2, :2])
    inner = _box_of(structure, material, options, width_A - _SAME_A)
    if inner is None:
        return None
    anchor, own = inner
    outer = make_box(material, _sized(options, factor * width_A), anchor=anchor)
    middle = 0.5 * (cell[0] + cell[1]) + (0.5 * cell[2] if own.is_sheet else 0.0)
    atoms = structure.atoms
    inside = _by_site(atoms.positions[:, :2] - middle[:2], own, cell[:2, :2])
    height = atoms.positions[:, 2] - middle[2]
    height -= cell[2, 2] * np.round(height / cell[2, 2])
    # Sites of the wide cell that are nearer to the middle than to any copy are the old cell's.
    far = np.linalg.norm(outer.sites - _folded(outer.sites, cell[:2, :2]), axis=1) > _SAME_A
    added = [(o, s) for o, s, new in zip(outer.sites, outer.stacks, far, strict=True) if new]
    xyz = [*np.column_stack([inside, height])]
    xyz += [(x, y, z) for (x, y), stack in added for z in stack.heights_A]
    symbols = [*atoms.get_chemical_symbols(), *(e for _, stack in added for e in stack.symbols)]
    new = len(symbols) - len(atoms)
    made = to_atoms(np.array(xyz), symbols, outer)
    made.info = dict(atoms.info)
    pad = np.zeros((new, 3))
    return replace(
        structure,
        atoms=made,
        name=f"{structure.name}-wide",
        source_atom=np.concatenate([structure.source_atom, np.full(new, FILLED, dtype=np.int64)]),
        sigma_A=np.concatenate([structure.sigma_A, pad]),
        fixed=np.concatenate([structure.fixed, np.zeros(new, dtype=np.bool_)]),
    )


def _sized(options: SupercellOptions, width_A: float) -> SupercellOptions:
    return options.model_copy(update={"min_width_A": width_A, "min_separation_A": 0.0})


def _box_of(
    structure: Structure, material: Material, options: SupercellOptions, width_A: float
) -> tuple[int, Box] | None:
    """Find the central site and the box of a structure, by its atoms far from the middle."""
    cell = structure.atoms.cell.array
    best: tuple[float, int, Box] | None = None
    for anchor in range(len(material.basis)):
        box = make_box(material, _sized(options, width_A), anchor=anchor)
        if not np.allclose(box.vectors, cell, atol=_SAME_A):
            continue
        middle = 0.5 * (cell[0] + cell[1])[:2]
        seen = _folded(structure.atoms.positions[:, :2] - middle, cell[:2, :2])
        away = np.linalg.norm(seen, axis=1)
        seen = seen[away >= np.quantile(away, _FAR_SHARE)]
        copies = np.concatenate([box.sites + k @ cell[:2, :2] for k in _AROUND])
        off = float(np.median(cKDTree(copies).query(seen)[0]))
        if best is None or off < best[0]:
            best = (off, anchor, box)
    return None if best is None or best[0] > _FITS_A else best[1:]


_AROUND = np.array([(u, v) for u in (-1, 0, 1) for v in (-1, 0, 1)])
_ASIDE_A = (1e-3, 3.7e-4)  # Å: along no mirror, so that no site is as near to two copies


def _by_site(xy: FloatArray, box: Box, edges: FloatArray) -> FloatArray:
    """Move atoms (N, 2) by translations to where the nearest site of each is folded to."""
    copies = np.concatenate([box.sites + k @ edges for k in _AROUND])
    near = _folded(xy, edges)
    sites = copies[cKDTree(copies).query(near)[1]]
    out: FloatArray = near - sites + _folded(sites, edges)
    return out


def _folded(xy: FloatArray, edges: FloatArray) -> FloatArray:
    """Move places (N, 2) by translations (2, 2) to the copy nearest to the origin."""
    share = xy @ np.linalg.inv(edges)
    copies = ((share - np.round(share)) @ edges)[:, None] + _AROUND @ edges
    pick = np.argmin(np.linalg.norm(copies + _ASIDE_A, axis=2), axis=1)
    out: FloatArray = copies[np.arange(len(xy)), pick]
    return out
