"""Supercells of frames whose lattice and atoms are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adatom.core import GRAPHENE, Structure
from adatom.errors import BadInput
from adatom.structures import (
    SupercellOptions,
    bonds,
    build_supercell,
    coordination_report,
    pristine_supercell,
    same_structure,
    sample_structures,
    structure_name,
)
from lattices import (
    BOND,
    CENTER,
    EXTENT,
    build,
    make_lattice,
    nearest,
    rotation,
    sites_of,
    substituted,
    table,
)


def image_of(structure, lattice, anchor_site_xy):
    """Undistorted image positions of the cell's atoms: an inverse written independently."""
    half = structure.atoms.cell.array[:2, :2].sum(axis=0) / 2
    u = structure.atoms.positions[:, :2] - half
    u[:, 1] *= -1
    c, s = np.cos(lattice.angle_rad), np.sin(lattice.angle_rad)
    return u @ np.array([[c, s], [-s, c]]) + anchor_site_xy


@settings(max_examples=40, deadline=None)
@given(
    angle=st.floats(-np.pi, np.pi),
    stretch=st.tuples(*[st.floats(-0.04, 0.04)] * 3),
    bend=st.floats(-2e-4, 2e-4),
    center=st.tuples(st.floats(8, 32), st.floats(8, 28)),
)
def test_perfect_sheet_is_perfect_across_the_boundary(angle, stretch, bend, center):
    lattice = make_lattice(angle, stretch, bend)
    _, xy = sites_of(lattice)
    cell = build(table(xy), lattice, center)
    assert len(cell.atoms) == 98
    assert np.all(cell.atoms.cell.lengths()[:2] >= 15.5)
    assert cell.atoms.cell.lengths()[0] / 2.46 == pytest.approx(7)
    pairs, lengths = bonds(cell.atoms)
    assert len(pairs) == 147  # 3/2 a site: none is missing at the boundary
    np.testing.assert_allclose(lengths, BOND, atol=1e-6)
    assert same_structure(cell, pristine_supercell(GRAPHENE))
    assert (cell.source_atom >= 0).sum() > 20


def test_perfect_sheet_comes_from_the_atoms_and_not_from_the_lattice():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    moved = xy + np.random.default_rng(0).normal(0, 0.03, xy.shape)
    cell = build(table(moved), lattice)
    _, lengths = bonds(cell.atoms)
    assert 0.01 < lengths.std() < 0.06
    assert (cell.source_atom >= 0).sum() > 20


def test_atoms_across_the_defect_radius_are_neither_lost_nor_doubled():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    rng = np.random.default_rng(2)
    for _ in range(40):
        moved = xy + rng.normal(0, 0.08, xy.shape)
        cell = build(table(moved), lattice, tuple(rng.uniform(10, 26, 2)))
        assert len(cell.atoms) == 98


def test_only_y_is_flipped():
    """At no rotation (x, y down) goes to (x, -y): seen from +z with y up, as on the screen."""
    lattice = make_lattice(angle=0.0, stretch=(0, 0, 0))
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    order = np.argsort(np.linalg.norm(xy - xy[middle], axis=1))
    first, near = order[0], order[1:4]
    right = near[np.argmax(xy[near, 0])]  # the rest: one on the left, one above or below
    moved = xy.copy()
    moved[first] += (0.2, 0.1)  # right and down on the screen
    elements = ["C"] * len(xy)
    elements[right] = "Si"
    cell = build(table(moved, elements), lattice, tuple(xy[middle]))
    at = {int(s): i for i, s in enumerate(cell.source_atom) if s >= 0}
    p = cell.atoms.positions[:, :2]
    half = cell.atoms.cell.array[:2, :2].sum(axis=0) / 2
    np.testing.assert_allclose(p[at[first]] - half, (0.2, -0.1), atol=1e-9)
    for k in near:
        expected = (xy[k] - xy[middle]) * (1, -1)
        np.testing.assert_allclose(p[at[k]] - half, expected, atol=1e-9)
    assert cell.atoms[at[right]].symbol == "Si"


@settings(max_examples=20, deadline=None)
@given(angle=st.floats(-np.pi, np.pi))
def test_a_chiral_arrangement_keeps_its_handedness(angle):
    """The turn A -> B -> C on the screen (y up) is the turn in the cell (y up)."""
    lattice = make_lattice(angle)
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    a, b, c = np.argsort(np.linalg.norm(xy - xy[middle], axis=1))[1:4]
    cell = build(table(xy), lattice, tuple(xy[middle]))
    at = {int(s): i for i, s in enumerate(cell.source_atom) if s >= 0}

    def turn(p, q, r):
        u, v = q - p, r - p
        return np.sign(u[0] * v[1] - u[1] * v[0])

    screen = lattice.undistort(xy) * (1, -1)
    p = cell.atoms.positions[:, :2]
    assert turn(screen[a], screen[b], screen[c]) == turn(p[at[a]], p[at[b]], p[at[c]])
    assert np.linalg.det(cell.atoms.cell) > 0


@settings(max_examples=20, deadline=None)
@given(angle=st.floats(-np.pi, np.pi), bend=st.floats(-2e-4, 2e-4), which=st.integers(0, 8))
def test_a_vacancy_is_one_atom_less_in_the_right_place(angle, bend, which):
    lattice = make_lattice(angle, bend=bend)
    index, xy = sites_of(lattice)
    middle = np.argsort(np.linalg.norm(xy - np.asarray(CENTER), axis=1))[which]
    cell = build(table(np.delete(xy, middle, axis=0)), lattice, tuple(xy[middle]))
    assert len(cell.atoms) == 97
    anchor = lattice.site_xy(index[[middle]])[0]
    gap = image_of(cell, lattice, anchor) - anchor
    assert np.sort(np.linalg.norm(gap, axis=1))[:3] == pytest.approx([BOND] * 3, abs=1e-6)
    assert coordination_report(cell).coordination["C"] == {3: 94, 2: 3}


def test_far_errors_do_not_reach_the_supercell_and_the_border_is_not_empty():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    distance = np.linalg.norm(lattice.undistort(xy) - lattice.undistort(np.array([CENTER])), axis=1)
    far = np.flatnonzero((distance > 5.5) & (distance < 8.0))
    elements = substituted(xy, far[:1])
    keep = np.ones(len(xy), dtype=bool)
    keep[far[1:4]] = False
    cell = build(table(xy[keep], [e for e, k in zip(elements, keep, strict=True) if k]), lattice)
    assert same_structure(cell, pristine_supercell(GRAPHENE))
    corner = xy[nearest(xy, (3.0, 3.0))]
    at_edge = build(table(xy), lattice, tuple(corner))
    assert len(at_edge.atoms) == 98
    # What was not detected within border_A of the frame's edge is not a vacancy either.
    inner = np.all((xy > 0.9) & (xy < np.array(EXTENT) - 0.9), axis=1)
    assert len(build(table(xy[inner]), lattice, tuple(corner)).atoms) == 98
    open_edge = build(table(xy[inner]), lattice, tuple(corner), border_A=0.0).atoms
    assert len(open_edge) < 2 * round(open_edge.cell.lengths()[0] / 2.46) ** 2


def test_silicon_substitution_starts_above_with_its_uncertainty():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    cell = build(table(xy, substituted(xy, [middle]), sigma=0.07), lattice, xy[middle])
    report = coordination_report(cell)
    assert report.formula == "C97Si"
    (si,) = report.impurities
    assert (si.element, si.neighbours, si.height_A) == ("Si", "C3", pytest.approx(1.0))
    assert cell.sigma_A[si.index, 2] == 0.3
    assert cell.source_atom[si.index] == middle
    m = lattice.affine.array()
    ellipse = np.diag([1, -1]) @ rotation(-lattice.angle_rad) @ m * 0.07
    np.testing.assert_allclose(
        cell.sigma_A[si.index, :2], np.sqrt(np.diag(ellipse @ ellipse.T)), rtol=1e-9
    )
    filled = cell.source_atom < 0
    assert np.all(cell.sigma_A[filled] == (0.05, 0.05, 0.05))
    assert not cell.fixed.any()


def test_silicon_in_a_divacancy_and_a_rotated_bond_keep_their_geometry():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    other = np.argsort(np.linalg.norm(xy - xy[middle], axis=1))[1]
    centre = (xy[middle] + xy[other]) / 2
    rest = np.delete(xy, [middle, other], axis=0)
    cell = build(table(np.vstack([rest, centre]), ["C"] * len(rest) + ["Si"]), lattice, centre)
    report = coordination_report(cell)
    assert report.formula == "C96Si"
    assert report.impurities[0].neighbours == "C4"
    # Stone-Wales: the bond turned by 90 degrees about its middle, in undistorted axes.
    true = lattice.undistort(np.array([xy[middle], xy[other], centre]))
    half = (true[0] - true[2]) @ rotation(np.pi / 2).T
    turned = lattice.distort(np.array([true[2] + half, true[2] - half]))
    wales = build(table(np.vstack([rest, turned])), lattice, centre)
    assert len(wales.atoms) == 98
    d = wales.atoms.get_all_distances(mic=True)
    assert d[d > 0].min() > 0.9
    at = {int(s): i for i, s in enumerate(wales.source_atom) if s >= 0}
    assert {len(rest), len(rest) + 1} <= set(at)
    assert d[at[len(rest)], at[len(rest) + 1]] == pytest.approx(BOND, abs=1e-6)
    assert not same_structure(wales, pristine_supercell(GRAPHENE))


def test_a_silicon_trimer_keeps_its_three_atoms_and_its_hole():
    """Three Si on alternate sites of one ring, one C missing from its middle: Si3C6-like."""
    lattice = make_lattice(angle=-1.1)
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    around = np.argsort(np.linalg.norm(xy - xy[middle], axis=1))[1:4]
    elements = substituted(xy, around)
    keep = np.arange(len(xy)) != middle
    cell = build(
        table(xy[keep], [e for e, k in zip(elements, keep, strict=True) if k]), lattice, xy[middle]
    )
    report = coordination_report(cell)
    assert report.formula == "C94Si3"
    assert [f.neighbours for f in report.impurities] == ["C2Si2"] * 3
    spots = cell.atoms.positions[[f.index for f in report.impurities], :2]
    sides = np.linalg.norm(spots - np.roll(spots, 1, axis=0), axis=1)
    np.testing.assert_allclose(sides, 2.46, atol=1e-6)


def test_an_ad_atom_lies_above_the_sheet_and_displaces_no_atom():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    other = np.argsort(np.linalg.norm(xy - xy[middle], axis=1))[1]
    bridge = (xy[middle] + xy[other]) / 2
    cell = build_supercell(
        table(np.vstack([xy, bridge])), lattice, EXTENT, center_xy_A=tuple(bridge),
        kind="ad-C", frame=0, defect=0,
    )  # fmt: skip
    assert len(cell.atoms) == 99
    i = int(np.flatnonzero(cell.source_atom == len(xy))[0])
    assert cell.atoms.positions[i, 2] - cell.atoms.cell[2, 2] / 2 == pytest.approx(1.5)
    assert coordination_report(cell).shortest_A > 1.4


def test_an_impurity_over_an_atom_leaves_the_atom_its_site():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    at = xy[nearest(xy, CENTER)]
    elements = ["C"] * len(xy) + ["Si"]
    cell = build_supercell(
        table(np.vstack([xy, at + 0.02]), elements=elements), lattice, EXTENT,
        center_xy_A=tuple(at), kind="ad-Si-top", frame=0, defect=0,
    )  # fmt: skip
    i = int(np.flatnonzero(cell.atoms.symbols == "Si")[0])
    heights = cell.atoms.positions[:, 2] - cell.atoms.cell[2, 2] / 2
    assert len(cell.atoms) == 99
    assert heights[i] > 1.0
    np.testing.assert_allclose(np.delete(heights, i), 0.0, atol=1e-9)


def test_the_most_probable_structure_leaves_improbable_atoms_out():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    p = np.ones(len(xy))
    p[middle] = 0.4
    assert len(build(table(xy, p=p), lattice).atoms) == 97
    assert len(build(table(xy, p=p), lattice, min_p_exists=0.3).atoms) == 98


def test_a_pristine_box_has_every_bond_and_no_multiple_of_three_repeats():
    pristine = pristine_supercell(GRAPHENE)
    assert len(pristine.atoms) == 98
    assert pristine.atoms.pbc.all()
    assert pristine.name == "graphene-pristine"
    report = coordination_report(pristine)
    assert report.shortest_A == pytest.approx(BOND)
    assert report.coordination == {"C": {3: 98}}
    assert report.impurities == ()
    assert pristine.atoms.cell.angles().round(6).tolist() == [90.0, 90.0, 120.0]
    wide = pristine_supercell(GRAPHENE, SupercellOptions(min_width_A=21.0))
    n = wide.atoms.cell.lengths()[:2] / 2.46
    assert n == pytest.approx(10)  # nine repeats are 22.1 Å, but fold the Dirac point onto Γ
    assert np.all(bonds(wide.atoms)[1] == pytest.approx(BOND))


def test_structures_survive_ase_and_have_unique_names():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    cell = build(table(xy), lattice)
    back = Structure.from_ase(cell.to_ase())
    np.testing.assert_array_equal(back.source_atom, cell.source_atom)
    names = {structure_name("Si1C3", f, d, k) for f in (0, 1) for d in (0, 1) for k in (-1, 0, 1)}
    assert len(names) == 12


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"center_xy_A": (np.nan, 1.0)}, "finite"),
        ({"center_xy_A": (500.0, 500.0)}, "within 5.0 Å"),
        ({"frame": 3}, "this frame alone"),
        ({"options": SupercellOptions(defect_radius_A=9.0)}, "image"),
    ],
)
def test_bad_input_says_what_to_do(change, word):
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    arguments = {"center_xy_A": CENTER, "kind": "x", "frame": 0, "defect": 0} | change
    with pytest.raises(BadInput, match=word):
        build_supercell(table(xy), lattice, EXTENT, **arguments)
    with pytest.raises(BadInput, match="draws"):
        sample_structures(
            table(xy), lattice, EXTENT, count=-1, rng=np.random.default_rng(0),
            center_xy_A=CENTER, kind="x", frame=0, defect=0,
        )  # fmt: skip
