"""Moving an atom on the simulated microscope: limits, approval, records, faults."""

import json
from functools import partial

import numpy as np
import pytest

from adatom.analysis.frame import analyse_frame
from adatom.campaign.instrument_options import instrument_options
from adatom.campaign.move import move_atoms
from adatom.campaign.move_run import run_move
from adatom.campaign.twin import make_twin
from adatom.core import GRAPHENE
from adatom.errors import BadInput, NoFrame
from adatom.feedback.moving import MoveOptions
from adatom.feedback.plans import Along, Away, Together, Vacancy
from adatom.instrument import TwinOptions, find_instrument
from adatom.instrument.twin_options import PUBLISHED_HOPS_A2
from adatom.learning.weights import load_shipped

FAST = TwinOptions(
    hop_cross_section_A2=20 * PUBLISHED_HOPS_A2, vacancies=0, drift_A=0.05, overhead_s=0.1
)


@pytest.fixture(scope="module")
def see():
    return partial(analyse_frame, ensemble=load_shipped("graphene"), material=GRAPHENE)


def next_site(twin):
    """Displacement of the Si to one of its neighbours, Å."""
    si = int(np.flatnonzero(twin.species)[0])
    off = twin.sites_xy - twin.sites_xy[si]
    near = np.argsort(np.linalg.norm(off, axis=1))[1]
    return int(near), (float(off[near, 0]), float(off[near, 1]))


@pytest.mark.parametrize("traces", [True, False])
def test_silicon_goes_where_it_is_sent_with_and_without_a_signal(see, traces):
    twin = make_twin(FAST.model_copy(update={"traces": traces}), GRAPHENE, 11)
    goal, by = next_site(twin)
    decisions = []
    moved = move_atoms(twin, see, GRAPHENE, Along([by]), tell=decisions.append)
    assert moved.status == "done"
    assert np.flatnonzero(twin.species).tolist() == [goal]
    assert moved.looks == twin.taken
    assert moved.seconds == pytest.approx(twin.time_s)
    assert len(moved.path_xy_A) == 1 + len(twin.hops)
    jumps = [d for d in decisions if d["action"] == "jump"]
    assert len(jumps) == len(twin.hops)
    if traces:  # the jump is known when it happens, not when a frame shows it
        assert abs(jumps[0]["time_s"] - twin.hops[0].time_s) < 0.03


def test_limits_end_a_move_before_they_are_exceeded(see):
    twin = make_twin(FAST.model_copy(update={"hop_cross_section_A2": 0.0}), GRAPHENE, 11)
    _, by = next_site(twin)
    moved = move_atoms(twin, see, GRAPHENE, Along([by]), options=MoveOptions(longest_s=2.0))
    assert moved.status == "given up"
    assert twin.time_s <= 2.0 + FAST.overhead_s
    assert moved.rate < 1.0
    twin = make_twin(FAST, GRAPHENE, 12)
    one_frame = 24.0**2 * 1e5
    options = MoveOptions(most_electrons=1.2 * one_frame)
    moved = move_atoms(twin, see, GRAPHENE, Along([next_site(twin)[1]] * 9), options=options)
    assert moved.electrons <= 1.2 * one_frame
    assert moved.status == (
        "given up" if moved.path_xy_A[-1] == moved.path_xy_A[0] else "done"
    ) or ("electrons" in moved.reason)


def test_nothing_is_moved_without_approval(see):
    twin = make_twin(FAST, GRAPHENE, 11)
    asked = []

    def no(words):
        asked.append(words)
        return False

    moved = move_atoms(twin, see, GRAPHENE, Along([next_site(twin)[1]]), approve=no)
    assert moved.status == "stopped"
    assert len(moved.trace) == 0
    assert len(asked) == 1
    assert "park the beam at (" in asked[0]


@pytest.mark.parametrize(
    ("change", "by", "words"),
    [
        ({"foreign": 0}, (1.4, 0.0), "none of them surely Si"),
        ({}, (30.0, 0.0), "a lattice site within 0.7 Å"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_moves(see, change, by, words):
    twin = make_twin(FAST.model_copy(update=change), GRAPHENE, 11)
    with pytest.raises(BadInput, match=words):
        move_atoms(twin, see, GRAPHENE, Along([by]))
    assert not twin.hops
    assert twin.taken == (
        3 if change else 1
    )  # one frame may miss a Si that jumps while it is taken


def test_another_voltage_and_an_instrument_that_only_scans_are_refused(see):
    twin = make_twin(FAST, GRAPHENE, 11)
    with pytest.raises(BadInput, match="80 to 90 kV"):
        move_atoms(
            twin, see, GRAPHENE, Along([(1.4, 0)]), options=MoveOptions(voltage_kV=(80.0, 90.0))
        )
    assert twin.taken == 0


def test_an_instrument_that_fails_leaves_the_beam_off_and_the_reason_is_said(see):
    twin = make_twin(FAST, GRAPHENE, 11)
    ended = []

    def lost(request, stop_when=None):
        raise ConnectionError("the scan unit does not answer")

    twin.place_beam = lost
    twin.abort = lambda: ended.append(twin.time_s)
    moved = move_atoms(twin, see, GRAPHENE, Along([next_site(twin)[1]]))
    assert moved.status == "given up"
    assert "the scan unit does not answer" in moved.reason
    assert set(ended) == {twin.time_s}


def test_frames_that_cannot_be_used_are_taken_again_and_their_dose_counts(see):
    twin = make_twin(FAST, GRAPHENE, 11)
    told, acquire = [], twin.acquire

    def faulty(request):
        if twin.taken == 0:
            twin.taken = 1
            raise NoFrame("frame", expected="one", got="none", todo="Wait.")
        return acquire(request)

    twin.acquire = faulty
    moved = move_atoms(twin, see, GRAPHENE, Along([next_site(twin)[1]]), tell=told.append)
    assert moved.status == "done"
    assert [line["action"] for line in told[:3]] == ["look", "fault", "look"]
    dwelt = sum(d.trace.dwell_s for d in moved.dwells) * twin.conditions.electrons_per_s
    looks = sum(s.request.dose_per_A2 * s.request.field_of_view_A**2 for s in moved.frames)
    first = moved.frames[0].request
    lost = first.dose_per_A2 * first.field_of_view_A**2
    assert moved.electrons == pytest.approx(dwelt + looks + lost)


def test_every_decision_is_on_the_disk_and_no_record_is_overwritten(tmp_path):
    options = tmp_path / "twin.toml"
    options.write_text("vacancies = 0\nhop_cross_section_A2 = 2.8e-8\ndrift_A = 0.05\n")
    _, by = next_site(make_twin(TwinOptions(vacancies=0), GRAPHENE, 11))
    run = partial(
        run_move, "twin", GRAPHENE, directory=tmp_path / "move", approve=lambda _: True, seed=11,
        instrument_options=instrument_options(find_instrument("twin"), options),
        options=MoveOptions(last_frames=2),
    )  # fmt: skip
    moved = run(Along([by]))
    lines = (tmp_path / "move" / "decisions.jsonl").read_text().splitlines()
    decisions = [json.loads(line) for line in lines]
    assert [d["action"] for d in decisions[:4]] == ["look", "seen", "plan", "park"]
    assert decisions[-1] == {**decisions[-1], "action": "end", "status": moved.status}
    result = json.loads((tmp_path / "move" / "move.json").read_text())
    assert result["frames"] == sum(d["action"] == "look" for d in decisions)
    assert (tmp_path / "move" / "move.png").stat().st_size > 20_000
    assert len(list((tmp_path / "move" / "frames").iterdir())) == moved.looks
    with np.load(tmp_path / "move" / "after-the-move.npz") as after:
        np.testing.assert_array_equal(after["frames"][1], moved.frames[-1].frame.data)
    with pytest.raises(BadInput, match="earlier record"):
        run(Along([by]))
    assert (tmp_path / "move" / "decisions.jsonl").read_text().splitlines() == lines
    # The film shows what was: each frame, each jump, and the beam beside the atom all the time.
    film = json.loads((tmp_path / "move" / "film.json").read_text())
    assert len(film["frames"]) == moved.looks
    assert [d[1] for d in film["decisions"]] == [d["action"] for d in decisions]
    beam = np.column_stack([film["signal"]["x"], film["signal"]["y"]])
    goal = np.array(moved.path_xy_A[-1])
    assert np.linalg.norm(beam - goal, axis=1).max() < 0.5
    dwelt = sum(d.trace.dwell_s for d in moved.dwells)
    assert len(film["signal"]["c"]) * film["signal"]["step"] == pytest.approx(dwelt, rel=0.1)
    page = (tmp_path / "move" / "report.html").read_text()
    assert "film-data" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_silicon_goes_two_sites_away_to_where_the_crystal_is_perfect(see):
    twin = make_twin(FAST.model_copy(update={"vacancies": 1}), GRAPHENE, 14)
    start = int(np.flatnonzero(twin.species)[0])
    moved = move_atoms(twin, see, GRAPHENE, Away(2))
    (end,) = np.flatnonzero(twin.species)
    assert moved.status == "done"
    assert np.linalg.norm(twin.sites_xy[end] - twin.sites_xy[start]) == pytest.approx(2.46, abs=0.1)
    empty = twin.sites_xy[~twin.occupied][0]
    assert np.linalg.norm(twin.sites_xy[end] - empty) > 2.0


def test_two_silicon_atoms_are_brought_together(see):
    twin = make_twin(FAST.model_copy(update={"foreign": 2}), GRAPHENE, 21)
    before = twin.sites_xy[np.flatnonzero(twin.species)]
    assert np.linalg.norm(before[0] - before[1]) > 4.0
    moved = move_atoms(twin, see, GRAPHENE, Together())
    one, other = twin.sites_xy[np.flatnonzero(twin.species)]
    assert moved.status == "done"
    assert np.linalg.norm(one - other) == pytest.approx(1.42, abs=0.02)
    assert sum(len(path) - 1 for path in moved.paths_xy_A) >= 2


def test_one_atom_cannot_be_brought_together(see):
    twin = make_twin(FAST, GRAPHENE, 11)
    with pytest.raises(BadInput, match="two of the same element"):
        move_atoms(twin, see, GRAPHENE, Together())
    assert not twin.hops


def test_an_atom_that_is_knocked_out_closes_its_site_and_the_reason_is_said(see):
    twin = make_twin(FAST.model_copy(update={"hop_cross_section_A2": 0.0}), GRAPHENE, 11)
    goal, by = next_site(twin)
    told, park = [], twin.place_beam

    def knocked(request, stop_when=None):
        twin.occupied[goal] = False
        return park(request, stop_when)

    twin.place_beam = knocked
    moved = move_atoms(twin, see, GRAPHENE, Along([by]), tell=told.append)
    assert moved.status == "given up"
    assert "no way is left" in moved.reason
    (lost,) = (line for line in told if line["action"] == "lost")
    si = twin.sites_xy[np.flatnonzero(twin.species)[0]]
    np.testing.assert_allclose(lost["xy_A"][0] - si, by, atol=0.15)
    assert moved.seconds < 3.0  # the signal told that something is wrong, long before the limit


def test_one_atom_is_knocked_out_where_it_is_asked_for_and_the_signal_tells(see):
    options = TwinOptions(voltage_kV=100.0, vacancies=0, foreign=0, drift_A=0.05, overhead_s=0.1)
    twin, told = make_twin(options, GRAPHENE, 5), []
    at = (2.0, -1.0)
    target = np.add(twin.center_xy_A, at)
    wanted = int(np.argmin(np.linalg.norm(twin.sites_xy - target, axis=1)))
    moved = move_atoms(twin, see, GRAPHENE, Vacancy(at), tell=told.append)
    assert moved.status == "done"
    assert not twin.occupied[wanted]
    when = [lost.time_s for lost in twin.lost if lost.site == wanted]
    (line,) = (t for t in told if t["action"] == "knocked")
    assert 0 <= line["time_s"] - when[0] < 0.03  # a few time slices
    np.testing.assert_allclose(moved.path_xy_A[0], twin.sites_xy[wanted], atol=0.1)


def test_a_vacancy_is_refused_where_the_voltage_does_not_make_it(see):
    twin = make_twin(FAST, GRAPHENE, 11)
    with pytest.raises(BadInput, match=r"21.5 eV are needed.*60 kV.*Set 100 kV"):
        move_atoms(twin, see, GRAPHENE, Vacancy((1.0, 1.0)))
    assert twin.taken == 0
