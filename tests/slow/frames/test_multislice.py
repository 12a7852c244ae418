"""Multislice images against a plain scan, and against the positions of their atoms."""

import numpy as np
import pytest
from ase import Atoms
from scipy.optimize import least_squares

from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.frames.simulate.multislice import (
    PrismOptions,
    atoms_of,
    prism_image,
    prism_set,
    prism_spot,
    scattering_potential,
)
from adatom.frames.simulate.specimen import Specimen

NONE = np.zeros((0, 2))
CELL = [12.0, 10.0, 2.0]


def fit_spot(image, pixel_size_A, xy, radius_A=0.6):
    """Centre (x, y) and width of the spot around a position, Å."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] * pixel_size_A
    near = np.hypot(x - xy[0], y - xy[1]) < radius_A

    def misfit(p):
        spot = p[0] * np.exp(-((x - p[1]) ** 2 + (y - p[2]) ** 2) / (2 * p[3] ** 2)) + p[4]
        return (spot - image)[near] / image.max()

    p = least_squares(misfit, [image.max(), *xy, 0.4, 0.0]).x
    return p[1:3], p[3]


@pytest.mark.slow
def test_a_skewed_cell_is_refused():
    pytest.importorskip("abtem")
    with pytest.raises(BadInput, match="orthorhombic"):
        prism_image(Atoms("C", cell=[3, 3, 3, 90, 90, 60]), (8, 8), 0.2, PrismOptions())


@pytest.mark.slow
def test_a_lone_atom_appears_where_it_is():
    pytest.importorskip("abtem")
    xy = np.array([4.037, 2.913])
    options = PrismOptions(defocus_A=8.0, astigmatism_A=6.0, astigmatism_angle_rad=0.5)
    atoms = Atoms("C", positions=[[*xy, 1.0]], cell=CELL, pbc=True)
    image = prism_image(atoms, (48, 64), 0.13, options)
    center, width = fit_spot(image, 0.13, xy)
    np.testing.assert_allclose(center, xy, atol=0.003)
    assert 0.35 < width < 0.5
    shifted = Atoms("C", positions=[[*(xy + 0.13), 1.0]], cell=CELL, pbc=True)
    moved = prism_image(shifted, (48, 64), 0.13, options)
    np.testing.assert_allclose(moved[1:, 1:], image[:-1, :-1], atol=0.005 * image.max())


@pytest.mark.slow
def test_rows_are_y_and_columns_are_x():
    pytest.importorskip("abtem")
    specimen = Specimen(np.array([[1.5, 1.0], [5.9, 1.3], [2.1, 4.4]]), np.array([0, 1, 0]), NONE)
    image = prism_image(atoms_of(specimen), (40, 64), 0.14, PrismOptions())
    row, col = np.unravel_index(np.argmax(image), image.shape)
    assert (row, col) == (round(1.3 / 0.14), round(5.9 / 0.14))
    for xy in specimen.xy:
        np.testing.assert_allclose(fit_spot(image, 0.14, xy)[0], xy, atol=0.003)


@pytest.mark.slow
def test_the_image_is_that_of_a_plain_scan_at_every_place():
    abtem = pytest.importorskip("abtem")
    rng = np.random.default_rng(2)
    xy = np.array([[3.2, 3.1], [4.5, 3.6], [5.1, 4.9], [6.4, 5.3]])
    atoms = Atoms("C2SiC", positions=np.c_[xy, np.ones(4)], cell=CELL, pbc=True)
    options = PrismOptions(
        defocus_A=5.0, threefold_A=100.0, source_sigma_A=0.0, vibration_sigma_A=0
    )
    pixel_size_A, shape = 0.11, (64, 80)
    image = prism_image(atoms, shape, pixel_size_A, options)
    rows, cols = rng.integers(20, 60, 25), rng.integers(20, 70, 25)
    probe = abtem.Probe(energy=60e3, semiangle_cutoff=31.0, aberrations=options.aberrations())
    potential, _ = scattering_potential(atoms, options)
    probe.grid.match(potential)
    direct = probe.scan(
        potential,
        scan=abtem.CustomScan(np.c_[cols, rows] * pixel_size_A),
        detectors=abtem.AnnularDetector(80.0, 200.0),
        lazy=False,
    ).array
    np.testing.assert_allclose(image[rows, cols], direct, atol=0.005 * image.max())


@pytest.mark.slow
def test_a_set_is_the_same_from_its_cache(tmp_path):
    pytest.importorskip("abtem")
    first, again = (prism_set(1, pixels=48, cache=tmp_path, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first[0].image, again[0].image)
    assert len(list(tmp_path.iterdir())) == 1
    assert 0.8 < first[0].image.max() < 6.0


@pytest.mark.slow
def test_an_image_is_nearly_the_sum_of_its_atoms_spots():
    """The bound and the ideal observer stand on the spot: too wide a one would flatter us."""
    pytest.importorskip("abtem")
    options, px = PrismOptions(), 0.1
    spot = prism_spot(61, px, options)
    (_, width) = fit_spot(spot, px, (3.0, 3.0))
    assert np.unravel_index(spot.argmax(), spot.shape) == (30, 30)
    assert 0.35 < width < 0.5
    xy = np.array([[3.0, 3.0], [4.4, 3.0], [2.3, 4.2]])  # on the pixels' centres
    sheet = Specimen(xy, np.zeros(3, dtype=np.int64), NONE)
    atoms = atoms_of(sheet, GRAPHENE)
    atoms.set_cell((10.0, 10.0, 2.0))
    image = prism_image(atoms, (61, 61), px, options)
    summed = np.zeros_like(image)
    for x, y in np.round(xy / px).astype(int) - 30:
        summed += np.roll(spot, (y, x), axis=(0, 1))
    near = slice(15, 46)
    np.testing.assert_allclose(image[near, near], summed[near, near], atol=0.06 * float(spot.max()))
