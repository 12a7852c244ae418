"""Random specimens of any material: columns with brightness, grain boundaries, point defects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.core.material import ANY
from adatom.frames.simulate.specimen import (
    EMPTY_A,
    MARGIN_A,
    Specimen,
    cut,
    distort,
    lattice_sites,
    random_specimen,
)

_VACANT = 3.0  # mean number of vacancies in a field of 22 Å, scaled to the material by its bond
_GRAPHENE_LIKE = 2  # number of species of a graphene-like material: the host and one impurity
_POLYTYPE = 0.35  # fraction of the grains with another arrangement than the material's first
# Dispersed atoms and their clusters per Å²: 0.04 to 0.6 per nm². Supports of single-atom
# catalysts hold a few weight percent; more atoms than that come together to particles.
_DISPERSED_A2 = (4e-4, 6e-3)
_NO_POSITIONS = np.zeros((0, 2))  # no vacancies, or no ad-atoms


def draw_specimen(
    material: Material,
    extent_xy_A: tuple[float, float],
    rng: np.random.Generator,
    *,
    whole: bool = False,
    density_A2: float | None = None,
    disorder_A: float | None = None,
) -> Specimen:
    """Sample a specimen of a material of any form.

    Parameters
    ----------
    material
        The material; honeycombs of one element are made by `random_specimen`.
    extent_xy_A
        Width and height of the field of view, Å.
    rng
        Source of randomness.
    whole
        Make one crystal with point defects only: no grain boundary, hole or edge.
    density_A2
        Approximate number of dispersed atoms per Å²; random by default.
    disorder_A
        Passed to `random_specimen`; other forms have their own.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import GRAPHENE
    >>> specimen = draw_specimen(GRAPHENE, (20.0, 20.0), np.random.default_rng(0), whole=True)
    >>> specimen.xy.shape == (len(specimen.species), 2)
    True
    """
    if not material.has_lattice:
        return dispersed_atoms(material, extent_xy_A, rng, density_A2)
    one_element = set(material.site_species) == {material.host} and material.host != ANY
    if one_element and material.coordination == 3 and len(material.species) <= _GRAPHENE_LIKE:
        return random_specimen(material, extent_xy_A, rng, whole=whole, disorder_A=disorder_A)
    return random_crystal(material, extent_xy_A, rng, whole=whole)


def random_crystal(
    material: Material,
    extent_xy_A: tuple[float, float],
    rng: np.random.Generator,
    *,
    whole: bool = False,
) -> Specimen:
    """Sample a crystal with rotation, strain, grain boundary, hole or edge, and point defects.

    Parameters
    ----------
    material
        A material with a lattice. Its species without a site are impurities: they replace atoms of
        sites or are ad-atoms.
    extent_xy_A
        Width and height of the field of view, Å; columns extend beyond it.
    rng
        Source of randomness.
    whole
        Make one crystal with point defects only: no grain boundary, hole or edge.
    """
    margin = (MARGIN_A + 2.0) * material.scale
    angle = rng.uniform(0, 2 * np.pi)
    xy, species, grain = _grain(material, extent_xy_A, margin, angle, rng)
    brightness = grain
    if rng.random() < 0.3 and not whole:
        other_angle = angle if rng.random() < 0.4 else rng.uniform(0, 2 * np.pi)
        other = _grain(
            material, extent_xy_A, margin, other_angle, rng, mirrored=bool(rng.random() < 0.5)
        )
        xy, species, brightness = _joined(
            material, (xy, species, brightness), other, extent_xy_A, rng
        )
    xy = distort(xy, extent_xy_A, rng)
    if rng.random() < 0.15 and not whole:
        keep = cut(xy, extent_xy_A, rng)
        xy, species, brightness = xy[keep], species[keep], brightness[keep]
    if material.is_thick:
        brightness = brightness * _thickness(xy, extent_xy_A, rng)
    return _defects(material, xy, species, brightness, extent_xy_A, rng, whole=whole)


def dispersed_atoms(
    material: Material,
    extent_xy_A: tuple[float, float],
    rng: np.random.Generator,
    density_A2: float | None = None,
) -> Specimen:
    """Sample single atoms, pairs and clusters on a support; their brightness varies.

    Parameters
    ----------
    material
        A material without a lattice.
    extent_xy_A
        Width and height of the field of view, Å; atoms extend beyond it.
    rng
        Source of randomness.
    density_A2
        Approximate number of atoms per Å²; random by default.
    """
    w, h = extent_xy_A
    margin = MARGIN_A * material.scale
    low, high = np.array([-margin, -margin]), np.array([w + margin, h + margin])
    area = float(np.prod(high - low))
    density = np.exp(rng.uniform(*np.log(_DISPERSED_A2)))
    if density_A2 is not None:
        density = (
            0.6 * density_A2 * np.exp(rng.normal(0.0, 0.4))
        )  # of the seeds: clusters add atoms
    seeds = rng.uniform(low, high, (rng.poisson(density * area), 2))
    parts = [seeds]
    for seed in seeds[rng.random(len(seeds)) < rng.uniform(0.0, 0.4)]:
        reach = material.bond_length_A * rng.uniform(1.0, 2.5)
        parts.append(seed + rng.normal(0.0, reach, (rng.integers(1, 6), 2)))
    xy = np.concatenate(parts)
    pairs = cKDTree(xy).query_pairs(material.bond_length_A, output_type="ndarray")
    xy = np.delete(xy, np.unique(pairs[:, 1]) if len(pairs) else [], axis=0)
    kinds = rng.choice(len(material.species), len(xy))
    brightness = np.exp(rng.normal(0.0, rng.uniform(0.05, 0.3), len(xy)))
    return Specimen(xy, kinds.astype(np.int64), _NO_POSITIONS, brightness)


def _grain(
    material: Material,
    extent: tuple[float, float],
    margin: float,
    angle: float,
    rng: np.random.Generator,
    *,
    mirrored: bool = False,
) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """Columns of one grain: positions, species, brightness.

    All columns of one site of the basis have the same brightness in a grain. It differs from grain
    to grain by stacking and tilt. Columns without a name have a brightness from a wide range.
    """
    arrangements = material.arrangements()
    if len(arrangements) > 1 and rng.random() < _POLYTYPE:
        material = arrangements[int(rng.integers(1, len(arrangements)))]
    points, site = lattice_sites(material, extent, margin, angle)
    points = points + rng.uniform(-1.3, 1.3, 2) * material.bond_length_A / 1.42
    if mirrored:
        points[:, 0] = extent[0] - points[:, 0]
    number = {label: k for k, label in enumerate(material.species)}
    species = np.array([number[s] for s in material.site_species], dtype=np.int64)[site]
    if ANY in material.species:
        factor = np.exp(rng.uniform(np.log(0.15), np.log(2.5), len(material.basis)))
        if rng.random() < 0.3:
            factor[:] = 1.0
    else:
        # Overlapping layers, tilt and focus change the brightness that follows from the formula.
        spread = 0.3 if rng.random() < 0.25 else 0.06
        factor = np.exp(rng.normal(0.0, spread, len(material.basis)))
    return points, species, factor[site]


def _joined(
    material: Material,
    first: tuple[FloatArray, NDArray[np.int64], FloatArray],
    second: tuple[FloatArray, NDArray[np.int64], FloatArray],
    extent: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """Join two grains along a line; of columns that would overlap, remove one."""
    normal = rng.uniform(0, 2 * np.pi)
    n = np.array([np.cos(normal), np.sin(normal)])
    through = np.asarray(extent) * rng.uniform(0.2, 0.8, 2)
    left = (first[0] - through) @ n < 0
    right = (second[0] - through) @ n >= 0
    xy, species, brightness = (
        np.concatenate([a[left], b[right]]) for a, b in zip(first, second, strict=True)
    )
    pairs = cKDTree(xy).query_pairs(0.8 * material.bond_length_A, output_type="ndarray")
    drop = np.unique(pairs[:, 1]) if len(pairs) else np.array([], dtype=int)
    keep = np.setdiff1d(np.arange(len(xy)), drop)
    return xy[keep], species[keep], brightness[keep]


def _thickness(xy: FloatArray, extent: tuple[float, float], rng: np.random.Generator) -> FloatArray:
    """Factor of brightness of a wedge, whose thickness changes linearly."""
    slope = rng.normal(0.0, 0.25, 2)
    out: FloatArray = np.clip(1.0 + (xy / np.asarray(extent) - 0.5) @ slope, 0.3, 2.0)
    return out


def _defects(
    material: Material,
    points: FloatArray,
    species: NDArray[np.int64],
    brightness: FloatArray,
    extent: tuple[float, float],
    rng: np.random.Generator,
    *,
    whole: bool,
) -> Specimen:
    """Make vacancies, substitutions and ad-atoms, then add random displacements."""
    unit = material.bond_length_A
    tree = cKDTree(points)
    room = extent[0] * extent[1] / (22.0 * unit / 1.42) ** 2
    kinds, bright = species.copy(), brightness.copy()
    present = np.ones(len(points), dtype=bool)
    for site in rng.integers(len(points), size=rng.poisson(rng.uniform(0.0, 2 * _VACANT) * room)):
        present[site] = False
        near = [i for i in tree.query_ball_point(points[site], 1.25 * unit) if i != site]
        if near and rng.random() < 0.15:
            present[rng.choice(near)] = False
    hosts = {s for each in material.arrangements() for s in each.site_species}
    impurities = [k for k, s in enumerate(material.species) if s not in hosts]
    others = impurities or list(range(len(material.species)))
    chosen = rng.permutation(len(points))[: rng.poisson(rng.uniform(0.0, 3.0) * room)]
    if len(material.species) > 1 and rng.random() < 0.75:
        kinds[chosen] = rng.choice(others, len(chosen))
        bright[chosen] = np.median(bright)
    if impurities and rng.random() < 0.15:  # an alloy: 10 to 50 % of the sites of one species
        which = int(rng.choice(np.unique(species)))
        mixed = (species == which) & (rng.random(len(points)) < rng.uniform(0.1, 0.5))
        kinds[mixed] = rng.choice(impurities)
    extra = _NO_POSITIONS
    if rng.random() < 0.15:  # ad-atoms between the columns
        at = points[rng.integers(len(points), size=1 + rng.poisson(0.5))]
        extra = at + rng.normal(0.0, 0.4 * unit, at.shape)
        extra = extra[tree.query(extra)[0] > 0.45 * unit]
    disorder = unit / 1.42 * (rng.uniform(0.0, 0.03) if whole else abs(rng.normal(0.0, 0.04)))
    xy = np.concatenate([points[present], extra])
    xy = xy + rng.normal(0.0, disorder, xy.shape)
    new = rng.choice(others, len(extra)).astype(np.int64)
    empty = points[~present]
    empty = empty[cKDTree(xy).query(empty)[0] > EMPTY_A * unit / 1.42] if len(empty) else empty
    return Specimen(
        xy,
        np.concatenate([kinds[present], new]),
        empty,
        np.concatenate([bright[present], np.full(len(extra), float(np.median(bright)))]),
    )
