"""The networks: what they are given, how they learn, how they are kept."""

import json
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from adatom.core import GRAPHENE, VACANCY, Calibration, Prediction
from adatom.errors import BadInput
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.synthesize import random_labelled, random_pair
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.ensemble import Ensemble
from adatom.learning.kinds import train_start
from adatom.learning.layout import STRIDE
from adatom.learning.network import Network, fused, weights_of
from adatom.learning.predict import OVERLAP_PX, map_shape, predict, predict_tiles
from adatom.learning.prepare import normalise, resample
from adatom.learning.train import TrainOptions, prepare, targets
from sheets import graphene_frame

WORKING = Calibration(0.2)
TINY = TrainOptions(steps=4, batch=2, side_px=64, width=4)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    use_threads(1)
    assert torch.get_num_threads() == 1
    yield
    use_threads(before)


@pytest.fixture(scope="module")
def shipped():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def one(shipped):
    """The first of the shipped networks, with its members."""
    return replace(shipped, networks=shipped.networks[:1])


@pytest.fixture(scope="module")
def frame():
    conditions = Conditions(pixel_size_A=0.12, counts=10.0, slow_background=0.2)
    rng = np.random.default_rng(900_001)
    return random_labelled(GRAPHENE, rng, field_A=20.0, conditions=conditions).frame


@pytest.mark.parametrize("px", [0.03, 0.06, 0.078125, 0.1, 0.1398, 0.16, 0.2, 0.22])
def test_resampling_leaves_a_spot_where_it_is(px):
    rng = np.random.default_rng(0)
    for xy in rng.uniform(3.0, 5.0, (6, 2)):
        n_rows, n_cols = round(8 / px), round(9 / px)
        y, x = np.mgrid[:n_rows, :n_cols] * px
        image = np.exp(-((x - xy[0]) ** 2 + (y - xy[1]) ** 2) / (2 * 0.42**2)).astype(np.float32)
        out = resample(image, Calibration(px), WORKING)
        rows, cols = np.indices(out.shape)
        centre = WORKING.xy(np.array([[(rows * out).sum(), (cols * out).sum()]]) / out.sum())
        np.testing.assert_allclose(centre[0], xy, atol=0.01)
        assert out.shape == map_shape(image.shape, Calibration(px), WORKING)


def test_resampling_keeps_a_level_to_the_border_and_averages_noise():
    level = resample(np.full((101, 77), 3.0, np.float32), Calibration(0.05), WORKING)
    np.testing.assert_allclose(level, 3.0, rtol=1e-5)
    noise = np.random.default_rng(0).normal(size=(400, 400)).astype(np.float32)
    fine = resample(noise, Calibration(0.05), WORKING)
    assert fine.std() < 0.5  # 7.8 old pixels in a new one; plain interpolation would leave 0.6-1


def test_normalise_is_blind_to_gain_and_offset(frame):
    image = resample(frame.data, frame.calibration, WORKING)
    a, b = normalise(image), normalise(image * 37.0 - 512.0)
    np.testing.assert_allclose(a, b, atol=2e-3)
    assert abs(a.mean()) < 0.2
    assert a.std() == pytest.approx(1.0, abs=0.1)


def test_normalise_removes_what_is_slower_than_the_lattice(frame):
    image = resample(frame.data, frame.calibration, WORKING)
    ramp = np.linspace(0, 10 * image.std(), image.shape[1], dtype=np.float32)[None, :]
    inner = (slice(30, -30), slice(30, -30))
    a, b = normalise(image)[inner], normalise(image + ramp)[inner]
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99


def test_a_hot_pixel_stays_one_pixel(frame):
    image = resample(frame.data, frame.calibration, WORKING)
    hot = image.copy()
    hot[40, 50] = 1e5
    a, b = normalise(image), normalise(hot)
    assert b[40, 50] == b.max() <= 12.0
    away = np.ones(image.shape, dtype=bool)
    away[40, 50] = False
    assert np.abs(a - b)[away].max() < 0.05


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_the_network_gives_each_member_one_map_a_class_of_the_size_of_its_input(classes, heads):
    network = Network(classes, width=4, heads=heads).eval()
    shape = (5 * STRIDE, 3 * STRIDE)
    assert network(torch.zeros(2, 1, *shape)).shape == (2, heads, classes, *shape)


def test_a_new_network_starts_from_the_few_per_cent_that_atoms_cover():
    with torch.inference_mode():
        maps = torch.sigmoid(Network(3, width=8)(torch.randn(2, 1, 64, 64)))
    assert 0.01 < float(maps.mean()) < 0.12


def test_folding_the_normalisation_in_changes_no_answer():
    torch.manual_seed(0)
    network = Network(3, width=8, heads=2)
    x = torch.randn(4, 1, 64, 48)
    for _ in range(3):
        network(x)  # gives the normalisation something to remember
    with torch.inference_mode():
        before = network.eval()(x)
        after = fused(network)(x)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    assert float((before - after).abs().max()) < 1e-3


def draw(rng, conditions=None):
    return [random_labelled(GRAPHENE, rng, field_A=TINY.field_A, conditions=conditions)]


def test_targets_peak_at_the_atoms_of_their_own_class_and_at_empty_sites():
    (labelled,) = draw(np.random.default_rng(12))
    image, target, _ = prepare(labelled, TINY)
    assert image.shape == target.shape[1:] == (64, 64)
    assert len(target) == len(GRAPHENE.species) + 1
    rc = WORKING.rc(labelled.xy)
    inside = np.all((rc > 1) & (rc < 62), axis=1)
    r, c = np.round(rc[inside]).astype(int).T
    k = labelled.species[inside]
    assert target[k, r, c].min() > 0.7  # within half a pixel of a Gaussian 1.25 pixels wide
    alone = targets(
        replace(
            labelled, xy=np.array([[2.8, 4.2]]), species=np.array([1]),
            vacancies_xy=np.array([[6.0, 8.0]]),
        ), (64, 64), WORKING, 0.25,
    )  # fmt: skip
    assert not alone[0].any()
    for k, (row, col) in ((1, (21, 14)), (2, (40, 30))):
        assert alone[k, row, col] == pytest.approx(1.0)
        assert alone[k].sum() == pytest.approx(2 * np.pi * 1.25**2, rel=1e-3)


EASY = partial(draw, conditions=Conditions(pixel_size_A=0.2, counts=50.0))


def train(source, seed, options, note=None):
    return train_start(source, 3, seed, 1, options, note)


@pytest.mark.slow
def test_training_lowers_the_loss():
    rng = np.random.default_rng(0)
    pool = [EASY(rng)[0] for _ in range(12)]
    running: list[float] = []

    def source(draws):
        return [pool[draws.integers(8)]]

    start = train(source, 3, TINY.model_copy(update={"steps": 1}))
    more = TINY.model_copy(update={"steps": 80, "learning_rate": 0.01})
    end = train(source, 3, more, lambda _, loss: running.append(loss))
    assert len(running) == more.steps
    unseen = [prepare(labelled, TINY) for labelled in pool[8:]]
    x = torch.from_numpy(np.stack([p[0] for p in unseen])[:, None])
    y = torch.from_numpy(np.stack([p[1] for p in unseen]))[:, None]
    with torch.inference_mode():
        before, after = (
            float(torch.nn.functional.binary_cross_entropy_with_logits(network(x), y))
            for network in (start, end)
        )
    assert after < 0.75 * before


def test_training_repeats_with_its_seed():
    one, same, other = (train(EASY, seed, TINY) for seed in (3, 3, 4))
    assert not one.training
    a, b, c = (n.state_dict() for n in (one, same, other))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_training_takes_pairs_as_they_come():
    """Two frames of one specimen: the same truth, other noise."""
    first, second = random_pair(GRAPHENE, np.random.default_rng(3), field_A=TINY.field_A)
    np.testing.assert_array_equal(first.xy, second.xy)
    assert not np.array_equal(first.frame.data, second.frame.data)
    running: list[float] = []
    source = partial(random_pair, GRAPHENE, field_A=TINY.field_A)
    train(source, 0, TINY.model_copy(update={"batch": 3}), lambda _, loss: running.append(loss))
    assert len(running) == TINY.steps
    assert np.isfinite(running).all()


def small_ensemble(seed=0):
    torch.manual_seed(seed)
    networks = tuple(weights_of(Network(3, 4, heads)) for heads in (2, 1))
    classes = ("C", "Si", VACANCY)
    return Ensemble(networks, classes, WORKING, {"calibration": {"fisher": 1.5}})


def test_an_ensemble_counts_heads_as_members_and_names_its_species():
    assert small_ensemble().members == 3
    assert small_ensemble().species == ("C", "Si")
    assert small_ensemble().spot_A == 0.25
    wide = replace(small_ensemble(), card={"training": {"target_sigma_A": 0.3}})
    assert wide.spot_A == 0.3


def test_weights_come_back_bit_for_bit_at_half_precision(tmp_path):
    before, path = small_ensemble(), tmp_path / "w.safetensors"
    weights.save(before, path)
    after = weights.load(path)
    assert (after.classes, after.working) == (before.classes, before.working)
    assert after.card["calibration"] == before.card["calibration"]
    for a, b in zip(before.networks, after.networks, strict=True):
        assert a.tensors.keys() == b.tensors.keys() == weights.shapes_of(3, 4, a.heads).keys()
        for name, tensor in b.tensors.items():
            old = a.tensors[name].astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(tensor, old)
    assert [n.heads for n in after.networks] == [2, 1]
    again = tmp_path / "again.safetensors"
    weights.save(after, again)
    assert again.read_bytes() == path.read_bytes()
    assert weights.load(again).fingerprint() == after.fingerprint()


def test_a_changed_ensemble_counts_its_members_anew(tmp_path):
    path = tmp_path / "two.safetensors"
    weights.save(weights.load_shipped("graphene"), path)
    whole = weights.load(path)
    weights.save(replace(whole, networks=whole.networks[:1]), path)
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["members"] == 5
    assert weights.load(path).members == 5


def test_fingerprint_changes_with_weights_and_calibration():
    one = small_ensemble()
    assert small_ensemble().fingerprint() == one.fingerprint()
    assert small_ensemble(1).fingerprint() != one.fingerprint()
    assert replace(one, card={"calibration": {"fisher": 2.0}}).fingerprint() != one.fingerprint()


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_weights_that_are_none_are_refused_and_nothing_is_unpickled(tmp_path, capsys):
    path = tmp_path / "w.safetensors"
    weights.save(small_ensemble(), path)
    for wrong in (b"", b"garbage" * 99, pickle.dumps(Evil()), path.read_bytes()[:-100]):
        path.write_bytes(wrong)
        with pytest.raises(BadInput, match="adatom train"):
            weights.load(path)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(BadInput):
        weights.load(path)
    assert "unpickled" not in capsys.readouterr().out
    with pytest.raises(BadInput):
        weights.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"heads": [2, 1, 1]},
        {"heads": [2]},
        {"heads": [1, 2]},
        {"heads": []},
        {"heads": [2, 0]},
        {"heads": "many"},
        {"width": 8},
        {"classes": ["C"]},
        {"format": 1},
        {"format": 99},
        {"working_pixel_size_A": -1.0},
        {"classes": None},
    ],
)
def test_a_card_that_does_not_fit_its_weights_is_refused(tmp_path, change):
    path = tmp_path / "w.safetensors"
    weights.save(small_ensemble(), path)
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    with pytest.raises(BadInput):
        weights.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json"])
def test_a_card_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "w.safetensors"
    weights.save(small_ensemble(), path)
    path.with_suffix(".json").write_text(text)
    with pytest.raises(BadInput):
        weights.load(path)


def test_materials_without_networks_are_told_how_to_get_some():
    with pytest.raises(BadInput, match="adatom train mos2"):
        weights.load_shipped("mos2")


def test_the_ten_shipped_members_differ(shipped, frame):
    assert shipped.members == 10
    assert shipped.species == GRAPHENE.species
    assert shipped.classes[-1] == VACANCY
    assert {"calibration", "novelty", "scores"} <= set(shipped.card)
    maps = predict(frame, shipped).probabilities
    assert len(maps) == shipped.members
    apart = [np.abs(a - b).max() for i, a in enumerate(maps) for b in maps[:i]]
    assert min(apart) > 0.01


@pytest.fixture(scope="module")
def wide():
    """A frame of several tiles of 192 working pixels."""
    return graphene_frame(900, px=0.2, counts=5.0, field=(60, 47), silicon=[(30, 20)]).frame


@pytest.mark.parametrize("shape", [(231, 301), (57, 300)])
def test_tiles_show_no_seams(one, wide, shape):
    big = replace(wide, data=wide.data[: shape[0], : shape[1]].copy())
    whole = predict(big, one)
    assert whole.probabilities.shape == (one.members, 3, *shape)
    assert whole.inner == (slice(0, shape[0]), slice(0, shape[1]))
    tile_px = 2 * OVERLAP_PX + 96
    tiles = list(predict_tiles(big, one, tile_px=tile_px))
    assert len(tiles) > 2
    count = np.zeros(shape, dtype=int)
    for tile in tiles:
        assert tile.whole == shape
        assert max(tile.probabilities.shape[2:]) <= tile_px
        assert all(o % STRIDE == 0 for o in tile.origin)
        rows, cols = tile.inner
        r, c = tile.origin
        there = slice(r + rows.start, r + rows.stop), slice(c + cols.start, c + cols.stop)
        count[there] += 1
        mine = tile.probabilities[:, :, rows, cols]
        assert np.abs(whole.probabilities[:, :, *there] - mine).max() < 5e-3
    assert (count == 1).all()
    assert (
        np.abs(predict(big, one, tile_px=tile_px).probabilities - whole.probabilities).max() < 5e-3
    )


def test_tiles_are_the_whole_to_single_precision(one, wide):
    whole = predict(wide, one).probabilities
    tiled = predict(wide, one, tile_px=2 * OVERLAP_PX + 80).probabilities
    assert np.abs(tiled - whole).max() < 1e-4


def test_tiles_without_an_inner_part_are_refused(one, frame):
    with pytest.raises(ValueError, match="expected tiles of at least"):
        predict(frame, one, tile_px=2 * OVERLAP_PX)


@pytest.mark.parametrize("shape", [(16, 16), (17, 61), (83, 41)])
def test_maps_of_small_and_odd_frames_have_their_shape(one, frame, shape):
    small = replace(frame, data=frame.data[: shape[0], : shape[1]].copy())
    maps = predict(small, one).probabilities
    assert maps.shape == (one.members, 3, *map_shape(shape, frame.calibration, WORKING))
    assert np.isfinite(maps).all()
    assert 0 <= maps.min() <= maps.max() <= 1


def test_a_frame_is_judged_by_itself(one, frame):
    alone = predict(frame, one).probabilities
    other = np.random.default_rng(0).poisson(900.0, frame.shape).astype(np.float32)
    predict(replace(frame, data=other), one)
    np.testing.assert_array_equal(predict(frame, one).probabilities, alone)


def test_the_order_of_networks_changes_nothing(shipped, frame):
    forward = predict(frame, shipped)
    backward = predict(frame, replace(shipped, networks=shipped.networks[::-1]))
    assert not np.array_equal(forward.probabilities, backward.probabilities)
    for a, b in (
        (forward.mean(), backward.mean()),
        (forward.std(), backward.std()),
        (forward.mutual_information(), backward.mutual_information()),
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_uncertainty_maps_are_what_they_are_called():
    p = np.random.default_rng(0).random((5, 2, 7, 6)).astype(np.float32)
    prediction = Prediction(p, ("C", "Si"), WORKING)

    def h(q):
        return -q * np.log(q) - (1 - q) * np.log(1 - q)

    np.testing.assert_allclose(prediction.mean(), p.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(prediction.std(), p.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(prediction.entropy(), h(p.mean(axis=0)), rtol=1e-4)
    expected = h(p.mean(axis=0)) - h(p).mean(axis=0)
    np.testing.assert_allclose(prediction.mutual_information(), expected, atol=1e-5)
    assert (expected > 0).all()


def test_members_that_agree_have_no_mutual_information_and_certainty_has_no_entropy():
    same = np.repeat(np.random.default_rng(1).random((1, 1, 9, 9)), 4, axis=0).astype(np.float32)
    agreed = Prediction(same, ("C",), WORKING)
    assert agreed.mutual_information().max() < 1e-6
    assert agreed.entropy().max() > 0.5
    sure = Prediction((same > 0.5).astype(np.float32), ("C",), WORKING)
    assert 0 <= sure.entropy().max() < 1e-4
    split = np.stack([np.zeros((1, 4, 4)), np.ones((1, 4, 4))]).astype(np.float32)
    torn = Prediction(split, ("C",), WORKING).mutual_information()
    np.testing.assert_allclose(torn, np.log(2), atol=1e-3)
