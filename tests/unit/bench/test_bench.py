"""Benchmarks: their scenes, the rows of their tables, what they refuse."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from adatom.bench import BENCHMARKS, BenchOptions, adapt_real, run_benchmark
from adatom.bench import adapt as adapt_bench
from adatom.bench.peers import write_frames
from adatom.bench.sets import convolution_set
from adatom.core import Calibration, Frame, LabelledFrame
from adatom.errors import BadInput
from adatom.features.calibration.calibrator import match_truth
from adatom.learning import weights
from adatom.training.scores import Tally

IMAGE = np.random.default_rng(0).poisson(5.0, (101, 101)).astype(np.float32)


FRAME = Frame(IMAGE, Calibration(0.2))  # 20 Å


ATOMS = np.array([[4.0, 4.0], [4.0, 10.0], [10.0, 4.0], [10.0, 10.0], [16.0, 16.0]])


TRUTH = LabelledFrame(FRAME, ATOMS, np.array([0, 0, 0, 0, 1]), ("C", "Si"), np.array([[16.0, 4.0]]))


@pytest.fixture(scope="module")
def scenes():
    return convolution_set(2, pixels=128)


def test_scenes_have_defects_and_their_spot(scenes):
    for scene in scenes:
        assert scene.expected.shape == (128, 128)
        # Three per 10 nm² (1000 Å²), at least one; a defect may have two sites.
        area = np.prod(Calibration(scene.pixel_size_A).extent_xy((128, 128))) / 1000
        wanted = max(round(3 * area), 1)
        assert wanted <= (scene.specimen.species == 1).sum() <= 2 * wanted
        assert wanted <= len(scene.specimen.vacancies_xy) <= 2 * wanted
        assert scene.spot.max() == pytest.approx(1.0, abs=0.01)
        assert scene.spot.argmax() == scene.spot.size // 2
    again = convolution_set(2, pixels=128)
    np.testing.assert_array_equal(again[1].expected, scenes[1].expected)


def test_frames_of_a_scene_are_poisson_at_their_dose(scenes):
    scene = scenes[0]
    one, same, other = (scene.frame(20.0, s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.frame.data, same.frame.data)
    assert not np.array_equal(one.frame.data, other.frame.data)
    pull = (one.frame.data - 20 * scene.expected) / np.sqrt(20 * scene.expected)
    assert pull.std() == pytest.approx(1.0, abs=0.04)
    assert one.xy.min() >= 0


def test_the_pure_scene_is_the_same_sheet_in_carbon(scenes):
    pure = scenes[0].without_silicon()
    assert not pure.specimen.species.any()
    np.testing.assert_array_equal(pure.specimen.xy, scenes[0].specimen.xy)
    changed = pure.expected - scenes[0].expected
    assert changed.max() < 1e-4
    assert changed.min() < -1.0  # where the Si was brighter


def test_a_wider_probe_and_astigmatism_are_what_they_say():
    usual, wide, long = (convolution_set(1, pixels=64, **k)[0].conditions.probe_sigma_A
                         for k in ({}, {"probe_A": (0.6, 0.6)}, {"astigmatism": 1.8}))  # fmt: skip
    assert np.sqrt(np.prod(wide)) == pytest.approx(0.6)
    assert wide[0] / wide[1] == pytest.approx(usual[0] / usual[1])
    assert long[0] / long[1] == pytest.approx(1.8 * usual[0] / usual[1])
    assert np.prod(long) == pytest.approx(np.prod(usual))


def test_frames_for_other_tools_are_written_with_their_truth(tmp_path):
    write_frames(tmp_path / "frames", [TRUTH], labels=True)
    (entry,) = json.loads((tmp_path / "frames" / "manifest.json").read_text())["frames"]
    assert entry["pixel_size_A"] == 0.2
    np.testing.assert_array_equal(np.load(tmp_path / "frames" / entry["file"]), IMAGE)
    labels = np.load(tmp_path / "frames" / entry["labels"])
    np.testing.assert_array_equal(labels[:, :2], ATOMS)
    np.testing.assert_array_equal(labels[:, 2], TRUTH.species)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_an_output_that_exists_is_refused(name, tmp_path):
    with pytest.raises(BadInput, match="new directory"):
        run_benchmark(name, BenchOptions(output=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["movie", "real"])
def test_benchmarks_on_micrographs_need_their_directory(name, tmp_path):
    for data in (None, tmp_path):
        with pytest.raises(BadInput, match="--data"):
            run_benchmark(name, BenchOptions(data=data))


@pytest.mark.parametrize("name", ["find", "speed"])
def test_a_missing_file_of_weights_is_refused(name, tmp_path):
    with pytest.raises(BadInput, match="adatom train"):
        run_benchmark(name, BenchOptions(weights=tmp_path / "none.safetensors"))


def test_the_closed_share_of_a_gap_is_the_gain_over_the_gap():
    rows = adapt_bench.gap_rows("x", [[tally_of(0.5)], [tally_of(0.9)], [tally_of(1.0)]])
    first = rows[0]
    assert "80 % of the gap closed" in first["measured"]
    assert first["met"]
    worse = adapt_bench.gap_rows("x", [[tally_of(0.5)], [tally_of(0.8)], [tally_of(1.0)]])[0]
    assert not worse["met"]
    nothing = adapt_bench.gap_rows("x", [[tally_of(1.0)], [tally_of(0.9)], [tally_of(1.0)]])[0]
    assert nothing["target"] == "no gap: nothing lost"
    assert not nothing["met"]


def test_a_loss_within_its_standard_error_is_accepted():
    before = [tally_of(f) for f in (1.0, 0.9, 1.0, 0.9)]
    alike = [tally_of(f) for f in (0.9, 1.0, 0.9, 0.98)]  # some frames won, some lost
    worse = [tally_of(f) for f in (0.97, 0.87, 0.97, 0.87)]  # all lost
    (atoms, *_) = adapt_bench.gap_rows("x", [before, alike, before])
    assert "0.9500 → 0.9450 ± 0.0550" in atoms["measured"]
    assert atoms["met"]
    (atoms, *_) = adapt_bench.gap_rows("x", [before, worse, before])
    assert "0.9500 → 0.9200 ± 0.0000" in atoms["measured"]
    assert not atoms["met"]
    # The standard error of a mean, which an F1 of equal frames is.
    change = np.array([-0.1, 0.1, -0.1, 0.08])
    assert adapt_bench.standard_error_of_gain(before, alike, "atom") == pytest.approx(
        change.std(ddof=1) / 2
    )


def tally_of(f1):
    """A tally whose F1 of atoms is given, by as many missed as invented."""
    tally = Tally()
    hundred = round(100 * f1)
    for counts, value in (
        (tally.correct, hundred), (tally.detected, 100), (tally.found, hundred), (tally.true, 100),
    ):  # fmt: skip
        counts.update(dict.fromkeys(("atom", "vacancy", "Si"), value))
    return tally


def test_a_scale_that_is_wrong_moves_truth_and_frame_alike():
    right, wrong = (
        adapt_bench.shifted_frames(replace(adapt_bench.SHIFTS["pixel size 4 % wrong"], scale=s),
                                   1, 5)[0]
        for s in (1.0, 1.04)
    )  # fmt: skip
    np.testing.assert_array_equal(right.frame.data, wrong.frame.data)
    np.testing.assert_allclose(wrong.xy, 1.04 * right.xy)
    px = right.frame.calibration.pixel_size_A
    assert wrong.frame.calibration.pixel_size_A == pytest.approx(1.04 * px)


def test_the_share_of_the_counts_lies_where_the_score_crosses():
    # Falls by 0.02 a factor of two, and is 0.95 after three and a half of them.
    crossed = adapt_real.crossing_share(lambda share: 1.02 + 0.02 * np.log2(share))
    assert crossed == pytest.approx(2.0**-3.5, rel=1e-6)


def test_pooled_f1_counts_one_to_one_over_all_frames():
    truth = [np.array([[10.0, 10.0], [50.0, 50.0]]), np.array([[5.0, 5.0]])]
    found = [np.array([[11.0, 10.0], [10.0, 11.0], [90.0, 90.0]]), np.zeros((0, 2))]
    assert adapt_real.pooled_f1(found, truth) == pytest.approx(2 * 1 / (3 + 3))


def test_the_distance_of_a_match_can_be_set():
    xy, true = np.array([[0.0, 0.0]]), np.array([[0.9, 0.0]])
    assert match_truth(xy, true).tolist() == [-1]
    assert match_truth(xy, true, 1.0).tolist() == [0]


def test_a_round_is_timed_and_beside_it_another_tool_on_the_same_frame(monkeypatch, tmp_path):
    """The round itself is timed elsewhere: what is written for AtomAI, and what is said, count."""
    seen, start = [], weights.load_shipped("graphene")
    done = SimpleNamespace(rounds=[SimpleNamespace(seconds=181.0)])
    monkeypatch.setattr(adapt_bench, "adapt", lambda frames, *_: seen.append(frames) or done)

    def tool(python, name, frames, folder, trained, *, members, steps):
        for where, labelled in ((frames, False), (trained / "training", True)):
            (one,) = json.loads((where / "manifest.json").read_text("utf-8"))["frames"]
            assert ("labels" in one) == labelled
            np.testing.assert_array_equal(np.load(where / one["file"]), seen[-1][0].data)
        assert (name, members, steps) == ("AtomAI", start.members, 200)
        return {"train_seconds": 1234.4}

    monkeypatch.setattr(adapt_bench, "run_tool", tool)
    (alone,) = adapt_bench.round_rows(start, None, tmp_path)
    assert (alone["measured"], alone["met"]) == ("181 s", False)
    _, beside = adapt_bench.round_rows(start, tmp_path / "python", tmp_path)
    assert beside["measured"].startswith("1234 s (200 steps a member")
    assert seen[0][0].shape == (512, 512)
