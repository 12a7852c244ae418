"""Weights and cards that no training wrote are refused when they are loaded."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from adatom.analysis.card import check_card
from adatom.core import Calibration
from adatom.errors import BadInput, StepFailed
from adatom.learning import weights
from adatom.learning.ensemble import Ensemble
from adatom.learning.network import Network, weights_of


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(5)
    networks = (weights_of(Network(3, 4, 2)), weights_of(Network(3, 4, 1)))
    out = tmp_path / "w.safetensors"
    weights.save(Ensemble(networks, ("C", "Si", "vacancy"), Calibration(0.12)), out)
    return out


def changed(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def kernels(tensors):
    return [name for name, value in tensors.items() if value.ndim >= 2]


def one_nan(tensors):
    tensors[kernels(tensors)[3]].view(-1)[7] = float("nan")


def infinite_bias(tensors):
    tensors[next(k for k in tensors if k.endswith("bias"))][0] = float("inf")


def all_zero(tensors):
    for value in tensors.values():
        value.zero_()


def one_kernel_zero(tensors):
    tensors[kernels(tensors)[-1]].zero_()


def negative_variance(tensors):
    for name in tensors:
        if name.endswith("running_var"):
            tensors[name].neg_()


def other_numbers(tensors):
    for name in kernels(tensors):
        tensors[name].mul_(-3.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (one_nan, "not finite"),
        (infinite_bias, "not finite"),
        (all_zero, "equal numbers"),
        (one_kernel_zero, "equal numbers"),
        (negative_variance, "variances"),
        (other_numbers, "test image"),
    ],
)
def test_damaged_weights_are_refused_in_words(path, change, words):
    assert weights.load(path).members == 3
    changed(path, change)
    with pytest.raises(BadInput, match=words):
        weights.load(path)


def test_a_card_of_other_weights_is_recognised(path, tmp_path):
    torch.manual_seed(6)
    other = tmp_path / "other.safetensors"
    others = (Network(3, 4, 2), Network(3, 4, 1))
    for network in others:
        torch.nn.init.constant_(network.out.bias, -4.0)
    networks = tuple(weights_of(network) for network in others)
    weights.save(Ensemble(networks, ("C", "Si", "vacancy"), Calibration(0.12)), other)
    other.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())
    with pytest.raises(BadInput, match="another card"):
        weights.load(other)


def test_a_card_without_a_self_test_is_still_read(path):
    card = path.with_suffix(".json")
    card.write_text(json.dumps({k: v for k, v in json.loads(card.read_text()).items()
                                if k != "self_test"}))  # fmt: skip
    assert weights.load(path).members == 3


@pytest.mark.parametrize("wrong", ["x", -1.0, None, {}])
def test_a_spot_width_that_is_none_is_refused(path, wrong):
    card = path.with_suffix(".json")
    card.write_text(
        json.dumps(json.loads(card.read_text()) | {"training": {"target_sigma_A": wrong}})
    )
    with pytest.raises(BadInput, match="target_sigma_A"):
        weights.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"calibration": None},
        {"calibration": {}},
        {"calibration": [1, 2]},
        {"calibration": "lost"},
        {"novelty": {"checks": 3}},
        {"novelty_of_regions": []},
        {"options": 5},
    ],
)
def test_a_card_with_a_fit_that_cannot_be_read_is_refused(change):
    card = weights.load_shipped("graphene").card
    check_card(card)
    with pytest.raises(BadInput, match="card, "):
        check_card({**card, **change})


def test_a_calibration_with_nan_is_refused():
    card = weights.load_shipped("graphene").card
    fit = {**card["calibration"], "spread": [float("nan")] * len(card["calibration"]["spread"])}
    with pytest.raises(BadInput, match="not finite"):
        check_card({**card, "calibration": fit})
    short = {**card["calibration"], "spread": card["calibration"]["spread"][:-1]}
    with pytest.raises(BadInput, match="lengths"):
        check_card({**card, "calibration": short})
    with pytest.raises(BadInput, match="got none"):
        check_card({k: v for k, v in card.items() if k != "calibration"})


@pytest.mark.parametrize("name", ["", "mine", "mine.json", "mine.pt"])
def test_an_output_that_is_no_safetensors_file_is_refused_before_training(tmp_path, name):
    with pytest.raises(BadInput, match="safetensors"):
        weights.check_output(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_directory_of_an_output_is_made_before_training(tmp_path):
    weights.check_output(tmp_path / "a" / "b" / "mine.safetensors")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput):
        weights.check_output(tmp_path / "file" / "mine.safetensors")


def test_a_full_disk_leaves_the_old_weights_whole(path, monkeypatch):
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    ensemble = weights.load(path)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", full)
    with pytest.raises(StepFailed, match="No space left"):
        weights.save(ensemble, path)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before
