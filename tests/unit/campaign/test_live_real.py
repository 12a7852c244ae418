"""The live loop on a published movie, replayed."""

from collections import Counter

import pytest

from adatom.campaign.live_run import run_live, verify_live
from adatom.store.journal import read_journal


@pytest.mark.realdata
def test_a_trimer_is_followed_in_a_replayed_movie(shared_data, tmp_path):
    movie = shared_data / "graphene_si_movie" / "si3c6_trimer_rotating.tif"
    replayed = {
        "paths": (str(movie),), "frames": ":7", "pixel_size_A": 0.078125, "frames_per_s": 50.0,
    }  # fmt: skip
    lived = run_live("replay", "graphene", tmp_path, instrument_more=replayed)
    assert (lived.status, lived.frames, lived.faults) == ("done", 7, 0)
    lines = read_journal(tmp_path / "decisions.jsonl")
    assert "look" not in {line["action"] for line in lines}  # a movie takes no orders
    seen = [line for line in lines if line["action"] == "seen"]
    assert all(line["elements"]["Si"] == 3 for line in seen)
    kinds = Counter(kind for line in seen for kind, *_ in line["defects"])
    assert kinds["Si3C6"] == 7
    (trimer,) = (q for q in lived.questions if q.kind == "Si3C6")
    assert not trimer.is_open(0.95)
    assert verify_live(tmp_path) == len(lines)
