"""Random specimens with exact truth: sheets with the defects that a beam and a chemist leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import Material
from adatom.core.arrays import FloatArray

MARGIN_A = 3.0  # how far specimens reach beyond the field of view
# Shortest projected distances, Å: a heavy atom may lean over a neighbour, two hosts may not.
_HOSTS_A, _PAIR_A = 1.22, 2.05  # two hosts; two foreign atoms
# A foreign atom, above the sheet or in it, holds its neighbours off as far as that, projected.
_FOREIGN_A = (1.42, 1.72)
EMPTY_A = 0.7  # a site with an atom this near is not empty, Å
_BARE = 0.4  # share of the empty sites around which atoms stay where they are


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """Atoms in the plane of the image.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å, x right and y down; may reach beyond the field of view.
    species
        Shape (atom,), index into the material's species.
    vacancies_xy
        Shape (vacancy, 2), Å: sites left empty.
    brightness
        Factor on each atom's intensity beyond that of its species, shape (atom,); one by default.
    """

    xy: FloatArray
    species: NDArray[np.int64]
    vacancies_xy: FloatArray
    brightness: FloatArray | None = None


def lattice_points(
    material: Material, extent_xy_A: tuple[float, float], margin_A: float, angle_rad: float
) -> FloatArray:
    """Sites of the perfect crystal: the positions alone of `lattice_sites`."""
    return lattice_sites(material, extent_xy_A, margin_A, angle_rad)[0]


def lattice_sites(
    material: Material, extent_xy_A: tuple[float, float], margin_A: float, angle_rad: float
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Sites of the perfect crystal over a rectangle and a margin around it.

    Parameters
    ----------
    material
        The crystal.
    extent_xy_A
        Width and height of the rectangle, Å; a lattice point lies in its middle.
    margin_A
        How far the sites reach beyond it, Å.
    angle_rad
        Direction of the first lattice vector, from x towards y (downwards).

    Returns
    -------
    Positions, shape (site, 2), x and y in Å; and the number of each in the basis, shape (site,).
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
) -> Specimen:
    """Draw a sheet: any rotation, strain, grain boundary, hole, edge, vacancies, foreign atoms.

    Parameters
    ----------
    material
        A sheet whose second species (if any) is the foreign one.
    extent_xy_A
        Width and height of the field of view, Å; atoms reach 3 Å beyond it.
    rng
        Source of randomness.
    whole
        One sheet with point defects alone: no grain boundary, hole or edge.
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
    # Static disorder; what else moves atoms in an image differs from line to line. Real frames of
    # graphene show 0 to 0.037 Å beyond what their counts explain.
    disorder = rng.uniform(0.0, 0.04) if whole else abs(rng.normal(0.0, 0.04))
    moved = xy + rng.normal(0.0, disorder, xy.shape)
    return Specimen(moved, species, vacancies)


def distort(
    points: FloatArray, extent: tuple[float, float], rng: np.random.Generator
) -> FloatArray:
    """Stretch and shear by a few per cent, bend a little: what scan coils and drift do."""
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
    """Tell which points are left by a hole, or by an edge."""
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
    """Cut the sheet along a straight line through the field."""
    direction = rng.uniform(0, 2 * np.pi)
    normal = np.array([np.cos(direction), np.sin(direction)])
    keep: NDArray[np.bool_] = (points - np.asarray(extent) * rng.uniform(0.2, 0.8, 2)) @ normal > 0
    return keep if keep.sum() > 20 else np.ones(len(points), dtype=bool)


def _defects(
    material: Material, points: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """Take atoms out and put foreign ones in, then push what came too close apart."""
    tree = cKDTree(points)
    present = np.ones(len(points), dtype=bool)
    species = np.zeros(len(points), dtype=np.int64)
    extra: list[FloatArray] = []
    vacant: list[int] = []

    def star(site: int, reach: float) -> NDArray[np.int64]:
        near = tree.query_ball_point(points[site], reach)
        return np.array([i for i in near if i != site], dtype=np.int64)

    bond = 1.25 * material.bond_length_A
    for _ in range(rng.poisson(rng.uniform(0.0, 7.0))):
        site = int(rng.integers(len(points)))
        gone = [site, *rng.permutation(star(site, bond))[: rng.choice([0, 0, 0, 1, 1, 3])]]
        vacant += [int(g) for g in gone]
    present[vacant] = False

    foreign = len(material.species) > 1 and rng.random() < 0.7
    for _ in range(rng.integers(1, 6) if foreign else 0):
        site = int(rng.integers(len(points)))
        neighbours = star(site, bond)
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
    if foreign and rng.random() < 0.15:  # an ad-atom, anywhere
        extra.append(points[int(rng.integers(len(points)))] + rng.normal(0.0, 0.7, 2))
    empty = [v for v in dict.fromkeys(vacant) if not present[v]]
    sites, points = points, points.copy()
    for site in empty:
        around = star(site, bond)
        _reconstruct(points, rng.permutation(around[present[around]]), rng)
    xy = np.concatenate([points[present], *[e[None] for e in extra]], axis=0)
    kinds = np.concatenate([species[present], np.ones(len(extra), dtype=np.int64)])
    xy = _push_apart(xy, kinds, rng.uniform(*_FOREIGN_A))
    # A site may have been emptied twice, filled again, or have an ad-atom on it.
    vacancies = sites[empty]
    return xy, kinds, vacancies[cKDTree(xy).query(vacancies)[0] > EMPTY_A]


def _reconstruct(points: FloatArray, around: NDArray[np.int64], rng: np.random.Generator) -> None:
    """Draw two of the atoms around an empty site together, in place; or none of them.

    A bond forms across a vacancy: of three neighbours two come nearer, here by 0.1 to 0.5 Å, and
    of a divacancy both pairs (Banhart et al., ACS Nano 5, 26 (2011)). Under the beam it changes
    places.
    """
    if len(around) < 2 or rng.random() < _BARE:
        return
    i, j = around[:2]
    step = rng.uniform(0.05, 0.25) * (points[j] - points[i]) / np.linalg.norm(points[j] - points[i])
    points[i] += step
    points[j] -= step


def _push_apart(
    xy: FloatArray, species: NDArray[np.int64], foreign_A: float, rounds: int = 12
) -> FloatArray:
    """Move pairs that are closer than chemistry allows; a light stand-in for a relaxation."""
    xy = xy.copy()
    for _ in range(rounds):
        pairs = cKDTree(xy).query_pairs(_PAIR_A, output_type="ndarray")
        if not len(pairs):
            break
        i, j = pairs[:, 0], pairs[:, 1]
        a, b = np.minimum(species[i], 1), np.minimum(species[j], 1)
        limit = np.array([_HOSTS_A, foreign_A, _PAIR_A])[a + b]
        d = xy[j] - xy[i]
        r = np.maximum(np.linalg.norm(d, axis=1), 1e-6)
        push = (0.25 * np.maximum(limit - r, 0.0) / r)[:, None] * d
        np.add.at(xy, j, push)
        np.add.at(xy, i, -push)
    return xy
