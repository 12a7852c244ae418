"""The networks: what they are given, how they learn, how they are kept."""

import json
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from adatom.core import GRAPHENE, Calibration, Frame, Prediction
from adatom.errors import BadInput
from adatom.frames.conditions import Conditions
from adatom.frames.synthesize import random_labelled
from adatom.learning import ensemble as at_work
from adatom.learning import weights
from adatom.learning.ensemble import map_shape, predict
from adatom.learning.network import STRIDE, UNet
from adatom.learning.prepare import normalise, resample
from adatom.learning.train import TrainOptions, prepare_pair, targets, train_member

WORKING = Calibration(0.14)
TINY = TrainOptions(steps=4, batch=2, side_px=64, width=4)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    weights.threads(1)
    assert torch.get_num_threads() == 1
    yield
    weights.threads(before)


@pytest.fixture(scope="module")
def shipped():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def two(shipped):
    return replace(shipped, members=shipped.members[:2])


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
    a, b = normalise(image, WORKING), normalise(image * 37.0 - 512.0, WORKING)
    np.testing.assert_allclose(a, b, atol=2e-3)
    assert abs(a.mean()) < 0.1
    assert a.std() == pytest.approx(1.0, abs=0.1)


def test_normalise_removes_what_is_slower_than_the_lattice(frame):
    image = resample(frame.data, frame.calibration, WORKING)
    ramp = np.linspace(0, 10 * image.std(), image.shape[1], dtype=np.float32)[None, :]
    inner = (slice(30, -30), slice(30, -30))
    a, b = normalise(image, WORKING)[inner], normalise(image + ramp, WORKING)[inner]
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99


def test_a_hot_pixel_stays_one_pixel(frame):
    image = resample(frame.data, frame.calibration, WORKING)
    hot = image.copy()
    hot[40, 50] = 1e5
    a, b = normalise(image, WORKING), normalise(hot, WORKING)
    assert b[40, 50] == b.max() <= 12.0
    away = np.ones(image.shape, dtype=bool)
    away[40, 50] = False
    assert np.abs(a - b)[away].max() < 0.05


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_the_network_gives_one_map_a_class_of_the_size_of_its_input(classes):
    network = UNet(classes, width=4).eval()
    assert network(torch.zeros(2, 1, 5 * STRIDE, 3 * STRIDE)).shape == (2, classes, 40, 24)


def draw(rng, conditions=None):
    return random_labelled(GRAPHENE, rng, field_A=TINY.field_A, conditions=conditions)


def test_targets_peak_at_the_atoms_of_their_own_class():
    labelled = draw(np.random.default_rng(12))
    image, target = prepare_pair(labelled, TINY)
    assert image.shape == target.shape[1:] == (64, 64)
    rc = WORKING.rc(labelled.xy)
    inside = np.all((rc > 1) & (rc < 62), axis=1)
    r, c = np.round(rc[inside]).astype(int).T
    k = labelled.species[inside]
    assert target[k, r, c].min() > 0.75  # within half a pixel of a Gaussian 1.6 pixels wide
    alone = targets(replace(labelled, xy=np.array([[2.8, 4.2]]), species=np.array([1])),
                    (64, 64), WORKING, 0.22)  # fmt: skip
    assert alone[1, 30, 20] == pytest.approx(1.0)
    assert alone[1].sum() == pytest.approx(2 * np.pi * (0.22 / 0.14) ** 2, rel=1e-3)
    assert not alone[0].any()


EASY = partial(draw, conditions=Conditions(pixel_size_A=0.14, counts=50.0))


def test_training_lowers_the_loss():
    rng = np.random.default_rng(0)
    pool = [EASY(rng) for _ in range(12)]
    running: list[float] = []

    def source(draws):
        return pool[draws.integers(8)]

    start = train_member(source, 2, 3, TINY.model_copy(update={"steps": 1}))
    more = TINY.model_copy(update={"steps": 100, "learning_rate": 0.01})
    end = train_member(source, 2, 3, more, lambda _, loss: running.append(loss))
    assert len(running) == more.steps
    unseen = [prepare_pair(labelled, TINY) for labelled in pool[8:]]
    x = torch.from_numpy(np.stack([p[0] for p in unseen])[:, None])
    y = torch.from_numpy(np.stack([p[1] for p in unseen]))
    with torch.inference_mode():
        before, after = (
            float(torch.nn.functional.binary_cross_entropy_with_logits(network(x), y))
            for network in (start, end)
        )
    assert after < 0.75 * before


def test_training_repeats_with_its_seed():
    one, same, other = (train_member(EASY, 2, seed, TINY) for seed in (3, 3, 4))
    assert not one.training
    a, b, c = (n.state_dict() for n in (one, same, other))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def small_ensemble(seed=0):
    torch.manual_seed(seed)
    members = tuple(UNet(2, 4).eval() for _ in range(2))
    return weights.Ensemble(members, ("C", "Si"), WORKING, {"calibration": {"fisher": 1.5}})


def test_weights_come_back_bit_for_bit_at_half_precision(tmp_path):
    before, path = small_ensemble(), tmp_path / "w.safetensors"
    weights.save(before, path)
    after = weights.load(path)
    assert (after.classes, after.working, after.card) == (
        before.classes, before.working, before.card,
    )  # fmt: skip
    for a, b in zip(before.members, after.members, strict=True):
        for name, tensor in b.state_dict().items():
            old = a.state_dict()[name]
            assert torch.equal(tensor, old.half().float() if old.is_floating_point() else old)
    again = tmp_path / "again.safetensors"
    weights.save(after, again)
    assert again.read_bytes() == path.read_bytes()
    assert weights.load(again).fingerprint() == after.fingerprint()


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
        {"members": 3},
        {"members": 1},
        {"width": 8},
        {"classes": ["C"]},
        {"format": 99},
        {"members": "many"},
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


def test_shipped_networks_are_enough_and_differ(shipped):
    assert len(shipped.members) >= 5
    assert shipped.classes == GRAPHENE.species
    first = [m.head.weight for m in shipped.members]
    assert all(not torch.equal(first[0], w) for w in first[1:])


@pytest.mark.parametrize("shape", [(191, 174), (57, 201)])
def test_tiles_show_no_seams(shipped, frame, monkeypatch, shape):
    one = replace(shipped, members=shipped.members[:1])
    big = np.tile(frame.data, (2, 2))[: shape[0], : shape[1]]
    whole = predict(Frame(big, WORKING), one)
    assert whole.probabilities.shape == (1, 2, *shape)
    monkeypatch.setattr(at_work, "_TILE", 144)
    tiled = predict(Frame(big, WORKING), one)
    assert len(list(at_work._tiles(shape))) > 2
    assert np.abs(whole.probabilities - tiled.probabilities).max() < 1e-3


def test_tiles_cover_every_pixel_once(monkeypatch):
    monkeypatch.setattr(at_work, "_TILE", 144)
    count = np.zeros((301, 97), dtype=int)
    for rows, cols, keep_rows, keep_cols in at_work._tiles(count.shape):
        count[keep_rows, keep_cols] += 1
        assert rows.start % STRIDE == cols.start % STRIDE == 0
        assert rows.start <= keep_rows.start < keep_rows.stop <= rows.stop
        assert cols.start <= keep_cols.start < keep_cols.stop <= cols.stop
    assert (count == 1).all()


def test_a_frame_is_judged_by_itself(two, frame):
    alone = predict(frame, two).probabilities
    other = np.random.default_rng(0).poisson(900.0, frame.shape).astype(np.float32)
    predict(replace(frame, data=other), two)
    np.testing.assert_array_equal(predict(frame, two).probabilities, alone)


def test_the_order_of_members_changes_nothing(shipped, frame):
    forward = predict(frame, shipped)
    backward = predict(frame, replace(shipped, members=shipped.members[::-1]))
    np.testing.assert_array_equal(forward.probabilities, backward.probabilities[::-1])
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
