"""The machine-learned potential SevenNet against density-functional theory, and its weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene

from adatom.conformance import check_engine
from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.errors import EngineMissing
from adatom.materials.library import load_material
from adatom.simulation import DynamicsOptions, RelaxOptions, relax, require
from adatom.simulation.engines import sevennet

pytest.importorskip("sevenn", reason="the extra mlip is not installed")
ENGINE = sevennet.ENGINE


# PBE: graphene 2.468, h-BN 2.512, MoS2 3.18 to 3.19, the values of the potential's own training.
@pytest.mark.parametrize(("name", "a_A"), [("graphene", 2.468), ("h-BN", 2.510), ("MoS2", 3.189)])
def test_lattice_constants_are_those_that_ship(name, a_A):
    unknown = replace(load_material(name), name="unknown")  # not in its table: measured
    measured = ENGINE.lattice_constant_A(unknown, set())
    assert measured == pytest.approx(a_A, abs=0.002)
    assert ENGINE.lattice_constants_A[name] == pytest.approx(measured, abs=3e-4)


def sheet(n: int) -> Atoms:
    atoms = graphene(size=(n, n, 1), a=GRAPHENE.lattice_constant_A, vacuum=7.0)
    atoms.pbc = True
    return atoms


def relaxed(atoms, **options):
    task = SimulationTask(Structure.from_ase(atoms), "relax", "sevennet", material=GRAPHENE)
    result = relax(task, RelaxOptions(max_seconds=1e4, **options))
    assert result.status == "done"
    return result


@pytest.mark.slow
def test_the_energy_of_a_vacancy():
    perfect = relaxed(sheet(7))
    atoms = sheet(7)
    del atoms[40]
    energy = relaxed(atoms).energy_eV - perfect.energy_eV * 97 / 98
    assert energy == pytest.approx(7.00, abs=0.05)


@pytest.mark.slow
def test_bonds_of_silicon_in_graphene():
    """Three-fold Si: 1.775 to 1.780 Å in density-functional theory."""
    atoms = sheet(5)
    atoms.symbols[24] = "Si"
    atoms.positions[24, 2] += 0.8
    last = relaxed(atoms).trajectory[-1]
    bonds = np.sort(last.get_distances(24, range(50), mic=True))[1:4]
    assert bonds == pytest.approx([1.774] * 3, abs=0.01)


@pytest.mark.slow
def test_it_conforms():
    few = DynamicsOptions(equilibration_ps=0.002, production_ps=0.004, sample_fs=1.0)
    atoms = sheet(2)
    atoms.positions += np.random.default_rng(0).normal(0.0, 0.02, (8, 3))
    check_engine(
        require("sevennet", "dynamics"), atoms, uncovered="Rn", energy_tolerance_eV=1e-3,
        dynamics_options=few,
    )  # fmt: skip


def test_weights_that_were_not_tested_are_refused(monkeypatch):
    sevennet._weights.cache_clear()
    monkeypatch.setattr(sevennet, "_SHA256", "0" * 64)
    with pytest.raises(EngineMissing, match=r"got other weights: checkpoint_l3i5\.pth"):
        require("sevennet", "relax")
    sevennet._weights.cache_clear()


def test_a_file_that_would_run_something_is_not_read(monkeypatch, tmp_path):
    """The reader takes tensors, arrays and plain values; it executes nothing of a file."""
    import torch

    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    bad = tmp_path / "checkpoint.pth"
    torch.save({"config": Evil()}, bad)
    sevennet._calculator.cache_clear()
    monkeypatch.setattr(sevennet, "_weights", lambda: bad)
    with pytest.raises(Exception, match="Weights only load failed"):
        sevennet._calculator()
    assert not (tmp_path / "ran").exists()
    sevennet._calculator.cache_clear()
