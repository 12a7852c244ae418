"""Weights of draws in a campaign: what is simulated, what is told, and what energies mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adatom.campaign.build import without_excluded
from adatom.campaign.summary import relaxed_energies
from adatom.core import SimulationResult, Structure
from adatom.core.weighted import weighted_mean_sd
from adatom.feedback.score import energy_spread
from adatom.store import read_result, write_result
from silicon_sheets import with_silicon


def draws(*weights):
    built = Structure.from_ase(with_silicon())
    out = [replace(built, name="Si1C3-f000", kind="Si1C3")]
    for k, weight in enumerate(weights):
        atoms = built.atoms.copy()
        atoms.info["weight"] = weight
        out.append(replace(built, atoms=atoms, name=f"Si1C3-f000-d{k:02d}", draw=k, kind="Si1C3"))
    return out


def result(structure, energy):
    return SimulationResult(
        structure.name, structure.draw, "gfn1-xtb 1", "relax", 0.0, energy, float("nan"), "done",
        1.0, (structure.to_ase(),), weight=structure.weight,
    )  # fmt: skip


def test_a_draw_that_the_image_excludes_is_told_and_not_simulated():
    kept, said = without_excluded(draws(0.6, 1e-9, 0.4))
    assert [s.draw for s in kept] == [-1, 0, 2]
    (text,) = said
    assert "Si1C3-f000-d01 (C31Si)" in text
    assert "2e-09 of the best" in text


def test_where_image_and_table_contradict_each_other_all_draws_are_simulated():
    kept, said = without_excluded(draws(1.0, 1e-9, 1e-9, 1e-9))
    assert len(kept) == 5
    (text,) = said
    assert "3 of the 4 draws of Si1C3 are excluded" in text


def test_few_effective_draws_are_told():
    kept, said = without_excluded(draws(0.94, 0.02, 0.02, 0.02))
    assert len(kept) == 5
    assert len(said) == 1
    assert "the 4 draws of Si1C3 say as much as 1.1" in said[0]
    assert without_excluded(draws(0.25, 0.25, 0.25, 0.25))[1] == []


def test_draws_without_weights_are_all_simulated():
    without = [replace(s, atoms=_bare(s.atoms)) for s in draws(0.5, 0.5)]
    kept, said = without_excluded(without)
    assert len(kept) == 3
    assert said == []


def test_energies_count_by_the_weights_of_their_draws():
    likeliest, *sampled = draws(0.8, 0.1, 0.1)
    results = [result(s, e) for s, e in zip(sampled, (-10.0, -9.0, -9.0), strict=True)]
    (row,) = relaxed_energies([result(likeliest, -20.0), *results])
    assert row["energy_eV"] == pytest.approx(-9.8)
    # sum w (e - mean)² = 0.16 over 1 - (0.64 + 0.01 + 0.01)
    assert row["energy_sd_eV"] == pytest.approx(np.sqrt(0.16 / 0.34))
    assert row["weight"] == pytest.approx(1.0)
    assert energy_spread(results) == {"Si1C3": pytest.approx(np.sqrt(0.16 / 0.34))}


def test_equal_weights_and_none_give_the_usual_mean_and_deviation():
    values = [1.0, 2.0, 4.0]
    usual = (np.mean(values), np.std(values, ddof=1))
    assert weighted_mean_sd(values, [0.1] * 3) == pytest.approx(usual)
    assert weighted_mean_sd(values, [np.nan] * 3) == pytest.approx(usual)
    assert np.isnan(weighted_mean_sd([1.0], [1.0])[1])


def test_a_result_keeps_its_weight_on_the_disk(tmp_path):
    one = result(draws(0.3)[1], -1.0)
    write_result(tmp_path / "a", one)
    assert read_result(tmp_path / "a").weight == 0.3
    write_result(tmp_path / "b", replace(one, weight=float("nan")))
    assert np.isnan(read_result(tmp_path / "b").weight)


def _bare(atoms):
    out = atoms.copy()
    out.info.pop("weight", None)
    return out
