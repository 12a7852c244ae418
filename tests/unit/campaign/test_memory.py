"""A defect that another campaign has relaxed costs nothing, however it lies in its cell."""

from __future__ import annotations

import multiprocessing
import time

import ase
import numpy as np
import pytest

from adatom.campaign.recall import Recall, recall_of
from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.errors import BadInput
from adatom.simulation import RelaxOptions, relax
from adatom.store.memory import Known, Memory, memory_path
from adatom.structures import fingerprint, pristine_supercell

OPTIONS = RelaxOptions()


def vacancy(seed, turn_deg=0.0, *, silicon=False):
    atoms = pristine_supercell(GRAPHENE).to_ase()
    middle = 0.5 * (atoms.cell[0] + atoms.cell[1])
    away = np.linalg.norm(atoms.positions[:, :2] - middle[:2], axis=1)
    here = int(np.argmin(away))
    if silicon:
        atoms.symbols[here] = "Si"
        atoms.positions[here, 2] += 1.0 if turn_deg == 0.0 else -1.0
    else:
        del atoms[here]
    rng = np.random.default_rng(seed)
    atoms.positions += rng.normal(0.0, 0.04, atoms.positions.shape)
    atoms.rotate(turn_deg, "z", center=middle)
    atoms = atoms[rng.permutation(len(atoms))]
    atoms.wrap(pbc=(True, True, False))
    atoms.info["name"] = f"V1-f{seed:03d}-d00"
    return SimulationTask(Structure.from_ase(atoms), "relax", "lammps", material=GRAPHENE)


@pytest.mark.parametrize("silicon", [False, True])
def test_the_same_defect_turned_and_renumbered_is_known(tmp_path, silicon):
    recall = Recall(Memory(tmp_path), OPTIONS)
    first = vacancy(0, silicon=silicon)
    assert recall.answer(first) is None
    result = relax(first, OPTIONS)
    recall.keep(first, result, "one")
    second = vacancy(1, 60.0, silicon=silicon)
    recall.answer(second)  # imports
    began = time.process_time()
    found = recall.answer(second)
    assert time.process_time() - began < 0.25  # 0.03 s on a quiet machine
    assert found.status == "done"
    assert found.energy_eV == result.energy_eV
    assert "from the memory: one/V1-f000-d00" in found.notes[0]
    after = relax(second, OPTIONS)
    assert fingerprint(found.trajectory[-1]) == fingerprint(after.trajectory[-1])
    assert after.energy_eV == pytest.approx(found.energy_eV, abs=0.01)
    apart = found.trajectory[-1].positions - after.trajectory[-1].positions
    share = apart @ np.linalg.inv(found.trajectory[-1].cell.array)
    apart = (share - np.round(share)) @ found.trajectory[-1].cell.array
    assert np.abs(apart[:, :2]).max() < 0.1
    again = relax(task_of(found, second), OPTIONS)
    assert again.energy_eV == pytest.approx(found.energy_eV, abs=0.01)


def task_of(found, task):
    from adatom.campaign.pool import relaxed_structure

    return SimulationTask(
        relaxed_structure(task.structure, found), "relax", "lammps", material=GRAPHENE
    )


def test_other_settings_engines_and_defects_are_not_answered(tmp_path):
    recall = Recall(Memory(tmp_path), OPTIONS)
    first = vacancy(0)
    recall.keep(first, relax(first, OPTIONS), "one")
    other = Recall(Memory(tmp_path), RelaxOptions(fmax_eV_A=0.01))
    assert other.answer(vacancy(1)) is None
    assert recall.answer(vacancy(1, silicon=True)) is None
    moved = vacancy(2).structure.to_ase()
    middle = 0.5 * (moved.cell[0] + moved.cell[1])
    near = np.argsort(np.linalg.norm(moved.positions[:, :2] - middle[:2], axis=1))[0]
    moved.positions[near, :2] += 0.9  # half of a jump: not the same start
    task = SimulationTask(Structure.from_ase(moved), "relax", "lammps", material=GRAPHENE)
    assert recall.answer(task) is None
    nearest = recall.nearest(task)
    assert nearest.name == "one/V1-f000-d00"
    assert 0.3 < nearest.rms_A < 0.7


def _write(directory, number):
    atoms = ase.Atoms("C2", [[0, 0, 0], [0, 0, 1.3]], cell=[5, 5, 20], pbc=True)
    for k in range(20):
        Memory(directory).keep("s", f"{number}-{k}", Known(f"{number}", -1.0 - k, atoms, atoms))


def test_two_processes_write_at_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write, args=(tmp_path, n)) for n in range(2)]
    for w in writers:
        w.start()
    for w in writers:
        w.join(120)
    assert [w.exitcode for w in writers] == [0, 0]
    assert len(Memory(tmp_path).find("s", "C2")) == 40


def test_of_one_minimum_the_lowest_is_kept(tmp_path):
    memory, atoms = Memory(tmp_path), ase.Atoms("C2", cell=[5, 5, 20], pbc=True)
    for energy in (-2.0, -3.0, -1.0):
        memory.keep("s", "f", Known(str(energy), energy, atoms, atoms))
    assert [k.energy_eV for k in memory.find("s", "C2")] == [-3.0]


def test_it_is_off_unless_asked_for(tmp_path, monkeypatch):
    assert recall_of("off", OPTIONS) is None
    monkeypatch.setenv("ADATOM_MEMORY", str(tmp_path / "m"))
    assert memory_path("off") == tmp_path / "m"
    monkeypatch.setenv("ADATOM_MEMORY", "off")
    assert recall_of(str(tmp_path), OPTIONS) is None
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="ADATOM_MEMORY"):
        Memory(tmp_path / "file")
