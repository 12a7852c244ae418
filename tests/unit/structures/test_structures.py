"""Structures: geometry checked on synthetic frames whose truth is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adatom.core import GRAPHENE, Affine, AtomTable, Lattice, Structure
from adatom.errors import BadInput
from adatom.structures import (
    SupercellOptions,
    bonds,
    build_supercell,
    coordination_report,
    draw_structures,
    fingerprint,
    pristine_supercell,
    same_structure,
    structure_name,
)

EXTENT = (40.0, 36.0)
CENTER = (20.0, 18.0)
BOND = GRAPHENE.bond_length_A


def make_lattice(angle=0.3, stretch=(0.03, -0.04, 0.02), bend=0.0, origin=(0.31, -0.42), rms=0.05):
    affine = Affine(((1 + stretch[0], stretch[2]), (stretch[2], 1 + stretch[1])))
    curve = bend * np.array([[1.0, -0.5, 0.2], [0.3, 0.8, -0.6]])
    return Lattice(GRAPHENE, CENTER, affine, curve, angle, origin, rms, 1.0)


def sites_of(lattice):
    return lattice.sites_within(EXTENT)


def table(xy, elements=None, *, sigma=0.05, p=1.0, p_element=1.0, frame=0, covariance=None):
    n = len(xy)
    cov = np.tile(np.eye(2) * sigma**2, (n, 1, 1)) if covariance is None else covariance
    return AtomTable.build(
        frame=frame,
        xy=np.asarray(xy, dtype=float),
        covariance=cov,
        p_exists=np.broadcast_to(p, n),
        element=elements if elements is not None else ["C"] * n,
        p_element=np.broadcast_to(p_element, n),
        votes=np.ones(n),
        amplitude=np.ones(n),
    )


def build(atoms, lattice, center=CENTER, **options):
    return build_supercell(
        atoms,
        lattice,
        EXTENT,
        center_xy_A=center,
        kind="test",
        frame=0,
        defect=0,
        options=SupercellOptions(**options),
    )


def nearest(xy, point):
    return int(np.argmin(np.linalg.norm(xy - np.asarray(point), axis=1)))


def image_of(structure, lattice, anchor_site_xy):
    """Undistorted image positions of the cell's atoms: an inverse written independently."""
    half = structure.atoms.cell.lengths()[:2] / 2
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
    assert len(cell.atoms) == 112
    assert np.all(cell.atoms.cell.lengths()[:2] >= 16.0)
    assert cell.atoms.cell.lengths()[0] / 2.46 == pytest.approx(7)
    pairs, lengths = bonds(cell.atoms)
    assert len(pairs) == 168  # 3/2 a site: none is missing at the boundary
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
        assert len(cell.atoms) == 112


def test_y_is_flipped_once_and_nothing_else():
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
    half = cell.atoms.cell.lengths()[:2] / 2
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
def test_vacancy_is_one_atom_less_in_the_right_place(angle, bend, which):
    lattice = make_lattice(angle, bend=bend)
    index, xy = sites_of(lattice)
    middle = np.argsort(np.linalg.norm(xy - np.asarray(CENTER), axis=1))[which]
    cell = build(table(np.delete(xy, middle, axis=0)), lattice, tuple(xy[middle]))
    assert len(cell.atoms) == 111
    anchor = lattice.site_xy(index[[middle]])[0]
    gap = image_of(cell, lattice, anchor) - anchor
    assert np.sort(np.linalg.norm(gap, axis=1))[:3] == pytest.approx([BOND] * 3, abs=1e-6)
    assert coordination_report(cell).coordination["C"] == {3: 108, 2: 3}


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
    assert len(at_edge.atoms) == 112
    # What was not detected within border_A of the frame's edge is not a vacancy either.
    inner = np.all((xy > 0.9) & (xy < np.array(EXTENT) - 0.9), axis=1)
    assert len(build(table(xy[inner]), lattice, tuple(corner)).atoms) == 112
    assert len(build(table(xy[inner]), lattice, tuple(corner), border_A=0.0).atoms) < 112


def substituted(xy, which):
    return ["Si" if i in which else "C" for i in range(len(xy))]


def test_silicon_substitution_starts_above_with_its_uncertainty():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    cell = build(table(xy, substituted(xy, [middle]), sigma=0.07), lattice, xy[middle])
    report = coordination_report(cell)
    assert report.formula == "C111Si"
    (si,) = report.foreign
    assert (si.element, si.neighbours, si.height_A) == ("Si", "C3", pytest.approx(1.0))
    assert cell.sigma_A[si.index, 2] == 0.3
    assert cell.source_atom[si.index] == middle
    m = lattice.affine.array()
    ellipse = np.diag([1, -1]) @ _turn(-lattice.angle_rad) @ m * 0.07
    np.testing.assert_allclose(
        cell.sigma_A[si.index, :2], np.sqrt(np.diag(ellipse @ ellipse.T)), rtol=1e-9
    )
    filled = cell.source_atom < 0
    assert np.all(cell.sigma_A[filled] == (0.05, 0.05, 0.05))
    assert not cell.fixed.any()


def _turn(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def test_silicon_in_a_divacancy_and_a_rotated_bond_are_kept_as_they_are():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    other = np.argsort(np.linalg.norm(xy - xy[middle], axis=1))[1]
    centre = (xy[middle] + xy[other]) / 2
    rest = np.delete(xy, [middle, other], axis=0)
    cell = build(table(np.vstack([rest, centre]), ["C"] * len(rest) + ["Si"]), lattice, centre)
    report = coordination_report(cell)
    assert report.formula == "C110Si"
    assert report.foreign[0].neighbours == "C4"
    # Stone-Wales: the bond turned by 90 degrees about its middle, in undistorted axes.
    true = lattice.undistort(np.array([xy[middle], xy[other], centre]))
    half = (true[0] - true[2]) @ _turn(np.pi / 2).T
    turned = lattice.distort(np.array([true[2] + half, true[2] - half]))
    wales = build(table(np.vstack([rest, turned])), lattice, centre)
    assert len(wales.atoms) == 112
    d = wales.atoms.get_all_distances(mic=True)
    assert d[d > 0].min() > 0.9
    at = {int(s): i for i, s in enumerate(wales.source_atom) if s >= 0}
    assert {len(rest), len(rest) + 1} <= set(at)
    assert d[at[len(rest)], at[len(rest) + 1]] == pytest.approx(BOND, abs=1e-6)
    assert not same_structure(wales, pristine_supercell(GRAPHENE))


def test_silicon_trimer():
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
    assert report.formula == "C108Si3"
    assert [f.neighbours for f in report.foreign] == ["C2Si2"] * 3
    spots = cell.atoms.positions[[f.index for f in report.foreign], :2]
    sides = np.linalg.norm(spots - np.roll(spots, 1, axis=0), axis=1)
    np.testing.assert_allclose(sides, 2.46, atol=1e-6)


def test_of_two_rival_atoms_the_more_probable_stays():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    both = np.vstack([xy, xy[middle] + (0.3, 0.1)])
    p = np.ones(len(both))
    p[middle], p[-1] = 0.6, 0.9
    atoms = table(both, ["C"] * len(xy) + ["Si"], p=p)
    cell = build(atoms, lattice, tuple(xy[middle]))
    assert len(cell.atoms) == 112
    assert middle not in cell.source_atom
    assert cell.atoms[int(np.flatnonzero(cell.source_atom == len(xy))[0])].symbol == "Si"
    draws = draw_structures(
        atoms, lattice, EXTENT, center_xy_A=tuple(xy[middle]), kind="x", frame=0, defect=0,
        count=200, rng=np.random.default_rng(5),
    )  # fmt: skip
    assert all(d.atoms.info["left_out"] == 0 for d in draws)
    assert sum(d.atoms.info["rejected"] for d in draws) > 50
    for d in draws:
        assert not {middle, len(xy)} <= set(d.source_atom.tolist())


def test_an_ad_atom_lies_over_the_sheet_and_displaces_nobody():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    other = np.argsort(np.linalg.norm(xy - xy[middle], axis=1))[1]
    bridge = (xy[middle] + xy[other]) / 2
    cell = build_supercell(
        table(np.vstack([xy, bridge])), lattice, EXTENT, center_xy_A=tuple(bridge),
        kind="ad-C", frame=0, defect=0,
    )  # fmt: skip
    assert len(cell.atoms) == 113
    i = int(np.flatnonzero(cell.source_atom == len(xy))[0])
    assert cell.atoms.positions[i, 2] - cell.atoms.cell[2, 2] / 2 == pytest.approx(1.5)
    assert coordination_report(cell).shortest_A > 1.4


def test_draws_have_the_input_statistics():
    lattice = make_lattice(angle=0.7, bend=1e-4, rms=0.0)
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    si, doubtful = np.argsort(np.linalg.norm(xy - xy[middle], axis=1))[[0, 7]]
    cov = np.tile(np.eye(2) * 1e-6, (len(xy), 1, 1))
    cov[si] = [[0.0100, 0.0040], [0.0040, 0.0050]]
    p = np.ones(len(xy))
    p[doubtful] = 0.7
    q = np.ones(len(xy))
    q[si] = 0.8
    atoms = table(xy, substituted(xy, [si]), covariance=cov, p=p, p_element=q)
    arguments = {"center_xy_A": tuple(xy[si]), "kind": "Si1C3", "frame": 0, "defect": 0}
    n = 1500
    draws = draw_structures(
        atoms, lattice, EXTENT, count=n, rng=np.random.default_rng(1), **arguments
    )
    again = draw_structures(
        atoms, lattice, EXTENT, count=3, rng=np.random.default_rng(1), **arguments
    )
    for a, b in zip(draws, again, strict=False):
        np.testing.assert_array_equal(a.atoms.positions, b.atoms.positions)
    assert [d.draw for d in draws[:3]] == [0, 1, 2]
    assert len({d.name for d in draws}) == n
    assert draws[2].name == "Si1C3-f000-d02"

    exists = np.mean([doubtful in d.source_atom for d in draws])
    assert exists == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / n))
    spots, symbols, z = [], [], []
    for d in draws:
        i = int(np.flatnonzero(d.source_atom == si)[0])
        half = d.atoms.cell.lengths() / 2
        spots.append((d.atoms.positions[i] - half)[:2])
        symbols.append(d.atoms[i].symbol)
        z.append((d.atoms.positions[i] - half)[2])
    share = np.mean(np.array(symbols) == "Si")
    assert share == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / n))
    height = np.array(z)[np.array(symbols) == "Si"]
    assert np.mean(height > 0) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(height)))
    assert np.abs(height).mean() == pytest.approx(1.0, abs=0.05)
    assert np.abs(np.array(z)[np.array(symbols) == "C"]).max() < 0.3

    # By hand: back through the flip and the rotation, then against the measured covariance.
    step = 1e-5
    ex, ey = np.array([[step, 0.0], [0.0, step]])
    slope = np.column_stack(
        [(lattice.undistort((xy[si] + e)[None]) - lattice.undistort((xy[si] - e)[None]))[0]
         / (2 * step) for e in (ex, ey)]
    )  # fmt: skip
    total = np.diag([1, -1]) @ _turn(-lattice.angle_rad) @ slope
    expected = total @ cov[si] @ total.T
    got = np.cov(np.array(spots).T)
    np.testing.assert_allclose(got, expected, atol=4 * 0.01 * np.sqrt(2 / n))
    assert np.linalg.norm(np.mean(spots, axis=0)) < 0.02


def test_most_probable_leaves_the_improbable_out():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    p = np.ones(len(xy))
    p[middle] = 0.4
    assert len(build(table(xy, p=p), lattice).atoms) == 111
    assert len(build(table(xy, p=p), lattice, min_p_exists=0.3).atoms) == 112


def test_fingerprint_ignores_where_and_sees_what():
    flat = pristine_supercell(GRAPHENE).to_ase()
    moved = flat.copy()
    moved.translate((3.1, 1.7, 2.0))
    moved.rattle(0.02, seed=3)
    moved.wrap()
    shuffled = moved[np.random.default_rng(0).permutation(len(moved))]
    assert same_structure(flat, shuffled)
    one, two = flat.copy(), flat.copy()
    one[40].symbol = two[77].symbol = "Si"
    one[40].position += (0, 0, 1.4)
    two[77].position -= (0, 0, 1.4)
    assert same_structure(one, two)  # above or below: the same sheet from its other side
    assert fingerprint(one) != fingerprint(flat)
    planar = flat.copy()
    planar[40].symbol = "Si"
    assert not same_structure(one, planar)
    partner = int(np.argsort(flat.get_distances(40, range(len(flat)), mic=True))[20])
    cis, trans = one.copy(), one.copy()
    cis[partner].symbol = trans[partner].symbol = "Si"
    cis[partner].position += (0, 0, 1.4)
    trans[partner].position -= (0, 0, 1.4)
    assert not same_structure(cis, trans)
    vacancy = flat.copy()
    del vacancy[10]
    assert not same_structure(vacancy, flat)


def test_pristine_and_wider_boxes():
    pristine = pristine_supercell(GRAPHENE)
    assert len(pristine.atoms) == 112
    assert pristine.atoms.pbc.all()
    assert pristine.name == "graphene-pristine"
    report = coordination_report(pristine)
    assert report.shortest_A == pytest.approx(BOND)
    assert report.coordination == {"C": {3: 112}}
    assert report.foreign == ()
    wide = pristine_supercell(GRAPHENE, SupercellOptions(min_width_A=21.0))
    n = wide.atoms.cell.lengths()[0] / 2.46
    assert round(n) == 10  # nine repeats are 22.1 Å, but fold the Dirac point onto Γ
    assert np.all(bonds(wide.atoms)[1] == pytest.approx(BOND))


def test_structure_survives_ase_and_names_are_unique():
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
        draw_structures(
            table(xy), lattice, EXTENT, count=-1, rng=np.random.default_rng(0),
            center_xy_A=CENTER, kind="x", frame=0, defect=0,
        )  # fmt: skip
