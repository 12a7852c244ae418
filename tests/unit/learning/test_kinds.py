"""Kinds of ensembles: the members of each train, differ, and are saved."""

from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from adatom.core import GRAPHENE, VACANCY, Calibration
from adatom.errors import BadInput
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.synthesize import random_labelled, random_pair
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.ensemble import Ensemble
from adatom.learning.kinds import diversify, heads_of, train_start
from adatom.learning.network import weights_of
from adatom.learning.predict import predict
from adatom.learning.train import Kind, TrainOptions
from adatom.training.train import parse_options

KINDS: tuple[Kind, ...] = ("shared", "scratch", "baseline", "swag", "snapshot", "dropout")
TINY = {"steps": 2, "batch": 2, "side_px": 32, "width": 8, "members": 3}


def options_of(kind):
    return TrainOptions(kind=kind, **TINY)


def make(kind, seed=0) -> Ensemble:
    """An ensemble as `train_ensemble` makes it, in this process."""
    options = options_of(kind)
    source = partial(random_pair, GRAPHENE, field_A=options.field_A)
    starts = [
        train_start(source, 3, seed + i, heads, options)
        for i, heads in enumerate(heads_of(options))
    ]
    if kind in ("shared", "scratch"):
        networks = starts
    elif kind == "baseline":
        networks = [diversify(starts[0], source, seed, options, m)[0] for m in range(3)]
    else:
        networks = diversify(starts[0], source, seed, options)
    return Ensemble(
        tuple(weights_of(n) for n in networks),
        (*GRAPHENE.species, VACANCY),
        Calibration(options.working_pixel_size_A),
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


@lru_cache
def made(kind) -> Ensemble:
    """An ensemble of a kind, made once."""
    return make(kind)


@pytest.fixture(scope="module")
def frame():
    conditions = Conditions(pixel_size_A=0.15, counts=20.0)
    rng = np.random.default_rng(900_002)
    return random_labelled(GRAPHENE, rng, field_A=12.0, conditions=conditions).frame


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_as_many_as_asked_for_and_differ(frame, kind):
    ensemble = made(kind)
    assert ensemble.members == 3
    maps = predict(frame, ensemble).probabilities
    assert maps.shape[:2] == (3, 3)
    assert np.isfinite(maps).all()
    for a, b in pairwise((*maps, maps[0])):
        assert np.abs(a - b).max() > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_ensemble_gives_the_same_maps(frame, kind, tmp_path):
    ensemble = made(kind)
    path = tmp_path / "w.safetensors"
    weights.save(ensemble, path)
    again = weights.load(path)
    assert again.members == 3
    assert again.classes == ensemble.classes
    before, after = (predict(frame, e).probabilities for e in (ensemble, again))
    assert np.abs(before - after).max() < 2e-3  # half precision
    weights.save(again, path)
    np.testing.assert_array_equal(predict(frame, weights.load(path)).probabilities, after)


@pytest.mark.parametrize(
    ("kind", "networks"),
    [
        ("shared", [2, 1]),
        ("scratch", [1, 1, 1]),
        ("baseline", [1, 1, 1]),
        ("swag", [1, 1, 1]),
        ("snapshot", [1, 1, 1]),
        ("dropout", [3]),
    ],
)
def test_members_share_trunks_as_their_kind_says(kind, networks):
    assert [n.heads for n in made(kind).networks] == networks


def test_heads_are_shared_out_evenly():
    assert heads_of(TrainOptions()) == [5, 5]
    assert heads_of(TrainOptions(members=7, trunks=3)) == [3, 2, 2]
    assert heads_of(TrainOptions(members=2, trunks=5)) == [1, 1]
    assert heads_of(TrainOptions(kind="scratch", members=4)) == [1] * 4
    assert heads_of(TrainOptions(kind="swag", members=4)) == [1]


def test_dropout_members_share_one_trunk_and_drop_channels_of_their_own():
    (network,) = made("dropout").networks
    weight = network.tensors["hidden.0.weight"]
    parts = weight.reshape(3, -1, *weight.shape[1:])
    dropped = [set(np.flatnonzero((p == 0).all(axis=(0, 2, 3)))) for p in parts]
    assert len({frozenset(d) for d in dropped}) > 1
    kept = [np.setdiff1d(np.arange(8), list(d)) for d in dropped]
    both = np.intersect1d(kept[0], kept[1])
    assert len(both)
    np.testing.assert_array_equal(
        parts[0][:, both], parts[1][:, both]
    )  # nothing else makes them differ


@pytest.mark.parametrize("kind", KINDS[2:])
def test_members_of_one_network_leave_it_as_it_was(kind):
    options = options_of(kind)
    source = partial(random_pair, GRAPHENE, field_A=options.field_A)
    start = train_start(source, 3, 5, 1, options)
    before = {k: v.clone() for k, v in start.state_dict().items()}
    others = diversify(start, source, 5, options, 0)
    assert all(n is not start for n in others)
    assert all(torch.equal(before[k], v) for k, v in start.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["swag", "dropout"])
def test_the_same_seed_gives_the_same_members(frame, kind):
    one, same, other = (predict(frame, make(kind, s)).probabilities for s in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(BadInput, match="kind") as refused:
        parse_options(kind="bagging")
    assert all(kind in str(refused.value) for kind in KINDS)
