"""Entropies and gains against sums and differences of entropies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adatom.feedback import element_entropy, existence_entropy, missing_position_nats, position_gain


def test_entropies_agree_with_a_discrete_sum():
    p = np.array([0.0, 0.2, 0.5, 1.0])
    assert existence_entropy(p)[[0, 3]] == pytest.approx([0, 0])
    assert existence_entropy(p)[2] == pytest.approx(math.log(2))
    for k in (2, 3, 5):
        full = np.array([0.4] + [0.6 / (k - 1)] * (k - 1))
        assert element_entropy([0.4], k)[0] == pytest.approx(-(full * np.log(full)).sum())
    assert element_entropy([0.4], 1)[0] == 0.0


@settings(max_examples=60, deadline=None)
@given(sigma=st.floats(0.01, 1.0), more=st.floats(0.0, 1000.0))
def test_position_gain_is_the_decrease_of_the_missing_information(sigma, more):
    wanted = 0.1
    before = missing_position_nats([sigma**2], wanted)
    after = missing_position_nats([sigma**2 / (1 + more)], wanted)
    assert position_gain([sigma**2], more, wanted) == pytest.approx(before - after, abs=1e-9)
