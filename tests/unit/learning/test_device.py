"""Networks run on the chosen device; torch's `meta` device reveals tensors on any other."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch

from adatom.core import Calibration, Frame
from adatom.errors import BadInput
from adatom.learning import weights
from adatom.learning.device import VARIABLE, chosen_gpu, describe_device
from adatom.learning.gpu import GpuRunner, member_probabilities
from adatom.learning.graph import Runner
from adatom.learning.network import Network, network_of
from adatom.learning.predict import predict
from adatom.learning.train import batch_loss

META = torch.device("meta")


def test_networks_run_on_the_processor_unless_told(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen_gpu() is None
    assert describe_device().startswith("Networks run on cpu")
    monkeypatch.setenv(VARIABLE, "meta")
    assert chosen_gpu() == "meta"
    assert describe_device() == "Networks run on meta"


@pytest.mark.parametrize("name", ["graphics card", "cuda:77", ""])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(BadInput, match=VARIABLE):
        chosen_gpu()
    frame = Frame(np.eye(40, dtype=np.float32), Calibration(0.15))
    with pytest.raises(BadInput, match="leave the variable out"):
        predict(frame, weights.load_shipped("graphene"))


def test_maps_are_made_on_the_device_of_the_image():
    ensemble = weights.load_shipped("graphene")
    x = torch.empty(1, 1, 96, 64, device=META)
    networks = GpuRunner.of(ensemble.networks, "meta").networks
    assert {t.device for n in networks for t in (*n.parameters(), *n.buffers())} == {META}
    maps = member_probabilities(networks, x)
    assert maps.device == META
    assert maps.shape == (ensemble.members, 3, 96, 64)


def test_the_loss_and_its_gradients_are_on_the_device_of_the_batch():
    network = Network(3, 32, 5).to(META).train()
    x, y = torch.empty(2, 1, 64, 64, device=META), torch.empty(2, 1, 3, 64, 64, device=META)
    pixel_weight = torch.empty(2, 64, 64, device=META)
    loss = batch_loss(network, x, y, pixel_weight)
    loss.backward()
    assert loss.device == META
    assert all(p.grad is not None and p.grad.device == META for p in network.parameters())
    with pytest.raises(RuntimeError, match="device"):
        batch_loss(network, x, y, torch.ones(2, 64, 64))


def test_torch_gives_the_maps_of_the_processor():
    ensemble = weights.load_shipped("graphene")
    image = np.random.default_rng(0).normal(size=(72, 104)).astype(np.float32)
    by_torch = GpuRunner.of(ensemble.networks, "cpu")(image)
    for threads in (1, 2):
        maps = Runner.of(ensemble.networks, threads)(image)
        np.testing.assert_allclose(maps, by_torch, atol=1e-5)
    whole = network_of(ensemble.networks[1])(torch.from_numpy(image)[None, None])
    np.testing.assert_allclose(maps[5:], whole[0].sigmoid().detach().numpy(), atol=1e-5)


def test_an_ensemble_is_sent_to_processes_without_its_runners():
    ensemble = weights.load_shipped("graphene")
    size = len(pickle.dumps(ensemble))
    predict(Frame(np.eye(40, dtype=np.float32), Calibration(0.15)), ensemble)
    assert ensemble.runners
    assert len(pickle.dumps(ensemble)) == size
    sent = deepcopy(ensemble)  # by the same protocol
    assert sent.fingerprint() == ensemble.fingerprint()
    assert sent.members == ensemble.members
