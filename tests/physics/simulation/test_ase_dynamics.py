"""Dynamics through ASE against theory: ensemble, conservation of energy, fixed atoms."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units

from adatom.simulation import DynamicsOptions, dynamics, find_engine
from goldene import EMT_PATH, GOLDENE, gold, gold_task


@pytest.mark.slow
def test_dynamics_through_ase_samples_the_canonical_ensemble():
    options = DynamicsOptions(
        timestep_fs=2.0, equilibration_ps=2.0, production_ps=20.0, trajectory_frames=200
    )
    result = dynamics(gold_task(gold(5), "dynamics", temperature_K=300.0, seed=1), options)
    assert result.status == "done"
    kelvin = result.trace["temperature_K"]
    assert kelvin.mean() == pytest.approx(300.0, rel=0.02)
    assert kelvin.std() == pytest.approx(300.0 * np.sqrt(2.0 / (3 * 25 - 3)), rel=0.25)
    velocity = np.array([a.get_velocities() for a in result.trajectory[1:]])
    mass = result.trajectory[0].get_masses()[:, None]
    each = (mass * velocity**2).mean(axis=(0, 1)) / units.kB  # equipartition over directions
    assert each == pytest.approx([300.0 * 24 / 25] * 3, rel=0.1)


def test_dynamics_through_ase_conserves_the_energy_without_a_thermostat():
    options = DynamicsOptions(
        timestep_fs=2.0, equilibration_ps=0.5, production_ps=4.0, thermostat="none"
    )
    result = dynamics(gold_task(gold(), "dynamics", temperature_K=600.0, seed=2), options)
    time_ps, total = result.trace["time_fs"] * 1e-3, result.trace["total_energy_eV"]
    drift = np.polyfit(time_ps, total, 1)[0] / 16
    assert abs(drift) < 1e-4  # eV an atom and ps; the target is 1e-3
    assert total.std() / 16 < 1e-4
    assert result.trace["temperature_K"].std() > 10.0  # it moved


def test_fixed_atoms_stay_and_count_for_no_degree_of_freedom():
    from ase.constraints import FixAtoms

    atoms = gold()
    atoms.set_constraint(FixAtoms(indices=range(8)))
    options = DynamicsOptions(timestep_fs=2.0, equilibration_ps=0.5, production_ps=2.0)
    result = dynamics(gold_task(atoms, "dynamics", temperature_K=300.0, seed=3), options)
    first, last = result.trajectory[0], result.trajectory[-1]
    np.testing.assert_allclose(last.positions[:8], first.positions[:8], atol=1e-9)
    assert np.linalg.norm(last.positions[8:] - first.positions[8:], axis=1).min() > 1e-3
    kinetic = result.trace["total_energy_eV"] - result.trace["energy_eV"]
    expected = 2.0 * kinetic / (3 * 8 * units.kB)
    np.testing.assert_allclose(result.trace["temperature_K"], expected, rtol=1e-9)


def test_the_lattice_constant_of_a_calculator_is_that_of_least_energy():
    from ase.calculators import emt

    found = find_engine(EMT_PATH).lattice_constant_A(GOLDENE, {"Au"})
    atoms = gold()
    energies = []
    for strain in (-2e-3, 0.0, 2e-3):
        cell = atoms.cell.array.copy()
        cell[:2] *= found * (1.0 + strain) / GOLDENE.lattice_constant_A
        strained = atoms.copy()
        strained.set_cell(cell, scale_atoms=True)
        strained.calc = emt.EMT()
        energies.append(strained.get_potential_energy())
    assert min(energies) == energies[1]
    assert energies[0] - energies[2] == pytest.approx(0.0, abs=0.2 * (energies[0] - energies[1]))
