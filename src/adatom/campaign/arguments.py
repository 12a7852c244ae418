"""Read and check the arguments of the Python functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path

import ase
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from adatom.analysis.card import check_card
from adatom.core import AtomTable, Material, Structure
from adatom.core.arrays import FloatArray
from adatom.core.composition import count_elements, count_formula
from adatom.core.material import ANY
from adatom.errors import BadInput
from adatom.learning.ensemble import Ensemble
from adatom.learning.weights import load_for
from adatom.materials.library import command_line_name, load_material

MaterialLike = str | Path | Material
StructureLike = Structure | ase.Atoms
ZoneAxis = tuple[int, int, int]

_ABOVE_A = 0.35  # Å: atoms within it of each other, seen along the beam, may be one column
ALONG_C: ZoneAxis = (0, 0, 1)  # the beam along the third lattice vector: the default


def read_material(material: MaterialLike, zone_axis: ZoneAxis) -> Material:
    """Read a material from its name or its file; a `Material` is returned unchanged.

    Parameters
    ----------
    material
        A built-in name, a TOML material file, a structure file, or a `Material`.
    zone_axis
        Lattice direction of the beam, for a structure file.

    Raises
    ------
    BadInput
        If there is no such material, or the zone axis is not three whole numbers.
    """
    if isinstance(material, Material):
        return material
    parts = tuple(zone_axis) if isinstance(zone_axis, Iterable) else ()
    if len(parts) != 3 or not all(isinstance(part, Integral) for part in parts):
        raise BadInput(
            "`zone_axis`",
            expected="three whole numbers such as (1, 1, 0)",
            got=repr(zone_axis),
            todo="Name the direction of the beam by the lattice vectors of the structure.",
        )
    u, v, w = (int(part) for part in parts)
    if not (u or v or w):
        raise BadInput(
            "`zone_axis`",
            expected="a direction: three whole numbers that are not all zero",
            got=repr(zone_axis),
            todo="Name the direction of the beam by the lattice vectors of the structure.",
        )
    return load_material(str(material), (u, v, w))


def read_ensemble(
    material: MaterialLike, zone_axis: ZoneAxis, weights: str | Path | None
) -> Ensemble:
    """Load the networks for a material.

    Parameters
    ----------
    material, zone_axis
        As of `read_material`.
    weights
        File of an ensemble; None for the shipped one.

    Raises
    ------
    BadInput
        If there is no ensemble for the material; the message has the command that trains one. If
        its card cannot be read.
    """
    path = None if weights is None else Path(weights).expanduser()
    chosen = read_material(material, zone_axis)
    ensemble = load_for(chosen, path, called=command_line_name(material, zone_axis))
    check_card(ensemble.card)
    return ensemble


def checked_seed(seed: int) -> int:
    """Check a seed, and return it as an int.

    Raises
    ------
    BadInput
        If it is not a whole number from 0.
    """
    if not isinstance(seed, Integral) or seed < 0:
        raise BadInput(
            "`seed`", expected="a whole number from 0", got=repr(seed), todo="Give such a number."
        )
    return int(seed)


def checked_temperatures(temperatures_K: Sequence[float]) -> tuple[float, ...]:
    """Check temperatures in K, and return them as floats.

    Raises
    ------
    BadInput
        If a temperature is not finite and positive.
    """
    for value in temperatures_K:
        if not 0 < value < math.inf:  # NaN is not more than 0
            raise BadInput(
                "`temperatures_K`",
                expected="finite positive numbers in K",
                got=repr(value),
                todo="Leave it out, or give it in kelvin.",
            )
    return tuple(float(value) for value in temperatures_K)


def read_structures(given: StructureLike | Sequence[StructureLike]) -> list[Structure]:
    """Read one structure or several.

    Raises
    ------
    BadInput
        If an item is neither a `Structure` nor `ase.Atoms`.
    """
    several = [given] if isinstance(given, (Structure, ase.Atoms)) else given
    wrong = several if not isinstance(several, Sequence) or isinstance(several, str) else None
    for one in several if wrong is None else ():
        if not isinstance(one, (Structure, ase.Atoms)):
            wrong = one
    if wrong is not None:
        raise BadInput(
            "structures",
            expected="ase.Atoms or adatom Structures, one or several",
            got=type(wrong).__name__,
            todo="Read a file with ase.io.read, or build cells with adatom.supercells.",
        )
    return [s if isinstance(s, Structure) else Structure.from_ase(s) for s in several]


def table_of(given: StructureLike | Sequence[StructureLike], material: Material) -> AtomTable:
    """Make an atom table of exact positions; each structure becomes one frame.

    Parameters
    ----------
    given
        Structures; x and y in Å as in the image, y down.
    material
        What they show. Atoms above each other that are one of its columns, such as S2, are one row.
    """
    tables = []
    for frame, structure in enumerate(read_structures(given)):
        xy, labels = _columns_of(structure.atoms, material)
        sure = np.ones(len(labels))
        tables.append(
            AtomTable.build(
                frame=frame,
                xy=xy,
                covariance=np.zeros((len(labels), 2, 2)),
                p_exists=sure,
                element=labels,
                p_element=sure,
                votes=sure,
                amplitude=sure,
            )
        )
    return AtomTable.concat(tables)


def _columns_of(atoms: ase.Atoms, material: Material) -> tuple[FloatArray, list[str]]:
    """Merge atoms that are one column of the material: places, shape (column, 2), Å, and labels."""
    xy = atoms.get_positions()[:, :2].astype(np.float64)
    symbols = atoms.get_chemical_symbols()
    known = {
        count_formula(label): label for label in (*material.species, *material.site_species)
        if label != ANY
    }  # fmt: skip
    close = cKDTree(xy).query_pairs(_ABOVE_A, output_type="ndarray")
    links = coo_array((np.ones(len(close)), (close[:, 0], close[:, 1])), shape=(len(xy), len(xy)))
    number, group = connected_components(links, directed=False)
    places, labels = [], []
    for members in (np.flatnonzero(group == g) for g in range(number)):
        label = known.get(count_elements(symbols[i] for i in members))
        if len(members) > 1 and label is not None:
            places.append(xy[members].mean(axis=0))
            labels.append(label)
        else:
            places += list(xy[members])
            labels += [symbols[i] for i in members]
    return np.array(places).reshape(-1, 2), labels
