"""A survey: what it finds, what it spends, and what it must not do."""

from functools import cache, partial

import numpy as np
import pytest

from adatom.analysis.frame import analyse_frame
from adatom.bench.faulty import FaultyMicroscope
from adatom.campaign.survey import survey
from adatom.campaign.twin import make_twin
from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.feedback.survey import SurveyOptions
from adatom.instrument import TwinOptions
from adatom.learning.weights import load_shipped

FIELD = 48.0
OPTIONS = SurveyOptions(field_A=FIELD, anchor_A=14.0)


@cache
def see():
    return partial(analyse_frame, ensemble=load_shipped("graphene"), material=GRAPHENE)


def microscope(seed=2, faults=None, **more):
    options = TwinOptions(
        sheet_A=FIELD + 20, field_of_view_A=FIELD, pixels=300, foreign=2, vacancies=2, counts=4.7,
        drift_A=0.3, **more,
    )  # fmt: skip
    return FaultyMicroscope(make_twin(options, GRAPHENE, seed), faults or {})


def truth(instrument):
    """Kinds of all sites of the twin that are not carbon, by their places in the first frame."""
    twin = instrument._twin
    corner = np.asarray(twin.center_xy_A) - FIELD / 2
    kinds = np.where(~twin.occupied, "", np.where(twin.species == 1, "Si", "C"))
    odd = np.flatnonzero(kinds != "C")
    return {tuple((twin.sites_xy[i] - corner).round(1)): str(kinds[i]) for i in odd}


def test_it_finds_all_with_dose_where_there_is_doubt():
    instrument, lines = microscope(overhead_s=0.1), []
    found = survey(instrument, see(), GRAPHENE, options=OPTIONS, tell=lines.append)
    assert found.status == "done"
    assert found.open_sites == 0
    true = truth(instrument)
    assert len(found.others) == len(true)
    for other in found.others:
        place = min(true, key=lambda xy: np.hypot(*np.subtract(xy, other.xy_A)))
        assert np.hypot(*np.subtract(place, other.xy_A)) < 0.5
        assert other.kind == true[place]
        assert other.p >= 0.95
    per_A2 = found.electrons / FIELD**2
    assert OPTIONS.dose_per_A2 < per_A2 < 2 * OPTIONS.dose_per_A2
    assert max(o.dose_per_A2 for o in found.others) > per_A2
    # Every patch was told before it was scanned.
    told = sum(len(line["patches"]) for line in lines if line["action"] == "visit")
    assert told == found.frames[2]
    assert found.electrons == pytest.approx(instrument.electrons)
    assert not instrument.beam_on


def test_a_uniform_survey_needs_more():
    even = OPTIONS.model_copy(update={"uniform": True, "dose_per_A2": 1e4})
    found = survey(microscope(), see(), GRAPHENE, options=even)
    assert found.status == "done"
    assert found.frames[0] > 2
    assert found.frames[1:] == (0, 0)


@pytest.mark.parametrize("seed", [2, 3])
def test_no_place_gets_more_than_the_limit(seed):
    low = OPTIONS.model_copy(update={"most_dose_per_A2": 2.6e4})
    instrument = microscope(seed)
    found = survey(instrument, see(), GRAPHENE, options=low)
    assert instrument.highest_dose_per_A2 <= 2.6e4
    assert found.status in {"limit", "done"}


def test_a_limit_of_electrons_ends_it():
    poor = OPTIONS.model_copy(update={"most_electrons": 1.001 * 2e4 * FIELD**2})
    instrument = microscope()
    found = survey(instrument, see(), GRAPHENE, options=poor)
    assert found.status == "limit"
    assert instrument.electrons <= poor.most_electrons


def test_nothing_more_is_given_without_approval():
    instrument = microscope()
    found = survey(instrument, see(), GRAPHENE, options=OPTIONS, approve=lambda _: False)
    assert found.status == "stopped"
    assert len(instrument.asked) == 1


def test_faults_are_told_and_the_frame_is_taken_again():
    kinds = ["late", "corrupt", "wrong shape", "doubled", "not finite"]
    faults = {3 * n + 2: kind for n, kind in enumerate(kinds)}
    instrument, lines = microscope(faults=faults), []
    found = survey(instrument, see(), GRAPHENE, options=OPTIONS, tell=lines.append)
    assert found.status == "done"
    assert {line["kind"] for line in lines if line["action"] == "fault"}
    assert instrument.exposed_twice == 0
    gone = microscope(faults={4: "gone"})
    lost = survey(gone, see(), GRAPHENE, options=OPTIONS)
    assert lost.status == "lost"
    assert lost.sites > 0  # what was known is not lost
    assert not gone.beam_on


def test_a_scan_without_a_lattice_is_refused():
    dark = OPTIONS.model_copy(update={"dose_per_A2": 20.0})
    instrument = microscope()
    with pytest.raises(BadInput, match="lattice"):
        survey(instrument, see(), GRAPHENE, options=dark)
    assert not instrument.beam_on
