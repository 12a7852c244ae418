"""Random sheets with known atoms: rotation, strain, grain boundaries, holes, point defects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import Material
from adatom.core.arrays import FloatArray

MARGIN_A = 3.0  # Å: specimens extend this far beyond the field of view, for the tails of spots
# Smallest projected distance, Å, of two host atoms and of two impurity atoms.
_HOSTS_A, _PAIR_A = 1.22, 2.05
# Range of the smallest projected distance, Å, of an impurity atom, above the sheet or in it, from
# its host neighbours.
_IMPURITY_A = (1.42, 1.72)
EMPTY_A = 0.7  # Å: a site with an atom closer than this is not a vacancy; half a C-C bond
_UNRECONSTRUCTED = 0.4  # fraction of the vacancies whose neighbours do not move together


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """Atoms in the plane of the image.

    Parameters
    ----------
    xy
        Positions, shape (atom, 2), Å, x right and y down; may lie beyond the field of view.
    species
        Index into the material's species, shape (atom,).
    vacancies_xy
        Positions of the vacant sites, shape (vacancy, 2), Å.
    brightness
        Factor on the intensity of each atom's species, shape (atom,); 1 by default.
    """

    xy: FloatArray
    species: NDArray[np.int64]
    vacancies_xy: FloatArray
    brightness: FloatArray | None = None


def lattice_points(
    material: Material, extent_xy_A: tuple[float, float], margin_A: float, angle_rad: float
) -> FloatArray:
    """Positions of the sites of the perfect crystal, without their numbers; see `lattice_sites`."""
    return lattice_sites(material, extent_xy_A, margin_A, angle_rad)[0]


def lattice_sites(
    material: Material, extent_xy_A: tuple[float, float], margin_A: float, angle_rad: float
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Sites of the perfect crystal in a rectangle with a margin.

    Parameters
    ----------
    material
        The crystal.
    extent_xy_A
        Width and height of the rectangle, Å; a lattice point lies in its middle.
    margin_A
        Width of the margin, Å.
    angle_rad
        Direction of the first lattice vector, from x towards y (downwards), rad.

    Returns
    -------
    Positions, shape (site, 2), x and y in Å; and the index of each in the basis, shape (site,).

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> xy, number = lattice_sites(GRAPHENE, (10.0, 10.0), 0.0, angle_rad=0.1)
    >>> len(xy), sorted(set(number.tolist()))
    (36, [0, 1])
    """
    w, h = extent_xy_A
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    vectors = material.cell() @ np.array([[c, s], [-s, c]])
    heights = abs(np.linalg.det(vectors)) / np.linalg.norm(vectors, axis=1)
    reach = int(np.ceil((np.hypot(w, h) / 2 + margin_A) / heights.min())) + 1
    i, j = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1), indexing="ij")
    cells = np.stack([i.ravel(), j.ravel()], axis=1)
    points = np.concatenate([(cells + np.asarray(b)) @ vectors for b in material.basis])
    points = points + np.array([w / 2, h / 2])
    keep = np.all((points > -margin_A) & (points < np.array([w, h]) + margin_A), axis=1)
    number = np.repeat(np.arange(len(material.basis)), len(cells))
    return points[keep], number[keep]


def random_specimen(
    material: Material,
    extent_xy_A: tuple[float, float],
    rng: np.random.Generator,
    *,
    whole: bool = False,
    disorder_A: float | None = None,
) -> Specimen:
    """Sample a sheet with rotation, strain, grain boundary, hole, edge, vacancies, impurities.

    Parameters
    ----------
    material
        A sheet whose second species (if any) is the impurity.
    extent_xy_A
        Width and height of the field of view, Å; atoms extend 3 Å beyond it.
    rng
        Source of randomness.
    whole
        Make one sheet with point defects only: no grain boundary, hole or edge.
    disorder_A
        Standard deviation of random shifts of all atoms per axis, Å; by default at most that of
        real frames of graphene.
    """
    margin = MARGIN_A
    points = distort(
        lattice_points(material, extent_xy_A, margin + 2.0, rng.uniform(0, 2 * np.pi))
        + rng.uniform(-1.3, 1.3, 2),
        extent_xy_A,
        rng,
    )
    if rng.random() < 0.2 and not whole:
        points = _grain_boundary(material, points, extent_xy_A, margin + 2.0, rng)
    if rng.random() < 0.12 and not whole:
        points = points[_hole(points, extent_xy_A, rng)]
    if rng.random() < 0.06 and not whole:
        points = points[_edge(points, extent_xy_A, rng)]
    xy, species, vacancies = _defects(material, points, rng)
    # Static disorder, Å. Real frames of graphene show 0 to 0.037 Å beyond counting noise. Shifts of
    # scan lines are added in the imaging.
    usual = rng.uniform(0.0, 0.04) if whole else abs(rng.normal(0.0, 0.04))
    disorder = usual if disorder_A is None else disorder_A
    moved = xy + rng.normal(0.0, disorder, xy.shape)
    return Specimen(moved, species, vacancies)


def distort(
    points: FloatArray, extent: tuple[float, float], rng: np.random.Generator
) -> FloatArray:
    """Apply a random affine and quadratic distortion, as scan coils and drift cause it.

    Parameters
    ----------
    points
        Positions, shape (point, 2), Å.
    extent
        Width and height of the field of view, Å; its centre stays fixed.
    rng
        Source of randomness.
    """
    center = np.asarray(extent) / 2
    d = points - center
    matrix = np.eye(2) + rng.normal(0.0, 0.02, (2, 2))
    quadratic = np.stack([d[:, 0] ** 2, d[:, 0] * d[:, 1], d[:, 1] ** 2], axis=1)
    bend = rng.normal(0.0, 0.0006, (2, 3))
    out: FloatArray = d @ matrix.T + quadratic @ bend.T + center
    return out


def _grain_boundary(
    material: Material,
    points: FloatArray,
    extent: tuple[float, float],
    margin: float,
    rng: np.random.Generator,
) -> FloatArray:
    normal = rng.uniform(0, 2 * np.pi)
    n = np.array([np.cos(normal), np.sin(normal)])
    through = np.asarray(extent) * rng.uniform(0.2, 0.8, 2)
    other = lattice_points(material, extent, margin, rng.uniform(0, 2 * np.pi))
    both = np.concatenate(
        [points[(points - through) @ n < 0], other[(other - through) @ n >= 0]], axis=0
    )
    pairs = cKDTree(both).query_pairs(0.8 * material.bond_length_A, output_type="ndarray")
    drop = np.unique(pairs[:, 1]) if len(pairs) else np.array([], dtype=int)
    return np.delete(both, drop, axis=0)


def cut(
    points: FloatArray, extent: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Mark the points that remain, shape (point,), after cutting a random hole or edge."""
    return (_hole if rng.random() < 0.6 else _edge)(points, extent, rng)


def _hole(
    points: FloatArray, extent: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.bool_]:
    center = np.asarray(extent) * rng.uniform(0.0, 1.0, 2)
    keep: NDArray[np.bool_] = np.linalg.norm(points - center, axis=1) > rng.uniform(3.0, 9.0)
    return keep if keep.sum() > 20 else np.ones(len(points), dtype=bool)


def _edge(
    points: FloatArray, extent: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Mark the points on one side of a random straight line through the field."""
    direction = rng.uniform(0, 2 * np.pi)
    normal = np.array([np.cos(direction), np.sin(direction)])
    keep: NDArray[np.bool_] = (points - np.asarray(extent) * rng.uniform(0.2, 0.8, 2)) @ normal > 0
    return keep if keep.sum() > 20 else np.ones(len(points), dtype=bool)


def _defects(
    material: Material, points: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """Make vacancies and impurity defects, then push apart atoms that are too close."""
    tree = cKDTree(points)
    present = np.ones(len(points), dtype=bool)
    species = np.zeros(len(points), dtype=np.int64)
    extra: list[FloatArray] = []
    vacant: list[int] = []

    def neighbours_of(site: int, reach: float) -> NDArray[np.int64]:
        near = tree.query_ball_point(points[site], reach)
        return np.array([i for i in near if i != site], dtype=np.int64)

    bond = 1.25 * material.bond_length_A
    for _ in range(rng.poisson(rng.uniform(0.0, 7.0))):
        site = int(rng.integers(len(points)))
        gone = [site, *rng.permutation(neighbours_of(site, bond))[: rng.choice([0, 0, 0, 1, 1, 3])]]
        vacant += [int(g) for g in gone]
    present[vacant] = False

    impure = len(material.species) > 1 and rng.random() < 0.7
    for _ in range(rng.integers(1, 6) if impure else 0):
        site = int(rng.integers(len(points)))
        neighbours = neighbours_of(site, bond)
        kind = rng.choice(["on", "between", "pair", "trimer"], p=[0.55, 0.2, 0.12, 0.13])
        if kind == "on" or len(neighbours) < 3:
            present[site], species[site] = True, 1
        elif kind == "between":
            present[[site, neighbours[0]]] = False
            extra.append((points[site] + points[neighbours[0]]) / 2)
        elif kind == "pair":
            present[[site, neighbours[0]]], species[[site, neighbours[0]]] = True, 1
            present[neighbours[1]] = bool(rng.random() < 0.5)
        else:
            present[site] = False
            present[neighbours[:3]], species[neighbours[:3]] = True, 1
    if impure and rng.random() < 0.15:  # an ad-atom at any position
        extra.append(points[int(rng.integers(len(points)))] + rng.normal(0.0, 0.7, 2))
    empty = [v for v in dict.fromkeys(vacant) if not present[v]]
    sites, points = points, points.copy()
    for site in empty:
        around = neighbours_of(site, bond)
        _reconstruct(points, rng.permutation(around[present[around]]), rng)
    xy = np.concatenate([points[present], *[e[None] for e in extra]], axis=0)
    kinds = np.concatenate([species[present], np.ones(len(extra), dtype=np.int64)])
    xy = _push_apart(xy, kinds, rng.uniform(*_IMPURITY_A))
    # A vacancy may have been made twice, filled again, or covered by an ad-atom.
    vacancies = sites[empty]
    return xy, kinds, vacancies[cKDTree(xy).query(vacancies)[0] > EMPTY_A]


def _reconstruct(points: FloatArray, around: NDArray[np.int64], rng: np.random.Generator) -> None:
    """Reconstruct a vacancy, in place: move two of its neighbours together, or none.

    A bond forms across a vacancy: two of the three neighbours become closer, here by 0.1 to 0.5 Å.
    In a divacancy both pairs do (Banhart et al., ACS Nano 5, 26 (2011)). Under the beam the bond
    switches between the neighbours.
    """
    if len(around) < 2 or rng.random() < _UNRECONSTRUCTED:
        return
    i, j = around[:2]
    step = rng.uniform(0.05, 0.25) * (points[j] - points[i]) / np.linalg.norm(points[j] - points[i])
    points[i] += step
    points[j] -= step


def _push_apart(
    xy: FloatArray, species: NDArray[np.int64], impurity_A: float, rounds: int = 12
) -> FloatArray:
    """Move apart pairs that are closer than bonds allow; a fast approximation of a relaxation."""
    xy = xy.copy()
    for _ in range(rounds):
        pairs = cKDTree(xy).query_pairs(_PAIR_A, output_type="ndarray")
        if not len(pairs):
            break
        i, j = pairs[:, 0], pairs[:, 1]
        a, b = np.minimum(species[i], 1), np.minimum(species[j], 1)
        limit = np.array([_HOSTS_A, impurity_A, _PAIR_A])[a + b]
        d = xy[j] - xy[i]
        r = np.maximum(np.linalg.norm(d, axis=1), 1e-6)
        push = (0.25 * np.maximum(limit - r, 0.0) / r)[:, None] * d
        np.add.at(xy, j, push)
        np.add.at(xy, i, -push)
    return xy
