"""Draws that start at one classical minimum are relaxed once, and say so."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import pytest
from ase.build import graphene

import adatom as ad
from adatom.campaign.shared import follow, leaders_of, shared_result
from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.simulation import RelaxOptions, relax


def draw_of(number, *, at=5, height_A=0.8, noise=0.02):
    """Si in the place of a C atom, over the sheet or under it."""
    atoms = graphene(size=(4, 4, 1), a=GRAPHENE.lattice_constant_A, vacuum=8.0)
    atoms.pbc = True
    atoms.symbols[at] = "Si"
    atoms.positions[at, 2] += height_A
    atoms.positions += np.random.default_rng(number).normal(0.0, noise, atoms.positions.shape)
    atoms.info |= {"name": f"Si-d{number}", "draw": number, "kind": "Si1C3"}
    return atoms


def task_of(atoms, engine="gfn1-xtb"):
    return SimulationTask(Structure.from_ase(atoms), "relax", engine, material=GRAPHENE)


def test_draws_of_one_minimum_have_one_leader():
    tasks = [task_of(draw_of(0)), task_of(draw_of(1, height_A=-0.8)), task_of(draw_of(2, at=6))]
    assert leaders_of(tasks, RelaxOptions()) == [0, 0, 2]
    assert leaders_of(tasks, RelaxOptions(prepare=False)) == [0, 1, 2]
    in_lammps = [task_of(draw_of(k), "lammps") for k in range(2)]
    assert leaders_of(in_lammps, RelaxOptions()) == [0, 1]  # no cheaper start than itself


def test_shared_draws_have_the_energy_of_their_own_relaxation():
    draws = [draw_of(0), draw_of(1)]
    options = {"temperatures_K": [], "relax_engine": "gfn1-xtb", "workers": 1}
    with pytest.warns(UserWarning, match="Γ point"):
        first, second = ad.simulate(draws, **options)
    assert (first.structure, second.structure) == ("Si-d0", "Si-d1")
    assert second.notes[-1].startswith("as Si-d0")
    own = relax(task_of(draws[1]), RelaxOptions())
    assert second.energy_eV == pytest.approx(own.energy_eV, abs=2e-3)
    assert second.energy_eV == first.energy_eV


def test_a_shared_minimum_carries_the_weight_of_its_own_draw():
    """Dynamics start from the trajectory's last frame, and keep what stands in its `info`."""
    best, drawn = draw_of(0), draw_of(1)
    drawn.info["weight"] = 0.25
    found = relax(task_of(best), RelaxOptions())
    shared = shared_result(task_of(drawn), found)
    assert shared.trajectory[-1].info["weight"] == shared.weight == 0.25
    assert shared.trajectory[-1].info["name"] == "Si-d1"
    assert "weight" not in found.trajectory[-1].info
    np.testing.assert_array_equal(shared.trajectory[-1].positions, found.trajectory[-1].positions)


def test_a_failure_is_not_shared():
    leader: Future = Future()
    task = task_of(draw_of(1), "lammps")
    started = []

    def alone():
        started.append(task)
        ready: Future = Future()
        ready.set_result(relax(task, RelaxOptions()))
        return ready

    own = follow(leader, task, alone)
    stopped = relax(task_of(draw_of(0), "lammps"), RelaxOptions(max_steps=1, prepare=False))
    assert stopped.status == "not converged"
    leader.set_result(stopped)
    assert len(started) == 1
    assert own.result().status == "done"
