"""The periodic cell of a crystal around a defect, with the atoms of every column in it.

Cell axes are right-handed: x along the first vector, y up and z towards the reader, where image
axes have y down and z along the beam. A turn of half a circle about x leads from one to the other,
so no crystal is mirrored.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
from ase.formula import Formula
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray
from adatom.core.crystal import Crystal
from adatom.core.material import Material
from adatom.errors import BadInput
from adatom.structures.scene import Box, Stack, SupercellOptions

_FLIP = np.diag([1.0, -1.0])  # image rows run down, the cell's y axis points up
_REACH = 6  # largest coefficient, a count, in the combinations searched for short translations
_SAME = 1e-3  # relative difference below which lengths, and places in a cell, are the same
_GAMMA = 3  # a hexagonal cell of a multiple of these repeats folds the K point onto Γ


def make_box(
    material: Material,
    options: SupercellOptions,
    *,
    anchor: int,
    extent_A: float = 0.0,
    angle_rad: float = 0.0,
    anchor_xy_A: tuple[float, float] = (0.0, 0.0),
) -> Box:
    """Choose the cell of a defect and fill it with perfect crystal.

    A hexagonal crystal has n x n cells with n not divisible by 3. Others have a rectangle where
    they have one, else multiples of their two shortest translations. Every translation in the plane
    is at least `options.min_width_A` long, and `options.min_separation_A` longer than the defect is
    wide. A crystal in columns repeats along the beam after whole periods, `options.min_depth_A` or
    more.

    Parameters
    ----------
    material
        The crystal.
    options
        Sizes.
    anchor
        Site of the basis at the centre.
    extent_A
        Width of the defect: the largest distance of two of its atoms, Å.
    angle_rad
        Direction of the crystal in the frame, as of `Lattice`.
    anchor_xy_A
        The central site in undistorted image axes, Å.

    Raises
    ------
    BadInput
        If the material's atoms in depth are not known.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> box = make_box(GRAPHENE, SupercellOptions(), anchor=0)
    >>> box.vectors[:2].round(2).tolist(), len(box.sites)
    ([[17.22, 0.0, 0.0], [-8.61, 14.91, 0.0]], 98)
    """
    crystal = solid(material)
    repeats = _repeats(crystal, options, extent_A)
    plane = np.array(crystal.vectors_A)[:, :2] @ _FLIP
    edges = repeats @ plane
    turn = _onto_x(edges[0])
    edges = edges @ turn.T
    period = crystal.period_A
    layers = 1 if period is None else math.ceil(options.min_depth_A / period - 1e-9)
    height = _height(crystal, options) if period is None else layers * period
    vectors = np.array([[*edges[0], 0.0], [*edges[1], 0.0], [0.0, 0.0, height]])
    start = np.asarray(material.basis[anchor]) @ material.cell()
    sites, stacks = _columns(crystal, material, repeats, layers, start)
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    rotation = np.array([[c, s], [-s, c]])  # by -angle, in image axes
    return Box(
        vectors=vectors,
        sites=_nearest_image(sites @ _FLIP @ turn.T, edges),
        stacks=stacks,
        to_cell=turn @ _FLIP @ rotation,
        anchor_xy_A=np.asarray(anchor_xy_A, dtype=np.float64),
        is_sheet=crystal.is_sheet,
    )


def solid(material: Material) -> Crystal:
    """Give the atoms of a material in three dimensions.

    Raises
    ------
    BadInput
        If they are not known.
    """
    if material.crystal is not None:
        return material.crystal
    raise BadInput(
        f"supercell of {material.name}",
        expected="the heights of its atoms",
        got="columns " + ", ".join(dict.fromkeys(material.site_species)) + " without heights"
        if material.has_lattice
        else "atoms without a lattice",
        todo="Name a structure file as the material, or give `z_A` in its TOML file.",
    )


def copies_apart_A(material: Material, options: SupercellOptions) -> float:
    """Shortest distance in the plane, Å, between a point of the smallest cell and its copies.

    Raises
    ------
    BadInput
        If the material's atoms in depth are not known.
    """
    crystal = solid(material)
    return shortest_A(_repeats(crystal, options) @ np.array(crystal.vectors_A)[:, :2])


def shortest_A(edges: FloatArray) -> float:
    """Shortest translation, Å, of the lattice of two vectors, shape (2, 2), Å."""
    steps = [(i, j) for i, j in itertools.product(range(-2, 3), repeat=2) if (i, j) != (0, 0)]
    return float(np.linalg.norm(np.array(steps) @ edges, axis=1).min())


def _height(crystal: Crystal, options: SupercellOptions) -> float:
    thickness = float(np.ptp(crystal.positions_A[:, 2]))
    return max(options.cell_height_A, thickness + options.min_vacuum_A)


def _repeats(
    crystal: Crystal, options: SupercellOptions, extent_A: float = 0.0
) -> NDArray[np.int64]:
    """Coefficients of two translations without a step along the beam, shape (2, 2), right-handed.

    Right-handed means after the flip of y.
    """
    need_A = max(options.min_width_A, extent_A + options.min_separation_A)
    vectors = np.array(crystal.vectors_A)
    plane = vectors[:, :2]
    steps = vectors[:, 2] / (crystal.period_A or 1.0)
    level = bool(np.abs(steps - np.round(steps)).max() < _SAME)
    if level and _is_hexagonal(plane):
        n = math.ceil(need_A / float(np.linalg.norm(plane[0])) - 1e-9)
        n += int(n % _GAMMA == 0)
        pair = n * np.eye(2, dtype=np.int64)
    else:
        pair = _long_enough(_translations(plane, steps), plane, need_A)
    if np.linalg.det(pair @ plane) > 0.0:  # left-handed after the flip
        pair = pair * np.array([[1], [-1]])
    return pair


def _is_hexagonal(plane: FloatArray) -> bool:
    a, b = plane
    square = float(a @ a)
    return bool(abs(b @ b / square - 1.0) < _SAME and abs(abs(a @ b) / square - 0.5) < _SAME)


def _translations(plane: FloatArray, steps: FloatArray) -> NDArray[np.int64]:
    """Two short translations of the crystal in the plane: at right angles where there are such."""
    k = np.array(list(itertools.product(range(-_REACH, _REACH + 1), repeat=2)))
    along = k @ steps
    k = k[(np.abs(along - np.round(along)) < _SAME) & k.any(axis=1)]
    points = k @ plane
    order = np.argsort(np.linalg.norm(points, axis=1).round(6), kind="stable")
    k, points = k[order][:40], points[order][:40]
    length = np.linalg.norm(points, axis=1)
    cross = points[:, None, 0] * points[None, :, 1] - points[:, None, 1] * points[None, :, 0]
    area = np.where(np.abs(cross) > _SAME * length[0] ** 2, np.abs(cross), np.inf)
    sine = area / (length[:, None] * length[None])
    upright = np.where(np.isfinite(sine) & (sine > 1.0 - _SAME**2), area, np.inf)
    # A rectangle of at most twice the smallest cell keeps copies far apart with few atoms.
    chosen = upright if upright.min() < (2.0 + _SAME) * area.min() else area
    first, second = np.unravel_index(int(np.argmin(chosen)), chosen.shape)
    return k[[first, second]]


def _long_enough(pair: NDArray[np.int64], plane: FloatArray, need_A: float) -> NDArray[np.int64]:
    """Repeat two translations until no copy is nearer than needed."""
    n = [math.ceil(need_A / float(np.linalg.norm(row)) - 1e-9) for row in pair @ plane]
    while shortest_A(np.diag(n) @ pair @ plane) < need_A - 1e-9:
        n[int(np.argmin(np.linalg.norm(np.diag(n) @ pair @ plane, axis=1)))] += 1
    out: NDArray[np.int64] = np.diag(n) @ pair
    return out


def _onto_x(row: FloatArray) -> FloatArray:
    """Rotation, shape (2, 2), of a vector onto the x axis."""
    c, s = row / np.linalg.norm(row)
    return np.array([[c, s], [-s, c]])


def _columns(
    crystal: Crystal, material: Material, repeats: NDArray[np.int64], layers: int, start: FloatArray
) -> tuple[FloatArray, tuple[Stack, ...]]:
    """List all columns of the cell: places from the central site in image axes, and their atoms."""
    vectors = np.array(crystal.vectors_A)
    count = abs(round(float(np.linalg.det(repeats))))
    reach = int(np.abs(repeats).sum())
    k = np.array(list(itertools.product(range(-reach, reach + 1), repeat=2)))
    inside = k @ np.linalg.inv(repeats.astype(np.float64))
    k = k[((inside > -1e-9) & (inside < 1.0 - 1e-9)).all(axis=1)]
    if len(k) != count:
        raise AssertionError(f"{len(k)} cells in a supercell of {count}")
    sites, stacks = [], []
    columns = crystal.columns()
    labels = [_label(material, column.xy_A) for column in columns]
    names = [label or _formula(c.symbols) for c, label in zip(columns, labels, strict=True)]
    units = [_units(c.symbols, label) * layers for c, label in zip(columns, labels, strict=True)]
    for step in k @ vectors:
        for column, label, name, unit in zip(columns, labels, names, units, strict=True):
            heights = np.array(column.heights_A) + step[2]
            if crystal.period_A is not None:
                heights = np.concatenate([heights + i * crystal.period_A for i in range(layers)])
                heights %= layers * crystal.period_A
            order = np.argsort(-heights, kind="stable")  # z towards the reader: flipped, rising
            symbols = column.symbols * layers
            sites.append(np.asarray(column.xy_A) + step[:2] - start)
            stacks.append(
                Stack(
                    name,
                    tuple(symbols[i] for i in order),
                    tuple(float(-heights[i]) for i in order),
                    units=unit,
                    visible=label is not None,
                )
            )
    return np.array(sites), tuple(stacks)


def _label(material: Material, xy_A: tuple[float, float]) -> str | None:
    """Label of the material's column at a place; None where none is seen there."""
    away = np.asarray(xy_A) @ np.linalg.inv(material.cell()) - np.asarray(material.basis)
    off = np.linalg.norm((away - np.round(away)) @ material.cell(), axis=1)
    nearest = int(np.argmin(off))
    return material.site_species[nearest] if off[nearest] < 0.1 * material.bond_length_A else None


def _formula(symbols: tuple[str, ...]) -> str:
    return str(Formula.from_dict(dict(sorted(Counter(symbols).items()))).format("metal"))


def _units(symbols: tuple[str, ...], label: str | None) -> int:
    """How often the label's atoms stand in one period of the crystal's own column."""
    return 1 if label is None else len(symbols) // sum(Formula(label).count().values())


def _nearest_image(xy: FloatArray, edges: FloatArray) -> FloatArray:
    """Move places (N, 2) by translations (2, 2) to the copy nearest to the origin."""
    inside = xy @ np.linalg.inv(edges)
    xy = (inside - np.round(inside - 1e-9)) @ edges
    steps = np.array(list(itertools.product((0, -1, 1), repeat=2))) @ edges
    copies = xy[:, None] + steps
    length = np.linalg.norm(copies, axis=2)
    # Of copies at the same distance the first is taken: rounding must not decide.
    nearest = np.argmax(length < length.min(axis=1, keepdims=True) + 1e-6, axis=1)
    out: FloatArray = copies[np.arange(len(xy)), nearest]
    return out
