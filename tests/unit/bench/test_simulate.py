"""The benchmark of simulations: its truths, and what it counts."""

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from adatom.bench.simulate import draw_reliability
from adatom.bench.simulate_cases import KINDS, Case, changed, deviations
from adatom.bench.simulate_coverage import Outcome, cases_of, rows_of
from adatom.core.energy import spread_of
from adatom.materials.library import load_material
from adatom.structures import pristine_supercell

# Atoms by element that each defect takes from a perfect sheet, and adds.
CHANGES = {
    "V1": {"C": -1}, "V2": {"C": -2}, "SW": {}, "Si1C3": {"C": -1, "Si": 1},
    "Si1C4": {"C": -2, "Si": 1}, "one S": {"S": -1}, "both S": {"S": -2}, "two S": {"S": -2},
}  # fmt: skip


@pytest.mark.parametrize(("material", "kind"), [(m, k) for m, own in KINDS.items() for k in own])
def test_each_defect_is_what_its_name_says(material, kind):
    sheet = pristine_supercell(load_material(material)).to_ase()
    middle = 0.5 * (sheet.cell[0] + sheet.cell[1])[:2]
    made = changed(sheet, middle, kind)
    before, after = sheet.symbols.formula.count(), made.symbols.formula.count()
    change = {s: after.get(s, 0) - before.get(s, 0) for s in {*before, *after}}
    assert {s: n for s, n in change.items() if n} == CHANGES[kind]
    assert neighbor_list("d", made, 2.0).min(initial=2.0) > 1.2


def test_the_true_structure_is_laid_on_the_cell_before_it_is_compared():
    """A cell that lies 0.2 Å and one degree beside its true structure has no deviation."""
    cell = np.diag([20.0, 20.0, 20.0])
    rng = np.random.default_rng(0)
    exact = rng.uniform(-7.0, 7.0, (40, 2))
    turn = np.radians(1.0)
    there = exact @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + (0.2, -0.1)
    case = Case(0, "graphene", "V1", 10.0, (), there, exact)
    off, near = deviations(case, there + 10.0, cell, 3.0)
    assert np.abs(off).max() < 1e-9
    assert len(off) == len(near) == np.count_nonzero(np.linalg.norm(there, axis=1) < 3.0)


def outcome(true_eV, energies=(7.6, 7.6), size_eV=0.05, z=0.5):
    spread = spread_of(energies, [1.0] * len(energies), size_eV=size_eV)
    own = np.full(4, z)
    return Outcome(
        kind="V1", dose=10.0, found=True, spread=spread, true_eV=true_eV, z_built=own,
        z_relaxed=own, off_A=np.full(4, 0.02),
    )  # fmt: skip


def test_both_ends_of_the_band_count():
    """Nine of ten inside meet the target; ten of ten are stated too wide."""
    inside, outside = outcome(7.62), outcome(8.0)
    rows = {r["quantity"]: r for r in rows_of([inside] * 9 + [outside])}
    energy = rows["dose 10: true formation energy in the 90 % interval"]
    assert (energy["met"], energy["measured"][:4]) == (True, "0.90")
    wide = {r["quantity"]: r for r in rows_of([inside] * 10)}
    assert not wide["dose 10: true formation energy in the 90 % interval"]["met"]
    assert not wide["dose 10: coordinates as built within 1σ of the true ones"]["met"]


def test_the_plot_is_written_and_the_number_of_cases_is_an_option(tmp_path):
    draw_reliability([outcome(7.62), outcome(8.0)], tmp_path / "r.svg")
    assert "<svg" in (tmp_path / "r.svg").read_text()
    assert (cases_of(3, quick=True), cases_of(None, quick=True), cases_of(None, quick=False)) == (
        3, 8, 50,
    )  # fmt: skip
