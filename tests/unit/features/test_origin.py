"""What made a defect, as probabilities, on movies whose causes are known."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from adatom.campaign.link import beams_on
from adatom.core import GRAPHENE, DefectKind, DefectTable
from adatom.core.tracks import SCHEMA
from adatom.features.histories import SearchedField
from adatom.features.origin import Beam, track_table, with_beam_probability
from adatom.features.tracking import link_defects
from adatom.frames.simulate.moving_sheet import MotionOptions, moving_sheet
from adatom.materials.library import load_material

EXTENT_A, BORDER_A, DOSE = 40.0, 1.5, 1e5
ATOMS = (EXTENT_A - 2 * BORDER_A) ** 2 / GRAPHENE.site_area_A2


def told(rows, *, frames=10, drift=None, beam=None, extent=EXTENT_A):
    """Tracks of rows (frame, kind, x, y)."""
    drift = drift or dict.fromkeys(range(frames), (0.0, 0.0))
    parts = [
        DefectTable.build(
            frame=f, kinds=[DefectKind.parse(r[1]) for r in rows if r[0] == f],
            xy=np.array([r[2:] for r in rows if r[0] == f]).reshape(-1, 2),
            p=[0.97] * sum(r[0] == f for r in rows), atoms=[[]] * sum(r[0] == f for r in rows),
        )
        for f in sorted({r[0] for r in rows})
    ]  # fmt: skip
    linked = link_defects(
        DefectTable.concat(parts), drift, frames=range(frames), extent_xy_A=(extent, extent),
        border_A=BORDER_A,
    )  # fmt: skip
    moved = np.array([drift[f] for f in range(frames)])
    searched = SearchedField(np.arange(frames), moved, (extent, extent), BORDER_A)
    return linked, track_table(linked, searched, GRAPHENE, [] if beam is None else [beam])


def strong(events):
    """A beam that makes so many vacancies in the field in a frame."""
    return Beam("C", np.array([events / ATOMS / DOSE]), DOSE)


def test_a_vacancy_of_the_first_frame_was_there_and_a_late_one_was_made():
    rows = [(f, "V1", 20.0, 20.0) for f in range(10)] + [
        (f, "V1", 10.0, 10.0) for f in range(6, 10)
    ]
    linked, tracks = told(rows, beam=strong(0.05))
    assert tracks.schema == SCHEMA
    first, late = tracks.iter_rows(named=True)
    assert first["p_before"] > 0.9
    assert late["p_before"] < 0.01
    assert late["p_came_in"] == 0.0
    for row in (first, late):
        total = row["p_before"] + row["p_came_in"] + row["p_beam"] + row["p_unknown"]
        assert total == pytest.approx(1.0)
    # The stronger the beam, the likelier it was the beam.
    shares = [told(rows, beam=strong(s))[1]["p_beam"][1] for s in (1e-4, 0.05, 0.3)]
    assert shares[0] < 0.05 < 0.3 < shares[1] < shares[2]
    assert "in view in 6 frames before frame 6 without it" in late["reason"]
    filled = with_beam_probability(linked, tracks).data
    assert filled["p_beam_induced"].null_count() == 0
    assert filled.filter(filled["track"] == 1)["p_beam_induced"].n_unique() == 1


def test_a_vacancy_that_the_drift_brought_in_came_into_the_field():
    drift = {f: (1.0 * f, 0.0) for f in range(10)}
    rows = [(f, "V1", -4.0 + f, 20.0) for f in range(6, 10)]
    _, tracks = told(rows, drift=drift, beam=strong(1e-3))
    (row,) = tracks.iter_rows(named=True)
    assert row["p_came_in"] > 0.8
    assert "The drift brought its place into view before frame 6" in row["reason"]


def test_what_is_often_missed_may_have_been_there_before():
    seen = (3, 6, 9)
    _, tracks = told([(f, "V1", 20.0, 20.0) for f in seen], beam=strong(1e-3))
    sure = told([(f, "V1", 20.0, 20.0) for f in range(3, 10)], beam=strong(1e-3))[1]
    assert tracks["p_before"][0] > 5 * sure["p_before"][0]


def test_the_beam_brings_no_silicon_and_unknown_kinds_stay_open():
    _, tracks = told([(f, "Si1C3", 20.0, 20.0) for f in range(5, 10)], beam=strong(1.0))
    assert tracks["p_beam"][0] == 0.0
    assert "displaces C, which does not make it" in tracks["reason"][0]
    _, tracks = told([(f, "Stone-Wales", 20.0, 20.0) for f in range(5, 10)], beam=strong(1.0))
    assert tracks["p_beam"][0] is None
    _, tracks = told([(f, "V1", 20.0, 20.0) for f in range(5, 10)], beam=None)
    assert tracks["p_beam"][0] is None
    assert "no threshold" in tracks["reason"][0]


def test_without_a_dose_decades_of_it_are_allowed_for():
    beam = Beam("C", np.array([1e-10]), None)
    p = told([(f, "V1", 20.0, 20.0) for f in range(5, 10)], beam=beam)[1]["p_beam"][0]
    assert 0.01 < p < 0.9


def test_causes_of_simulated_vacancies_are_told_apart():
    """Movies with vacancies of before, of the beam and of heat; half of them with little dose."""
    is_beam, p_beam, was_there, p_there = [], [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        by_beam, by_heat = (0.15, 0.004) if seed % 2 else (0.004, 0.06)
        options = MotionOptions(
            frames=20, extent_A=EXTENT_A, foreign=0, vacancies=2, knocked_out=by_beam,
            evaporated=by_heat, velocity_xy_A=(0.4, 0.2),
        )  # fmt: skip
        movie = moving_sheet(GRAPHENE, options, rng)
        rows, truth = [], {}
        for frame in movie.frames:
            for xy, number in zip(frame.vacancies_xy, frame.vacancies, strict=True):
                inside = (xy > BORDER_A).all() and (xy < EXTENT_A - BORDER_A).all()
                if inside and rng.random() < 0.95:
                    at = xy + rng.normal(0.0, 0.1, 2)
                    rows.append((frame.number, "V1", *at))
                    truth[frame.number, round(at[0], 6)] = movie.causes[number]
        drift = {f.number: tuple(f.drift_xy_A) for f in movie.frames}
        linked, tracks = told(rows, frames=20, drift=drift, beam=strong(by_beam))
        firsts = linked.data.unique("track", keep="first", maintain_order=True)
        cause = {
            r["track"]: truth[r["frame"], round(r["x_A"], 6)] for r in firsts.iter_rows(named=True)
        }
        for row in tracks.iter_rows(named=True):
            is_beam.append(cause[row["track"]] == "beam")
            p_beam.append(row["p_beam"])
            was_there.append(cause[row["track"]] == "before")
            p_there.append(row["p_before"] + row["p_came_in"])
    assert sum(is_beam) > 30
    assert roc_auc_score(is_beam, p_beam) >= 0.9
    assert roc_auc_score(was_there, p_there) >= 0.95
    for true, told_p in ((is_beam, p_beam), (was_there, p_there)):
        hit, p = np.array(true, dtype=float), np.array(told_p)
        place = np.minimum((p * 5).astype(int), 4)
        gaps = [abs((hit - p)[place == k].sum()) for k in range(5)]
        assert sum(gaps) / len(p) < 0.1


def test_each_element_of_a_compound_has_its_own_beam():
    """In h-BN the threshold of B says nothing of a vacancy of N, and the other way round."""
    h_bn = load_material("h-BN")
    rows = [(f, kind, x, 20.0) for kind, x in (("vac_B", 12.0), ("vac_N", 28.0)) for f in (4, 5)]
    parts = [
        DefectTable.build(
            frame=f, kinds=[DefectKind.parse(r[1]) for r in rows if r[0] == f],
            xy=np.array([r[2:] for r in rows if r[0] == f]), p=[0.97] * 2, atoms=[[], []],
        )
        for f in (4, 5)
    ]  # fmt: skip
    still = dict.fromkeys(range(6), (0.0, 0.0))
    linked = link_defects(
        DefectTable.concat(parts), still, frames=range(6), extent_xy_A=(EXTENT_A, EXTENT_A),
        border_A=BORDER_A,
    )  # fmt: skip
    searched = SearchedField(np.arange(6), np.zeros((6, 2)), (EXTENT_A, EXTENT_A), BORDER_A)
    beams = beams_on(h_bn, 80.0, 1e5)
    assert [beam.element for beam in beams] == ["B", "N"]
    told = track_table(linked, searched, h_bn, beams)
    assert not [r for r in told["reason"] if "does not make it" in r]
    p = dict(zip(told["kind"], told["p_beam"], strict=True))
    assert p["vac_B"] > p["vac_N"] > 0.0
