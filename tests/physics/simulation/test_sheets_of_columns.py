"""MoS2 and h-BN with their vacancies in the engines that are offered for them."""

from collections import Counter

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from adatom.core import SimulationTask
from adatom.core.structure import Structure
from adatom.materials.library import load_material
from adatom.simulation import RelaxOptions, relax
from adatom.simulation.classical import Sheet, choose_potential
from adatom.simulation.engines.base import find_engine
from adatom.structures import pristine_supercell


def relaxed_energy_eV(atoms, lattice_ratio):
    stretched = atoms.copy()
    cell = stretched.cell.array.copy()
    cell[:2] *= lattice_ratio
    stretched.set_cell(cell, scale_atoms=True)
    with Sheet(stretched, choose_potential(set(stretched.symbols))) as sheet:
        sheet.hold(np.zeros(len(stretched), dtype=bool))
        sheet.minimise(fmax_eV_A=0.002)
        return sheet.energy_eV


@pytest.mark.parametrize("name", ["MoS2", "h-BN"])
def test_the_shipped_lattice_constant_has_the_least_energy(name):
    material = load_material(name)
    atoms = pristine_supercell(material).atoms
    shipped = find_engine("lammps").lattice_constant_A(material, set(atoms.symbols))
    ratios = shipped / material.lattice_constant_A * np.array([0.99, 0.995, 1.0, 1.005, 1.01])
    a, b, _ = np.polyfit(ratios, [relaxed_energy_eV(atoms, r) for r in ratios], 2)
    assert -b / (2 * a) * material.lattice_constant_A == pytest.approx(shipped, abs=0.004)
    assert shipped == pytest.approx(material.lattice_constant_A, rel=0.005)


def test_a_sulfur_vacancy_keeps_its_three_metal_atoms():
    """Each Mo at the vacancy has five S, all others six, as in the image."""
    material = load_material("MoS2")
    cell = pristine_supercell(material).to_ase()
    top = np.flatnonzero((cell.symbols == "S") & (cell.positions[:, 2] > 10.5))
    del cell[int(top[len(top) // 2])]
    cell.rattle(0.05, seed=3)
    task = SimulationTask(Structure.from_ase(cell), "relax", "lammps", material=material)
    result = relax(task, RelaxOptions(fmax_eV_A=0.02))
    assert result.status == "done"
    last = result.trajectory[-1]
    first, d = neighbor_list("id", last, {("Mo", "S"): 2.8})
    assert 2.35 < d.min() < d.max() < 2.52
    number = Counter(zip(last.symbols, np.bincount(first, minlength=len(last)), strict=True))
    assert number == {("Mo", 6): 22, ("Mo", 5): 3, ("S", 3): 49}
