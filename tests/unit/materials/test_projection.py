"""A crystal seen along a zone axis, against the atoms of a large block projected by hand."""

from itertools import product
from math import gcd

import ase.build
import numpy as np
import pytest
from ase import Atoms
from ase.formula import Formula
from ase.neighborlist import neighbor_list
from scipy.spatial import cKDTree

from adatom.errors import BadInput
from adatom.materials.projection import project

_REACH_A, _BLOCK_A = 6.03, 14.0


def perovskite(a, large):
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms(large + "TiO3", scaled_positions=places, cell=[a] * 3, pbc=True)


AU = ase.build.bulk("Au", "fcc", a=4.078, cubic=True)
CDTE = ase.build.bulk("CdTe", "zincblende", a=6.482, cubic=True)
SI = ase.build.bulk("Si", "diamond", a=5.431, cubic=True)
STO = perovskite(3.905, "Sr")
MOS2 = ase.build.mx2("MoS2", a=3.16, thickness=3.19, vacuum=8)
ASKEW = Atoms(  # triclinic, nothing in a place of symmetry
    "FeNiPt",
    scaled_positions=[(0.1, 0.2, 0.3), (0.55, 0.7, 0.45), (0.8, 0.35, 0.9)],
    cell=[[4.1, 0.0, 0.0], [0.9, 4.6, 0.0], [-0.7, 0.8, 5.2]],
    pbc=True,
)

CASES = {
    "Au 110": (AU, (1, 1, 0), ("Au",)),
    "Au 100": (AU, (1, 0, 0), ("Au",)),
    "Au 111": (AU, (1, 1, 1), ("Au",)),
    "Au 112": (AU, (1, 1, 2), ("Au",)),
    # The same direction, [110], of the same lattice by its primitive vectors.
    "Au 110 primitive": (ase.build.bulk("Au", "fcc", a=4.078), (0, 0, 1), ("Au",)),
    "Fe 001": (ase.build.bulk("Fe", "bcc", a=2.87, cubic=True), (0, 0, 1), ("Fe",)),
    "Fe 111": (ase.build.bulk("Fe", "bcc", a=2.87, cubic=True), (1, 1, 1), ("Fe",)),
    "Mg 0001": (ase.build.bulk("Mg", "hcp", a=3.21, c=5.21), (0, 0, 1), ("Mg", "Mg")),
    "Si 110": (SI, (1, 1, 0), ("Si", "Si")),
    "Si 001": (SI, (0, 0, 1), ("Si",)),
    "CdTe 110": (CDTE, (1, 1, 0), ("Cd", "Te")),
    "CdTe 1-10": (CDTE, (1, -1, 0), ("Cd", "Te")),
    "CdTe 111": (CDTE, (1, 1, 1), ("CdTe",)),
    "NaCl 001": (ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=True), (0, 0, 1), ("ClNa",)),
    "SrTiO3 001": (STO, (0, 0, 1), ("O", "O", "OTi", "Sr")),
    "SrTiO3 110": (STO, (1, 1, 0), ("OO", "OSr", "Ti")),
    "MoS2 001": (MOS2, (0, 0, 1), ("Mo", "SS")),
    "MoS2 4 x 3": (MOS2.repeat((4, 3, 1)), (0, 0, 1), ("Mo", "SS")),
    "askew 001": (ASKEW, (0, 0, 1), ("Fe", "Ni", "Pt")),
    "askew 1-12": (ASKEW, (1, -1, 2), ("Fe", "Ni", "Pt")),
}
cases = pytest.mark.parametrize(("atoms", "axis", "labels"), CASES.values(), ids=CASES)


def bag(label):
    """Atoms of a label as sorted symbols: NaCl and ClNa are one."""
    return "".join(sorted(s for s, n in Formula(label).count().items() for _ in range(n)))


def elements(label):
    return "".join(sorted(Formula(label).count()))


def by_hand(atoms, axis):
    """Columns around the origin of a block of the crystal: positions and sets of elements.

    No cell is looked for: everything within reach of a line along the axis is projected.
    """
    cell = atoms.cell[:]
    along = np.asarray(axis) @ cell
    along = along / np.linalg.norm(along)
    across = np.linalg.svd(along[None])[2][1:].T  # two vectors across it
    period = np.linalg.norm((np.asarray(axis) // gcd(*axis)) @ cell)
    size = np.linalg.norm(cell, axis=1).sum()
    heights = 1 / np.linalg.norm(np.linalg.inv(cell).T, axis=1)
    k = np.ceil((period + _BLOCK_A + 2 * size) / heights).astype(int)
    grid = np.array(list(product(*(range(-n, n + 1) for n in k)))) @ cell
    near = np.linalg.norm(grid @ across, axis=1) < _BLOCK_A + size
    near &= np.abs(grid @ along) < period + size
    points = (grid[near][:, None] + atoms.positions).reshape(-1, 3)
    symbols = np.tile(atoms.get_chemical_symbols(), near.sum())
    flat, height = points @ across, points @ along
    within = np.linalg.norm(flat, axis=1) < _BLOCK_A
    within &= (height > -1e-6) & (height < period - 1e-6)
    flat, symbols = flat[within], symbols[within]
    columns = {frozenset(near) for near in cKDTree(flat).query_ball_point(flat, 0.05)}
    places = np.array([flat[list(c)].mean(axis=0) for c in columns])
    return places, ["".join(sorted({symbols[i] for i in c})) for c in columns]


def tiled(seen):
    """The columns of a projection around the origin, as of `by_hand`."""
    k = np.array(list(product(range(-20, 21), repeat=2)))
    points = np.concatenate([(k + b) @ seen.cell for b in seen.basis])
    kinds = np.repeat([elements(s) for s in seen.labels], len(k))
    keep = np.linalg.norm(points, axis=1) < _BLOCK_A
    return points[keep], kinds[keep].tolist()


def surroundings(points, kinds):
    """What is around the columns of the middle: of each its kind, and all distances by kind."""
    tree, kinds, out = cKDTree(points), np.array(kinds), []
    for i in tree.query_ball_point((0.0, 0.0), _BLOCK_A - _REACH_A):
        near = np.array(tree.query_ball_point(points[i], _REACH_A))
        d = np.linalg.norm(points[near] - points[i], axis=1)
        order = np.lexsort((d.round(2), kinds[near]))
        out.append((kinds[i], kinds[near][order].tolist(), np.array(d[order])))
    return out


def alike(one, other):
    return one[:2] == other[:2] and np.allclose(one[2], other[2], atol=0.02)


@cases
def test_columns_are_those_of_a_block_projected_by_hand(atoms, axis, labels):
    seen = project(atoms, axis)
    assert sorted(map(bag, seen.labels)) == sorted(labels)
    wanted, mine = surroundings(*by_hand(atoms, axis)), surroundings(*tiled(seen))
    assert {w[0] for w in wanted} == {elements(s) for s in seen.labels}
    assert all(any(alike(w, m) for m in mine) for w in wanted)
    assert all(any(alike(w, m) for w in wanted) for m in mine)


@cases
def test_the_cell_is_the_smallest_short_and_right_handed(atoms, axis, labels):
    seen = project(atoms, axis)
    a, b = seen.cell
    assert np.linalg.det(seen.cell) > 0
    assert np.linalg.norm(a) <= np.linalg.norm(b) + 1e-9
    assert abs(a @ b) <= 0.5 * a @ a + 1e-9  # reduced: no shorter vector makes the same lattice
    assert (seen.basis > -1e-9).all()
    assert (seen.basis < 1 + 1e-9).all()
    # As many columns an area as the block has; a circle cuts some.
    density = len(by_hand(atoms, axis)[0]) / (np.pi * _BLOCK_A**2)
    assert len(seen.labels) / np.linalg.det(seen.cell) == pytest.approx(density, rel=0.13)


def test_gold_along_110_has_the_cell_that_its_neighbours_span():
    """Its twelve neighbours project on four lattice points a√3/√8 away, two a away, two on it."""
    a = 4.078
    _, vectors = neighbor_list("iD", AU, 1.05 * a / 2**0.5)
    along = np.array([1, 1, 0]) / 2**0.5
    across = vectors - np.outer(vectors @ along, along)
    length = np.linalg.norm(across, axis=1)
    nearest = length[length > 0.1].min()
    seen = project(AU, (1, 1, 0))
    assert np.linalg.det(seen.cell) == pytest.approx(a**2 / 8**0.5, rel=1e-9)
    np.testing.assert_allclose(np.linalg.norm(seen.cell, axis=1), nearest, rtol=1e-9)
    assert nearest == pytest.approx(a * (3 / 8) ** 0.5, rel=1e-9)


def test_dumbbells_have_their_lengths():
    for atoms, wanted in ((CDTE, 6.482 / 4), (SI, 5.431 / 4)):
        points, _ = tiled(project(atoms, (1, 1, 0)))
        d = cKDTree(points).query(points, k=2)[0][:, 1]
        inner = np.linalg.norm(points, axis=1) < 6.0
        np.testing.assert_allclose(d[inner], wanted, rtol=1e-6)
    assert wanted == pytest.approx(1.36, abs=0.01)


def test_atoms_over_each_other_are_counted_as_they_are_in_one_period():
    assert set(project(MOS2, (0, 0, 1)).labels) == {"Mo", "S2"}
    twice = MOS2.repeat((2, 1, 1))
    assert set(project(twice, (0, 0, 1)).labels) == {"Mo", "S2"}
    assert set(project(AU.repeat((1, 1, 3)), (0, 0, 1)).labels) == {"Au"}
    janus = MOS2.copy()
    janus.symbols[2] = "Se"
    assert {bag(s) for s in project(janus, (0, 0, 1)).labels} == {"Mo", bag("SSe")}


@pytest.mark.parametrize("axis", [(1, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_the_length_of_the_axis_and_the_ends_of_a_column_change_nothing(axis):
    one = project(CDTE, axis)
    for other in (tuple(2 * i for i in axis), tuple(-i for i in axis)):
        seen = project(CDTE, other)
        assert sorted(map(bag, seen.labels)) == sorted(map(bag, one.labels))
        assert np.linalg.det(seen.cell) == pytest.approx(np.linalg.det(one.cell))


def test_the_projection_is_seen_against_the_beam_and_not_mirrored():
    """ScoredFrame with the axis towards the eye; from Fe to its nearest Ni to its nearest Pt."""

    def turn(points, kinds):
        fe, ni, pt = (points[np.array(kinds) == k] for k in ("Fe", "Ni", "Pt"))
        middle = fe[np.argmin(np.linalg.norm(fe, axis=1))]
        a, b = (p[np.argmin(np.linalg.norm(p - middle, axis=1))] - middle for p in (ni, pt))
        return float(a[0] * b[1] - a[1] * b[0])

    upright = ASKEW.copy()
    upright.set_cell([[4.1, 0.0, 0.0], [0.9, 4.6, 0.0], [0.0, 0.0, 5.2]], scale_atoms=True)
    k = np.array(list(product(range(-6, 7), repeat=2)))
    points = np.concatenate([k @ upright.cell[:2, :2] + p[:2] for p in upright.positions])
    wanted = turn(points, np.repeat(upright.get_chemical_symbols(), len(k)))
    assert abs(wanted) > 0.5
    assert turn(*tiled(project(upright, (0, 0, 1)))) == pytest.approx(wanted, abs=1e-6)
    assert turn(*tiled(project(upright, (0, 0, -1)))) == pytest.approx(-wanted, abs=1e-6)


def test_noise_of_a_relaxation_does_not_split_columns():
    rattled = CDTE.repeat((1, 1, 2))
    rattled.rattle(0.03, seed=3)
    seen = project(rattled, (0, 0, 1))
    assert np.linalg.det(seen.cell) / len(seen.labels) == pytest.approx(6.482**2 / 8, rel=0.02)


def test_a_direction_of_high_index_is_refused():
    with pytest.raises(BadInput) as refused:
        project(STO, (17, 5, 29))
    assert "(17, 5, 29)" in str(refused.value)
    assert "simpler zone axis" in refused.value.todo
