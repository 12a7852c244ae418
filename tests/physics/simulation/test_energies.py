"""Formation energies against published ones; ad-atoms where they are put and where they stay."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import graphene

from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.errors import BadInput
from adatom.simulation import RelaxOptions, adatoms, formation_energy_eV, place_adatom, relax


def sheet(n: int):
    atoms = graphene(size=(n, n, 1), a=GRAPHENE.lattice_constant_A, vacuum=8.0)
    atoms.pbc = True
    return atoms


def relaxed(structure, engine, **options):
    task = SimulationTask(structure, "relax", engine, material=GRAPHENE)
    return relax(task, RelaxOptions(max_seconds=1e4, **options))


def test_the_vacancy_of_lcbop():
    """7.61 eV in LCBOP."""
    perfect = relaxed(Structure.from_ase(sheet(7)), "lammps", fmax_eV_A=0.01)
    mu = {"C": perfect.energy_eV / 98}
    assert formation_energy_eV(perfect, mu) == pytest.approx(0.0, abs=1e-9)
    atoms = sheet(7)
    del atoms[40]
    hole = relaxed(Structure.from_ase(atoms), "lammps", fmax_eV_A=0.01)
    assert formation_energy_eV(hole, mu) == pytest.approx(7.61, abs=0.05)


def test_an_energy_without_its_reservoir_or_of_a_failed_run_is_refused():
    result = relaxed(Structure.from_ase(sheet(4)), "lammps")
    with pytest.raises(BadInput, match="got none for C"):
        formation_energy_eV(result, {"Si": -5.0})
    short = relaxed(place_adatom(Structure.from_ase(sheet(4)), "C", "top", (3.0, 3.0)), "gfn1-xtb",
                    max_steps=1)  # fmt: skip
    with pytest.raises(BadInput, match="not converged"):
        formation_energy_eV(short, {"C": -5.0})


@pytest.mark.parametrize("symbol", ["C", "Si", "H"])
@pytest.mark.parametrize(("site", "count"), [("top", 1), ("bridge", 2), ("hollow", 6)])
def test_an_adatom_is_put_where_it_is_asked_for(symbol, site, count):
    structure = Structure.from_ase(sheet(4))
    made = place_adatom(structure, symbol, site, (1.0, 2.0))
    distances = np.sort(made.atoms.get_distances(32, range(32), mic=True))
    assert np.ptp(distances[:count]) < 0.05 < distances[count] - distances[count - 1]
    assert np.flatnonzero(adatoms(made.atoms)).tolist() == [32]
    assert made.atoms.symbols[32] == symbol
    np.testing.assert_array_equal(made.atoms.positions[:32], structure.atoms.positions)
    xy = made.atoms.positions[32, :2]
    assert np.linalg.norm(xy - [1.0, 2.0]) < 1.5  # a site of its kind is never farther


@pytest.mark.slow
def test_a_carbon_adatom_of_graphene_sits_on_the_bridge_in_gfn1():
    bare = Structure.from_ase(sheet(4))
    energy = {}
    for site in ("bridge", "top"):
        result = relaxed(place_adatom(bare, "C", site, (4.0, 3.0)), "gfn1-xtb")
        assert result.status == "done"
        energy[site] = result.energy_eV
        if site == "bridge":
            bonds = np.sort(result.trajectory[-1].get_distances(32, range(32), mic=True))[:3]
            assert bonds[:2] == pytest.approx([1.46] * 2, abs=0.03)
            assert bonds[2] > 2.0
    assert energy["bridge"] < energy["top"] - 0.5  # from the top it goes into the sheet
