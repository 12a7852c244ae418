"""Random specimens of any material: columns with their brightness, boundaries, point defects."""

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

_VACANT = 3.0  # usual number of vacancies in a field of 22 Å by graphene's bond
_GRAPHENE_LIKE = 2  # species: the host and one foreign element
_POLYTYPE = 0.35  # share of the grains that are not of the usual arrangement
_BARE = np.zeros((0, 2))


def draw_specimen(
    material: Material,
    extent_xy_A: tuple[float, float],
    rng: np.random.Generator,
    *,
    whole: bool = False,
    density_A2: float | None = None,
) -> Specimen:
    """Draw a specimen of whatever form a material has.

    Parameters
    ----------
    material
        What to draw; honeycombs of one element have defects of their own.
    extent_xy_A
        Width and height of the field of view, Å.
    rng
        Source of randomness.
    whole
        One crystal with point defects alone: no boundary, hole or edge.
    density_A2
        Of dispersed atoms: how many to an Å², about; any by default.
    """
    if not material.has_lattice:
        return dispersed_atoms(material, extent_xy_A, rng, density_A2)
    alone = set(material.site_species) == {material.host} and material.host != ANY
    if alone and material.coordination == 3 and len(material.species) <= _GRAPHENE_LIKE:
        return random_specimen(material, extent_xy_A, rng, whole=whole)
    return random_crystal(material, extent_xy_A, rng, whole=whole)


def random_crystal(
    material: Material,
    extent_xy_A: tuple[float, float],
    rng: np.random.Generator,
    *,
    whole: bool = False,
) -> Specimen:
    """Draw a crystal: any rotation, strain, boundary, hole or edge, thickness, point defects.

    Parameters
    ----------
    material
        With a lattice; species that stand on no site are what may replace one, or lie on top.
    extent_xy_A
        Width and height of the field of view, Å; columns reach beyond it.
    rng
        Source of randomness.
    whole
        One crystal with point defects alone: no boundary, hole or edge.
    """
    margin = (MARGIN_A + 2.0) * material.scale
    angle = rng.uniform(0, 2 * np.pi)
    xy, species, grain = _grain(material, extent_xy_A, margin, angle, rng)
    brightness = grain
    if rng.random() < 0.3 and not whole:
        turned = angle if rng.random() < 0.4 else rng.uniform(0, 2 * np.pi)
        other = _grain(
            material, extent_xy_A, margin, turned, rng, mirrored=bool(rng.random() < 0.5)
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
    """Draw single atoms, pairs and clusters on a support; brightness varies with height."""
    w, h = extent_xy_A
    margin = MARGIN_A * material.scale
    low, high = np.array([-margin, -margin]), np.array([w + margin, h + margin])
    area = float(np.prod(high - low))
    density = np.exp(rng.uniform(np.log(4e-4), np.log(0.015)))
    if density_A2 is not None:
        density = 0.6 * density_A2 * np.exp(rng.normal(0.0, 0.4))  # clusters add to the seeds
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
    return Specimen(xy, kinds.astype(np.int64), _BARE, brightness)


def _grain(
    material: Material,
    extent: tuple[float, float],
    margin: float,
    angle: float,
    rng: np.random.Generator,
    *,
    mirrored: bool = False,
) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """One grain's columns: positions, species, brightness. A site of a grain has one brightness.

    Stacking and tilt change how bright a column is from grain to grain; a nameless column may be
    anything.
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
        # Overlapping layers, tilt and focus: a site's brightness is never quite its formula's.
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
    """Put two grains side by side along a line, without columns that would touch."""
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
    """Brightness by thickness: a wedge."""
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
    """Empty some sites, put other species on some, lay ad-atoms on top, then shake it all."""
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
    foreign = [k for k, s in enumerate(material.species) if s not in hosts]
    others = foreign or list(range(len(material.species)))
    chosen = rng.permutation(len(points))[: rng.poisson(rng.uniform(0.0, 3.0) * room)]
    if len(material.species) > 1 and rng.random() < 0.75:
        kinds[chosen] = rng.choice(others, len(chosen))
        bright[chosen] = np.median(bright)
    if foreign and rng.random() < 0.15:  # an alloy: a tenth to a half of one species' sites
        which = int(rng.choice(np.unique(species)))
        mixed = (species == which) & (rng.random(len(points)) < rng.uniform(0.1, 0.5))
        kinds[mixed] = rng.choice(foreign)
    extra = _BARE
    if rng.random() < 0.15:  # ad-atoms, anywhere between the columns
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
