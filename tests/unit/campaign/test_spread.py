"""The parts of an energy's spread: draws of all compositions, a second engine, a wider cell."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from adatom.campaign.config import Config, InputOptions, SimulateOptions
from adatom.campaign.simulate import check_simulation, simulate_all
from adatom.campaign.steps import Steps
from adatom.core import GRAPHENE, Structure
from adatom.core.energy import spread_of
from adatom.errors import AdatomError, BadInput
from adatom.parallel.progress import Silent
from adatom.store import CampaignDirectory, read_structures
from adatom.structures import SupercellOptions, pristine_supercell

SMALL = SupercellOptions(min_width_A=9.8, min_separation_A=5.0)  # 4 x 4 cells of graphene


def cell_of(kind, draw):
    atoms = pristine_supercell(GRAPHENE, SMALL).to_ase()
    if kind != "pristine":
        del atoms[5]
    atoms.positions += np.random.default_rng(draw + 2).normal(0.0, 0.02, atoms.positions.shape)
    name = f"{kind}-d{draw}" if draw >= 0 else kind
    atoms.info |= {"name": name, "draw": draw, "kind": kind}
    return Structure.from_ase(atoms)


def config_with(**options):
    chosen = SimulateOptions(temperatures_K=(), **options)
    return Config(input=InputOptions(paths=("a",)), simulate=chosen, supercell=SMALL)


def test_a_campaign_stores_the_parts_of_each_defect(tmp_path):
    """LCBOP's vacancy in 4 x 4 cells is 0.03 eV above that in 7 x 7, and near GFN1-xTB's."""
    config = config_with(relax_engine="lammps", second_engine="gfn1-xtb")
    structures = [cell_of("V1", -1), cell_of("V1", 0), cell_of("pristine", 1)]
    with CampaignDirectory.open(tmp_path / "c", {"seed": 1}, "print", source=["a"]) as directory:
        steps = Steps(directory, Silent())
        results, _ = simulate_all(structures, ["a", "b", "c"], GRAPHENE, config, steps)
    vacancy, perfect = results[1], results[2]
    assert vacancy.engine_sd_eV == pytest.approx(abs(7.689 - 7.63) / 2**0.5, abs=0.02)
    assert -0.1 < vacancy.size_shift_eV < -0.02
    assert vacancy.size_sd_eV == pytest.approx(0.5 * abs(vacancy.size_shift_eV))
    assert perfect.size_sd_eV < 0.01
    assert np.isnan(vacancy.draws_sd_eV)  # one draw says nothing of the others
    assert vacancy.thermal_sd_eV == 0.0
    table = pl.read_parquet(tmp_path / "c" / "simulations.parquet")
    names = table["structure"].to_list()
    assert any(n.endswith("-in-gfn1-xtb") for n in names)
    assert any(n.endswith("-wide") for n in names)
    assert len(names) == len(set(zip(names, table["engine"], strict=True)))
    row = table.row(names.index("V1-d0"), named=True)
    assert row["engine_sd_eV"] == vacancy.engine_sd_eV
    stated = read_structures(tmp_path / "c" / "relaxed" / "V1-f-01.extxyz")[0]
    parts = stated.atoms.arrays
    assert np.isnan(parts["sigma_draws"]).all()
    assert np.all(np.isfinite(parts["sigma_cell"]) & np.isfinite(parts["sigma_engine"]))
    assert 1e-3 < np.median(stated.sigma_A) < 0.1


def test_draws_of_two_compositions_are_one_distribution():
    """A tenth of the weight is on the perfect sheet: the 90 % interval reaches down to it."""
    spread = spread_of([7.6, 7.6, 0.0], [0.45, 0.45, 0.1], size_eV=0.05)
    low, high = spread.interval_eV(0.9)
    assert (spread.largest, round(spread.mean_eV, 2)) == ("draws", 6.84)
    assert -0.1 < low < 0.1
    assert 7.6 < high < 7.75
    alone = spread_of([7.6], [np.nan], engine_eV=0.5, size_eV=0.05)
    assert alone.largest == "engine"
    assert alone.interval_eV(0.9) == pytest.approx((7.6 - 0.826, 7.6 + 0.826), abs=0.01)
    assert spread_of([7.6, 7.6], [1, 1]).largest == ""
    shifted = spread_of([7.6], [1], size_eV=0.05, shift_eV=-0.1)
    assert shifted.mean_eV == pytest.approx(7.5)
    assert shifted.interval_eV(0.9) == pytest.approx((7.5 - 0.082, 7.5 + 0.082), abs=2e-3)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"mu": ("S",)}, BadInput), ({"second_engine": "no-such"}, AdatomError)],
)
def test_a_choice_that_cannot_be_is_refused_before_anything_is_written(options, error):
    with pytest.raises(error):
        check_simulation(config_with(relax_engine="lammps", **options), GRAPHENE)


def test_a_reservoir_without_a_structure_is_refused_before_anything_runs():
    wide = {"supercell": SupercellOptions()}
    with pytest.raises(BadInput, match="Pm-rich"):
        check_simulation(config_with(mu=("Pm-rich",)).model_copy(update=wide), GRAPHENE)
    check_simulation(config_with(mu=("Pm=-4.0", "Si-rich")).model_copy(update=wide), GRAPHENE)
