"""Scale and lattice: what turns pixels into angstrom and atoms into a crystal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adatom.core import GRAPHENE, Affine, Calibration, Lattice
from adatom.errors import BadInput
from adatom.frames.lattice.fit import fit_lattice
from adatom.frames.lattice.spectrum import TRUSTED_CONTRAST, estimate_scale
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points, lattice_sites, random_specimen
from adatom.frames.simulate.synthesize import image_specimen
from adatom.materials.library import load_material

finite = st.floats(-500.0, 500.0)
SIXTY = np.pi / 3


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
def test_a_pixel_size_that_is_none_is_refused(bad):
    with pytest.raises(BadInput, match="pixel size"):
        Calibration(bad)


@given(st.tuples(*[st.floats(-0.2, 0.2)] * 4), st.tuples(finite, finite))
def test_affine_and_its_inverse(entries, point):
    affine = Affine.from_array(np.eye(2) + np.reshape(entries, (2, 2)))
    xy = np.array([point])
    np.testing.assert_allclose(affine.invert(affine.apply(xy)), xy, atol=1e-8)


def test_strain_says_the_principal_stretches():
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
def test_nearest_site_names_the_site_and_the_way_to_it(angle, i, j, b):
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


SIGMA = 0.04


def noisy_atoms(lattice, rng):
    """Sites of a 24 x 20 Å field with noise, without a tenth of them, and six ad-atoms."""
    _, sites = lattice.sites_within((24.0, 20.0))
    kept = sites[rng.random(len(sites)) > 0.1]
    kept = kept + rng.normal(0, SIGMA, kept.shape)
    hollows = np.asarray(lattice.origin_xy_A) + rng.integers(-3, 4, (6, 2)) @ lattice.vectors()
    return kept, np.concatenate([kept, lattice.distort(hollows) + rng.normal(0, 0.2, (6, 2))])


@pytest.mark.parametrize("degrees", range(0, 120, 11))
def test_fit_recovers_rotation_strain_and_origin(degrees):
    rng = np.random.default_rng(degrees)
    a = 0.05 * np.cos(2 * np.radians(7 * degrees))
    b = 0.05 * np.sin(2 * np.radians(7 * degrees))
    matrix = ((1 + a, b), (b, 1 - a))  # 5 % pure strain along any axis
    origin = (float(rng.uniform(-2, 2)), float(rng.uniform(-2, 2)))
    truth = make_lattice(np.radians(degrees), matrix, origin=origin)
    kept, all_atoms = noisy_atoms(truth, rng)
    fit = fit_lattice(all_atoms, GRAPHENE)
    assert fit is not None
    turned = (fit.angle_rad - truth.angle_rad + SIXTY / 2) % SIXTY - SIXTY / 2
    assert abs(np.degrees(turned)) < 0.25
    np.testing.assert_allclose(fit.affine.array(), matrix, atol=0.008)
    assert fit.rms_A == pytest.approx(SIGMA, rel=0.25)
    assert fit.matched == pytest.approx(len(kept) / len(all_atoms), abs=0.015)
    _, offset = fit.nearest_site(fit.undistort(kept))
    assert np.linalg.norm(offset, axis=1).max() < GRAPHENE.bond_length_A / 3
    # The origin is a lattice point: where the truth has the middle of a hexagon, so has the fit.
    _, sites = truth.sites_within((24.0, 20.0))
    _, miss = fit.nearest_site(fit.undistort(sites))
    assert np.linalg.norm(miss, axis=1).max() < 0.08
    middle = truth.distort(np.asarray(truth.origin_xy_A)[None])
    _, away = fit.nearest_site(fit.undistort(middle))
    assert np.linalg.norm(away) == pytest.approx(GRAPHENE.bond_length_A, abs=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_fit_follows_a_bent_scan(seed):
    rng = np.random.default_rng(seed)
    bend = rng.choice([-1.0, 1.0], (2, 3)) * 1.2e-3
    truth = make_lattice(rng.uniform(0, 6), ((1.03, -0.02), (-0.02, 0.98)), bend)
    _, sites = truth.sites_within((24.0, 20.0))
    atoms = sites + rng.normal(0, SIGMA, sites.shape)
    fit = fit_lattice(atoms, GRAPHENE)
    assert fit is not None
    assert fit.matched > 0.99
    assert fit.rms_A == pytest.approx(SIGMA, rel=0.2)
    np.testing.assert_allclose(fit.bend, bend, atol=3e-4)
    _, miss = fit.nearest_site(fit.undistort(sites))
    assert np.linalg.norm(miss, axis=1).max() < 0.1


def test_fit_weights_decide_between_atoms():
    rng = np.random.default_rng(5)
    truth = make_lattice(0.3)
    _, sites = truth.sites_within((24.0, 20.0))
    bad = rng.random(len(sites)) < 0.4
    atoms = sites + np.where(bad[:, None], (0.2, 0.0), 0.0)
    fit = fit_lattice(atoms, GRAPHENE, weights=np.where(bad, 1e-6, 1.0))
    assert fit is not None
    _, miss = fit.nearest_site(fit.undistort(sites))
    assert np.linalg.norm(miss, axis=1).max() < 0.01


def test_no_lattice_in_random_points_or_in_a_handful():
    for seed in range(10):
        points = np.random.default_rng(seed).uniform(0, 25, (250, 2))
        assert fit_lattice(points, GRAPHENE) is None
    _, sites = make_lattice(0.1).sites_within((24.0, 20.0))
    assert fit_lattice(sites[:11], GRAPHENE) is None
    assert fit_lattice(np.zeros((0, 2)), GRAPHENE) is None


def perfect_frame(px, seed, field=22.0):
    rng = np.random.default_rng(seed)
    n = round(field / px)
    xy = lattice_points(GRAPHENE, (field, field), 3.0, rng.uniform(0, 6)) + rng.uniform(-1, 1, 2)
    xy = xy[rng.random(len(xy)) > 0.03]
    specimen = Specimen(xy, np.zeros(len(xy), dtype=np.int64), np.zeros((0, 2)))
    conditions = Conditions(pixel_size_A=px, counts=2000 * px**2, slow_background=0.3)
    return image_specimen(specimen, (n, n), GRAPHENE, conditions, rng).frame.data


@pytest.mark.parametrize("px", [0.06, 0.078, 0.1, 0.13, 0.17, 0.22])
def test_scale_is_found_blind(px):
    found = estimate_scale([perfect_frame(px, seed=round(1000 * px))], GRAPHENE)
    assert found.pixel_size_A == pytest.approx(px, rel=0.03)
    assert found.contrast > TRUSTED_CONTRAST


def test_scale_of_noise_is_not_trusted():
    for seed in range(4):
        noise = np.random.default_rng(seed).poisson(5.0, (256, 256)).astype(np.float32)
        assert estimate_scale([noise], GRAPHENE).contrast < TRUSTED_CONTRAST


@pytest.mark.parametrize("seed", range(6))
def test_sharp_frames_are_not_read_as_their_second_ring(seed):
    """A sharp probe and many counts make the second ring of reflections as bright as the first."""
    rng = np.random.default_rng(seed)
    conditions = Conditions(pixel_size_A=0.12, counts=60.0, probe_sigma_A=(0.4, 0.4))
    specimen = random_specimen(GRAPHENE, Calibration(0.12).extent_xy((128, 128)), rng)
    frame = image_specimen(specimen, (128, 128), GRAPHENE, conditions, rng).frame
    found = estimate_scale([frame.data], GRAPHENE, expected_A=0.12)
    sure = found.contrast > TRUSTED_CONTRAST
    assert not sure or found.pixel_size_A == pytest.approx(0.12, rel=0.06)


@pytest.mark.parametrize("factor", [0.92, 1.0, 1.08])
def test_of_rings_that_look_alike_the_file_is_believed(factor):
    """Squares whose second column is faint: rings at 1, sqrt(2) and 2 of about one brightness."""
    material, px = load_material("SrTiO3"), 0.1
    frame = square_frame(material, px, brightness=0.45)
    found = estimate_scale([frame], material, expected_A=factor * px)
    assert found.pixel_size_A == pytest.approx(px, rel=0.03)
    assert found.contrast > TRUSTED_CONTRAST


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.4, 2.0])
def test_a_file_that_is_far_off_is_not_believed(factor):
    px = 0.1
    found = estimate_scale([perfect_frame(px, seed=3)], GRAPHENE, expected_A=factor * px)
    assert found.pixel_size_A == pytest.approx(px, rel=0.03)


def square_frame(material, px, brightness, edge=40.0):
    xy, site = lattice_sites(material, (edge, edge), 3.0, 0.4)
    n = round(edge / px)
    specimen = Specimen(
        xy, np.zeros(len(xy), dtype=np.int64), np.zeros((0, 2)),
        np.where(site > 0, brightness, 1.0),
    )  # fmt: skip
    taken = Conditions(pixel_size_A=px, counts=30.0, probe_sigma_A=(0.5, 0.5))
    return image_specimen(specimen, (n, n), material, taken, np.random.default_rng(0)).frame.data
