"""Contrast against the detector: multislice at 60 kV, and the range without a detector."""

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.detector import detector_exponents


@pytest.mark.parametrize(
    ("inner", "exponent"), [(50, 1.64), (80, 1.93), (80, 1.95), (100, 2.0), (150, 2.0)]
)
def test_the_range_holds_the_exponent_of_multislice(inner, exponent):
    low, high = detector_exponents(inner, 200.0)
    assert low <= exponent <= high <= 2.0
    assert high - low < 0.15


def test_a_shorter_wave_scatters_to_smaller_angles():
    assert detector_exponents(50.0, 200.0, 100.0)[0] > detector_exponents(50.0, 200.0)[0] + 0.1


@pytest.mark.parametrize("angles", [(200.0, 80.0), (0.0, 80.0), (80.0, 80.0), (80.0, 2000.0)])
def test_angles_of_no_ring_are_refused(angles):
    with pytest.raises(BadInput, match="inner and outer angle"):
        detector_exponents(*angles)


def test_training_covers_every_detector():
    rng = np.random.default_rng(0)
    drawn = [Conditions.random(rng, GRAPHENE).contrast_exponent for _ in range(400)]
    assert 1.30 <= min(drawn) < 1.33
    assert 1.97 < max(drawn) <= 2.0
