"""Iterative training: what it learns from, when it refuses, and how it changes hands."""

import json
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from adatom.analysis.frame import calibrator_of
from adatom.campaign.adapt import LiveEnsemble
from adatom.core import GRAPHENE, Calibration, Frame
from adatom.core.imaging import Estimate, Imaging
from adatom.errors import BadInput
from adatom.features.find import FindOptions, find
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import expected_image, image_specimen
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.ensemble import predict
from adatom.materials.library import load_material
from adatom.parallel.progress import Silent
from adatom.training.adapt import rounds as adapting
from adatom.training.adapt import work as working
from adatom.training.adapt.options import AdaptOptions
from adatom.training.adapt.rounds import Adapted, adapt
from adatom.training.adapt.simulated_like import SimulatedLike, conditions_like
from adatom.training.scores import Answer
from sheets import NONE, errors, graphene_frame, rms

TINY = AdaptOptions(rounds=1, frames=2, steps=4, calibration_frames=24, validation_frames=4)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def shipped():
    return weights.load_shipped("graphene")


# --- simulated frames like the ones seen ----------------------------------------------------


def imaging(**change):
    """Conditions that are known exactly."""

    def known(value):
        return Estimate(value, 0.0)

    values = {
        "pixel_size_A": known(0.15), "probe_sigma_A": (known(0.5), known(0.4)),
        "probe_angle_rad": known(0.7), "tail_fraction": known(0.1), "tail_width": known(2.5),
        "counts": known(12.0), "background": known(1.5), "background_variation": known(0.2),
        "background_length_A": known(7.0), "jitter_A": known(0.05), "blur_px": known(0.4),
        "noise_correlation": known(1.0), "read_noise": known(0.3), "stretch": known(0.0),
        "shear": known(0.0), "drift_x_A": known(0.0), "drift_y_A": known(0.0),
    }  # fmt: skip
    return Imaging(**(values | change))


def drawn(count=400, material=GRAPHENE, **change):
    given = imaging(**change)
    return [conditions_like(given, material, np.random.default_rng(i)) for i in range(count)]


@pytest.mark.parametrize(
    ("name", "value", "spread"),
    [("pixel_size_A", 0.15, 0.01), ("counts", 12.0, 0.25), ("slow_length_A", 7.0, 0.06)],
)
def test_conditions_lie_about_those_that_were_estimated(name, value, spread):
    values = np.array([getattr(c, name) for c in drawn()])
    assert values.mean() == pytest.approx(value, rel=4 * spread / 20)
    assert values.std() / value == pytest.approx(spread, rel=0.15)


def test_conditions_spread_as_far_as_the_estimate_is_uncertain():
    values = np.array([c.counts for c in drawn(counts=Estimate(12.0, 6.0))])
    assert values.std() == pytest.approx(6.0, rel=0.2)
    assert values.min() >= 0.3 * 12.0 - 1e-9  # and never to nothing
    wide = np.array([c.probe_sigma_A[0] for c in drawn(probe_sigma_A=(Estimate(0.5, 0.1),) * 2)])
    assert wide.std() > 0.05


def test_the_long_axis_of_the_probe_comes_first():
    alike = (Estimate(0.45, 0.0), Estimate(0.44, 0.0))
    for c in drawn(50, probe_sigma_A=alike):
        assert c.probe_sigma_A[0] >= c.probe_sigma_A[1] > 0.3
        assert c.probe_angle_rad == pytest.approx(0.7)
        assert 0.36 < c.blur_px < 0.44
        assert c.support == 0.0


def test_dirt_may_be_anywhere_whatever_the_first_frames_show():
    shares = np.array([c.contamination for c in drawn()])
    assert np.mean(shares > 0) == pytest.approx(0.25, abs=0.07)
    assert all(c.contamination == 0.0 for c in drawn(60, load_material("Pt-on-carbon")))


def test_the_mean_background_is_the_one_that_was_seen():
    """Hills rise from their lowest place: level and hills together must give the mean."""
    mean = []
    for i in range(12):
        c = conditions_like(imaging(), GRAPHENE, np.random.default_rng(i))
        c = replace(c, counts=1.0, jitter_A=0.0, read_noise=0.0, blur_px=0.0, contamination=0.0)
        nothing = Specimen(NONE, np.zeros(0, dtype=int), NONE)
        image = expected_image(nothing, (200, 200), GRAPHENE, c, np.random.default_rng(i))
        mean.append(image.mean())
        assert 0.1 < image.std() < 0.3
    assert np.mean(mean) == pytest.approx(1.5, abs=0.15)


def test_under_dispersed_atoms_the_background_is_a_support():
    for c in drawn(30, load_material("Pt-on-carbon")):
        assert c.background == c.slow_background == 0.0
        assert c.support == pytest.approx(1.5, rel=0.3)
        assert c.support_hills == pytest.approx(0.2 / 1.5, rel=0.3)


def test_matched_frames_have_the_field_the_truth_and_the_counts():
    scenes = SimulatedLike(GRAPHENE, imaging(), 18.0, wide=0.0)
    for seed in range(6):
        (one, fainter), (two, _) = (scenes(np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(one.frame.data, two.frame.data)
        np.testing.assert_array_equal(fainter.xy, one.xy)  # one specimen, other noise
        assert (fainter.frame.data != one.frame.data).any()
        extent = one.frame.calibration.extent_xy(one.frame.shape)
        assert min(extent) >= 18.0
        assert max(extent) < 18.5
        assert one.frame.calibration.pixel_size_A == pytest.approx(0.15, rel=0.05)
        assert one.classes == GRAPHENE.species
        assert len(one.xy) > 20
    empty = scenes.frame(np.random.default_rng(0), empty=True)
    assert len(empty.xy) == len(empty.vacancies_xy) == 0


def test_a_scale_that_was_given_wrong_is_learned_as_it_was_given():
    """The same pixels and the same truth in longer ångströms."""
    true, given = (
        SimulatedLike(GRAPHENE, imaging(), 10.0, scale, wide=0.0).frame(np.random.default_rng(3))
        for scale in (1.0, 1.04)
    )
    np.testing.assert_array_equal(given.frame.data, true.frame.data)
    px = true.frame.calibration.pixel_size_A
    assert given.frame.calibration.pixel_size_A == pytest.approx(1.04 * px)
    np.testing.assert_allclose(given.xy, 1.04 * true.xy)
    np.testing.assert_allclose(given.vacancies_xy, 1.04 * true.vacancies_xy)
    for one, other in zip(
        *(SimulatedLike(GRAPHENE, imaging(), 10.0, scale, wide=0.0)(np.random.default_rng(3))
          for scale in (1.0, 1.04)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(other.frame.data, one.frame.data)
        np.testing.assert_allclose(other.xy, 1.04 * one.xy)


def test_fewer_counts_go_down_by_the_factor_and_no_farther():
    level = {}
    for fewer in (1.0, 8.0):
        scenes = SimulatedLike(
            GRAPHENE, imaging(background_variation=Estimate(0.0, 0.0)), 8.0, wide=0.0, fewer=fewer
        )
        rngs = [np.random.default_rng(i) for i in range(120)]
        level[fewer] = np.array([scenes.frame(r, empty=True).frame.data.mean() for r in rngs])
    usual = np.median(level[1.0])  # 1.5 of 12 counts
    assert usual == pytest.approx(18.0, rel=0.1)
    ratio = level[8.0] / usual
    assert 1 / 8 * 0.3 < ratio.min() < 0.2
    assert ratio.max() < level[1.0].max() / usual * 1.05
    # Evenly in the logarithm.
    assert np.median(np.log(ratio)) == pytest.approx(-np.log(8) / 2, abs=0.35)


def test_a_share_of_matched_frames_shows_other_conditions():
    def sizes(wide):
        scenes = SimulatedLike(GRAPHENE, imaging(), 5.0, wide=wide)
        frames = [scenes(np.random.default_rng(i))[0].frame for i in range(60)]
        return np.array([f.calibration.pixel_size_A for f in frames])

    assert np.abs(sizes(0.0) / 0.15 - 1).max() < 0.05
    # A twelfth of all pixel sizes, drawn evenly in the logarithm, lies as near by chance.
    assert np.mean(np.abs(sizes(0.5) / 0.15 - 1) > 0.05) == pytest.approx(0.5 * 11 / 12, abs=0.15)


# --- the guard ---------------------------------------------------------------------------------


def f1(atom=0.99, vacancy=0.9, foreign=0.95, sites=200.0):
    out = {"atom": atom, "vacancy": vacancy, "foreign": foreign}
    return out | {f"{kind} sites": sites for kind in list(out)}


@pytest.mark.parametrize(
    ("after", "accepted"),
    [
        ({}, True),
        ({"atom": 1.0, "vacancy": 1.0, "foreign": 1.0}, True),
        ({"atom": 0.985}, True),  # within what few sites make likely
        ({"atom": 0.95}, False),
        ({"vacancy": 0.8}, False),
        ({"foreign": 0.85}, False),
        ({"atom": 1.0, "vacancy": 1.0, "foreign": 0.5}, False),  # one gain pays for no other loss
        ({"atom": 0.0, "vacancy": 0.0, "foreign": 0.0}, False),
    ],
)
def test_the_guard_passes_what_is_not_worse(after, accepted):
    assert adapting._passes(f1(), f1(**after), 0.004) == accepted


def test_the_guard_is_as_strict_as_its_sites_allow():
    few, many = (
        adapting._passes(f1(sites=n), f1(atom=0.97, sites=n), 0.004) for n in (20.0, 20_000.0)
    )
    assert few
    assert not many
    assert adapting._passes(f1(sites=20_000.0), f1(atom=0.97, sites=20_000.0), 0.05)


class Scored(working.RoundRunner):
    """A guard whose F1 is a known function of the counts."""

    def validate(self, ensemble, imaging, number, factor=1.0, frames=None, *, clean=False):
        return {"atom": ensemble(imaging.counts.value * factor)}


@pytest.mark.parametrize(
    ("curve", "limit"),
    [
        # Down from 12 by halves; between the last two evenly in the logarithm.
        (lambda c: 1.0 if c > 2.9 else 0.9, 3.0 / 2**0.5),
        (lambda c: 0.97 if c > 5.9 else 0.93, 6.0 / 2**0.5),
        (lambda c: 0.98 if c > 11 else 0.86, 12.0 / 2**0.25),
        (lambda c: 0.9 if c < 90 else 1.0, 96.0 / 2**0.5),  # up from 12
        (lambda c: 0.94, float("inf")),  # however many
        (lambda c: 0.99, 12.0 / 2**10),  # as far down as is looked
    ],
)
def test_the_detection_limit_lies_where_f1_falls(curve, limit):
    work = Scored(None, GRAPHENE, TINY, 0.15)
    assert work.detection_limit(curve, imaging()) == pytest.approx(limit)


class Recorded:
    """A pool that notes what the guard asks for, and finds each atom 0.9 Å from its place."""

    def map(self, job, items):
        self.scenes = job.args[1]
        for i in items:
            truth = self.scenes.frame(np.random.default_rng(i), whole=True)
            xy = truth.xy + np.array([0.9, 0.0])
            n = len(xy)
            names = np.array(truth.classes)[truth.species]
            yield truth, Answer(xy, names, np.ones((n, 2)), np.ones(n), np.ones(n), NONE)


def test_the_guard_looks_at_the_experiments_own_counts_alone():
    pool = Recorded()
    working.RoundRunner(pool, GRAPHENE, TINY, 0.15).validate(None, imaging(), 1, 0.25)
    assert pool.scenes.wide == 0.0
    assert pool.scenes.fewer == 1.0
    assert pool.scenes.imaging.counts.value == pytest.approx(3.0)


def test_the_detection_limit_is_that_of_clean_frames():
    """Atoms under dirt are lost at any dose: they would hide what the dose does."""
    pool = Recorded()
    work = working.RoundRunner(pool, GRAPHENE, TINY, 0.15)
    work.validate(None, imaging(), 1)
    assert pool.scenes.contaminated == pytest.approx(0.25)
    work.detection_limit(None, imaging())
    assert pool.scenes.contaminated == 0.0
    rng = np.random.default_rng(0)
    clean = [conditions_like(imaging(), GRAPHENE, rng, 0.0) for _ in range(40)]
    assert all(c.contamination == 0.0 for c in clean)


def test_frames_are_seen_with_the_options_that_were_asked_for(shipped):
    frame = graphene_frame(3, px=0.15, counts=1.0).frame
    with ThreadPoolExecutor(1) as pool:
        work = working.RoundRunner(pool, GRAPHENE, TINY, 0.15)
        strict = replace(work, find=FindOptions(lowest_p_exists=0.9))
        (all_atoms,), (sure,) = (w.see([frame], shipped, scored=False) for w in (work, strict))
    p = all_atoms.found.atoms.column("p_exists")
    assert p.min() < 0.9
    assert len(sure.found.atoms) == (p >= 0.9).sum()


def test_the_guards_radius_goes_with_the_pattern():
    far = working.RoundRunner(Recorded(), GRAPHENE, TINY, 0.15).validate(None, imaging(), 1)
    wide = load_material("Pt-on-carbon")  # 0.5 Å of graphene's are 1.2 Å of its
    near = working.RoundRunner(Recorded(), wide, TINY, 0.15, density_A2=0.003).validate(
        None, imaging(), 1
    )
    assert far["atom"] < 0.5
    assert near["atom"] == 1.0


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


# --- adapt -------------------------------------------------------------------------------------


class Here:
    """The pool's methods, in this process: no time to start others."""

    def __init__(self, workers):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def map(self, job, items):
        return map(job, items)

    def submit(self, job, *words):
        future = Future()
        future.set_result(job(*words))
        return future


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(adapting, "local_processes", Here)
    monkeypatch.setattr(Here, "submit", _never)


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


def faint_frame(seed, counts=0.012):
    return graphene_frame(seed, px=0.15, counts=counts, field=(38.0, 38.0)).frame


def faint_noise():
    data = np.random.default_rng(1).poisson(0.0065, (256, 256)).astype(np.float32)
    return Frame(data, Calibration(0.15))


def test_faint_noise_is_refused_and_faint_frames_of_the_lattice_are_not(shipped):
    """Half an electron an atom: no atom is sure, and the spectrum knows what the frames show."""
    work = Scripted(Here(1), GRAPHENE, TINY, 0.15)
    small = shipped.with_members([0, 5])
    noise = work.see([faint_noise()] * 4, small)
    assert adapting._faint(noise, GRAPHENE) is None
    with pytest.raises(BadInput, match="no lattice"):
        adapting._refuse_other(noise, GRAPHENE)
    seen = work.see([faint_frame(i) for i in range(4)], small)
    assert adapting._faint(seen, GRAPHENE).counts.value == pytest.approx(0.012, rel=0.4)
    assert adapting._faint(seen, load_material("Pt-on-carbon")) is None
    assert adapting._faint(work.see([graphene_frame(1).frame], small), GRAPHENE) is None


def test_faint_frames_teach_by_simulated_ones_alone(shipped):
    Scripted.f1[:], Scripted.looks[:], Scripted.sources[:] = [0.01, 0.5, 0.5, 0.6], [], []
    work = Scripted(Here(1), GRAPHENE, TINY.model_copy(update={"rounds": 2}), 0.15)
    frames = [faint_frame(i) for i in range(4)]
    out = adapting._rounds(work, frames, shipped.with_members([0, 5]), Silent())
    assert [type(s) for s in Scripted.sources] == [SimulatedLike, SimulatedLike]
    for done in out.rounds:
        assert done.accepted
        assert done.kept == [0, 1]
        assert (done.labels.kept, done.labels.added, done.labels.dropped) == (0, 0, 0)
    assert out.imaging.counts.value == pytest.approx(0.012, rel=0.4)
    drawn = [conditions for _ in range(20) for conditions in Scripted.sources[0](
        np.random.default_rng(_))]  # fmt: skip
    counts = [float(np.mean(d.frame.data)) for d in drawn]
    assert 0.002 < np.median(counts) < 0.02


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


class Scripted(working.RoundRunner):
    """Sees with the real networks; its training changes nothing, its guard says what is told."""

    f1: ClassVar[list] = []
    looks: ClassVar[list] = []
    sources: ClassVar[list] = []
    shares: ClassVar[list] = []

    def see(self, frames, ensemble, *, scored=True):
        self.looks.append((ensemble.members, scored))
        return super().see(frames, ensemble, scored=scored)

    def tune(self, ensemble, source, number, share=1.0):
        self.sources.append(source)
        self.shares.append(share)
        return replace(ensemble, card={**ensemble.card, "trained": number}, _ready={})

    def calibrate(self, ensemble, matched, number):
        return ensemble

    def validate(self, ensemble, imaging, number, factor=1.0, frames=None, *, clean=False):
        return f1(atom=self.f1.pop(0))

    def detection_limit(self, ensemble, imaging):
        return 1.0


@pytest.fixture
def rounds(shipped):
    def run(guard, **options):
        Scripted.f1[:], Scripted.looks[:] = guard, []
        frame = graphene_frame(1, px=0.15, counts=8.0, field=(11.0, 11.0)).frame
        work = Scripted(Here(1), GRAPHENE, TINY.model_copy(update=options), 0.15)
        return adapting._rounds(work, [frame], shipped.with_members([0, 5]), Silent())

    return run


def test_a_round_that_the_guard_refuses_is_taken_back_and_the_last(rounds):
    out = rounds([0.99, 0.99, 0.99, 0.8], rounds=3, settled=0.0)
    assert [r.accepted for r in out.rounds] == [True, False]
    assert [r.before["atom"] for r in out.rounds] == [0.99, 0.99]
    assert [r.after["atom"] for r in out.rounds] == [0.99, 0.8]
    assert out.ensemble.card["trained"] == 1
    assert [r["accepted"] for r in out.ensemble.card["adapted"]["rounds"]] == [True, False]


def test_who_sees_well_takes_half_of_the_change_and_who_sees_little_all(rounds):
    Scripted.shares[:] = []
    rounds([0.96, 0.96, 0.94, 0.96], rounds=2, settled=0.0)
    assert Scripted.shares == [0.5, 1.0]


def test_half_of_the_change_lies_between_the_weights(shipped, in_this_process):
    small = shipped.with_members([0, 5])
    tuned = replace(small, networks=tuple(n.train() for n in deepcopy(small.networks)), _ready={})
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


def test_if_the_first_round_is_refused_the_ensemble_is_the_one_given(rounds, shipped):
    out = rounds([0.99, 0.8], rounds=3)
    assert "trained" not in out.ensemble.card
    assert out.ensemble.fingerprint() == shipped.with_members([0, 5]).fingerprint()
    assert len(out.rounds) == 1


def test_labels_that_no_longer_change_end_the_rounds(rounds):
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
    # All are scored, the one that is kept labels, and all that were trained are seen anew.
    assert Scripted.looks == [(2, True), (1, False), (2, True)]
    assert out.ensemble.members == 2


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
        patch.setattr(working, "_LIMIT_STEPS", 1)
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
    for guard in (done.before, done.after):
        assert 0.8 < guard["atom"] <= 1.0
        assert guard["atom sites"] > 300
    assert told[0] == ("start", "rounds", 1, 0)
    assert ("advance", "rounds") in told
    assert told[-1] == ("finish", "rounds")


@pytest.mark.slow
def test_what_is_accepted_is_another_ensemble_and_what_is_not_the_one_before(adapted):
    _, small, out, _ = adapted
    (done,) = out.rounds
    assert (out.ensemble.fingerprint() != small.fingerprint()) == done.accepted
    assert done.accepted == adapting._passes(done.before, done.after, TINY.tolerance)
    assert out.ensemble.members == 4
    assert out.ensemble.classes == small.classes
    assert not any(n.training for n in out.ensemble.networks)


@pytest.mark.slow
def test_the_conditions_of_the_frames_are_estimated(adapted):
    _, _, out, _ = adapted
    assert out.imaging.counts.value == pytest.approx(1.2, rel=0.35)
    assert out.imaging.pixel_size_A.value == pytest.approx(0.15, rel=0.02)
    for limit in out.detection_limit:  # one factor of two was looked at, up or down
        assert 0.5 <= limit / out.imaging.counts.value <= 2.0 or math.isinf(limit)


@pytest.mark.slow
def test_an_adapted_ensemble_is_kept_with_its_story_and_finds_atoms(adapted, tmp_path):
    truths, _, out, _ = adapted
    weights.save(out.ensemble, tmp_path / "a.safetensors")
    card = json.loads((tmp_path / "a.json").read_text("utf-8"))
    story = card["adapted"]
    assert story["rounds"][0]["kept"] == [0, 1, 2, 3]
    assert story["options"]["steps"] == 4
    assert story["imaging"]["pixel_size_A"]["value"] == out.imaging.pixel_size_A.value
    again = weights.load(tmp_path / "a.safetensors")
    unseen = truths[2]
    seen = find(unseen.frame, [predict(unseen.frame, again)], GRAPHENE, calibrator_of(again))
    sure = seen.atoms.xy[seen.atoms.column("p_exists") > 0.5]
    assert len(errors(unseen, sure)) > 0.9 * len(errors(unseen, unseen.xy))
    assert rms(errors(unseen, sure)) < 0.2


# --- while frames keep coming --------------------------------------------------------------------


class Retraining:
    """Stands for `adapt`: waits until it is told to end, with a result or a refusal."""

    def __init__(self, *results):
        self.results = list(results)
        self.calls = []
        self.go, self.began = threading.Event(), threading.Event()

    def __call__(self, frames, ensemble):
        self.calls.append((frames, ensemble))
        self.began.set()
        assert self.go.wait(20)
        self.go.clear()
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return Adapted(result, [], None, (0.0, 0.0))

    def end(self, live):
        """Let it end, and wait until it has."""
        assert self.began.wait(20)
        self.began.clear()
        job = live._job
        self.go.set()
        job.exception(20)


@pytest.fixture
def three(shipped):
    return [shipped.with_members([k]) for k in (0, 1, 2)]


@pytest.fixture
def frames():
    return [graphene_frame(1, px=0.15, field=(8.0, 8.0)).frame]


def test_the_ensemble_changes_when_it_is_asked_for_and_not_before(three, frames):
    first, second, third = three
    work = Retraining(second, third)
    live = LiveEnsemble(first, GRAPHENE, work)
    assert live.current() is first
    assert live.adapt_to(frames)
    for _ in range(3):  # while it trains, frames are found with what there is
        assert live.current() is first
    assert not live.adapt_to(frames), "two at a time"
    work.end(live)
    held = live._now
    assert held is first, "changed within a frame"
    assert live.current() is second
    assert live.current() is second
    assert live.adapt_to(frames)
    work.end(live)
    assert live.current() is third
    live.close()
    assert len(work.calls) == 2
    assert [e for _, e in work.calls] == [first, second]  # each goes on from the newest


def test_a_finished_adaptation_waits_until_it_is_taken(three, frames):
    first, second, _ = three
    work = Retraining(second)
    live = LiveEnsemble(first, GRAPHENE, work)
    live.adapt_to(frames)
    work.end(live)
    assert not live.adapt_to(frames)  # what is ready comes first
    assert live.current() is second
    live.close()


def test_refused_frames_are_told_once_and_the_ensemble_stays(three, frames):
    first, second, _ = three
    refusal = BadInput("the first frames", expected="graphene", got="noise", todo="Look.")
    work = Retraining(refusal, second)
    live = LiveEnsemble(first, GRAPHENE, work)
    live.adapt_to(frames)
    work.end(live)
    with pytest.raises(BadInput, match="got noise"):
        live.current()
    assert live.current() is first
    assert live.adapt_to(frames)  # and it can be tried again
    work.end(live)
    assert live.current() is second
    live.close()


def test_the_frames_given_are_those_that_are_used(three, frames):
    first, second, _ = three
    work = Retraining(second)
    live = LiveEnsemble(first, GRAPHENE, work)
    given = list(frames)
    live.adapt_to(given)
    given.clear()  # the microscope goes on
    work.end(live)
    assert work.calls[0][0] == frames
    live.close()
    assert live.current() is second


def test_many_threads_may_ask(three, frames):
    first, second, _ = three
    work = Retraining(second)
    live = LiveEnsemble(first, GRAPHENE, work)
    begun = []
    threads = [
        threading.Thread(target=lambda: begun.append(live.adapt_to(frames))) for _ in "abcdef"
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(begun) == [False] * 5 + [True]
    work.end(live)
    assert live.current() is second
    live.close()
