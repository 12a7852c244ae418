"""Sites that should be equal and are not, and sure atoms without the bonds of the crystal."""

import numpy as np
import pytest

from adatom.analysis.lattice import lattice_of
from adatom.analysis.presence import bonded_atoms, unequal_sites
from adatom.core import GRAPHENE, AtomTable
from adatom.frames.simulate.specimen import lattice_points, lattice_sites


def sheet(ratio, scatter=0.1):
    """Atoms of a perfect sheet whose second sublattice is so many times as bright."""
    xy, site = lattice_sites(GRAPHENE, (20.0, 20.0), 0.0, 0.2)
    amplitude = np.where(site == 1, ratio, 1.0)
    amplitude *= np.random.default_rng(3).normal(1.0, scatter, len(xy))
    one = np.ones(len(xy))
    return AtomTable.build(
        frame=0, xy=xy, covariance=np.tile(1e-4 * np.eye(2), (len(xy), 1, 1)), p_exists=one,
        element=["C"] * len(xy), p_element=one, votes=one, amplitude=amplitude,
    )  # fmt: skip


@pytest.mark.parametrize(("ratio", "unequal"), [(1.0, False), (1.2, False), (1.55, True)])
def test_sublattices_are_compared(ratio, unequal):
    atoms = sheet(ratio)
    assert (unequal_sites(atoms, lattice_of(atoms, GRAPHENE)) > 1.0) == unequal


def test_a_few_bright_atoms_do_not_hide_it():
    atoms = sheet(1.6)
    amplitude = atoms.column("amplitude").copy()
    amplitude[::12] *= 6.0
    atoms = AtomTable(atoms.data.with_columns(amplitude=amplitude))
    assert unequal_sites(atoms, lattice_of(atoms, GRAPHENE)) > 1.3


def test_without_a_lattice_nothing_is_said():
    assert unequal_sites(sheet(2.0), None) == 1.0


def table_of(xy):
    n = len(xy)
    return AtomTable.build(
        frame=0, xy=xy, covariance=np.tile(np.eye(2) * 1e-4, (n, 1, 1)), p_exists=np.full(n, 0.99),
        element=np.full(n, "C"), p_element=np.ones(n), votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip


def test_sure_atoms_count_where_they_are_bonded_as_in_the_crystal():
    crystal = lattice_points(GRAPHENE, (20.0, 20.0), 0.0, 0.2)
    squares = np.indices((9, 9)).reshape(2, -1).T * 2.2
    assert bonded_atoms(table_of(crystal), GRAPHENE) > 0.9 * len(crystal)
    assert bonded_atoms(table_of(squares), GRAPHENE) == 0
