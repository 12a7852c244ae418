"""Networks run where the user says. Without a GPU, torch's `meta` device shows what strays."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from adatom.core import Calibration, Frame
from adatom.errors import BadInput
from adatom.learning import weights
from adatom.learning.device import VARIABLE, chosen_device, describe_device
from adatom.learning.ensemble import _members, predict
from adatom.learning.network import Network
from adatom.learning.train import _loss

META = torch.device("meta")


def test_networks_run_on_the_processor_unless_told(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen_device() == torch.device("cpu")
    assert describe_device().startswith("Networks run on cpu")
    monkeypatch.setenv(VARIABLE, "meta")
    assert chosen_device() == META
    assert describe_device() == "Networks run on meta"


@pytest.mark.parametrize("name", ["graphics card", "cuda:77", ""])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(BadInput, match=VARIABLE):
        chosen_device()
    frame = Frame(np.eye(40, dtype=np.float32), Calibration(0.15))
    with pytest.raises(BadInput, match="leave the variable out"):
        predict(frame, weights.load_shipped("graphene"))


def test_maps_are_made_on_the_device_of_the_image():
    ensemble = weights.load_shipped("graphene")
    x = torch.empty(1, 1, 96, 64, device=META)
    networks = ensemble.fused_networks(META)
    assert {t.device for n in networks for t in (*n.parameters(), *n.buffers())} == {META}
    maps = _members(networks, x)
    assert maps.device == META
    assert maps.shape == (ensemble.members, 3, 96, 64)


def test_the_loss_and_its_gradients_are_on_the_device_of_the_batch():
    network = Network(3, 32, 5).to(META).train()
    x, y = torch.empty(2, 1, 64, 64, device=META), torch.empty(2, 1, 3, 64, 64, device=META)
    counted = torch.empty(2, 64, 64, device=META)
    loss = _loss(network, x, y, counted)
    loss.backward()
    assert loss.device == META
    assert all(p.grad is not None and p.grad.device == META for p in network.parameters())
    with pytest.raises(RuntimeError, match="device"):
        _loss(network, x, y, torch.ones(2, 64, 64))


def test_another_process_gets_no_copies_that_run_here():
    ensemble = weights.load_shipped("graphene")
    ensemble.fused_networks(META)
    sent = deepcopy(ensemble)  # by the same way as to a process
    assert not sent._fused
    assert sent.fingerprint() == ensemble.fingerprint()
    assert sent.members == ensemble.members
