"""The energy of a defect does not depend on how it lies to its cell."""

import ase
import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.simulation import RelaxOptions, relax
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
