"""Reservoirs: their names, their structures, and what an engine says of them."""

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from adatom.errors import BadInput
from adatom.simulation import RelaxOptions
from adatom.simulation.reservoirs import element_structure, read_reservoirs, relax_element

# Nearest distances of the elements, Å, by X-rays: Wyckoff, Crystal Structures, 2nd ed. (1963); of
# boron within an icosahedron.
NEAREST_A = {"S": 2.05, "N": 1.10, "Si": 2.35, "Mo": 2.73, "Se": 2.37, "Te": 2.83, "B": 1.67,
             "W": 2.74, "Au": 2.88, "C": 1.42}  # fmt: skip


@pytest.mark.parametrize("symbol", NEAREST_A)
def test_each_element_has_its_own_structure(symbol):
    atoms, _ = element_structure(symbol)
    assert set(atoms.symbols) == {symbol}
    nearest = neighbor_list("d", atoms, 3.5).min()
    assert nearest == pytest.approx(NEAREST_A[symbol], abs=0.06)
    assert len(atoms) == {"B": 36, "S": 8, "Se": 3, "Te": 3, "N": 2, "Si": 2, "C": 2}.get(symbol, 1)


def test_silicon_of_tersoff_has_its_published_energy():
    """-4.63 eV an atom at 5.432 Å: Tersoff, PRB 39, 5566 (1989)."""
    found = relax_element("lammps", "Si", RelaxOptions(), beside={"C"})
    atoms = found.trajectory[-1]
    assert found.status == "done"
    assert found.energy_eV / len(atoms) == pytest.approx(-4.63, abs=0.01)
    nearest = neighbor_list("d", atoms, 3.0).min()
    assert nearest * 4 / 3**0.5 == pytest.approx(5.432, abs=0.005)


def test_a_reservoir_that_fails_has_its_reason():
    found = relax_element("lammps", "Au", RelaxOptions())
    assert found.status.startswith("failed: ")
    assert np.isnan(found.energy_eV)


@pytest.mark.parametrize("text", ["S", "rich", "Xx-rich", "S=", "S=low", "S = -1e"])
def test_what_is_no_reservoir_is_refused(text):
    with pytest.raises(BadInput, match="S-rich"):
        read_reservoirs([text])


def test_an_element_is_named_once():
    with pytest.raises(BadInput, match="twice"):
        read_reservoirs(["S-rich", "S=-4"])
    assert [str(r) for r in read_reservoirs({"S": -4.0})] == ["S=-4.0"]


def test_one_choice_may_be_a_text_and_what_is_none_is_told():
    assert [str(r) for r in read_reservoirs("Si-rich")] == ["Si-rich"]
    with pytest.raises(BadInput, match=r"reservoir '-5\.4'"):
        read_reservoirs([-5.4])
