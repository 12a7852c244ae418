"""Averages of the weights of two ensembles."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.learning import weights
from adatom.learning.device import use_threads


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def shipped():
    return weights.load_shipped("graphene")


def test_a_blend_lies_between_the_two_ensembles_by_its_share(shipped):
    small = shipped.with_members([0, 5])
    tuned = replace(
        small,
        networks=tuple(
            replace(n, tensors={name: value + 1.0 for name, value in n.tensors.items()})
            for n in small.networks
        ),
    )
    half, none = small.blended(tuned, 0.25), small.blended(tuned, 0.0)
    assert none.fingerprint() == small.fingerprint()
    for old, new in zip(small.networks, half.networks, strict=True):
        assert old.tensors.keys() == new.tensors.keys()
        for name, value in new.tensors.items():
            np.testing.assert_allclose(value, old.tensors[name] + 0.25, atol=1e-6)
    assert half.card == small.card
