"""Relaxations in GFN1-xTB, and the libraries under it."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from adatom.simulation import (
    RelaxOptions,
    relax,
)
from adatom.simulation.engines.tblite import load_tblite
from silicon_sheets import silicon, task, with_silicon

_ENERGY = """
import ase.build
from adatom.simulation.engines.tblite import {load}
atoms = ase.build.graphene(size=(4, 4, 1), vacuum=10.0)
atoms.pbc = True
print(float({make}(method="GFN1-xTB", verbosity=0).get_potential_energy(atoms)))
"""


@pytest.mark.slow
def test_the_fast_blas_changes_no_energy():
    def energy(**names: str) -> float:
        program = [sys.executable, "-c", _ENERGY.format(**names)]
        out = subprocess.run(program, check=True, capture_output=True, text=True)
        return float(out.stdout)

    fast = energy(load="load_tblite", make="load_tblite()")
    plain = energy(load="ENGINE; from tblite.ase import TBLite", make="TBLite")
    assert fast == pytest.approx(plain, abs=1e-5)


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
