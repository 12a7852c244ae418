"""Ensembles of some members, and networks of some heads."""

from functools import cache

import numpy as np
import pytest
import torch

from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.layout import STRIDE
from adatom.learning.network import Network, network_of, weights_of
from adatom.learning.predict import predict
from sheets import graphene_frame


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


@cache
def shipped():
    return weights.load_shipped("graphene")


@cache
def shown(seed=3, counts=8.0):
    """A frame with a vacancy and a Si, and its maps."""
    truth = graphene_frame(
        seed, counts=counts, field=(16.0, 15.0), missing=((5.0, 5.0),), silicon=((11.0, 10.0),)
    )
    return truth, predict(truth.frame, shipped())


@pytest.mark.parametrize("keep", [[1, 4, 7], [0], [9], [5, 6, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_some_members_give_the_maps_that_they_give_among_all(keep):
    truth, maps = shown()
    some = shipped().with_members(keep)
    assert some.members == len(keep)
    assert some.classes == shipped().classes
    assert some.working == shipped().working
    assert some.card == shipped().card
    np.testing.assert_array_equal(
        predict(truth.frame, some).probabilities, maps.probabilities[keep]
    )


def test_an_ensemble_needs_a_member():
    with pytest.raises(ValueError, match="expected some of members"):
        shipped().with_members([])


@pytest.mark.parametrize("keep", [[2], [2, 0], [0, 1, 2]])
def test_heads_are_taken_in_the_order_asked_for(keep):
    torch.manual_seed(3)
    network = Network(3, 8, heads=3).eval()
    with torch.no_grad():  # make the heads differ in all that they have
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0)
    x = torch.rand(1, 1, 4 * STRIDE, 4 * STRIDE)
    part = network_of(weights_of(network).with_heads(keep))
    assert part.heads == len(keep)
    assert not part.training
    with torch.no_grad():
        torch.testing.assert_close(part(x), network(x)[:, keep], rtol=1e-5, atol=1e-5)
        before = network(x)
        for p in part.parameters():
            p.zero_()
        torch.testing.assert_close(network(x), before)  # a copy: the first is left as it is
