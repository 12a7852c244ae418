"""Structure files of ten thousand atoms: read without a wait, as few columns as the crystal has."""

import time

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms

from adatom.errors import BadInput
from adatom.materials.library import load_material

SHEET = ase.build.graphene(size=(71, 71, 1), vacuum=8.0)


# A step that grows with the square of the atoms takes minutes; these take 1 to 6 s.
MOST_S = 30.0


def changed(atoms, change):
    atoms = atoms.copy()
    change(atoms)
    return atoms


SCATTERED = Atoms("C9973", np.random.default_rng(4).uniform(0, 300, (9973, 3)), cell=[300] * 3)
CASES = {
    "sheet": (SHEET, 2),
    "rattled sheet": (changed(SHEET, lambda a: a.rattle(0.03, seed=2)), 2),
    "a vacancy": (changed(SHEET, lambda a: a.pop(100)), len(SHEET) - 1),
    "an impurity": (changed(SHEET, lambda a: a.symbols.__setitem__(77, "Si")), len(SHEET)),
    "gold": (ase.build.bulk("Au", cubic=True).repeat((14, 14, 13)), 1),
}


@pytest.mark.slow
@pytest.mark.parametrize(("atoms", "columns"), CASES.values(), ids=CASES)
def test_ten_thousand_atoms_take_seconds(tmp_path, atoms, columns):
    path = tmp_path / "large.extxyz"
    ase.io.write(path, atoms)
    began = time.process_time()
    assert len(load_material(str(path)).site_species) == columns
    assert time.process_time() - began < MOST_S


@pytest.mark.slow
def test_a_prime_number_of_atoms_without_order_takes_seconds(tmp_path):
    path = tmp_path / "scattered.extxyz"
    ase.io.write(path, SCATTERED)
    began = time.process_time()
    with pytest.raises(BadInput, match="columns at least"):
        load_material(str(path))
    assert time.process_time() - began < MOST_S
