"""Scores are entropies, and order defects by what is not known of them."""

from __future__ import annotations

import math

import ase
import numpy as np
import pytest

from adatom.core import AtomTable, Calibration, SimulationResult
from adatom.feedback import energy_spread, existence_entropy, score_defects, score_disagreement
from silicon import defect_table, sheet


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


def result(name, energy, formula="C111Si", status="done", draw=0):
    atoms = ase.Atoms(formula)
    return SimulationResult(
        name, draw, "xtb", "relax", 0.0, energy, math.nan, status, 1.0, (atoms,)
    )


def test_energy_spread_compares_only_one_composition():
    results = [
        result("Si1C3-f000-d00", -10.0),
        result("Si1C3-f000-d01", -11.0),
        result("Si1C3-f000-n01-d02", -500.0, "C110Si"),
        result("Si1C3-f000-d03", -900.0, status="failed: exploded"),
        result("rings_5-7-f002-d00", -1.0, "C112"),
        result("Si1C3-f000", -300.0, draw=-1),  # the most probable structure is no sample
        result("graphene-pristine", -1.0, "C112"),
    ]
    assert energy_spread(results) == {"Si1C3": pytest.approx(math.sqrt(0.5))}
    atoms, at = sheet(si_sigma=0.3)
    defects = defect_table((0, "Si1C3", at, 0.9, -1))
    (plain,) = score_defects(atoms, defects, species=2)
    (spread,) = score_defects(atoms, defects, species=2, results=results)
    assert math.isnan(plain.energy_sd_eV)
    assert spread.total == pytest.approx(plain.total * (1 + math.sqrt(0.5) / 0.5))


def test_peaks_of_disagreement_are_found_in_order_of_height():
    maps = np.zeros((200, 160), dtype=np.float32)
    yy, xx = np.indices(maps.shape)
    for row, col, height in ((150, 40, 0.6), (30, 120, 0.3), (90, 80, 0.02)):
        maps += height * np.exp(-((yy - row) ** 2 + (xx - col) ** 2) / 8)
    scores = score_disagreement(maps, Calibration(0.1))
    assert [s.xy_A for s in scores] == [pytest.approx((4.0, 15.0)), pytest.approx((12.0, 3.0))]
    assert scores[0].nats == pytest.approx(0.6, abs=1e-3)
    assert score_disagreement(np.zeros((32, 32)), Calibration(0.1)) == []
