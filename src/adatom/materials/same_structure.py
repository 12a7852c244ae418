"""Whether two crystals are the same structure, whatever their elements are."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.optimize import linear_sum_assignment

from adatom.core import Material
from adatom.core.arrays import FloatArray

_LENGTH, _ANGLE_DEG, _PLACE = 0.05, 5.0, 0.2  # tolerances: relative, degrees, of a lattice vector


def same_structure(one: Material, other: Material) -> bool:
    """Tell whether two crystals have the same cell and atoms at the same places, seen from above.

    Lengths of the lattice vectors agree within 5 %, their angle within 5 degrees, the number of
    atoms is equal, and atoms lie within 0.2 of a lattice vector, after a shift, a turn and a
    reflection. These are the tolerances by which published work on structures from images counts
    one as right. Elements do not count.

    Parameters
    ----------
    one, other
        Materials with a lattice.

    Examples
    --------
    >>> from adatom.materials.library import load_material
    >>> same_structure(load_material("MoS2"), load_material("WS2"))
    True
    >>> same_structure(load_material("graphene"), load_material("MoS2"))
    False
    """
    places, others = _places(one), _places(other)
    if len(places) != len(others):
        return False
    cell = one.cell()
    for steps in product((-1, 0, 1), repeat=4):
        change = np.array(steps, dtype=np.float64).reshape(2, 2)
        if abs(np.linalg.det(change)) != 1 or not _alike(cell, change @ other.cell()):
            continue
        turned = others @ np.linalg.inv(change)
        if any(_apart(places, turned + places[0] - start) <= _PLACE for start in turned):
            return True
    return False


def _places(material: Material) -> FloatArray:
    """Fractional coordinates of the atoms in the plane, shape (atom, 2)."""
    if material.crystal is not None:
        xy = material.crystal.positions_A[:, :2]
        out: FloatArray = xy @ np.linalg.inv(material.cell())
        return out
    return np.asarray(material.basis, dtype=np.float64)


def _alike(cell: FloatArray, other: FloatArray) -> bool:
    lengths, others = (np.linalg.norm(each, axis=1) for each in (cell, other))
    angle, turned = (
        np.degrees(np.arccos((each[0] @ each[1]) / np.prod(np.linalg.norm(each, axis=1))))
        for each in (cell, other)
    )
    near = np.abs(others / lengths - 1.0).max() <= _LENGTH
    return bool(near and abs(turned - angle) <= _ANGLE_DEG)


def _apart(places: FloatArray, others: FloatArray) -> float:
    """Largest distance of atoms that are paired as near as they can be."""
    off = places[:, None] - others[None]
    distance = np.linalg.norm(off - np.round(off), axis=2)
    pairs = linear_sum_assignment(distance)
    return float(distance[pairs].max())
