"""The contrast of a frame from amplitudes."""

import numpy as np
import pytest

from adatom.analysis.contrast import contrast_of
from adatom.core import GRAPHENE, AtomTable


def table(carbon, silicon):
    n = len(carbon) + len(silicon)
    one = np.ones(n)
    return AtomTable.build(
        frame=0, xy=np.zeros((n, 2)), covariance=np.zeros((n, 2, 2)), p_exists=one,
        element=["C"] * len(carbon) + ["Si"] * len(silicon), p_element=one, votes=one,
        amplitude=np.concatenate([carbon, silicon]),
    )  # fmt: skip


def test_the_exponent_is_that_of_the_ratio():
    rng = np.random.default_rng(1)
    carbon, silicon = rng.normal(10.0, 0.5, 200), rng.normal(10.0 * (14 / 6) ** 1.94, 3.0, 9)
    seen = contrast_of(table(carbon, silicon), GRAPHENE)
    assert seen.exponent == pytest.approx(1.94, abs=3 * seen.exponent_sd)
    assert 0.005 < seen.exponent_sd < 0.1
    assert seen.ratio == pytest.approx(5.17, abs=0.3)


def test_two_atoms_are_too_few():
    assert contrast_of(table(np.ones(50), np.full(2, 5.0)), GRAPHENE) is None
