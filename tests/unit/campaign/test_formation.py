"""Formation energies of a campaign: against the perfect crystal in the same cell, or none."""

from __future__ import annotations

import sqlite3

import numpy as np
import polars as pl
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from adatom.campaign.config import Config, InputOptions, SimulateOptions
from adatom.campaign.energies import references
from adatom.campaign.simulate import simulate_all
from adatom.campaign.steps import Steps
from adatom.campaign.summary import relaxed_energies
from adatom.cli.screen import show_summary
from adatom.core import GRAPHENE, SimulationResult, Structure
from adatom.parallel.progress import Silent
from adatom.simulation import ChemicalPotential, against_perfect_crystal
from adatom.store import CampaignDirectory
from adatom.structures import SupercellOptions, pristine_supercell

SMALL = SupercellOptions(min_width_A=9.8, min_separation_A=5.0)  # 4 x 4 cells of graphene


def cell_of(name, draw, *, silicon=False, options=SMALL):
    atoms = pristine_supercell(GRAPHENE, options).to_ase()
    if silicon:
        atoms.symbols[5] = "Si"
        atoms.positions[5, 2] += 1.0
    elif name != "pristine":
        del atoms[5]
    atoms.positions += np.random.default_rng(draw + 2).normal(0.0, 0.02, atoms.positions.shape)
    atoms.info |= {"name": f"{name}-d{draw}" if draw >= 0 else name, "draw": draw, "kind": name}
    return Structure.from_ase(atoms)


def simulated(tmp_path, structures, engine, **more):
    options = SimulateOptions(
        relax_engine=engine, temperatures_K=(), second_engine="none", size_check="never", **more
    )
    config = Config(input=InputOptions(paths=("a",)), simulate=options, supercell=SMALL)
    with CampaignDirectory.open(tmp_path / "c", {"seed": 1}, "print", source=["a"]) as directory:
        steps = Steps(directory, Silent())
        parents = [f"{s.name}" for s in structures]
        results, keys = simulate_all(structures, parents, GRAPHENE, config, steps)
    return results, keys, steps.worked


def test_defects_of_a_campaign_have_formation_energies_and_one_reference(tmp_path, capsys):
    """The vacancy of GFN1-xTB in 4 x 4 cells has 7.68 eV; μ(Si) is not in the perfect crystal."""
    structures = [
        cell_of("V1", -1), cell_of("V1", 0), cell_of("V1", 1), cell_of("Si1C3", 0, silicon=True),
    ]  # fmt: skip
    results, keys, worked = simulated(tmp_path, structures, "gfn1-xtb")
    assert worked == len(keys) == 5  # and the perfect crystal, once
    for result in results[:3]:
        assert result.formation_energy_eV == pytest.approx(7.68, abs=0.05)
        assert result.reference.startswith("μ(C) = -57.8")
        assert "perfect crystal C32 in the same cell" in result.reference
    assert np.isnan(results[3].formation_energy_eV)
    assert results[3].reference == "none (μ(Si) not chosen)"
    table = pl.read_parquet(tmp_path / "c" / "simulations.parquet")
    assert table["structure"].to_list() == [s.name for s in structures] + ["reference-C32"]
    assert table["formation_energy_eV"][4] == pytest.approx(0.0, abs=1e-9)
    assert table["reference"][3] == "none (μ(Si) not chosen)"

    again, keys_again, worked = simulated(tmp_path, structures, "gfn1-xtb")
    assert worked == 0
    assert keys_again == keys
    assert [r.reference for r in again] == [r.reference for r in results]
    more, _, worked = simulated(tmp_path, [*structures, cell_of("V1", 2)], "gfn1-xtb")
    assert worked == 1  # the new one alone
    assert more[-1].formation_energy_eV == pytest.approx(7.68, abs=0.05)
    with sqlite3.connect(tmp_path / "c" / "ledger.sqlite") as ledger:
        items = [item for (item,) in ledger.execute("SELECT item FROM steps")]
    assert items.count("reference-C32-relax") == 1

    summary = {"headline": None, "frames": 1, "atoms": 31, "elements": {"C": 31}, "dynamics": [],
               "bond_length_A": None, "contrast": None, "defect_frames": {}, "report": "r.html",
               "recorded": "",
               "relaxed": relaxed_energies(results)}  # fmt: skip
    show_summary(summary, as_json=False)
    printed = capsys.readouterr().out
    energy = f"{results[1].formation_energy_eV:.2f}"
    assert f"V1 (C31): 2 draws, one minimum, formation energy {energy} eV\n" in printed
    assert "1 draw; formation energy none (μ(Si) not chosen)\n" in printed


def test_a_reference_is_of_the_engine_that_relaxes(tmp_path):
    """7.6 eV in LCBOP, whose energies are not those of GFN1-xTB."""
    results, _, _ = simulated(tmp_path, [cell_of("V1", 0), cell_of("pristine", 1)], "lammps")
    assert results[0].formation_energy_eV == pytest.approx(7.6, abs=0.15)
    assert results[0].reference.startswith("μ(C) = -7.3")
    assert results[1].formation_energy_eV == pytest.approx(0.0, abs=2e-3)


def test_each_cell_has_its_own_reference_and_a_flake_none():
    wide = SupercellOptions(min_width_A=12.0, min_separation_A=5.0)
    flake = cell_of("V9", 0)
    flake.atoms.info["form"] = "flake"
    structures = [cell_of("V1", 0), cell_of("V1", 1, options=wide), flake, cell_of("V2", 1)]
    perfect, of_structure = references(structures, GRAPHENE, SMALL)
    assert [s.name for s in perfect] == ["reference-C32", "reference-C50"]
    assert of_structure == [0, 1, None, 0]


def result(formula, energy_eV, *, side_A=10.0, engine="e", status="done"):
    atoms = Atoms(formula, cell=[side_A, 10.0, 20.0], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=energy_eV)
    return SimulationResult(
        formula, 0, engine, "relax", 0.0, energy_eV, np.nan, status, 1.0, (atoms,)
    )


def test_a_compound_has_an_energy_where_its_composition_is_that_of_the_crystal():
    perfect = result("B4N4", -80.0)
    found = against_perfect_crystal(result("B3N3", -55.0), perfect)
    assert found.formation_energy_eV == pytest.approx(5.0)
    assert found.reference == "μ(BN) = -20.0000 eV, of the perfect crystal B4N4 in the same cell"


@pytest.mark.parametrize(
    ("relaxed", "perfect", "why"),
    [
        (result("B4N3", -65.0), result("B4N4", -80.0), "μ(B), μ(N) not chosen"),
        (result("C3SiH", -9.0), result("C4", -40.0), "μ(H), μ(Si) not chosen"),
        (result("C3", -9.0), None, "flake"),
        (result("C3", -9.0, side_A=10.1), result("C4", -40.0), "another engine or cell"),
        (result("C3", -9.0, engine="f"), result("C4", -40.0), "another engine or cell"),
        (result("C3", -9.0, status="not converged"), result("C4", -40.0), "is not done"),
        (result("C3", -9.0), result("C4", -40.0, status="failed: x"), "cell: failed: x"),
    ],
)
def test_no_energy_is_given_without_its_reference(relaxed, perfect, why):
    found = against_perfect_crystal(relaxed, perfect)
    assert np.isnan(found.formation_energy_eV)
    assert found.reference.startswith("none (")
    assert why in found.reference


def test_draws_in_two_minima_are_told_with_their_spread(capsys):
    perfect = result("C8", -80.0)
    draws = [against_perfect_crystal(result("C7", e), perfect) for e in (-62.10, -62.10, -61.70)]
    summary = {"headline": None, "frames": 1, "atoms": 7, "elements": {"C": 7}, "dynamics": [],
               "bond_length_A": None, "contrast": None, "defect_frames": {}, "report": "r.html",
               "recorded": "",
               "relaxed": relaxed_energies(draws)}  # fmt: skip
    show_summary(summary, as_json=False)
    assert (
        "3 draws, 2 minima, formation energy 8.0 ± 0.2 eV (standard deviation over the draws), "
        "lowest 7.90 eV" in capsys.readouterr().out
    )


def test_doubtful_defects_are_not_told_as_seen(capsys):
    summary = {"headline": None, "frames": 13, "atoms": 7, "elements": {"C": 7}, "dynamics": [],
               "bond_length_A": None, "contrast": None, "report": "r.html", "relaxed": [],
               "recorded": "", "defect_frames": {"V1": 13, "V2": 4, "Si1C3": 1, "SW": 12},
               "doubtful_defects": {"V1": 13, "V2": 3}}  # fmt: skip
    show_summary(summary, as_json=False)
    out = capsys.readouterr().out
    assert "V1: suspected 13 times, each in doubt (p < 0.5)" in out
    assert "V2: suspected 4 times, 3 in doubt (p < 0.5)" in out
    assert "Si1C3: seen once\n" in out
    assert "SW: seen 12 times\n" in out


def test_silicon_in_graphene_has_an_energy_beside_its_reservoir(tmp_path):
    """Carbon draws of that defect are of the potential that covers Si, too."""
    structures = [cell_of("Si1C3", 0, silicon=True), cell_of("Si1C3", 1)]
    results, _, _ = simulated(tmp_path, structures, "lammps", mu=("Si-rich",))
    assert [r.engine.split()[-1] for r in results] == ["(tersoff)", "(tersoff)"]
    assert "Si-rich: of diamond Si" in results[0].reference
    assert results[0].formation_energy_eV == pytest.approx(1.9, abs=0.1)
    assert results[1].formation_energy_eV == pytest.approx(6.9, abs=0.3)  # the vacancy, in Tersoff
    given, _, _ = simulated(tmp_path / "n", structures[:1], "lammps", mu=("Si=-4.0",))
    low = results[0].formation_energy_eV - given[0].formation_energy_eV
    assert low == pytest.approx(-4.0 + 4.6289, abs=2e-3)


def test_a_compound_needs_one_choice_and_refuses_two():
    perfect = result("B4N4", -80.0)
    rich = ChemicalPotential("N", -8.0, "N-rich: of N2 molecule")
    found = against_perfect_crystal(result("B4N3", -65.0), perfect, [rich])
    assert found.formation_energy_eV == pytest.approx(-65.0 + 4 * 12.0 + 3 * 8.0)
    assert found.reference.startswith("μ(N) = -8.0000 eV, N-rich: of N2 molecule; μ(BN) = -20.0")
    both = [rich, ChemicalPotential("B", -6.0, "as given")]
    assert (
        "the crystal settles the last"
        in against_perfect_crystal(result("B4N3", -65.0), perfect, both).reference
    )
