"""Relaxation and dynamics against theory: stress, Hessian, ensembles, conservation of energy."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units

from adatom.core import GRAPHENE
from adatom.simulation import (
    DynamicsOptions,
    RelaxOptions,
    dynamics,
    find_engine,
    measure_lattice_constant_A,
    relax,
    scale_to,
)
from adatom.simulation.classical import POTENTIALS, Sheet, choose_potential
from adatom.simulation.engines.lammps import potential_energy_eV
from adatom.simulation.engines.tblite import load_tblite
from silicon_sheets import A, sheet, silicon, task, with_silicon


@pytest.mark.parametrize(
    "potential", [p for p in POTENTIALS if "C" in p.elements], ids=lambda p: p.name
)
def test_shipped_lattice_constants_are_what_is_measured(potential):
    measured = measure_lattice_constant_A(lambda a: potential_energy_eV(a, potential), GRAPHENE)
    shipped = find_engine("lammps").lattice_constant_A(GRAPHENE, potential.elements)
    assert shipped == pytest.approx(measured, abs=3e-4)


def test_graphene_has_no_stress_in_xtb_at_its_shipped_constant():
    own = find_engine("gfn1-xtb").lattice_constant_A(GRAPHENE, {"C"})
    atoms = scale_to(sheet(7, 2), A, own)
    atoms.calc = load_tblite()(method="GFN1-xTB", verbosity=0)
    tension = atoms.get_stress()[:2].mean() * atoms.cell[2, 2]  # eV/Å²
    assert abs(tension / 25.0) < 2e-3  # strain: graphene's biaxial modulus is about 25 eV/Å²


def test_a_turned_and_skewed_cell_has_the_same_energy_and_turned_forces():
    atoms = scale_to(with_silicon(noise=0.05), A, 2.53)
    cell = atoms.cell.array.copy()
    cell[1] += cell[0]  # the same lattice, other vectors
    skewed = atoms.copy()
    skewed.set_cell(cell)
    skewed.rotate(37.0, "z", rotate_cell=True)
    potential = choose_potential({"C", "Si"})
    with Sheet(atoms, potential) as one, Sheet(skewed, potential) as other:
        forces, energy = one.forces(atoms.positions)
        turned, same = other.forces(skewed.positions)
    assert same == pytest.approx(energy, abs=1e-8)
    cos, sin = np.cos(np.radians(37.0)), np.sin(np.radians(37.0))
    back = turned @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    np.testing.assert_allclose(back, forces, atol=1e-7)


def test_the_hessian_of_a_minimum_is_stable_and_knows_translations():
    atoms = scale_to(with_silicon(), A, 2.53)
    with Sheet(atoms, choose_potential({"C", "Si"})) as one:
        atoms.positions[:] = one.minimise(1e-4, 20_000)
        hessian = one.hessian(atoms.positions)
    curvature = np.linalg.eigvalsh(hessian)
    assert np.abs(curvature[:3]).max() < 1e-3
    assert curvature[3] > 1e-3
    assert 100.0 < curvature[-1] < 400.0


def test_lammps_relaxes_too():
    result = relax(task(with_silicon(noise=0.03), "relax", "lammps"), RelaxOptions())
    assert result.status == "done"
    bonds, _ = silicon(result.trajectory[-1])
    assert bonds == pytest.approx([1.76] * 3, abs=0.02)
    assert result.trace["fmax_eV_A"][-1] <= RelaxOptions().fmax_eV_A


def test_dynamics_samples_the_canonical_ensemble(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    atoms = with_silicon()
    options = DynamicsOptions(production_ps=20.0, trajectory_frames=400)
    result = dynamics(task(atoms, "dynamics", "lammps", temperature_K=600.0, seed=5), options)
    assert result.status == "done"
    kelvin = result.trace["temperature_K"]
    blocks = kelvin.reshape(20, -1).mean(axis=1)  # 1 ps each, longer than the thermostat's memory
    error = blocks.std(ddof=1) / np.sqrt(len(blocks))
    assert abs(kelvin.mean() - 600.0) < 4.0 * error < 60.0
    freedoms = 3 * len(atoms) - 3
    assert kelvin.std() == pytest.approx(600.0 * np.sqrt(2.0 / freedoms), rel=0.25)
    # Equipartition over species and directions, from the velocities of the trajectory.
    kinetic = np.mean(
        [a.get_masses()[:, None] * a.get_velocities() ** 2 for a in result.trajectory[1:]], axis=0
    )
    each = kinetic.mean(axis=0) / units.kB
    # Over six seeds a direction's mean has a standard deviation of 29 K.
    assert each == pytest.approx([600.0] * 3, rel=0.15)
    assert kinetic[0].mean() / units.kB == pytest.approx(600.0, rel=0.35)  # the Si alone
    half = result.trace["energy_eV"][len(kelvin) // 2 :]
    assert result.energy_eV == pytest.approx(half.mean())
    assert result.energy_sd_eV == pytest.approx(half.std())
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


def test_the_integrator_conserves_energy_without_a_thermostat():
    options = DynamicsOptions(thermostat="none", equilibration_ps=0.5, production_ps=5.0)
    hot = task(with_silicon(), "dynamics", "lammps", temperature_K=900.0, seed=2)
    total = dynamics(hot, options).trace["total_energy_eV"]
    drift = np.polyfit(np.arange(len(total)), total, 1)[0] * len(total)
    assert abs(drift) / 32 < 2e-4  # eV an atom over 5 ps
    assert total.std() / 32 < 3e-4


def test_bonds_of_warm_graphene():
    options = DynamicsOptions(equilibration_ps=0.5, production_ps=1.0)
    run = dynamics(task(sheet(), "dynamics", "lammps", temperature_K=300.0, seed=1), options)
    lengths = np.concatenate(
        [np.sort(a.get_all_distances(mic=True), axis=1)[:, 1:4].ravel() for a in run.trajectory]
    )
    assert lengths.mean() == pytest.approx(1.42, abs=0.01)
    assert 0.01 < lengths.std() < 0.08
