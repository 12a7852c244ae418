"""Engines, relaxation and dynamics: real physics on small sheets."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import ase
import numpy as np
import pytest
from ase import units

from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.errors import BadInput, EngineMissing, StepFailed
from adatom.simulation import (
    DynamicsOptions,
    RelaxOptions,
    dynamics,
    engine_status,
    engine_version,
    find_engine,
    measure_lattice_constant_A,
    relax,
    require,
    scale_to,
)
from adatom.simulation.classical import POTENTIALS, Sheet, choose_potential
from adatom.simulation.engines.lammps import potential_energy_eV
from adatom.simulation.engines.tblite import load_tblite

A = 2.46


def sheet(columns: int = 4, rows: int = 2) -> ase.Atoms:
    """Orthorhombic graphene at the experimental lattice constant."""
    fractions = [(0, 1 / 6, 0.5), (0.5, 1 / 3, 0.5), (0.5, 2 / 3, 0.5), (0, 5 / 6, 0.5)]
    unit = ase.Atoms("C4", scaled_positions=fractions, cell=[A, A * 3**0.5, 14.0], pbc=True)
    return unit.repeat((columns, rows, 1))


def with_silicon(height: float = 0.5, noise: float = 0.0, **size: int) -> ase.Atoms:
    atoms = sheet(**size)
    atoms.positions += np.random.default_rng(3).normal(0, 1, (len(atoms), 3)) * noise * [1, 1, 0]
    atoms.symbols[0] = "Si"
    atoms.positions[0, 2] += height
    return atoms


def task(atoms: ase.Atoms, kind: str, engine: str, **more: float) -> SimulationTask:
    return SimulationTask(Structure.from_ase(atoms), kind, engine, material=GRAPHENE, **more)


def silicon(atoms: ase.Atoms) -> tuple[np.ndarray, float]:
    """Three shortest bonds of the Si, and its height over their other ends, Å."""
    near = np.argsort(atoms.get_distances(0, range(len(atoms)), mic=True))[1:4]
    height = atoms.positions[0, 2] - atoms.positions[near, 2].mean()
    return atoms.get_distances(0, near, mic=True), height


# --- engines -------------------------------------------------------------------------------------


def test_embedded_engines_are_here_and_every_engine_says_how_to_get_it():
    found = {status.name: status for status in engine_status()}
    for name in ("gfn1-xtb", "lammps"):
        assert found[name].installed, found[name].note
        assert found[name].version == engine_version(name)
        assert found[name].version[0].isdigit()
    assert {"gpaw", "quantum-espresso", "cp2k", "chgnet", "mace"} < set(found)
    assert all("install" in status.install for status in found.values())


def test_engines_that_cannot_do_it_are_refused_with_what_to_use():
    require("gfn1-xtb", "relax")
    require("lammps", "dynamics")
    with pytest.raises(EngineMissing, match="Use lammps"):
        require("gfn1-xtb", "dynamics")
    with pytest.raises(EngineMissing, match="Use gfn1-xtb"):
        require("gpaw", "relax")
    with pytest.raises(BadInput, match="Did you mean 'gfn1-xtb'"):
        require("gfn-xtb", "relax")


def test_a_missing_engine_says_how_to_install_it():
    absent = [status for status in engine_status() if not status.installed]
    if not absent:
        pytest.skip("every engine is installed here")
    with pytest.raises(EngineMissing) as caught:
        engine_version(absent[0].name)
    assert absent[0].install in str(caught.value)


_ENERGY = """
import ase.build
from adatom.simulation.engines.tblite import {load}
atoms = ase.build.graphene(size=(4, 4, 1), vacuum=10.0)
atoms.pbc = True
print(float({make}(method="GFN1-xTB", verbosity=0).get_potential_energy(atoms)))
"""


def test_the_fast_blas_changes_no_energy():
    def energy(**names: str) -> float:
        program = [sys.executable, "-c", _ENERGY.format(**names)]
        out = subprocess.run(program, check=True, capture_output=True, text=True)
        return float(out.stdout)

    fast = energy(load="load_tblite", make="load_tblite()")
    plain = energy(load="ENGINE; from tblite.ase import TBLite", make="TBLite")
    assert fast == pytest.approx(plain, abs=1e-5)


# --- scale ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("potential", POTENTIALS, ids=lambda p: p.name)
def test_shipped_lattice_constants_are_what_is_measured(potential):
    measured = measure_lattice_constant_A(lambda a: potential_energy_eV(a, potential), "graphene")
    shipped = find_engine("lammps").lattice_constant_A("graphene", potential.elements)
    assert shipped == pytest.approx(measured, abs=3e-4)


def test_graphene_has_no_stress_in_xtb_at_its_shipped_constant():
    own = find_engine("gfn1-xtb").lattice_constant_A("graphene", {"C"})
    atoms = scale_to(sheet(7, 2), A, own)
    atoms.calc = load_tblite()(method="GFN1-xTB", verbosity=0)
    tension = atoms.get_stress()[:2].mean() * atoms.cell[2, 2]  # eV/Å²
    assert abs(tension / 25.0) < 2e-3  # strain: graphene's biaxial modulus is about 25 eV/Å²


def test_scaling_keeps_fractions_and_heights():
    atoms = with_silicon(height=1.2)
    out = scale_to(atoms, 2.46, 2.53)
    assert out.cell.lengths()[:2] == pytest.approx(atoms.cell.lengths()[:2] * 2.53 / 2.46)
    before, after = (a.get_scaled_positions(wrap=False)[:, :2] for a in (atoms, out))
    np.testing.assert_allclose(after, before, atol=1e-12)
    assert out.positions[0, 2] - out.positions[5, 2] == pytest.approx(1.2)
    assert atoms.cell[2, 2] == 14.0  # untouched
    with pytest.raises(BadInput, match="material"):
        find_engine("gfn1-xtb").lattice_constant_A("borophene", {"B"})


# --- LAMMPS --------------------------------------------------------------------------------------


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


def test_an_error_in_lammps_is_an_exception_and_the_next_run_works():
    with (
        Sheet(sheet(), choose_potential({"C"})) as one,
        pytest.raises(StepFailed, match="nonsense"),
    ):
        one.command("pair_style nonsense")
    hot = task(with_silicon(), "dynamics", "lammps", temperature_K=1e6, seed=1)
    result = dynamics(hot, DynamicsOptions(timestep_fs=2.0, production_ps=4.0))
    assert result.status.startswith("failed: Lost atoms")
    cool = task(with_silicon(), "dynamics", "lammps", temperature_K=300.0, seed=1)
    short = DynamicsOptions(equilibration_ps=0.1, production_ps=0.1)
    assert dynamics(cool, short).status == "done"


# --- relaxation ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_silicon_relaxes_to_either_side_in_spawned_processes():
    tasks = [task(with_silicon(h, noise=0.05), "relax", "gfn1-xtb") for h in (0.5, -0.5)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        up, down = pool.map(relax, tasks, [RelaxOptions()] * 2)
    for result, sign in ((up, 1.0), (down, -1.0)):
        assert result.status == "done"
        assert result.trace["fmax_eV_A"][-1] <= 0.05 < result.trace["fmax_eV_A"][0]
        assert len(result.trace["step"]) < 30
        bonds, height = silicon(result.trajectory[-1])
        assert bonds == pytest.approx([1.80] * 3, abs=0.03)
        assert 0.7 < sign * height < 1.3  # its neighbours follow it out of the plane
        assert result.energy_eV == result.trajectory[-1].get_potential_energy()
        assert "tblite" in result.engine
    assert up.energy_eV == pytest.approx(down.energy_eV, abs=0.02)
    again = up.trajectory[-1].copy()  # an evaluation that knows nothing of the path
    again.calc = load_tblite()(method="GFN1-xTB", verbosity=0)
    assert again.get_potential_energy() == pytest.approx(up.energy_eV, abs=1e-3)


@pytest.mark.slow
def test_preparing_saves_steps_and_reaches_the_same_minimum():
    given = task(with_silicon(0.5, noise=0.05), "relax", "gfn1-xtb")
    prepared = relax(given, RelaxOptions())
    plain = relax(given, RelaxOptions(prepare=False))
    assert plain.status == "done"
    assert len(prepared.trace["step"]) < 0.7 * len(plain.trace["step"])
    assert prepared.energy_eV == pytest.approx(plain.energy_eV, abs=0.03)


def test_steps_that_run_out_and_fixed_atoms():
    atoms = with_silicon(0.5, noise=0.05)
    fixed = np.arange(len(atoms)) % 4 == 1
    base = Structure.from_ase(atoms)
    held = Structure(atoms, "held", "Si1C3", 0, 0, 2, base.source_atom, base.sigma_A, fixed)
    result = relax(
        SimulationTask(held, "relax", "gfn1-xtb", material=GRAPHENE), RelaxOptions(max_steps=1)
    )
    assert (result.status, result.structure, result.draw) == ("not converged", "held", 2)
    first, last = result.trajectory[0], result.trajectory[-1]
    moved = np.abs(last.positions - first.positions).max(axis=1)
    assert moved[fixed].max() < 1e-9
    assert moved[~fixed].max() > 0.1
    np.testing.assert_array_equal(last.arrays["source_atom"], base.source_atom)


def test_lammps_relaxes_too():
    result = relax(task(with_silicon(noise=0.03), "relax", "lammps"), RelaxOptions())
    assert result.status == "done"
    bonds, _ = silicon(result.trajectory[-1])
    assert bonds == pytest.approx([1.76] * 3, abs=0.02)
    assert result.trace["energy_eV"][-1] < result.trace["energy_eV"][0]


def test_a_hopeless_structure_is_a_status_and_not_an_exception():
    atoms = sheet()
    atoms.positions[1] = np.nan
    result = relax(task(atoms, "relax", "gfn1-xtb"), RelaxOptions())
    assert result.status.startswith("failed: ")
    assert np.isnan(result.energy_eV)
    assert len(result.trajectory) == 1


def test_elements_without_a_potential_relax_in_xtb_but_have_no_dynamics():
    atoms = sheet(3, 1)
    atoms.symbols[0] = "B"
    result = relax(task(atoms, "relax", "gfn1-xtb"), RelaxOptions(max_steps=2))
    assert result.status in {"done", "not converged"}
    assert np.isfinite(result.energy_eV)
    with pytest.raises(BadInput, match=r"B\+C"):
        dynamics(task(atoms, "dynamics", "lammps", temperature_K=300.0), DynamicsOptions())


def test_wrong_tasks_are_refused():
    with pytest.raises(BadInput, match="expected relax"):
        relax(task(sheet(), "dynamics", "gfn1-xtb"), RelaxOptions())
    with pytest.raises(BadInput, match="expected dynamics"):
        dynamics(task(sheet(), "relax", "lammps"), DynamicsOptions())
    with pytest.raises(BadInput, match="temperature"):
        dynamics(task(sheet(), "dynamics", "lammps"), DynamicsOptions())


# --- dynamics ------------------------------------------------------------------------------------


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
    assert each == pytest.approx([600.0] * 3, rel=0.1)
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


def test_the_same_seed_gives_the_same_trajectory():
    options = DynamicsOptions(equilibration_ps=0.1, production_ps=0.5)
    runs = [
        dynamics(task(sheet(), "dynamics", "lammps", temperature_K=300.0, seed=s), options)
        for s in (7, 7, 8)
    ]
    first, same, other = (run.trace["energy_eV"] for run in runs)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.01
    assert len(runs[0].trajectory) <= options.trajectory_frames
    assert "lcbop" in runs[0].engine


def test_bonds_of_warm_graphene():
    options = DynamicsOptions(equilibration_ps=0.5, production_ps=1.0)
    run = dynamics(task(sheet(), "dynamics", "lammps", temperature_K=300.0, seed=1), options)
    lengths = np.concatenate(
        [np.sort(a.get_all_distances(mic=True), axis=1)[:, 1:4].ravel() for a in run.trajectory]
    )
    assert lengths.mean() == pytest.approx(1.42, abs=0.01)
    assert 0.01 < lengths.std() < 0.08


def test_dynamics_that_takes_too_long_says_so():
    slow = DynamicsOptions(max_seconds=0.001, equilibration_ps=0.1)
    run = dynamics(task(sheet(), "dynamics", "lammps", temperature_K=300.0), slow)
    assert "when the time was over" in run.status
    assert len(run.trace["time_fs"]) == 1
