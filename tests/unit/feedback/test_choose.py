"""Advice: scans with their dose and voltage, and when to stop."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from adatom.core import AtomTable, Calibration, DefectTable
from adatom.errors import BadInput
from adatom.feedback import AdviceOptions, advice_to_json, advise, choose_voltage, existence_entropy
from silicon import defect_table, sheet

DAMAGE = {60.0: (1e-6, 1e-6), 80.0: (1e-3, 2e-3), 100.0: (0.3, 0.1)}  # barn


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


def test_an_unknown_dose_is_reported_as_unknown():
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


def test_without_a_gain_the_advice_is_to_stop():
    atoms, at = sheet(sigma=0.03)
    defects = defect_table((0, "Si1C3", at, 1.0, -1))
    advice = advise(atoms, defects, species=2, options=AdviceOptions(manipulate=None))
    assert [a.action for a in advice] == ["stop"]
    empty = advise(AtomTable.empty(), DefectTable.empty(), species=2)
    assert [a.action for a in empty] == ["stop"]
    assert "no defect" in empty[0].reason


def test_an_atom_that_can_be_moved_is_no_reason_to_stop():
    atoms, at = sheet(sigma=0.03)
    defects = defect_table((0, "Si1C3", at, 1.0, -1))
    advice = advise(atoms, defects, species=2)
    assert {a.action for a in advice} == {"place_beam"}


def test_scans_and_moves_share_one_voltage():
    atoms, at = sheet(sigma=0.03, si_sigma=0.12)
    defects = defect_table((0, "Si1C3", at, 1.0, -1))
    damage = {60.0: (0.0, 0.0), 80.0: (1e-9, 0.0)}
    advice = advise(atoms, defects, species=2, frame_dose_per_A2=1e3, damage=damage)
    actions = {a.action: a for a in advice}
    assert "place_beam" in actions
    assert actions["set_voltage"].voltage_kV == actions["place_beam"].voltage_kV == 60.0


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
def test_a_bad_dose_cross_section_or_map_is_refused_by_name(change, word):
    atoms, at = sheet()
    with pytest.raises(BadInput, match=word):
        advise(atoms, defect_table((0, "Si1C3", at, 0.9, -1)), species=2, **change)
