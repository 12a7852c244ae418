"""The live loop: what it finds, what it must not do, its record, and its faults."""

import contextlib
import json
import signal
import threading
from functools import cache

import numpy as np
import pytest

from adatom.analysis.frame import analyse_frame
from adatom.bench.faulty import KINDS, FaultyMicroscope
from adatom.campaign.folder import FOLDER, FolderOptions
from adatom.campaign.live import State, run_loop
from adatom.campaign.live_learn import Learner
from adatom.campaign.live_run import resume_live, run_live, state_of, verify_live
from adatom.campaign.twin import make_twin
from adatom.core import GRAPHENE, ScanRequest
from adatom.errors import BadInput, StepFailed
from adatom.feedback.dose_budget import DoseBudget
from adatom.feedback.live import Knowledge, LiveOptions, Question
from adatom.instrument import TwinOptions
from adatom.learning.weights import load_shipped
from adatom.store.journal import read_journal

SMALL = LiveOptions(field_A=14.0, look_field_A=10.0, longest_frame_s=2.0)


@cache
def ensemble():
    return load_shipped("graphene")


def see(frame):
    return analyse_frame(frame, ensemble(), GRAPHENE), "full"


def faulty(faults=None, seed=1, **options):
    options = {"field_of_view_A": 14.0, "pixels": 112, **options}
    return FaultyMicroscope(make_twin(TwinOptions(**options), GRAPHENE, seed), faults or {})


def loop(microscope, mode="auto", options=SMALL, **more):
    lines = []
    tell = more.pop("tell", lines.append)
    lived = run_loop(microscope, see, GRAPHENE, mode=mode, options=options, tell=tell, **more)
    return lived, lines


def test_it_answers_every_question_with_looks_where_they_are_open():
    microscope = faulty(seed=3, field_of_view_A=20.0, pixels=160)
    options = LiveOptions(field_A=20.0)
    lived, lines = loop(microscope, options=options)
    assert lived.status == "done"
    kinds = sorted(q.kind for q in lived.questions if q.log_odds > 3)
    assert kinds == ["Si1C3", "V1"]  # what the twin was made with
    looks = [line for line in lines if line["action"] == "look"]
    assert all(line["request"]["field_of_view_A"] == options.look_field_A for line in looks)
    assert not microscope.beam_on


@pytest.mark.parametrize("limit", ["most_electrons", "most_dose_per_A2", "longest_s", "frames"])
def test_no_limit_is_exceeded(limit):
    value = {"most_electrons": 5e7, "most_dose_per_A2": 1.9e5, "longest_s": 0.3, "frames": 4}[limit]
    options = SMALL.model_copy(update={limit: value, "keep_watching": True})
    microscope = faulty()
    lived, _ = loop(microscope, options=options)
    assert lived.status == "limit"
    assert microscope.electrons == pytest.approx(lived.electrons)
    assert microscope.electrons <= options.most_electrons
    assert microscope.highest_dose_per_A2 <= options.most_dose_per_A2
    assert len(microscope.asked) == (4 if limit == "frames" else len(microscope.asked)) > 0


@pytest.mark.parametrize("fault", KINDS)
def test_a_fault_turns_the_beam_off_is_told_and_the_loop_goes_on(fault):
    microscope = faulty({1: fault})
    options = SMALL.model_copy(update={"frames": 3, "keep_watching": True, "longest_frame_s": 0.5})
    lived, lines = loop(microscope, options=options)
    assert not microscope.beam_on
    assert microscope.exposed_twice == 0
    if fault.startswith("clock"):
        assert [x for x in lines if x["action"] == "clock"]
        assert lived.seconds < 100
        return
    told = [line for line in lines if line["action"] == "fault"]
    assert len(told) == 1
    if fault == "gone":
        assert lived.status == "lost"
    else:
        assert (lived.status, lived.frames) == ("limit", 3)


def test_an_analysis_that_fails_is_a_fault_and_many_in_a_row_end_the_run():
    microscope = faulty()

    def broken(frame):
        raise ZeroDivisionError("no atoms")

    lived = run_loop(microscope, broken, GRAPHENE, mode="auto", options=SMALL)
    assert (lived.status, lived.faults) == ("lost", SMALL.most_faults)
    assert not microscope.beam_on


def test_watch_only_says_and_confirm_asks():
    options = SMALL.model_copy(update={"frames": 3, "dose_per_A2": 1.5e4})
    lived, lines = loop(faulty(seed=5), mode="watch", options=options)
    actions = {line["action"] for line in lines}
    assert "look" not in actions
    assert "advise" in actions
    asked = []
    lived, lines = loop(faulty(seed=5), mode="confirm", options=options, approve=asked.append)
    assert lived.frames == 3
    assert asked
    assert "look" not in {line["action"] for line in lines}


def test_what_an_instrument_cannot_do_is_said_before_it_scans():
    microscope = faulty()
    with pytest.raises(BadInput, match="field of view"):
        loop(microscope, options=LiveOptions(field_A=80.0))
    assert not microscope.asked


def test_a_run_that_cannot_be_leaves_no_record(tmp_path):
    with pytest.raises(BadInput, match="field of view"):
        run_live("twin", "graphene", tmp_path, options=LiveOptions(field_A=80.0))
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_cleanly(tmp_path):
    microscope = faulty()

    def stop(line):
        if line["action"] == "frame" and line["n"] == 1:
            threading.Timer(0.01, signal.raise_signal, [signal.SIGINT]).start()

    lived, _ = loop(microscope, options=SMALL.model_copy(update={"keep_watching": True}), tell=stop)
    assert lived.status == "stopped"
    assert not microscope.beam_on


def test_ctrl_c_that_a_library_swallows_ends_it_too():
    microscope = faulty()

    def swallow(line):
        if line["action"] == "seen":
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    options = SMALL.model_copy(update={"keep_watching": True})
    lived, _ = loop(microscope, options=options, tell=swallow)
    assert (lived.status, lived.frames) == ("stopped", 1)
    assert not microscope.beam_on


def test_the_record_comes_out_again_and_a_changed_one_does_not(tmp_path):
    options = LiveOptions(frames=4, field_A=16.0)
    run_live("twin", "graphene", tmp_path, seed=2, options=options)
    record = tmp_path / "decisions.jsonl"
    lines = record.read_text().splitlines()
    assert verify_live(tmp_path) == len(lines)
    with pytest.raises(BadInput, match="earlier record"):
        run_live("twin", "graphene", tmp_path, seed=2, options=options)
    seen = next(i for i, line in enumerate(lines) if '"seen"' in line)
    changed = json.loads(lines[seen])
    changed["atoms"] += 1
    record.write_text("\n".join([*lines[:seen], json.dumps(changed), *lines[seen + 1 :]]) + "\n")
    with pytest.raises(StepFailed, match="as recorded"):
        verify_live(tmp_path)


def test_a_killed_run_goes_on_and_what_it_spent_is_spent(tmp_path):
    options = LiveOptions(frames=3, field_A=16.0, keep_watching=True)
    first = run_live("twin", "graphene", tmp_path, seed=2, options=options)
    record = tmp_path / "decisions.jsonl"
    lines = record.read_text().splitlines()
    asked = next(i for i, line in enumerate(lines) if '"request"' in line and '"n": 2' in line)
    record.write_text("\n".join(lines[: asked + 1]) + '\n{"time_s": 3.0, "act')  # killed here
    state = state_of(read_journal(record), options)
    assert state.budget.electrons == pytest.approx(first.electrons)  # the lost frame, too
    assert (state.known.frames, state.acts) == (2, 3)
    second = resume_live(tmp_path)
    assert second.frames == 3
    assert second.electrons > first.electrons
    assert verify_live(tmp_path) == len(read_journal(record))


def test_a_resumed_run_begins_with_its_budget():
    budget = DoseBudget(1e9, 1e5, electrons=0.999e9)
    lived, _ = loop(faulty(), start=State(None, budget))
    assert (lived.status, lived.frames) == ("limit", 0)


def test_the_budget_is_never_below_the_dose_of_a_place():
    rng = np.random.default_rng(0)
    budget, true = DoseBudget(1e99, 1e99), np.zeros((400, 400))
    from adatom.core import ScanRequest

    for _ in range(60):
        (x, y), edge = rng.uniform(20, 60, 2), float(rng.uniform(4, 20))
        request = ScanRequest((float(x), float(y)), edge, 64, float(rng.uniform(1, 5)))
        low, high = ([int((v + s * edge / 2) / 0.2) for v in (x, y)] for s in (-1, 1))
        budget.spend(request, (0.0, 0.0))
        true[low[1] : high[1], low[0] : high[0]] += request.dose_per_A2
        worst = true[low[1] : high[1], low[0] : high[0]].max()
        assert budget.highest(request, (0.0, 0.0)) >= worst - 1e-9


def test_a_frame_in_which_no_lattice_is_found_speaks_against_nothing():
    open_ = Question("V1", (7.0, 7.0), 2.0)
    known = Knowledge(4, 2, 0, 1.0, (7.0, 7.0), (0.3, 0.0), 60.0, (open_,))
    learner = Learner(GRAPHENE, SMALL, known)
    request = ScanRequest((7.0, 7.0), 14.0, 112, 20.0, 60.0)  # 0.3 electrons a pixel
    microscope = make_twin(TwinOptions(field_of_view_A=14.0, pixels=112), GRAPHENE, 1)
    result, _ = see(microscope.acquire(request))
    assert result.lattice is None
    seen = learner.learn(result, request, looked=False)
    assert not seen["lattice"]
    assert learner.known.questions == (open_,)
    assert learner.known.scans_settled == 0  # it does not say that nothing is open
    assert learner.known.drift_xy_A == known.drift_xy_A


def test_a_pause_of_who_takes_the_frames_ends_nothing(tmp_path):
    waited = FolderOptions(path=str(tmp_path), pixel_size_A=0.1, longest_wait_s=0.05, poll_s=0.01)
    options = SMALL.model_copy(update={"longest_s": 1.0, "keep_watching": True})
    lived, lines = loop(FOLDER.open(waited, GRAPHENE), mode="watch", options=options)
    late = [line for line in lines if line["action"] == "fault"]
    assert len(late) > options.most_faults
    assert {line["kind"] for line in late} == {"late"}
    assert lived.status == "limit"


def test_a_frame_whose_asker_was_killed_is_not_doubled():
    microscope = faulty({2: "doubled"})
    request = ScanRequest((20.0, 20.0), 12.0, 96, 5e4)
    first = microscope.acquire(request)
    microscope.acquire(request)
    microscope.withhold()
    assert microscope.acquire(request) is first
