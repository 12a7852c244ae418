"""The benchmarks themselves: their scores, their bound, their scenes, what they refuse."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from adatom.bench import BENCHMARKS, BenchOptions, adapt_real, run_benchmark
from adatom.bench import adapt as adapt_bench
from adatom.bench.bound import position_bound
from adatom.bench.peers import write_frames
from adatom.bench.sets import SPOT_A, SPOT_PX, Scene, convolution_set
from adatom.core import Calibration, Frame, LabelledFrame
from adatom.errors import BadInput
from adatom.features.calibration.calibrator import match_truth
from adatom.frames.simulate.specimen import Specimen
from adatom.learning import weights
from adatom.training.scores import Tally, ToolResult, f1_within

NONE = np.zeros((0, 2))
IMAGE = np.random.default_rng(0).poisson(5.0, (101, 101)).astype(np.float32)
FRAME = Frame(IMAGE, Calibration(0.2))  # 20 Å
ATOMS = np.array([[4.0, 4.0], [4.0, 10.0], [10.0, 4.0], [10.0, 10.0], [16.0, 16.0]])
TRUTH = LabelledFrame(FRAME, ATOMS, np.array([0, 0, 0, 0, 1]), ("C", "Si"), np.array([[16.0, 4.0]]))


def answer(xy, **more):
    return ToolResult(np.asarray(xy, dtype=float).reshape(-1, 2), **more)


# ---------------------------------------------------------------- scores


def test_a_right_answer_scores_one():
    tally = Tally()
    tally.add(TRUTH, answer(ATOMS, element=np.array(["C"] * 4 + ["Si"]),
                            vacancies_xy=TRUTH.vacancies_xy))  # fmt: skip
    assert [tally.f1(k) for k in ("atom", "Si", "vacancy")] == [1.0, 1.0, 1.0]
    assert tally.rmse_A() == 0.0


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    found = np.concatenate([ATOMS[:3], [[7.0, 7.0]]])  # three of five, and one that is none
    tally = Tally()
    tally.add(TRUTH, answer(found, element=np.array(["C", "C", "Si", "C"])))
    assert tally.precision("atom") == pytest.approx(3 / 4)
    assert tally.recall("atom") == pytest.approx(3 / 5)
    assert tally.f1("atom") == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert (tally.precision("Si"), tally.recall("Si"), tally.f1("Si")) == (0.0, 0.0, 0.0)
    assert np.isnan(tally.f1("vacancy"))  # never asked for
    tally.add(TRUTH, answer(ATOMS, element=np.array(["C"] * 4 + ["Si"])))
    assert tally.f1("atom") == pytest.approx(2 * (8 / 9) * (8 / 10) / (8 / 9 + 8 / 10))
    assert tally.recall("Si") == 0.5


def test_an_atom_found_twice_is_right_once():
    tally = Tally()
    tally.add(TRUTH, answer(np.concatenate([ATOMS, ATOMS + 0.1])))
    assert tally.recall("atom") == 1.0
    assert tally.precision("atom") == 0.5


def test_what_is_not_believed_is_not_counted():
    tally = Tally()
    tally.add(TRUTH, answer(np.concatenate([ATOMS, [[7.0, 7.0]]]),
                            p_exists=np.array([0.9] * 5 + [0.4])))  # fmt: skip
    assert tally.f1("atom") == 1.0


def test_atoms_at_the_border_count_neither_way():
    edge = replace(TRUTH, xy=np.concatenate([ATOMS, [[0.2, 9.0]]]),
                   species=np.array([0, 0, 0, 0, 1, 0]))  # fmt: skip
    missed, invented = Tally(), Tally()
    missed.add(edge, answer(ATOMS))
    invented.add(TRUTH, answer(np.concatenate([ATOMS, [[9.0, 19.9]]])))
    assert missed.f1("atom") == invented.f1("atom") == 1.0
    # But an atom just inside, found just outside, is found.
    near = replace(TRUTH, xy=np.array([[0.52, 9.0]]), species=np.array([0]))
    found = Tally()
    found.add(near, answer([[0.45, 9.0]]))
    assert found.recall("atom") == 1.0


def test_errors_and_coverage_are_per_axis():
    error = np.array([[0.1, 0.0], [0.0, 0.2], [0.0, 0.0], [-0.1, 0.0], [0.0, -0.3]])
    tally = Tally()
    tally.add(TRUTH, answer(ATOMS + error, sigma=np.full((5, 2), 0.11)), np.full((5, 2), 0.05))
    assert tally.rmse_A() == pytest.approx(np.sqrt(0.15 / 10))
    assert tally.bound_A() == pytest.approx(0.05)
    assert tally.coverage(1.0) == pytest.approx(8 / 10)
    assert tally.coverage(2.0) == pytest.approx(9 / 10)
    assert np.isnan(Tally().coverage(1.0))


def test_calibration_error_is_the_gap_between_said_and_true():
    """Atoms said to exist at 0.8 of which half do: a gap of 0.3."""
    found = np.concatenate([ATOMS, ATOMS + [2.5, 0.0]])
    tally = Tally()
    tally.add(TRUTH, answer(found, element=np.array(["C"] * 10), p_exists=np.full(10, 0.8),
                            p_element=np.full(10, 0.9)))  # fmt: skip
    assert tally.calibration_error("p_exists") == pytest.approx(0.3, abs=1e-6)
    # Four of the five right ones are C: said 0.9, true 0.8.
    assert tally.calibration_error("p_element") == pytest.approx(0.1, abs=1e-6)
    fair = Tally()
    fair.add(TRUTH, answer(found, element=np.array(["C"] * 10), p_exists=np.full(10, 0.5),
                           p_element=np.ones(10)))  # fmt: skip
    assert fair.calibration_error("p_exists") == pytest.approx(0.0, abs=1e-6)


# ---------------------------------------------------------------- the bound


def gaussian_scene(places, sigma_A=0.42, *, background, px=0.1, pixels=121):
    places = np.asarray(places, dtype=float).reshape(-1, 2)
    axis = (np.arange(SPOT_PX) - (SPOT_PX - 1) / 2) * SPOT_A
    spot = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * sigma_A**2))
    y, x = np.mgrid[:pixels, :pixels] * px
    image = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma_A**2)) for a, b in places)
    specimen = Specimen(places, np.zeros(len(places), dtype=np.int64), NONE)
    return Scene(image + background, px, specimen, spot)


def test_the_bound_of_one_spot_is_its_width_over_the_root_of_its_counts():
    """Without a background: sigma / sqrt(N), and N is what one count at the peak sums to."""
    counts = 2 * np.pi * (0.42 / 0.1) ** 2
    (bound,) = position_bound(gaussian_scene([[6.03, 5.96]], background=1e-6))
    np.testing.assert_allclose(bound, 0.42 / np.sqrt(counts), rtol=0.03)
    # A bright level: photon noise of the level alone, sqrt(2 B / pi) · px (Ober et al. 2004).
    (bright,) = position_bound(gaussian_scene([[6.03, 5.96]], background=100.0))
    np.testing.assert_allclose(bright, np.sqrt(2 * 100.0 / np.pi) * 0.1, rtol=0.03)


def test_the_bound_of_touching_spots_is_wider_along_their_line():
    alone = position_bound(gaussian_scene([[6.0, 6.0]], background=0.1))[0]
    pair = position_bound(gaussian_scene([[5.4, 6.0], [6.6, 6.0]], background=0.1))
    assert (pair[:, 0] > 1.1 * alone[0]).all()
    assert (pair[:, 0] > 1.1 * pair[:, 1]).all()
    np.testing.assert_allclose(pair[0], pair[1], rtol=0.02)


def test_atoms_beyond_the_border_have_no_bound():
    bound = position_bound(gaussian_scene([[6.0, 6.0], [-0.4, 6.0], [30.0, 6.0]], background=0.1))
    assert np.isfinite(bound[0]).all()
    assert np.isnan(bound[1:]).all()


# ---------------------------------------------------------------- scenes


@pytest.fixture(scope="module")
def scenes():
    return convolution_set(2, pixels=128)


def test_scenes_have_defects_and_their_spot(scenes):
    for scene in scenes:
        assert scene.expected.shape == (128, 128)
        assert (scene.specimen.species == 1).sum() >= 1
        assert len(scene.specimen.vacancies_xy) >= 1
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
    import json

    write_frames(tmp_path / "frames", [TRUTH], labels=True)
    (entry,) = json.loads((tmp_path / "frames" / "manifest.json").read_text())["frames"]
    assert entry["pixel_size_A"] == 0.2
    np.testing.assert_array_equal(np.load(tmp_path / "frames" / entry["file"]), IMAGE)
    labels = np.load(tmp_path / "frames" / entry["labels"])
    np.testing.assert_array_equal(labels[:, :2], ATOMS)
    np.testing.assert_array_equal(labels[:, 2], TRUTH.species)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_an_output_that_exists_is_refused(name, tmp_path):
    with pytest.raises(BadInput, match="new directory"):
        run_benchmark(name, BenchOptions(output=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["movie", "real"])
def test_the_real_ones_need_their_data(name, tmp_path):
    for data in (None, tmp_path):
        with pytest.raises(BadInput, match="--data"):
            run_benchmark(name, BenchOptions(data=data))


@pytest.mark.parametrize("name", ["find", "speed"])
def test_weights_that_are_none_are_refused(name, tmp_path):
    with pytest.raises(BadInput, match="adatom train"):
        run_benchmark(name, BenchOptions(weights=tmp_path / "none.safetensors"))


def test_a_score_of_nothing_is_no_number():
    """A mask that leaves nobody must not read as a perfect score."""
    xy, far = np.array([[2.0, 2.0], [5.0, 5.0]]), np.array([9.0, 9.0])
    assert f1_within(xy, xy, far, 0.5, 0.5) == 1.0
    assert f1_within(xy, xy[:1], far, 0.5, 0.5) == pytest.approx(2 / 3)
    assert f1_within(xy, np.zeros((0, 2)), far, 0.5, 0.5) == 0.0
    nobody = f1_within(xy, xy, far, 0.5, 0.5, keep=lambda p: np.zeros(len(p), dtype=bool))
    assert np.isnan(nobody)


# --- adapt ------------------------------------------------------------------------------------


def test_a_gap_is_closed_by_as_much_as_was_gained():
    rows = adapt_bench._gap_rows("x", [[tally_of(0.5)], [tally_of(0.9)], [tally_of(1.0)]])
    first = rows[0]
    assert "80 % of the gap closed" in first["measured"]
    assert first["met"]
    worse = adapt_bench._gap_rows("x", [[tally_of(0.5)], [tally_of(0.8)], [tally_of(1.0)]])[0]
    assert not worse["met"]
    nothing = adapt_bench._gap_rows("x", [[tally_of(1.0)], [tally_of(0.9)], [tally_of(1.0)]])[0]
    assert nothing["target"] == "no gap: nothing lost"
    assert not nothing["met"]


def test_a_loss_is_held_against_what_frames_make_by_chance():
    before = [tally_of(f) for f in (1.0, 0.9, 1.0, 0.9)]
    alike = [tally_of(f) for f in (0.9, 1.0, 0.9, 0.98)]  # some frames won, some lost
    worse = [tally_of(f) for f in (0.97, 0.87, 0.97, 0.87)]  # all lost
    (atoms, *_) = adapt_bench._gap_rows("x", [before, alike, before])
    assert "0.9500 → 0.9450 ± 0.0550" in atoms["measured"]
    assert atoms["met"]
    (atoms, *_) = adapt_bench._gap_rows("x", [before, worse, before])
    assert "0.9500 → 0.9200 ± 0.0000" in atoms["measured"]
    assert not atoms["met"]
    # The standard error of a mean, which an F1 of equal frames is.
    change = np.array([-0.1, 0.1, -0.1, 0.08])
    assert adapt_bench._chance(before, alike, "atom") == pytest.approx(change.std(ddof=1) / 2)


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
    crossed = adapt_real._crossing(lambda share: 1.02 + 0.02 * np.log2(share))
    assert crossed == pytest.approx(2.0**-3.5, rel=1e-6)


def test_pooled_f1_counts_one_to_one_over_all_frames():
    truth = [np.array([[10.0, 10.0], [50.0, 50.0]]), np.array([[5.0, 5.0]])]
    found = [np.array([[11.0, 10.0], [10.0, 11.0], [90.0, 90.0]]), np.zeros((0, 2))]
    assert adapt_real._pooled_f1(found, truth) == pytest.approx(2 * 1 / (3 + 3))


def test_a_match_may_lie_as_far_as_it_was_said():
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
