"""Simulated images against theory: contrast by Z, widths of spots, Poisson noise."""

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import expected_image, image_specimen

NONE = np.zeros((0, 2))


def lone(xy, species=0):
    return Specimen(np.array([xy], dtype=float), np.array([species]), NONE)


def clean(conditions, specimen, shape=(61, 61)):
    return expected_image(specimen, shape, GRAPHENE, conditions, np.random.default_rng(0))


def test_the_probe_has_its_widths_along_its_axes():
    conditions = Conditions(
        probe_sigma_A=(0.55, 0.35), probe_angle_rad=np.radians(30), tail_fraction=0.0,
        background=0.0,
    )  # fmt: skip
    image = clean(conditions, lone((4.0, 4.0)), (81, 81))
    y, x = (np.mgrid[:81, :81] - 40) * 0.1
    along = x * np.cos(np.radians(30)) + y * np.sin(np.radians(30))
    across = -x * np.sin(np.radians(30)) + y * np.cos(np.radians(30))
    assert np.sqrt((along**2 * image).sum() / image.sum()) == pytest.approx(0.55, rel=0.02)
    assert np.sqrt((across**2 * image).sum() / image.sum()) == pytest.approx(0.35, rel=0.02)


def test_silicon_is_brighter_by_the_power_of_its_charge():
    conditions = Conditions(background=0.0)
    carbon, silicon = (clean(conditions, lone((3.0, 3.0), k)) for k in (0, 1))
    ratio = silicon[20:40, 20:40] / carbon[20:40, 20:40]
    np.testing.assert_allclose(ratio, (14 / 6) ** 1.64, rtol=1e-5)


def test_the_noise_of_counts_is_poisson():
    conditions = Conditions(counts=9.0, background=0.5)
    specimen, rng = lone((3.0, 3.0)), np.random.default_rng(3)
    mean = expected_image(specimen, (61, 61), GRAPHENE, conditions, rng)
    taken = np.array(
        [
            image_specimen(specimen, (61, 61), GRAPHENE, conditions, rng).frame.data
            for _ in range(400)
        ]
    )
    assert np.array_equal(taken, np.round(taken))
    # Mean of 400 draws: standard deviation of each pixel is sqrt(mean / 400).
    pull = (taken.mean(axis=0) - mean) / np.sqrt(mean / 400)
    assert abs(pull.mean()) < 0.1
    assert pull.std() == pytest.approx(1.0, abs=0.05)
    assert (taken.var(axis=0) / mean).mean() == pytest.approx(1.0, abs=0.02)


def test_read_noise_adds_its_variance():
    specimen = lone((-9.0, -9.0))
    conditions = Conditions(counts=4.0, background=1.0, read_noise=1.5)
    frame = image_specimen(specimen, (200, 200), GRAPHENE, conditions, np.random.default_rng(1))
    assert frame.frame.data.var() == pytest.approx(4.0 + 1.5**2, rel=0.04)


def silicon(twin):
    xy, species = twin.truth
    return xy[species == 1]
