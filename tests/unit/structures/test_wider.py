"""A supercell in the middle of a wider one: no atom twice, no hole, whichever site is central."""

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from adatom.core import Structure
from adatom.materials.library import load_material
from adatom.structures import SupercellOptions, pristine_supercell, widen


@pytest.mark.parametrize("name", ["graphene", "h-BN", "MoS2"])
@pytest.mark.parametrize("seed", [0, 1])
def test_perfect_crystal_stays_perfect_wherever_its_middle_is(name, seed):
    material = load_material(name)
    atoms = pristine_supercell(material).to_ase()
    rng = np.random.default_rng(seed)
    atoms.positions += rng.normal(0.0, 0.03, atoms.positions.shape)
    if seed:  # another central site
        other = (np.subtract(*material.basis) @ material.cell()) * (1.0, -1.0)
        atoms.positions[:, :2] += other
    atoms.wrap()
    wide = widen(Structure.from_ase(atoms), material).atoms
    per_cell = len(material.crystal.atoms)
    assert len(wide) % per_cell == 0
    assert wide.cell.lengths()[0] >= 1.4 * atoms.cell.lengths()[0] - 1e-6
    reach = 1.2 * (2.41 if name == "MoS2" else material.bond_length_A)
    before = np.bincount(neighbor_list("i", atoms, reach))
    after = np.bincount(neighbor_list("i", wide, reach))
    assert set(after.tolist()) == set(before.tolist())
    assert neighbor_list("d", wide, 3.0).min() > 1.2


def test_a_cell_of_another_maker_and_a_flake_have_no_wider_one():
    material = load_material("graphene")
    one = pristine_supercell(material, SupercellOptions())
    odd = one.to_ase()
    odd.set_cell(odd.cell * (1.0, 1.02, 1.0), scale_atoms=True)
    assert widen(Structure.from_ase(odd), material) is None
    flake = one.to_ase()
    flake.info["form"] = "flake"
    assert widen(Structure.from_ase(flake), material) is None
