"""Simulations beside the live loop: never waited for, recorded when they come, killed and noted."""

import json
import os
import signal
import time
from functools import cache

import pytest

from adatom.analysis.frame import analyse_frame
from adatom.campaign.live import run_loop
from adatom.campaign.live_run import resume_live, run_live, state_of, verify_live
from adatom.campaign.live_simulate import SimulationsBeside, learned
from adatom.campaign.twin import make_twin
from adatom.core import GRAPHENE
from adatom.feedback.live import Knowledge, LiveOptions, Question, decide
from adatom.instrument import TwinOptions
from adatom.learning.weights import load_shipped
from adatom.parallel.beside import Beside
from adatom.store.journal import read_journal


def until(beside, count, longest_s=60.0):
    """Collect events, with a limit that a loop does not have."""
    events, end = [], time.monotonic() + longest_s
    while len(events) < count and time.monotonic() < end:
        events += beside.poll()
        time.sleep(0.02)
    return events


@pytest.fixture
def beside(request):
    made = Beside(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("beside", [time.sleep], indirect=True)
def test_jobs_are_done_in_turn_and_nothing_waits(beside):
    beside.offer("a", 0.2)
    beside.offer("b", 0.0)
    assert beside.poll() == []  # at once, long before the job ends
    events = until(beside, 2)
    assert [(e.what, e.key) for e in events] == [("done", "a"), ("done", "b")]
    assert not beside.busy


@pytest.mark.parametrize("beside", [abs], indirect=True)
def test_results_come_back(beside):
    beside.offer("a", -3)
    assert until(beside, 1)[0].result == 3


@pytest.mark.parametrize("beside", [time.sleep], indirect=True)
def test_a_killed_worker_is_told_and_another_one_does_the_job(beside):
    beside.offer("a", 1.5)
    first = beside.pid
    os.kill(first, signal.SIGKILL)
    events = until(beside, 2)
    assert [(e.what, e.key) for e in events] == [("killed", "a"), ("done", "a")]
    assert beside.pid != first


@pytest.mark.parametrize("beside", [os._exit], indirect=True)
def test_a_job_that_kills_two_workers_is_given_up_and_the_next_begins(beside):
    beside.offer("a", 9)
    beside.offer("b", 9)
    events = until(beside, 4)
    assert [(e.what, e.key) for e in events] == [
        ("killed", "a"), ("given up", "a"), ("killed", "b"), ("given up", "b"),
    ]  # fmt: skip


@pytest.mark.parametrize("beside", [int], indirect=True)
def test_an_error_is_told_in_words(beside):
    beside.offer("a", "x")
    (event,) = until(beside, 1)
    assert event.what == "failed"
    assert event.result.startswith("ValueError: invalid literal")


def test_a_worker_ends_with_the_loop():
    beside = Beside(time.sleep)
    beside.offer("a", 60.0)
    pid = beside.pid
    beside.close()
    assert beside.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@cache
def ensemble():
    return load_shipped("graphene")


def test_a_worker_killed_in_a_run_costs_no_frame_and_the_result_enters_the_record():
    options = LiveOptions(
        field_A=20.0, look_field_A=10.0, frames=400, keep_watching=True, most_electrons=1e12,
        most_dose_per_A2=1e12,
    )  # fmt: skip
    simulations = SimulationsBeside(GRAPHENE, options.sure)
    lines, killed = [], []

    class Enough(KeyboardInterrupt):
        """The user has seen what is wanted."""

    def tell(line):
        lines.append(json.loads(json.dumps(line)))
        if line["action"] == "simulation" and line["what"] == "done":
            raise Enough
        if line["action"] == "seen" and simulations.worker.pid and not killed:
            killed.append(simulations.worker.pid)
            os.kill(killed[0], signal.SIGKILL)

    lived = run_loop(
        make_twin(TwinOptions(), GRAPHENE, 3),
        lambda frame: (analyse_frame(frame, ensemble(), GRAPHENE), "full"),
        GRAPHENE, mode="auto", options=options, tell=tell, simulations=simulations,
    )  # fmt: skip
    told = [line for line in lines if line["action"] == "simulation"]
    assert killed
    assert [line["what"] for line in told[:1]] == ["killed"]
    done = next(line for line in told if line["what"] == "done")
    assert done["kind"] in {"Si1C3", "V1"}
    assert 5.0 < done["result"]["threshold_eV"] < 40.0
    assert done["known"]["simulated"][0][0] == done["kind"]
    assert lived.faults == 0
    assert lived.frames > 1  # frames went on while it was simulated
    assert simulations.worker.pid is None


def test_a_look_stays_below_what_the_simulated_defect_bears():
    open_ = Question("V1", (20.0, 30.0), 1.5, frames=2)
    known = Knowledge(2, 0, 0, 4.0, (24.0, 24.0), (0.5, 0.0), 60.0, (open_,))
    free = decide(known, LiveOptions(), looks=True).request.dose_per_A2
    line = {"what": "done", "kind": "V1", "result": {"dose_limit_per_A2": free / 3}}
    held = decide(learned(known, line), LiveOptions(), looks=True)
    assert held.request.dose_per_A2 == pytest.approx(free / 3)
    assert "displaces" in held.why
    other = learned(known, {**line, "kind": "Si1C3"})
    assert decide(other, LiveOptions(), looks=True).request.dose_per_A2 == free
    failed = learned(known, {"what": "failed", "kind": "V1", "result": {}})
    assert failed.simulated == (("V1", None),)
    assert decide(failed, LiveOptions(), looks=True).request.dose_per_A2 == free


def test_the_record_with_simulations_comes_out_again_and_goes_on(tmp_path):
    options = LiveOptions(field_A=20.0, frames=3, keep_watching=True)
    run_live("twin", "graphene", tmp_path, seed=3, options=options, simulate=True)
    lines = read_journal(tmp_path / "decisions.jsonl")
    assert lines[0]["simulate"]
    # As if an answer had come after the second frame.
    at = [i for i, line in enumerate(lines) if line["action"] == "seen"][1]
    seen = lines[at]
    known = {**seen["known"], "simulated": [["V1", 1e5]]}
    told = {
        "time_s": seen["time_s"], "action": "simulation", "what": "done", "kind": "V1",
        "why": "V1 is simulated", "result": {"dose_limit_per_A2": 1e5}, "known": known,
    }  # fmt: skip
    after = [
        {**line, "known": {**line["known"], "simulated": [["V1", 1e5]]}}
        if "known" in line
        else line
        for line in lines[at + 1 :]
        if line["action"] != "simulation"
    ]
    changed = [*[x for x in lines[: at + 1] if x["action"] != "simulation"], told, *after]
    (tmp_path / "decisions.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in changed), encoding="utf-8"
    )
    assert verify_live(tmp_path) == len(changed)
    assert state_of(changed, options).known.simulated == (("V1", 1e5),)
    assert resume_live(tmp_path).status == "limit"  # three frames were asked for
