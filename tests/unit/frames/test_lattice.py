"""The lattice is fitted to atoms whose sites are known."""

import numpy as np
import pytest

from adatom.core import GRAPHENE, Affine, Lattice
from adatom.frames.lattice.fit import fit_lattice

SIXTY = np.pi / 3


def make_lattice(angle, matrix=((1.0, 0.0), (0.0, 1.0)), bend=None, origin=(0.3, -0.4)):
    bend = np.zeros((2, 3)) if bend is None else bend
    return Lattice(GRAPHENE, (12.0, 10.0), Affine(matrix), bend, angle, origin, 0.0, 1.0)


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


def test_weights_of_the_fit_decide_between_atoms():
    rng = np.random.default_rng(5)
    truth = make_lattice(0.3)
    _, sites = truth.sites_within((24.0, 20.0))
    bad = rng.random(len(sites)) < 0.4
    atoms = sites + np.where(bad[:, None], (0.2, 0.0), 0.0)
    fit = fit_lattice(atoms, GRAPHENE, weights=np.where(bad, 1e-6, 1.0))
    assert fit is not None
    _, miss = fit.nearest_site(fit.undistort(sites))
    assert np.linalg.norm(miss, axis=1).max() < 0.01


def test_random_points_or_too_few_have_no_lattice():
    for seed in range(10):
        points = np.random.default_rng(seed).uniform(0, 25, (250, 2))
        assert fit_lattice(points, GRAPHENE) is None
    _, sites = make_lattice(0.1).sites_within((24.0, 20.0))
    assert fit_lattice(sites[:11], GRAPHENE) is None
    assert fit_lattice(np.zeros((0, 2)), GRAPHENE) is None
