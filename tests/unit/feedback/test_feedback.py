"""Feedback: the advice follows from the uncertainty, and says what it costs."""

from __future__ import annotations

import json
import math

import ase
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adatom.core import AtomTable, Calibration, DefectTable, SimulationResult
from adatom.core.defects import SCHEMA
from adatom.errors import BadInput
from adatom.feedback import (
    AdviceOptions,
    ManipulateOptions,
    advice_to_json,
    advise,
    advise_jumps,
    choose_voltage,
    element_entropy,
    energy_spread,
    existence_entropy,
    missing_position_nats,
    plan_jump,
    position_gain,
    score_defects,
    score_disagreement,
)

BOND = 1.42
DAMAGE = {60.0: (1e-6, 1e-6), 80.0: (1e-3, 2e-3), 100.0: (0.3, 0.1)}


def sheet(frame=0, *, sigma=0.05, si=(20.0, 20.0), p=1.0, p_element=1.0, si_sigma=None):
    """A patch of graphene with a Si on the atom nearest to `si`; gives the table and the Si."""
    a1, a2 = np.array([2.46, 0.0]), np.array([1.23, 2.46 * 3**0.5 / 2])
    ij = np.array([(i, j) for i in range(-20, 30) for j in range(-5, 30)])
    base = ij @ np.array([a1, a2])
    xy = np.vstack([base + (a1 + a2) / 3, base + 2 * (a1 + a2) / 3])
    xy = xy[np.all((xy > 0) & (xy < 40), axis=1)]
    k = int(np.argmin(np.linalg.norm(xy - np.asarray(si), axis=1)))
    n = len(xy)
    cov = np.tile(np.eye(2) * sigma**2, (n, 1, 1))
    if si_sigma is not None:
        cov[k] = np.eye(2) * si_sigma**2
    exists, named = np.ones(n), np.ones(n)
    exists[k], named[k] = p, p_element
    table = AtomTable.build(
        frame=frame, xy=xy, covariance=cov, p_exists=exists,
        element=["Si" if i == k else "C" for i in range(n)], p_element=named,
        votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip
    return table, xy[k]


def defect_table(*rows):
    columns = []
    for number, row in enumerate(rows):
        frame, kind, (x, y), p, track = row
        columns.append(
            {
                "frame": frame, "defect": number, "kind": kind, "x_A": float(x), "y_A": float(y),
                "p": p, "atoms": [], "track": track, "first_frame": 0, "origin": "first seen",
                "p_beam_induced": None,
            }
        )  # fmt: skip
    return DefectTable(pl.DataFrame(columns, schema=SCHEMA))


def result(name, energy, formula="C111Si", status="done"):
    atoms = ase.Atoms(formula)
    return SimulationResult(name, -1, "xtb", "relax", 0.0, energy, math.nan, status, 1.0, (atoms,))


def test_entropies_against_a_discrete_sum():
    p = np.array([0.0, 0.2, 0.5, 1.0])
    assert existence_entropy(p)[[0, 3]] == pytest.approx([0, 0])
    assert existence_entropy(p)[2] == pytest.approx(math.log(2))
    for k in (2, 3, 5):
        full = np.array([0.4] + [0.6 / (k - 1)] * (k - 1))
        assert element_entropy([0.4], k)[0] == pytest.approx(-(full * np.log(full)).sum())
    assert element_entropy([0.4], 1)[0] == 0.0


@settings(max_examples=60, deadline=None)
@given(sigma=st.floats(0.01, 1.0), more=st.floats(0.0, 1000.0))
def test_position_gain_is_the_fall_of_what_is_missing(sigma, more):
    wanted = 0.1
    before = missing_position_nats([sigma**2], wanted)
    after = missing_position_nats([sigma**2 / (1 + more)], wanted)
    assert position_gain([sigma**2], more, wanted) == pytest.approx(before - after, abs=1e-9)


def test_the_more_uncertain_defect_comes_first_and_old_ones_fade():
    atoms, at = sheet(0, sigma=0.05)
    sharp, blurred = (8.0, 8.0), tuple(at)
    worse, _ = sheet(0, sigma=0.05, si_sigma=0.3, p=0.8)
    defects = defect_table((0, "V1", sharp, 0.99, -1), (0, "Si1C3", blurred, 0.9, -1))
    scores = score_defects(worse, defects, species=2)
    assert [str(s.kind) for s in scores] == ["Si1C3", "V1"]
    assert scores[0].sigma_A == pytest.approx(0.3)
    assert scores[0].position_nats == pytest.approx(2 * math.log(3))
    assert scores[0].existence_nats == pytest.approx(existence_entropy(0.8))
    # An empty site has no atom: the doubt about its name counts.
    assert scores[1].nats == pytest.approx(existence_entropy(0.99))
    old = score_defects(worse, defects, species=2, latest_frame=10)
    assert old[0].total == pytest.approx(scores[0].total / math.e)
    assert len(atoms) == len(worse)


def test_a_track_counts_once_where_it_was_last_seen():
    first, at = sheet(0, si_sigma=0.4)
    second, _ = sheet(5, si_sigma=0.2)
    atoms = AtomTable.concat([first, second])
    defects = defect_table((0, "Si1C3", at, 0.9, 7), (5, "Si1C3", at, 0.9, 7))
    (score,) = score_defects(atoms, defects, species=2)
    assert (score.frame, score.age_frames) == (5, 0)
    assert score.sigma_A == pytest.approx(0.2)


def test_energy_spread_compares_only_one_composition():
    results = [
        result("Si1C3-f000-d00", -10.0),
        result("Si1C3-f000-d01", -11.0),
        result("Si1C3-f000-n01-d02", -500.0, "C110Si"),
        result("Si1C3-f000-d03", -900.0, status="failed: exploded"),
        result("rings_5-7-f002-d00", -1.0, "C112"),
        result("graphene-pristine", -1.0, "C112"),
    ]
    assert energy_spread(results) == {"Si1C3": pytest.approx(math.sqrt(0.5))}
    atoms, at = sheet(si_sigma=0.3)
    defects = defect_table((0, "Si1C3", at, 0.9, -1))
    (plain,) = score_defects(atoms, defects, species=2)
    (spread,) = score_defects(atoms, defects, species=2, results=results)
    assert math.isnan(plain.energy_sd_eV)
    assert spread.total == pytest.approx(plain.total * (1 + math.sqrt(0.5) / 0.5))


def test_disagreement_peaks_lie_where_they_are():
    maps = np.zeros((200, 160), dtype=np.float32)
    yy, xx = np.indices(maps.shape)
    for row, col, height in ((150, 40, 0.6), (30, 120, 0.3), (90, 80, 0.02)):
        maps += height * np.exp(-((yy - row) ** 2 + (xx - col) ** 2) / 8)
    scores = score_disagreement(maps, Calibration(0.1))
    assert [s.xy_A for s in scores] == [pytest.approx((4.0, 15.0)), pytest.approx((12.0, 3.0))]
    assert scores[0].nats == pytest.approx(0.6, abs=1e-3)
    assert score_disagreement(np.zeros((32, 32)), Calibration(0.1)) == []


def test_scan_has_the_dose_that_reaches_the_wanted_precision():
    atoms, at = sheet(sigma=0.05, si_sigma=0.3)
    defects = defect_table((0, "Si1C3", at, 0.9, -1))
    advice = advise(atoms, defects, species=2, frame_dose_per_A2=1000.0,
                    options=AdviceOptions(manipulate=None))  # fmt: skip
    (scan,) = advice
    more = scan.scan.dose_per_A2 / 1000.0
    assert 0.3 / math.sqrt(1 + more) == pytest.approx(0.1)
    assert scan.dose == pytest.approx(8000.0 * 16.0**2)
    assert scan.scan.center_xy_A == pytest.approx(tuple(at))
    # Two axes from 0.3 to 0.1 Å, and half of the doubt about the name.
    assert scan.gain == pytest.approx(2 * math.log(3) + 0.5 * existence_entropy(0.9))
    assert 0 < scan.uncertainty < scan.gain
    assert "8.0 times" in scan.reason
    assert scan.reason.endswith(".")


def test_unknown_dose_is_said_and_never_invented():
    atoms, at = sheet(si_sigma=0.3)
    defects = defect_table((0, "Si1C3", at, 0.9, -1))
    advice = advise(atoms, defects, species=2, damage=DAMAGE)
    scan, voltage = advice[0], advice[1]
    assert scan.action == "scan"
    assert math.isnan(scan.dose)
    assert math.isnan(scan.scan.dose_per_A2)
    assert "8.0 times the dose of the present frame" in scan.reason
    assert "not known" in scan.reason
    assert voltage.action == "set_voltage"
    assert voltage.voltage_kV == 60.0
    assert "cannot be counted" in voltage.reason
    plain = advice_to_json(advice)
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text)[0]["dose"] is None
    assert [p["rank"] for p in plain] == list(range(1, len(advice) + 1))


def test_voltage_is_the_highest_that_damage_allows():
    kept = choose_voltage(DAMAGE, atoms=100.0, dose_per_A2=1e4, max_events=0.1)
    assert [v.kV for v in kept] == [100.0, 80.0, 60.0]
    assert kept[0].events == pytest.approx(100 * 0.3e-8 * 1e4)
    assert kept[0].events_sd == pytest.approx(100 * 0.1e-8 * 1e4)
    assert kept[0].dose_limit_per_A2 == pytest.approx(0.1 / (100 * 0.4e-8))
    more = choose_voltage(DAMAGE, atoms=100.0, dose_per_A2=1e6, max_events=0.1)
    assert [v.kV for v in more if v.allowed] == [80.0, 60.0]
    strict = choose_voltage(DAMAGE, atoms=100.0, dose_per_A2=1e12, max_events=0.1)
    assert strict[0].kV == 60.0
    assert not any(v.allowed for v in strict)


def test_damage_limits_the_dose_and_its_events_are_what_is_promised():
    atoms, at = sheet(si_sigma=0.3)
    defects = defect_table((0, "Si1C3", at, 0.9, -1))
    options = AdviceOptions(manipulate=None, max_damage_events=0.05)
    damage = {60.0: (0.01, 0.01), 100.0: (0.3, 0.1)}
    scan, voltage = advise(
        atoms, defects, species=2, frame_dose_per_A2=1e6, damage=damage, options=options
    )
    assert scan.scan.voltage_kV == voltage.voltage_kV == 60.0
    inside = np.all(np.abs(atoms.xy - at) <= 8.0, axis=1).sum()
    events = scan.scan.dose_per_A2 * 0.01e-8 * inside
    assert scan.scan.dose_per_A2 < 8e6
    assert 0.02 < 2 * events < 0.051  # mean and sd are equal here
    assert "knock-on damage allows" in scan.reason
    assert voltage.gain == pytest.approx(math.exp(-events), abs=0.005)
    # The less the dose, the less is learned.
    free, _ = advise(atoms, defects, species=2, frame_dose_per_A2=1e6,
                     damage={60.0: (0.0, 0.0)}, options=options)  # fmt: skip
    assert free.gain > scan.gain


def test_nothing_to_learn_is_a_reason_to_stop():
    atoms, at = sheet(sigma=0.03)
    defects = defect_table((0, "Si1C3", at, 1.0, -1))
    advice = advise(atoms, defects, species=2, options=AdviceOptions(manipulate=None))
    assert [a.action for a in advice] == ["stop"]
    empty = advise(AtomTable.empty(), DefectTable.empty(), species=2)
    assert [a.action for a in empty] == ["stop"]
    assert "no defect" in empty[0].reason


def test_scans_are_ranked_apart_and_disagreement_counts():
    atoms, at = sheet(si_sigma=0.3)
    defects = defect_table((0, "Si1C3", at, 0.9, -1), (0, "V1", at + (1.0, 0.0), 0.6, -1))
    maps = np.zeros((400, 400), dtype=np.float32)
    maps[50, 350] = 0.69
    advice = advise(
        atoms,
        defects,
        species=2,
        mutual_information=maps,
        calibration=Calibration(0.1),
        voltage_kV=81.0,
        options=AdviceOptions(manipulate=None),
    )
    assert [a.action for a in advice] == ["scan", "scan"]
    # Without cross sections to weigh, a scan is taken at the voltage of the frames.
    assert [a.scan.voltage_kV for a in advice] == [81.0, 81.0]
    assert advice[1].scan.center_xy_A == pytest.approx((35.0, 5.0))
    assert "disagree" in advice[1].reason
    assert advice[0].gain > advice[1].gain


def jump(si_sigma=0.02, n_sigma=0.02, which=0, **options):
    angle = np.array([0.0, 2.0, 4.0]) * np.pi / 3
    neighbours = BOND * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return plan_jump(
        np.zeros(2), np.eye(2) * si_sigma**2, neighbours,
        np.tile(np.eye(2) * n_sigma**2, (3, 1, 1)), which,
        options=ManipulateOptions(**options),
    )  # fmt: skip


def test_jump_has_the_published_rate_where_all_is_certain():
    sure = jump(0.0, 0.0, beam_sigma_A=0.0, rate_relative_sd=0.0, wanted_p=0.8)
    assert sure.target_xy_A == pytest.approx((0.85 * BOND, 0.0))
    assert sure.rate_per_s == pytest.approx(math.log(2) / 3)
    assert sure.dwell_s == pytest.approx(math.log(5) / (math.log(2) / 3), rel=1e-4)
    assert sure.probability == pytest.approx(0.8, abs=1e-3)
    assert sure.probability_sd == pytest.approx(0.0, abs=1e-6)
    half = jump(0.0, 0.0, beam_sigma_A=0.0, max_dwell_s=3.0)
    assert half.probability == pytest.approx(0.5, abs=1e-3)  # that is what ln 2 / 3 means


def test_jump_rate_and_odds_match_a_simulation_of_the_offset():
    plan = jump(0.15, 0.15, beam_sigma_A=0.2, rate_relative_sd=0.0, max_dwell_s=5.0)
    rng = np.random.default_rng(0)
    n = 200_000
    offset = (
        0.15 * rng.normal(0, 0.15, (n, 2))
        + 0.85 * rng.normal(0, 0.15, (n, 2))
        + rng.normal(0, 0.2, (n, 2))
    )
    rate = math.log(2) / 3 * np.exp(-0.5 * (offset**2).sum(axis=1) / (0.1 * BOND**2))
    assert plan.rate_per_s == pytest.approx(rate.mean(), rel=0.01)
    odds = 1 - np.exp(-rate * plan.dwell_s)
    assert plan.probability == pytest.approx(odds.mean(), rel=0.06)
    assert plan.probability_sd == pytest.approx(odds.std(), rel=0.3)
    assert plan.sigma_A == pytest.approx(offset[:, 0].std(), rel=0.01)


def test_beam_is_advised_for_every_neighbour_and_only_where_it_is_safe():
    atoms, at = sheet()
    defects = defect_table((0, "Si1C3", at, 0.99, -1))
    advice = advise_jumps(atoms, defects)
    assert len(advice) == 3
    near = atoms.xy[np.argsort(np.linalg.norm(atoms.xy - at, axis=1))[1:4]]
    expected = sorted(map(tuple, at + 0.85 * (near - at)))
    assert sorted(a.target_xy_A for a in advice) == [pytest.approx(e) for e in expected]
    for a in advice:
        assert (a.action, a.gain_unit, a.voltage_kV) == ("place_beam", "probability", 60.0)
        assert 0.3 < a.gain < 0.8
        assert 0 < a.dwell_s <= 10.0
        assert a.dose == pytest.approx(50e-12 / 1.602176634e-19 * a.dwell_s)
    assert [a.gain for a in advice] == sorted((a.gain for a in advice), reverse=True)
    for doubt in (sheet(p=0.8)[0], sheet(p_element=0.8)[0], sheet(sigma=0.6)[0]):
        assert advise_jumps(doubt, defects) == []
    assert advise_jumps(atoms, defect_table((0, "Si1C4", at, 0.99, -1))) == []
    assert advise_jumps(atoms, defects, latest_frame=3) == []  # the Si may be elsewhere by now
    pure, _ = sheet(si=(20, 20))
    carbon = AtomTable(pure.data.with_columns(pl.lit("C").alias("element")))
    assert advise_jumps(carbon, defects) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"frame_dose_per_A2": -1.0}, "dose"),
        ({"frame_dose_per_A2": math.nan}, "dose"),
        ({"damage": {60.0: (-1.0, 0.0)}}, "cross section"),
        ({"mutual_information": np.zeros((3, 3))}, "calibration"),
        ({"mutual_information": np.zeros(3), "calibration": Calibration(0.1)}, "row, col"),
    ],
)
def test_bad_input(change, word):
    atoms, at = sheet()
    with pytest.raises(BadInput, match=word):
        advise(atoms, defect_table((0, "Si1C3", at, 0.9, -1)), species=2, **change)
