"""Stackings are told by the brightness of their two bright sublattices."""

import numpy as np
import pytest

from adatom.features.image_check import relative_brightness
from adatom.features.stackings import hollows_are_filled
from adatom.materials.library import load_material

WS2 = load_material("WS2")


def layers(ratio, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    cells = np.indices((12, 12)).reshape(2, -1).T
    xy = np.concatenate([(cells + at) @ WS2.cell() for at in ((0, 0), (1 / 3, 1 / 3))])
    bright = np.repeat([1.0, ratio], len(cells)) * rng.normal(1.0, noise, len(xy))
    return xy, bright


@pytest.mark.parametrize(("ratio", "filled"), [(1.0, False), (1.17, True), (1 / 1.17, True)])
def test_unequal_bright_columns_say_that_dim_ones_stand_between_them(ratio, filled):
    for seed in range(5):
        xy, bright = layers(ratio, seed=seed)
        assert hollows_are_filled(xy, bright, WS2, relative_brightness(WS2)) == filled


def test_a_ratio_that_noise_leaves_open_says_nothing():
    xy, bright = layers(1.1, noise=0.4)
    assert not hollows_are_filled(xy, bright, WS2, relative_brightness(WS2))


def test_two_domains_side_by_side_are_no_stacking():
    xy, bright = layers(1.17)
    xy[len(xy) // 2 :] += np.array([14, 0]) @ WS2.cell()
    assert not hollows_are_filled(xy, bright, WS2, relative_brightness(WS2))
