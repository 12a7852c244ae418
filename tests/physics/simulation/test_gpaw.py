"""Density-functional theory in GPAW, in a process of its own."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene

from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.errors import BadInput, EngineMissing
from adatom.simulation import RelaxOptions, relax, require
from adatom.simulation.engines import gpaw

try:
    ENGINE = require("gpaw", "relax")
except EngineMissing:
    pytest.skip("GPAW is not installed", allow_module_level=True)

LONG = RelaxOptions(max_seconds=600.0)


def buckled(height_A: float = 0.15) -> Structure:
    atoms = graphene(size=(1, 1, 1), a=GRAPHENE.lattice_constant_A, vacuum=7.0)
    atoms.pbc = True
    atoms.positions[0, 2] += height_A
    return Structure.from_ase(atoms)


def task(structure: Structure) -> SimulationTask:
    return SimulationTask(structure, "relax", "gpaw", material=GRAPHENE)


@pytest.mark.slow
def test_a_buckled_sheet_relaxes_to_a_flat_one():
    result = relax(task(buckled()), LONG)
    assert result.status == "done"
    assert result.engine.startswith("gpaw ")
    assert result.notes == ("k-points 12 x 12 x 1",)
    energy, force = result.trace["energy_eV"], result.trace["fmax_eV_A"]
    assert energy[-1] < energy[0] - 0.05
    assert force[-1] <= 0.05 < force[0]
    assert np.ptp(result.trajectory[-1].positions[:, 2]) < 0.02 < 0.1


@pytest.mark.slow
def test_forces_are_the_slope_of_the_energy():
    atoms = buckled(0.15).to_ase()
    with ENGINE.calculator(atoms, LONG) as calculator:
        force = calculator.get_forces(atoms)[0, 2]
        energies = []
        for step in (0.02, -0.02):
            moved = atoms.copy()
            moved.positions[0, 2] += step
            energies.append(calculator.get_potential_energy(moved))
    slope = (energies[0] - energies[1]) / 0.04
    assert force == pytest.approx(-slope, rel=0.03)  # atoms feel the grid of 0.2 Å


@pytest.mark.slow
def test_a_nitrogen_atom_has_the_moment_of_hunds_rule():
    atom = Atoms("N", positions=[[3.0, 3.0, 3.0]], cell=[6.0, 6.0, 6.0], pbc=False)
    with ENGINE.calculator(atom, LONG) as calculator:
        calculator.get_potential_energy(atom)
        assert calculator.results["magmom"] == pytest.approx(3.0, abs=0.05)
        assert calculator.notes == ("k-points 1 x 1 x 1", "moment 3.00 µB")


@pytest.mark.slow
def test_a_self_consistency_that_is_not_reached_falls_back_and_says_so(monkeypatch):
    impatient = (gpaw._Scf("two iterations", maxiter=2), *gpaw.FALLBACKS)
    atoms = buckled().to_ase()
    with ENGINE.calculator(atoms, LONG) as calculator:
        expected = calculator.get_potential_energy(atoms)
    monkeypatch.setattr(gpaw, "FALLBACKS", impatient)
    with ENGINE.calculator(atoms, LONG) as calculator:
        assert calculator.get_potential_energy(atoms) == pytest.approx(expected, abs=1e-3)
        assert "self-consistency not reached with two iterations" in calculator.notes
    monkeypatch.setattr(gpaw, "FALLBACKS", impatient[:1])
    failed = relax(task(buckled()), LONG)
    assert failed.status.startswith("failed: KohnShamConvergenceError")


def test_a_task_whose_time_is_over_ends_its_process():
    result = relax(task(buckled()), RelaxOptions(max_seconds=3.0))
    assert "time was over" in result.status
    assert result.seconds < 30.0


def test_elements_without_a_setup_are_refused():
    with pytest.raises(BadInput, match="got U"):
        ENGINE.check_elements({"C", "U"})


def test_magnetic_starts_where_they_are_called_for():
    sheet = graphene(size=(4, 4, 1), vacuum=8.0)
    sheet.pbc = True
    assert gpaw.start_moments(sheet) is None
    hole = sheet.copy()
    del hole[10]
    assert np.count_nonzero(gpaw.start_moments(hole)) == 3  # the atoms with dangling bonds
    odd = sheet.copy()
    odd.symbols[4] = "B"
    assert (gpaw.start_moments(odd) > 0).all()
    assert gpaw.start_moments(Atoms("O", cell=[6, 6, 6])) is not None


def test_k_points_keep_their_density():
    for n, k in ((1, 12), (2, 6), (4, 3), (5, 3), (7, 2), (14, 1)):
        sheet = graphene(size=(n, n, 1), vacuum=8.0)
        sheet.pbc = True
        assert gpaw.k_points(sheet) == (k, k, 1)
