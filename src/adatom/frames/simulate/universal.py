"""Training frames of the universal ensemble: specimens of any material, columns without names."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from scipy.spatial import cKDTree

from adatom.core import Calibration, LabelledFrame, Material
from adatom.core.arrays import FloatArray
from adatom.core.material import ANY
from adatom.frames.simulate.synthesize import random_pair
from adatom.materials.library import load_material, material_names

_BOND_A = 1.42  # Å: bond length of all random materials, that of graphene
_NAMED = 0.3  # fraction of the frames that show a material of the library
# The material of frames whose columns have no name, in units of the pattern.
UNIVERSAL = Material(
    "universal", ((2.0, 0.0), (0.0, 2.0)), ((0.0, 0.0),), (ANY,), (ANY,), _BOND_A, 3, 6,
    form="columns",
)  # fmt: skip


def universal_pair(rng: np.random.Generator, *, field_A: float) -> list[LabelledFrame]:
    """Make two frames of one random specimen of any material, in units of its pattern.

    All lengths are divided by `Material.scale`.

    Parameters
    ----------
    rng
        Source of the material, the specimen, the conditions and the noise.
    field_A
        Edge of the square field, in units of the pattern.

    Returns
    -------
    Two frames with the same ground truth; every column is of the one class `ANY`.
    """
    if rng.random() < _NAMED:
        library = _library()
        material = library[int(rng.integers(len(library)))]
    else:
        material = random_material(rng)
    frames = random_pair(material, rng, field_A=field_A * material.scale)
    return [nameless(f, material.scale) for f in frames]


def nameless(labelled: LabelledFrame, scale: float) -> LabelledFrame:
    """Convert a labelled frame to units of its pattern and its columns to the one class `ANY`.

    Parameters
    ----------
    labelled
        The frame and its ground truth, Å.
    scale
        `Material.scale` of its material, dimensionless.
    """
    px = labelled.frame.calibration.pixel_size_A / scale
    return replace(
        labelled,
        frame=labelled.frame.recalibrated(Calibration(px)),
        xy=labelled.xy / scale,
        species=np.zeros_like(labelled.species),
        classes=(ANY,),
        vacancies_xy=labelled.vacancies_xy / scale,
    )


@cache
def _library() -> tuple[Material, ...]:
    return tuple(load_material(name) for name in material_names())


def random_material(rng: np.random.Generator) -> Material:
    """Sample a plane lattice with one to four unnamed columns per cell, of any brightness."""
    while True:
        angle = rng.choice([np.pi / 3, np.pi / 2, rng.uniform(np.pi / 3, np.pi / 2)])
        ratio = rng.choice([1.0, 1.0, rng.uniform(1.0, 1.8)])
        count = int(rng.choice([1, 2, 2, 3, 4]))
        cell = np.array([[1.0, 0.0], [ratio * np.cos(angle), ratio * np.sin(angle)]])
        basis = rng.uniform(0, 1, (count, 2))
        if rng.random() < 0.6:  # most crystals have columns at symmetric positions
            basis = np.round(basis * 6) / 6
        if rng.random() < 0.25:  # honeycombs, of one kind or two
            cell = np.array([[1.0, 0.0], [0.5, 3**0.5 / 2]])
            basis = np.array([[1.0, 1.0], [2.0, 2.0]]) / 3
        bond = _closest(cell, basis)
        if bond > 0.3 * np.sqrt(np.linalg.det(cell) / len(basis)):
            break
    (a, b), (c, d) = (cell / bond * _BOND_A).tolist()
    sites = tuple(ANY for _ in basis)
    return Material(
        "any", ((a, b), (c, d)), tuple((float(x), float(y)) for x, y in basis), sites, (ANY,),
        _BOND_A, 3, 6, form="columns",
    )  # fmt: skip


def _closest(cell: FloatArray, basis: FloatArray) -> float:
    k = np.arange(-2, 3)
    cells = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)
    points = np.concatenate([(cells + b) @ cell for b in basis])
    return float(cKDTree(points).query(basis @ cell, k=2)[0][:, 1].min())
