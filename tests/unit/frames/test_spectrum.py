"""The pixel size from the power spectrum of frames."""

import numpy as np
import pytest

from adatom.core import GRAPHENE, Calibration
from adatom.frames.lattice.spectrum import TRUSTED_CONTRAST, estimate_scale
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points, lattice_sites, random_specimen
from adatom.frames.simulate.synthesize import image_specimen
from adatom.materials.library import load_material


def perfect_frame(px, seed, field=22.0):
    rng = np.random.default_rng(seed)
    n = round(field / px)
    xy = lattice_points(GRAPHENE, (field, field), 3.0, rng.uniform(0, 6)) + rng.uniform(-1, 1, 2)
    xy = xy[rng.random(len(xy)) > 0.03]
    specimen = Specimen(xy, np.zeros(len(xy), dtype=np.int64), np.zeros((0, 2)))
    conditions = Conditions(pixel_size_A=px, counts=2000 * px**2, slow_background=0.3)
    return image_specimen(specimen, (n, n), GRAPHENE, conditions, rng).frame.data


@pytest.mark.parametrize("px", [0.06, 0.078, 0.1, 0.13, 0.17, 0.22])
def test_the_scale_is_found_without_a_guess(px):
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
def test_between_rings_of_one_pattern_the_pixel_size_of_the_file_decides(factor):
    """Squares whose second column is faint: rings at 1, sqrt(2) and 2 of about one brightness."""
    material, px = load_material("SrTiO3"), 0.1
    frame = square_frame(material, px, brightness=0.45)
    found = estimate_scale([frame], material, expected_A=factor * px)
    assert found.pixel_size_A == pytest.approx(px, rel=0.03)
    assert found.contrast > TRUSTED_CONTRAST


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.4, 2.0])
def test_a_pixel_size_of_the_file_that_is_far_off_is_ignored(factor):
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
