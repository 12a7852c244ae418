"""Bucklings of a sheet: the lowest is found, fixed atoms stay, draws are weighed by energy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import graphene

from adatom.campaign.spread import weights_by_energy
from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.materials.library import load_material
from adatom.simulation import RelaxOptions, relax
from adatom.simulation.buckling import is_one_atom_thick, waves

A = GRAPHENE.lattice_constant_A


def sheet():
    atoms = graphene(size=(7, 7, 1), a=A, vacuum=10.0)
    atoms.pbc = True
    return atoms


def turned_bond(seed):
    """Stone-Wales in 7 x 7 cells, shaken as a draw is."""
    atoms = sheet()
    i = 48
    j = int(np.argsort(atoms.get_distances(i, range(98), mic=True))[1])
    bond = atoms.get_distance(i, j, mic=True, vector=True)
    middle, half = atoms.positions[i] + 0.5 * bond, 0.46 * np.array([-bond[1], bond[0], 0.0])
    atoms.positions[i], atoms.positions[j] = middle - half, middle + half
    atoms.positions += np.random.default_rng(seed).normal(0.0, 0.03, (98, 3))
    return atoms


def relaxed(atoms, **options):
    task = SimulationTask(Structure.from_ase(atoms), "relax", "lammps", material=GRAPHENE)
    return relax(task, RelaxOptions(**options))


def test_every_start_of_stone_wales_ends_in_the_lowest_buckling():
    """By noise alone three of four starts end 0.31 eV higher."""
    perfect_eV = relaxed(sheet()).energy_eV
    found = [relaxed(turned_bond(seed)).energy_eV - perfect_eV for seed in range(4)]
    assert found == pytest.approx([4.525] * 4, abs=0.01)


def test_the_nearest_buckling_on_request():
    plain = [relaxed(turned_bond(seed), buckle=False).energy_eV for seed in range(4)]
    assert max(plain) - min(plain) > 0.3


def test_fixed_atoms_stay():
    atoms = turned_bond(0)
    away = np.linalg.norm((atoms.positions - atoms.positions[48])[:, :2], axis=1)
    structure = replace(Structure.from_ase(atoms), fixed=away > 7.0)
    task = SimulationTask(structure, "relax", "lammps", material=GRAPHENE)
    result = relax(task, RelaxOptions())
    first, last = result.trajectory[0], result.trajectory[-1]
    assert np.allclose(first.positions[away > 7.0], last.positions[away > 7.0], atol=1e-9)
    assert np.ptp(last.positions[:, 2]) > 0.5


def test_no_wave_on_a_perfect_sheet_or_a_thick_one():
    assert waves(sheet()) == []
    assert is_one_atom_thick(load_material("h-BN"))
    assert not is_one_atom_thick(load_material("MoS2"))
    assert not is_one_atom_thick(load_material("Au"))


def test_draws_that_look_alike_count_by_their_energy():
    both = [relaxed(turned_bond(seed), buckle=False) for seed in range(4)]
    both = [
        replace(r, draw=i, weight=0.25, formation_energy_eV=r.energy_eV) for i, r in enumerate(both)
    ]
    low = [r.energy_eV < min(x.energy_eV for x in both) + 0.01 for r in both]
    assert 0 < sum(low) < 4
    weights = np.array(weights_by_energy(both))
    assert weights.sum() == pytest.approx(1.0)
    assert weights[np.array(low)] == pytest.approx(1.0 / sum(low), abs=1e-4)
    same = [r for r, is_low in zip(both, low, strict=True) if is_low]
    assert weights_by_energy(same) == [0.25] * len(same)


def test_draws_of_other_atoms_keep_their_weights():
    vacancy = sheet()
    del vacancy[48]
    results = [
        replace(relaxed(atoms), draw=i, weight=w, formation_energy_eV=0.0)
        for i, (atoms, w) in enumerate(((sheet(), 0.7), (vacancy, 0.3)))
    ]
    assert weights_by_energy(results) == [0.7, 0.3]
