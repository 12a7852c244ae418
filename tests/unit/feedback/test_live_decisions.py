"""Decisions of the live loop: what a frame answers, which one is next, and when to stop."""

from dataclasses import replace

import pytest

from adatom.feedback.live import Knowledge, LiveOptions, Question, answered, decide

LOW, HIGH = (0.0, 0.0), (40.0, 40.0)
KNOWN = Knowledge(3, 0, 0, 5.0, (20.0, 20.0), (1.0, -0.5), 60.0, ())


def after(questions, *found):
    return answered(questions, found, LOW, HIGH)


def test_frames_that_agree_answer_a_question_and_one_frame_alone_does_not_decide_for_ever():
    one = after((), ("V1", (9.0, 9.0), 0.999999))
    assert one[0].log_odds == 4.0  # what one frame may add
    assert not one[0].is_open(0.95)
    against = one
    for _ in range(3):
        against = after(against)
    assert against[0].log_odds < -1  # three frames without it


@pytest.mark.parametrize(
    ("kind", "found", "sign"),
    [
        ("V1", ("atom", (9.1, 9.0), 0.9), -1),
        ("vac_S2", ("atom", (9.1, 9.0), 0.9), -1),
        ("V_Mo", ("atom", (9.1, 9.0), 0.9), -1),  # vanadium: an atom says nothing of its kind
        ("Si1C3", ("Si1C3", (9.1, 9.0), 0.9), 1),
        ("atom", ("atom", (9.1, 9.0), 0.9), 1),
        ("atom", ("V1", (9.1, 9.0), 0.9), 1),  # becomes a vacancy, with what spoke against the atom
    ],
)
def test_what_is_found_speaks_for_or_against(kind, found, sign):
    start = Question(kind, (9.0, 9.0), -1.0 if found[0] == "V1" else 0.0)
    (told,) = after((start,), found)
    assert (told.log_odds - start.log_odds) * sign > 0
    if kind == "V_Mo":
        assert told.log_odds == -2.0  # as not seen, and not as a vacancy that is filled
    if found[0] == "V1":
        assert told.kind == "V1"


def test_a_place_outside_the_frame_is_not_answered():
    old = Question("V1", (60.0, 9.0), 1.0)
    assert after((old,)) == (old,)


def test_a_look_goes_where_the_drift_has_taken_the_place():
    open_ = Question("V1", (10.0, 12.0), 1.0, frames=2)
    decision = decide(replace(KNOWN, questions=(open_,)), LiveOptions(), looks=True)
    assert decision.action == "look"
    assert decision.request.center_xy_A == (11.0, 11.5)
    assert decision.request.dose_per_A2 == pytest.approx(5e4 * (2.944 - 1.0) / 0.5, rel=1e-3)
    scan = decide(replace(KNOWN, questions=(open_,), looked=True), LiveOptions(), looks=True)
    assert scan.action == "scan"
    assert scan.request.center_xy_A == (21.0, 19.5)


def test_a_refused_question_waits_for_the_others():
    asked = Question("V1", (10.0, 12.0), 2.5, asked=1)
    other = Question("Si1C3", (20.0, 12.0), 0.5)
    decision = decide(replace(KNOWN, questions=(asked, other)), LiveOptions(), looks=True)
    assert decision.question == other.xy_A


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scans_settled": 3}, "leave nothing open"),
        ({"faults": 5}, "faults in a row"),
        ({"seconds": 3600.0}, "limit of 3600 s"),
        ({"frames": 9}, "9 frames"),
    ],
)
def test_it_stops(change, words):
    decision = decide(replace(KNOWN, **change), LiveOptions(frames=9), looks=True)
    assert decision.action == "stop"
    assert words in decision.why
