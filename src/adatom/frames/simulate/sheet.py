"""Graphene sheets with well-separated point defects, for multislice benchmarks.

`specimen.random_specimen` makes the specimens of the training. These sheets test the networks, so
the two share no code but the lattice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import GRAPHENE
from adatom.core.arrays import FloatArray
from adatom.frames.simulate.specimen import Specimen, lattice_points

_REACH_A = 3.5  # Å: margin of the sheet round the field of view, wider than a spot
_APART_A = 6.0  # Å: smallest distance of two defects, so that they share no neighbour
# Å: projected bond of three-fold Si in graphene: Zhou et al., PRL 109, 206803 (2012)
_SILICON_BOND_A = 1.6


def graphene_sheet(
    extent_xy_A: tuple[float, float],
    rng: np.random.Generator,
    *,
    vacancies: int = 2,
    divacancies: int = 1,
    silicon: int = 3,
    fourfold: int = 1,
    angle_rad: float | None = None,
    strain: float = 0.01,
    disorder_A: float = 0.02,
) -> Specimen:
    """Sample a flat graphene sheet whose defects are apart from each other and from the edges.

    Parameters
    ----------
    extent_xy_A
        Width and height of the field of view, Å; the sheet reaches 3.5 Å beyond it.
    rng
        Source of randomness.
    vacancies
        Number of single vacancies; half of them (at random) are reconstructed: two of the three
        neighbours move together.
    divacancies
        Number of divacancies, reconstructed to two pentagons.
    silicon
        Number of Si atoms on a carbon site (three-fold).
    fourfold
        Number of Si atoms in a divacancy (four-fold).
    angle_rad
        Direction of the first lattice vector, from x towards y (downwards), rad; random by default.
    strain
        Standard deviation of stretches and shears.
    disorder_A
        Standard deviation of random displacements, Å.

    Returns
    -------
    Atoms (species 0 is C, 1 is Si) and vacancies. If there is no room for all defects 6 Å apart,
    some are left out: vacancies first, then Si, divacancies, four-fold Si.
    """
    angle = rng.uniform(0, 2 * np.pi) if angle_rad is None else angle_rad
    shift = rng.uniform(-1.3, 1.3, 2)
    points = lattice_points(GRAPHENE, extent_xy_A, _REACH_A + 2.5, angle) + shift
    centre = np.asarray(extent_xy_A) / 2
    matrix = np.eye(2) + rng.normal(0.0, strain, (2, 2))
    points = (points - centre) @ matrix.T + centre
    kinds = ["fourfold"] * fourfold + ["divacancy"] * divacancies
    kinds += ["silicon"] * silicon + ["vacancy"] * vacancies
    moved, species, gone, extra = _put_defects(points, extent_xy_A, kinds, rng)
    xy = np.concatenate([moved[species >= 0], extra])
    xy += rng.normal(0.0, disorder_A, xy.shape)
    numbers = np.concatenate([species[species >= 0], np.ones(len(extra), dtype=np.int64)])
    near = np.all((xy > -_REACH_A) & (xy < np.asarray(extent_xy_A) + _REACH_A), axis=1)
    return Specimen(xy[near], numbers[near], points[gone])


def _put_defects(
    points: FloatArray, extent: tuple[float, float], kinds: list[str], rng: np.random.Generator
) -> tuple[FloatArray, NDArray[np.int64], list[int], FloatArray]:
    """Place the defects: moved sites, species (-1: no atom), vacant sites, and Si between sites."""
    xy, species = points.copy(), np.zeros(len(points), dtype=np.int64)
    tree = cKDTree(points)
    vacant: list[int] = []
    extra: list[FloatArray] = []
    taken: list[FloatArray] = []
    sites = rng.permutation(len(points))
    roomy = np.all((points > 2.5) & (points < np.asarray(extent) - 2.5), axis=1)
    for kind in kinds:
        free = next((s for s in sites if roomy[s] and _apart(points[s], taken)), None)
        if free is None:
            break
        site = int(free)
        taken.append(points[site])
        near = rng.permutation(tree.query(points[site], k=4)[1][1:])
        if kind == "silicon":
            species[site] = 1
            d = points[near] - points[site]
            xy[near] = points[site] + _SILICON_BOND_A * d / np.linalg.norm(d, axis=1)[:, None]
            continue
        if kind == "vacancy":
            species[site] = -1
            vacant.append(site)
            if rng.random() < 0.5:
                _move_together(xy, near[0], near[1], 0.15)
            continue
        other = int(near[0])
        species[[site, other]] = -1
        if kind == "fourfold":
            extra.append((points[site] + points[other]) / 2)
            continue
        vacant += [site, other]
        _move_together(xy, near[1], near[2], 0.25)
        across = [s for s in tree.query(points[other], k=4)[1][1:] if s != site]
        _move_together(xy, across[0], across[1], 0.25)
    return xy, species, vacant, np.array(extra, dtype=np.float64).reshape(-1, 2)


def _apart(point: FloatArray, taken: list[FloatArray]) -> bool:
    return all(float(np.linalg.norm(point - t)) >= _APART_A for t in taken)


def _move_together(xy: FloatArray, i: int, j: int, by_A: float) -> None:
    """Move two atoms towards each other, each by `by_A` Å (a bond forms across a vacancy)."""
    d = xy[j] - xy[i]
    step = by_A * d / np.linalg.norm(d)
    xy[i] += step
    xy[j] -= step
