"""Calibration, affine maps and lattices: what turns pixels into Å and sites."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adatom.core import GRAPHENE, Affine, Calibration, Lattice
from adatom.errors import BadInput

finite = st.floats(-500.0, 500.0)


def make_lattice(angle, matrix=((1.0, 0.0), (0.0, 1.0)), bend=None, origin=(0.3, -0.4)):
    bend = np.zeros((2, 3)) if bend is None else bend
    return Lattice(GRAPHENE, (12.0, 10.0), Affine(matrix), bend, angle, origin, 0.0, 1.0)


@given(st.floats(1e-3, 5.0), st.lists(st.tuples(finite, finite), min_size=1, max_size=8))
def test_pixels_and_angstrom_are_inverse_and_x_is_the_column(px, points):
    calibration, rc = Calibration(px), np.array(points)
    xy = calibration.xy(rc)
    np.testing.assert_allclose(xy, rc[:, ::-1] * px, rtol=1e-12)
    np.testing.assert_allclose(calibration.rc(xy), rc, atol=1e-9)
    assert calibration.angstrom(calibration.pixels(3.0)) == pytest.approx(3.0)


def test_extent_is_the_centre_of_the_last_pixel_width_first():
    assert Calibration(0.5).extent_xy((11, 21)) == (10.0, 5.0)


@pytest.mark.parametrize("bad", [0.0, -0.1, float("nan"), float("inf")])
def test_a_pixel_size_that_is_not_positive_is_refused(bad):
    with pytest.raises(BadInput, match="pixel size"):
        Calibration(bad)


@given(st.tuples(*[st.floats(-0.2, 0.2)] * 4), st.tuples(finite, finite))
def test_an_affine_map_and_its_inverse_cancel(entries, point):
    affine = Affine.from_array(np.eye(2) + np.reshape(entries, (2, 2)))
    xy = np.array([point])
    np.testing.assert_allclose(affine.invert(affine.apply(xy)), xy, atol=1e-8)


def test_strain_is_the_principal_stretches_minus_one():
    c, s = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, -s], [s, c]])
    affine = Affine.from_array(turn @ np.diag([1.04, 0.97]) @ turn.T)
    np.testing.assert_allclose(affine.strain(), (0.04, -0.03), atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-4.0, 4.0),
    st.tuples(*[st.floats(-0.05, 0.05)] * 4),
    st.lists(st.floats(-8e-4, 8e-4), min_size=6, max_size=6),
)
def test_distort_undoes_undistort(angle, entries, bend):
    matrix = Affine.from_array(np.eye(2) + np.reshape(entries, (2, 2))).matrix
    lattice = make_lattice(angle, matrix, np.reshape(bend, (2, 3)))
    xy = np.random.default_rng(1).uniform(0, 24, (40, 2))
    np.testing.assert_allclose(lattice.distort(lattice.undistort(xy)), xy, atol=1e-5)


@given(st.floats(-4.0, 4.0), st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 1))
def test_nearest_site_returns_the_site_and_the_offset_from_it(angle, i, j, b):
    lattice, index = make_lattice(angle), np.array([[i, j, b]])
    away = 0.49 * GRAPHENE.bond_length_A * np.array([[np.cos(3 * angle), np.sin(3 * angle)]])
    found, offset = lattice.nearest_site(lattice.site_xy(index) + away)
    np.testing.assert_array_equal(found, index)
    np.testing.assert_allclose(offset, away, atol=1e-9)


def test_nearest_site_is_the_nearest_of_all():
    lattice = make_lattice(0.4)
    xy = np.random.default_rng(2).uniform(2, 22, (300, 2))
    _, sites = lattice.sites_within((24.0, 24.0), margin_A=-6.0)
    sites = lattice.undistort(sites)
    _, offset = lattice.nearest_site(lattice.undistort(xy))
    brute = np.linalg.norm(lattice.undistort(xy)[:, None] - sites[None], axis=2).min(axis=1)
    np.testing.assert_allclose(np.linalg.norm(offset, axis=1), brute, atol=1e-9)


def test_sites_fill_the_field_at_graphenes_density_and_bond_length():
    lattice = make_lattice(0.2)
    _, xy = lattice.sites_within((40.0, 30.0))
    assert len(xy) == pytest.approx(40 * 30 / GRAPHENE.site_area_A2, rel=0.03)
    assert xy.min() >= 0
    assert xy[:, 0].max() <= 40
    assert xy[:, 1].max() <= 30
    d = np.linalg.norm(xy[:, None] - xy[None], axis=2) + 9 * np.eye(len(xy))
    np.testing.assert_allclose(d.min(axis=1), 2.46 / np.sqrt(3), atol=1e-6)
