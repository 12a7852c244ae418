"""Engines, relaxation and dynamics: what they do, refuse and report."""

from __future__ import annotations

import numpy as np
import pytest

from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.errors import BadInput, EngineMissing, StepFailed
from adatom.simulation import (
    DynamicsOptions,
    RelaxOptions,
    dynamics,
    engine_status,
    engine_version,
    relax,
    require,
    scale_to,
)
from adatom.simulation.classical import Sheet, choose_potential
from silicon_sheets import sheet, task, with_silicon


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
    for kind in ("relax", "dynamics"):
        with pytest.raises(EngineMissing, match="Use gfn1-xtb"):
            require("quantum-espresso", kind)
    with pytest.raises(BadInput, match="Did you mean 'gfn1-xtb'"):
        require("gfn-xtb", "relax")


def test_a_missing_engine_says_how_to_install_it():
    absent = [status for status in engine_status() if not status.installed]
    if not absent:
        pytest.skip("every engine is installed here")
    with pytest.raises(EngineMissing) as caught:
        engine_version(absent[0].name)
    assert absent[0].install in str(caught.value)


def test_scaling_keeps_fractions_and_heights():
    atoms = with_silicon(height=1.2)
    out = scale_to(atoms, 2.46, 2.53)
    assert out.cell.lengths()[:2] == pytest.approx(atoms.cell.lengths()[:2] * 2.53 / 2.46)
    before, after = (a.get_scaled_positions(wrap=False)[:, :2] for a in (atoms, out))
    np.testing.assert_allclose(after, before, atol=1e-12)
    assert out.positions[0, 2] - out.positions[5, 2] == pytest.approx(1.2)
    assert atoms.cell[2, 2] == 14.0  # untouched


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


def test_dynamics_that_takes_too_long_says_so():
    slow = DynamicsOptions(max_seconds=0.001, equilibration_ps=0.1)
    run = dynamics(task(sheet(), "dynamics", "lammps", temperature_K=300.0), slow)
    assert "when the time was over" in run.status
    assert len(run.trace["time_fs"]) == 1
