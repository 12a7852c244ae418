"""Interference of the scan does not pass for a lattice."""

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.frames.lattice.spectrum import TRUSTED_CONTRAST, estimate_scale
from artefacts import sheet


def frame(counts=2.0, seed=0):
    return np.random.default_rng(seed).poisson(sheet(counts)).astype(np.float32)


def sine(shape, period, degrees):
    rows, cols = np.indices(shape)
    along = cols * np.cos(np.radians(degrees)) + rows * np.sin(np.radians(degrees))
    return np.sqrt(2.0) * np.sin(2 * np.pi * along / period + 1.0)


@pytest.mark.parametrize("period", [5.0, 9.7, 26.0])
@pytest.mark.parametrize("degrees", [0, 90, 33])
def test_a_sine_leaves_the_scale_and_is_named(period, degrees):
    image = frame()
    image += np.float32(0.5 * image.std()) * sine(image.shape, period, degrees).astype(np.float32)
    found = estimate_scale([image], GRAPHENE, expected_A=0.12)
    assert found.pixel_size_A == pytest.approx(0.12, rel=0.01)
    assert found.stripes[0].period_px == pytest.approx(period, rel=0.05)
    away = abs(found.stripes[0].angle_deg - degrees)
    assert min(away, 180 - away) < 4


def test_a_sine_alone_is_no_lattice():
    noise = np.random.default_rng(1).normal(size=(160, 160)).astype(np.float32)
    image = noise + 0.5 * sine(noise.shape, 9.7, 0).astype(np.float32)
    found = estimate_scale([image], GRAPHENE, expected_A=0.078)
    assert found.contrast < TRUSTED_CONTRAST


@pytest.mark.parametrize("counts", [0.5, 2.0, 30.0])
def test_a_lattice_has_no_stripes(counts):
    assert estimate_scale([frame(counts)], GRAPHENE, expected_A=0.12).stripes == ()
