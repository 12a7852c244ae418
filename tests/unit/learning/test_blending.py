"""Averages of the weights of two ensembles."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

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
    tuned = replace(small, networks=tuple(n.train() for n in deepcopy(small.networks)))
    for network in tuned.networks:
        for p in network.parameters():
            p.data += 1.0
    half, none = small.blended(tuned, 0.25), small.blended(tuned, 0.0)
    assert none.fingerprint() == small.fingerprint()
    for old, new in zip(small.networks, half.networks, strict=True):
        assert not new.training
        for p, q in zip(old.parameters(), new.parameters(), strict=True):
            assert torch.allclose(q, p + 0.25, atol=1e-6)
        assert old.state_dict().keys() == new.state_dict().keys()
    assert half.card == small.card
