"""One real round of iterative training, in processes as a campaign runs it."""

import json
import math

import numpy as np
import pytest

from adapting import TINY
from adatom.analysis.frame import calibrator_of
from adatom.core import GRAPHENE
from adatom.features.find import find
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import predict
from adatom.training.adapt import rounds
from adatom.training.adapt import runner as running
from adatom.training.adapt.checks import passes_validation
from adatom.training.adapt.rounds import Adapted, adapt
from sheets import errors, graphene_frame, rms


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def shipped():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def adapted(shipped):
    """One round on two of three frames, in processes as a campaign has them."""
    truths = [
        graphene_frame(
            i,
            px=0.15,
            counts=1.2,
            field=(20.0, 20.0),
            missing=((7.0, 8.0),),
            silicon=((13.0, 9.0),),
        )
        for i in (1, 2, 3)
    ]
    small = shipped.with_members([0, 1, 5, 6])
    before = small.fingerprint()
    told = []

    class Told:
        def start(self, step, total, done):
            told.append(("start", step, total, done))

        def advance(self, step):
            told.append(("advance", step))

        def finish(self, step):
            told.append(("finish", step))

        def warn(self, text):
            told.append(("warn", text))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_LIMIT_STEPS", 1)
        out = adapt([t.frame for t in truths], GRAPHENE, small, TINY, progress=Told())
    assert small.fingerprint() == before, "the ensemble that was given changed"
    return truths, small, out, told


@pytest.mark.slow
def test_a_round_says_what_it_did(adapted):
    truths, _, out, told = adapted
    assert isinstance(out, Adapted)
    (done,) = out.rounds
    assert done.number == 1
    assert done.kept == [0, 1, 2, 3]
    assert done.dropped == {}
    assert len(done.members) == 4
    assert all(s.agreement > 0.8 for s in done.members)
    # All labels are new in the first round; two frames were used, not three.
    true = sum(len(t.xy) for t in truths[:2])
    assert done.labels.kept == done.labels.dropped == 0
    assert 0.75 * true < done.labels.added <= 1.02 * true
    for scores in (done.before, done.after):
        assert 0.8 < scores["atom"] <= 1.0
        assert scores["atom sites"] > 300
    assert told[0] == ("start", "rounds", 1, 0)
    assert ("advance", "rounds") in told
    assert told[-1] == ("finish", "rounds")


@pytest.mark.slow
def test_an_accepted_round_changes_the_weights_and_a_refused_one_does_not(adapted):
    _, small, out, _ = adapted
    (done,) = out.rounds
    assert (out.ensemble.fingerprint() != small.fingerprint()) == done.accepted
    assert done.accepted == passes_validation(done.before, done.after, TINY.tolerance)
    assert out.ensemble.members == 4
    assert out.ensemble.classes == small.classes


@pytest.mark.slow
def test_the_conditions_of_the_frames_are_estimated(adapted):
    _, _, out, _ = adapted
    assert out.imaging.counts.value == pytest.approx(1.2, rel=0.35)
    assert out.imaging.pixel_size_A.value == pytest.approx(0.15, rel=0.02)
    for limit in out.detection_limit:  # one factor of two was looked at, up or down
        assert 0.5 <= limit / out.imaging.counts.value <= 2.0 or math.isinf(limit)


@pytest.mark.slow
def test_an_adapted_ensemble_is_saved_with_its_record_and_finds_atoms(adapted, tmp_path):
    truths, _, out, _ = adapted
    weights.save(out.ensemble, tmp_path / "a.safetensors")
    card = json.loads((tmp_path / "a.json").read_text("utf-8"))
    record = card["adapted"]
    assert record["rounds"][0]["kept"] == [0, 1, 2, 3]
    assert record["options"]["steps"] == 4
    assert record["imaging"]["pixel_size_A"]["value"] == out.imaging.pixel_size_A.value
    again = weights.load(tmp_path / "a.safetensors")
    unseen = truths[2]
    seen = find(unseen.frame, [predict(unseen.frame, again)], GRAPHENE, calibrator_of(again))
    sure = seen.atoms.xy[seen.atoms.is_likely]
    assert len(errors(unseen, sure)) > 0.9 * len(errors(unseen, unseen.xy))
    assert rms(errors(unseen, sure)) < 0.2


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_cores(shipped, monkeypatch):
    truth = graphene_frame(1, px=0.15, counts=1.2, field=(12.0, 12.0), missing=((5.0, 6.0),))
    small = shipped.with_members([0, 5])
    options = TINY.model_copy(update={"tolerance": 1.0})  # accepted, so that weights change
    monkeypatch.setattr(running, "_LIMIT_STEPS", 1)
    found = []
    for count in (1, 3):
        monkeypatch.setattr(running, "cores", lambda count=count: count)
        monkeypatch.setattr(rounds, "cores", lambda count=count: count)
        use_threads(count)
        found.append(adapt([truth.frame], GRAPHENE, small, options))
    use_threads(1)
    one, three = found
    assert one.changed
    assert one.imaging == three.imaging
    for network, other in zip(one.ensemble.networks, three.ensemble.networks, strict=True):
        for name, value in network.tensors.items():
            np.testing.assert_array_equal(value, other.tensors[name])
    assert one.ensemble.card["calibration"] == three.ensemble.card["calibration"]
    assert one.ensemble.fingerprint() == three.ensemble.fingerprint() != small.fingerprint()
    assert [r.after for r in one.rounds] == [r.after for r in three.rounds]


@pytest.fixture
def frames():
    return [graphene_frame(1, px=0.15, field=(8.0, 8.0)).frame]
