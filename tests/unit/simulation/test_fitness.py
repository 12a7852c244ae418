"""What an engine is not fit for is refused; the engine that is chosen is one that is fit."""

import numpy as np
import pytest
from ase import Atom
from ase.build import add_adsorbate, graphene, mx2

import adatom as ad
from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.errors import BadInput, EngineMissing
from adatom.materials.library import load_material
from adatom.simulation import (
    DynamicsOptions,
    RelaxOptions,
    adatoms,
    choose_engine,
    dynamics,
    engine_for,
    fitness,
    relax,
    require,
)
from silicon_sheets import sheet, with_silicon


def with_adatom(symbol="C", site="bridge"):
    atoms = sheet(4, 2)
    first = atoms.positions[0]
    near = np.argsort(atoms.get_distances(0, range(len(atoms)), mic=True))[1]
    place = {
        "top": first,
        "bridge": first + 0.5 * atoms.get_distance(0, near, mic=True, vector=True),
    }[site]
    height = {"C": 1.3, "Si": 1.8, "H": 1.1, "N": 1.3}[symbol]
    atoms.append(Atom(symbol, place + [0.0, 0.0, height]))
    return atoms


def given(atoms, kind="relax", engine="lammps", **more):
    return SimulationTask(Structure.from_ase(atoms), kind, engine, material=GRAPHENE, **more)


def test_a_foreign_atom_drawn_too_high_over_a_divacancy_is_none():
    atoms = graphene(size=(6, 6, 1), a=2.46, vacuum=8.0)
    atoms.pbc = True
    pair = [28, 29]
    middle = atoms.positions[pair].mean(axis=0)
    whole = atoms.copy()
    del atoms[pair]
    for sheet_, high, expected in ((atoms, 1.4, False), (whole, 2.2, True)):
        sheet_.append(Atom("Si", middle + [0.0, 0.0, high]))
        assert bool(adatoms(sheet_)[-1]) is expected


@pytest.mark.parametrize("symbol", ["C", "Si", "H"])
@pytest.mark.parametrize("site", ["bridge", "top"])
def test_adatoms_are_seen(symbol, site):
    assert np.flatnonzero(adatoms(with_adatom(symbol, site))).tolist() == [32]


def test_an_atom_far_above_and_one_in_a_hollow_are_adatoms():
    for height in (0.0, 1.7, 3.3, 6.0):
        atoms = sheet()
        atoms.append(Atom("C", atoms.positions[[1, 2]].mean(axis=0) + [0.0, 0.0, height]))
        if height == 0.0:  # a flat draw: in the middle of a hexagon
            atoms.positions[32] = atoms.positions[0] + [0.0, -2 * 2.46 / 3**0.5 / 2, 0.0]
        assert adatoms(atoms)[32]


def test_substitutional_atoms_vacancies_and_rotated_bonds_are_none():
    assert not adatoms(sheet()).any()
    for height in (0.0, 0.5, 1.5):
        assert not adatoms(with_silicon(height)).any()
    hole = sheet()
    del hole[[5, 6]]
    assert not adatoms(hole).any()
    rotated = graphene(size=(6, 6, 1), vacuum=7.0)
    rotated.pbc = True
    middle = rotated.positions[[30, 31]].mean(axis=0)
    pair = rotated[[30, 31]]
    pair.rotate(90, "z", center=middle)
    rotated.positions[[30, 31]] = pair.positions
    assert not adatoms(rotated).any()
    sulphide = mx2(size=(4, 4, 1), vacuum=8.0)
    sulphide.pbc = True
    del sulphide[[1]]
    assert not adatoms(sulphide).any()
    add_adsorbate(sulphide, "C", 1.5, position=tuple(sulphide.positions[0, :2]))
    assert np.flatnonzero(adatoms(sulphide)).tolist() == [len(sulphide) - 1]


@pytest.mark.parametrize("symbol", ["C", "Si"])
def test_lammps_refuses_adatoms_and_names_an_engine_that_is_fit(symbol):
    with pytest.raises(BadInput, match=rf"has ad-atoms of {symbol}.*Use gfn1-xtb"):
        relax(given(with_adatom(symbol)), RelaxOptions())
    with pytest.raises(BadInput, match="ad-atoms"):
        dynamics(given(with_adatom(symbol), "dynamics", temperature_K=300.0), DynamicsOptions())


def test_it_runs_where_that_is_allowed_and_the_result_says_so():
    result = relax(given(with_adatom(), allow_unfit=True), RelaxOptions(max_steps=2))
    assert result.status in {"done", "not converged"}
    assert result.notes[0].startswith("not fit: ")
    assert relax(given(sheet()), RelaxOptions(max_steps=2)).notes == ()


def test_python_refuses_and_allows_it_too():
    common = {"temperatures_K": [], "relax_engine": "lammps", "workers": 1}
    few = RelaxOptions(max_steps=1)
    with pytest.raises(BadInput, match="ad-atoms"):
        ad.simulate(with_adatom(), **common)
    (result,) = ad.simulate(with_adatom(), allow_unfit=True, relax_options=few, **common)
    assert result.notes[0].startswith("not fit: ")


def test_elements_without_a_potential_are_refused_even_if_allowed():
    with pytest.raises(BadInput, match=r"got C\+N"):
        relax(given(with_adatom("N"), allow_unfit=True), RelaxOptions())


def test_the_engine_is_chosen_by_structure_and_material():
    perfect, on_top = (Structure.from_ase(a) for a in (sheet(), with_adatom()))
    assert choose_engine("relax", [perfect], GRAPHENE) == "gfn1-xtb"  # graphene's own order
    assert choose_engine("dynamics", [perfect], GRAPHENE) == "lammps"
    assert choose_engine("dynamics", [perfect, on_top], GRAPHENE) != "lammps"
    boron = sheet()
    boron.symbols[3] = "B"
    assert choose_engine("dynamics", [Structure.from_ase(boron)], GRAPHENE) != "lammps"
    sulphide = Structure.from_ase(mx2(size=(3, 3, 1), vacuum=8.0))
    assert choose_engine("relax", [sulphide], load_material("MoS2")) == "lammps"  # its own order
    assert engine_for("lammps", "relax", [on_top], GRAPHENE) == "lammps"  # a name stays


def test_what_is_not_installed_is_not_chosen(monkeypatch):
    found = fitness.require

    def without(name, kind):
        if name in ("sevennet", "gfn1-xtb"):
            raise EngineMissing(name, expected="it", got="it is not installed", todo="install it")
        return found(name, kind)

    monkeypatch.setattr(fitness, "require", without)
    perfect, on_top = (Structure.from_ase(a) for a in (sheet(), with_adatom()))
    assert choose_engine("relax", [perfect], GRAPHENE) == "lammps"
    with pytest.raises(EngineMissing, match=r"gfn1-xtb: it is not installed; lammps: .*ad-atoms"):
        choose_engine("relax", [on_top], GRAPHENE)
    assert engine_for("auto", "relax", [on_top], GRAPHENE) == "lammps"  # refused on its own


def test_charges_and_moments_of_another_engine_change_no_energy():
    atoms = sheet(3, 2)
    plain = relax(given(atoms, engine="gfn1-xtb"), RelaxOptions(max_steps=1))
    atoms.set_initial_charges(np.linspace(-0.3, 0.31, len(atoms)).round(2))
    atoms.set_initial_magnetic_moments(np.ones(len(atoms)))
    with_them = relax(given(atoms, engine="gfn1-xtb"), RelaxOptions(max_steps=1))
    assert with_them.energy_eV == pytest.approx(plain.energy_eV, abs=1e-6)


def test_gpaw_refuses_what_would_take_days():
    engine = require("lammps", "relax")
    assert engine.unfit(sheet(8, 10), GRAPHENE) == ""
    from adatom.simulation.engines.gpaw import GPAW

    assert "320 atoms" in GPAW.unfit(sheet(8, 10), GRAPHENE)
