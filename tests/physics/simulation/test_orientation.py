"""The energy of a defect does not depend on how it lies to its cell."""

import ase
import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.simulation import RelaxOptions, relax
from adatom.simulation.relaxation import odd_atoms
from adatom.structures import SupercellOptions, pristine_supercell


def bonds_by_direction(atoms: ase.Atoms) -> list[tuple[int, int]]:
    """Three bonds of one atom in the middle, 120° apart."""
    middle = atoms.cell.array.sum(axis=0) / 2
    i = int(np.argmin(np.linalg.norm(atoms.positions - middle, axis=1)))
    first, second = neighbor_list("ij", atoms, 1.6)
    return [(i, int(j)) for j in second[first == i]]


def divacancy(pair: tuple[int, int], atoms: ase.Atoms) -> ase.Atoms:
    out = atoms.copy()
    del out[list(pair)]
    return out


def stone_wales(pair: tuple[int, int], atoms: ase.Atoms) -> ase.Atoms:
    out = atoms.copy()
    part = out[list(pair)]
    part.rotate(90, "z", center=part.positions.mean(axis=0))
    out.positions[list(pair)] = part.positions
    return out


def energies(defect, atoms: ase.Atoms, engine: str, **options) -> list[float]:
    found = []
    for pair in bonds_by_direction(atoms):
        structure = Structure.from_ase(defect(pair, atoms))
        task = SimulationTask(structure, "relax", engine, material=GRAPHENE)
        result = relax(task, RelaxOptions(max_steps=400, **options))
        assert result.status == "done"
        found.append(result.energy_eV)
    return found


@pytest.mark.parametrize("defect", [divacancy, stone_wales])
def test_a_classical_energy_is_the_same_in_three_directions(defect):
    atoms = pristine_supercell(GRAPHENE).atoms
    found = energies(defect, atoms, "lammps", fmax_eV_A=0.002)
    assert np.ptp(found) < 2e-4
    # The test can tell: in a rectangle the same bonds differ, by 0.001 and 0.4 eV.
    assert np.ptp(energies(defect, rectangular(), "lammps", fmax_eV_A=0.002)) > 8e-4


def rectangular() -> ase.Atoms:
    unit = ase.Atoms(
        "C4", cell=[2.46, 2.46 * 3**0.5, 20.0], pbc=True,
        positions=[(0, y * 2.46 * 3**0.5 / 6, 10) for y in (0, 2)]
        + [(1.23, y * 2.46 * 3**0.5 / 6, 10) for y in (3, 5)],
    )  # fmt: skip
    return unit.repeat((7, 4, 1))


@pytest.mark.slow
def test_the_electrons_do_not_tell_the_directions_apart_either():
    """At the Γ point a rectangle made 0.83 eV between directions of one divacancy."""
    atoms = pristine_supercell(GRAPHENE, SupercellOptions(min_width_A=12.0)).atoms
    assert len(atoms) == 50
    found = energies(divacancy, atoms, "gfn1-xtb", fmax_eV_A=0.02)
    assert np.ptp(found) < 0.01


@pytest.mark.slow
def test_a_vacancy_leaves_the_flat_saddle():
    """One atom out of the plane, and a bond between the two others: the lower state."""
    atoms = pristine_supercell(GRAPHENE).atoms
    del atoms[len(atoms) // 2]
    atoms.rattle(0.02, seed=4)
    task = SimulationTask(Structure.from_ase(atoms), "relax", "gfn1-xtb", material=GRAPHENE)
    flat, free = (
        relax(task, RelaxOptions(kick_A=k, prepare=False, max_seconds=3000)) for k in (0.0, 0.5)
    )
    assert flat.status == free.status == "done"
    assert free.energy_eV < flat.energy_eV - 0.03
    assert np.ptp(flat.trajectory[-1].positions[:, 2]) < 0.1
    assert np.ptp(free.trajectory[-1].positions[:, 2]) > 0.3
    assert len(free.trace["energy_eV"]) > len(flat.trace["energy_eV"])
    assert free.trajectory[-1].get_potential_energy() == pytest.approx(free.energy_eV)


def test_a_flat_sheet_without_odd_atoms_is_relaxed_once():
    atoms = pristine_supercell(GRAPHENE).atoms
    assert not odd_atoms(atoms).any()
    task = SimulationTask(Structure.from_ase(atoms), "relax", "lammps", material=GRAPHENE)
    assert len(relax(task, RelaxOptions()).trace["step"]) < 5
    del atoms[40]
    assert odd_atoms(atoms).sum() == 3


def test_a_bond_that_starts_too_short_is_relaxed():
    """A rotated bond of 0.65 Å has forces of hundreds of eV/Å, and a minimum near."""
    atoms = pristine_supercell(GRAPHENE).atoms
    pair = list(bonds_by_direction(atoms)[0])
    short = stone_wales(tuple(pair), atoms)
    middle = short.positions[pair].mean(axis=0)
    short.positions[pair] = middle + (short.positions[pair] - middle) * 0.65 / 1.42
    task = SimulationTask(Structure.from_ase(short), "relax", "lammps", material=GRAPHENE)
    result = relax(task, RelaxOptions())
    assert short.get_distance(*pair, mic=True) < 0.7
    assert result.status == "done"
    whole = SimulationTask(
        Structure.from_ase(stone_wales(tuple(pair), atoms)), "relax", "lammps", material=GRAPHENE
    )
    assert result.energy_eV == pytest.approx(relax(whole, RelaxOptions()).energy_eV, abs=0.02)
