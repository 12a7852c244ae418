"""Rounds of iterative training: frames that are refused, and rounds that are undone."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from adapting import TINY, InThisProcess, Scripted
from adatom.core import GRAPHENE, Calibration, Frame
from adatom.errors import BadInput
from adatom.features.find import FindOptions
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.materials.library import load_material
from adatom.parallel.progress import Silent
from adatom.training.adapt import rounds as adapting
from adatom.training.adapt import runner as running
from adatom.training.adapt.options import AdaptOptions
from adatom.training.adapt.rounds import adapt, run_rounds
from adatom.training.adapt.simulated_like import conditions_like
from imaging import known_imaging
from sheets import NONE, graphene_frame


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def shipped():
    return weights.load_shipped("graphene")


def drawn(count=400, material=GRAPHENE, **change):
    given = known_imaging(**change)
    return [conditions_like(given, material, np.random.default_rng(i)) for i in range(count)]


def test_frames_are_analysed_with_the_options_of_the_campaign(shipped):
    frame = graphene_frame(3, px=0.15, counts=1.0).frame
    with ThreadPoolExecutor(1) as pool:
        runner = running.RoundRunner(pool, GRAPHENE, TINY, 0.15)
        strict = replace(runner, find=FindOptions(lowest_p_exists=0.9))
        (all_atoms,), (sure,) = (
            w.analyse([frame], shipped, scored=False) for w in (runner, strict)
        )
    p = all_atoms.found.atoms.column("p_exists")
    assert p.min() < 0.9
    assert len(sure.found.atoms) == (p >= 0.9).sum()


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0}, {"frames": 0}, {"steps": 0}, {"learning_rate": 0}, {"real_share": 1.5},
        {"fewer": 0.5}, {"calibration_frames": 8}, {"validation_frames": 1}, {"epochs": 3},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        AdaptOptions(**wrong)


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(adapting, "local_processes", InThisProcess)
    monkeypatch.setattr(InThisProcess, "submit", _never)


def _never(*_):
    pytest.fail("trained on frames that should have been refused")


def noise_frame():
    data = np.random.default_rng(1).poisson(4.0, (110, 110)).astype(np.float32)
    return Frame(data, Calibration(0.15))


def square_frame():
    """Another crystal at graphene's brightness and about its density, given as graphene."""
    other = replace(load_material("SrTiO3"), cell_A=((2.3, 0.0), (0.0, 2.3)), bond_length_A=1.63)
    xy, site = lattice_sites(other, (16.0, 16.0), 3.0, 0.3)
    sheet = Specimen(xy, np.zeros(len(site), dtype=np.int64), NONE)
    taken = Conditions(pixel_size_A=0.15, counts=20.0)
    return image_specimen(sheet, (110, 110), GRAPHENE, taken, np.random.default_rng(0)).frame


@pytest.mark.parametrize("make", [noise_frame, square_frame])
def test_frames_that_do_not_show_the_material_are_refused(shipped, in_this_process, make):
    before = shipped.fingerprint()
    with pytest.raises(BadInput) as refused:
        adapt([make()], GRAPHENE, shipped.with_members([0, 5]), TINY)
    message = str(refused.value)
    for word in ("graphene", "3 neighbours", "`material`", "`pixel_size_A`"):
        assert word in message
    assert shipped.fingerprint() == before


def test_the_same_frame_at_a_wrong_scale_is_refused(shipped, in_this_process):
    """Every distance is off, by more than a lattice bends."""
    frame = graphene_frame(1, px=0.15, counts=20.0, field=(16.0, 16.0)).frame
    wrong = frame.recalibrated(Calibration(0.15 * 1.5))
    with pytest.raises(BadInput, match="`pixel_size_A`"):
        adapt([wrong], GRAPHENE, shipped.with_members([0, 5]), TINY)


def test_networks_of_another_material_are_refused(shipped, in_this_process):
    frame = graphene_frame(1, px=0.15, field=(16.0, 16.0)).frame
    with pytest.raises(BadInput) as refused:
        adapt([frame], load_material("MoS2"), shipped, TINY)
    assert ", ".join(load_material("MoS2").species) in str(refused.value)
    assert "C, Si" in str(refused.value)
    assert "adatom train MoS2" in refused.value.todo


@pytest.fixture
def rounds(shipped):
    def run(scores, **options):
        Scripted.f1[:], Scripted.analyses[:] = scores, []
        frame = graphene_frame(1, px=0.15, counts=8.0, field=(11.0, 11.0)).frame
        runner = Scripted(InThisProcess(1), GRAPHENE, TINY.model_copy(update=options), 0.15)
        return run_rounds(runner, [frame], shipped.with_members([0, 5]), Silent())

    return run


def test_a_round_that_fails_the_validation_is_undone_and_the_last(rounds):
    out = rounds([0.99, 0.99, 0.99, 0.8], rounds=3, settled=0.0)
    assert [r.accepted for r in out.rounds] == [True, False]
    assert [r.before["atom"] for r in out.rounds] == [0.99, 0.99]
    assert [r.after["atom"] for r in out.rounds] == [0.99, 0.8]
    assert out.ensemble.card["trained"] == 1
    assert [r["accepted"] for r in out.ensemble.card["adapted"]["rounds"]] == [True, False]


def test_weights_are_averaged_only_if_f1_was_high_before_the_round(rounds):
    Scripted.weights[:] = []
    rounds([0.96, 0.96, 0.94, 0.96], rounds=2, settled=0.0)
    assert Scripted.weights == [0.5, 1.0]


def test_if_the_first_round_fails_the_ensemble_is_unchanged(rounds, shipped):
    out = rounds([0.99, 0.8], rounds=3)
    assert "trained" not in out.ensemble.card
    assert out.ensemble.fingerprint() == shipped.with_members([0, 5]).fingerprint()
    assert len(out.rounds) == 1


def test_rounds_stop_when_the_labels_no_longer_change(rounds):
    """Training that changes nothing leaves the labels as they are."""
    out = rounds([0.99, 0.99], rounds=3)
    assert len(out.rounds) == 1
    assert out.rounds[0].labels.share == 1.0  # all new
    assert out.ensemble.card["trained"] == 1


def test_no_more_rounds_than_asked_for(rounds):
    out = rounds([0.99] * 4, rounds=2, settled=0.0)
    assert [r.number for r in out.rounds] == [1, 2]
    assert out.rounds[1].labels.share == 0.0
    assert out.ensemble.card["trained"] == 2


def test_labels_come_from_the_members_that_are_kept(rounds, monkeypatch):
    monkeypatch.setattr(adapting, "choose_members", lambda scores: ([1], {0: "spacing 0.5"}))
    out = rounds([0.99, 0.99], rounds=1)
    assert out.rounds[0].kept == [1]
    assert out.ensemble.card["adapted"]["rounds"][0]["dropped"] == {"0": "spacing 0.5"}
    # All members are scored, the kept one makes the labels, and all are analysed after training.
    assert Scripted.analyses == [(2, True), (1, False), (2, True)]
    assert out.ensemble.members == 2
