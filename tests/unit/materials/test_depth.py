"""The atoms behind the columns: volumes, heights and densities against what is known."""

import ase.build
import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.materials.library import load_material, material_names
from adatom.materials.projection import project


def perovskite(a: float) -> Atoms:
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms("SrTiO3", scaled_positions=places, cell=[a] * 3, pbc=True)


SI = ase.build.bulk("Si", "diamond", a=5.431, cubic=True)
CDTE = ase.build.bulk("CdTe", "zincblende", a=6.482, cubic=True)
STO = perovskite(3.905)
ASKEW = Atoms(  # triclinic, nothing in a place of symmetry
    "FeNiPt",
    scaled_positions=[(0.1, 0.2, 0.3), (0.55, 0.7, 0.45), (0.8, 0.35, 0.9)],
    cell=[[4.1, 0.0, 0.0], [0.9, 4.6, 0.0], [-0.7, 0.8, 5.2]],
    pbc=True,
)


def distances(atoms: Atoms, reach: float = 6.0) -> np.ndarray:
    """Every distance below the reach from every atom, sorted by the elements and by itself, Å."""
    i, j, d = neighbor_list("ijd", atoms, reach)
    return d[np.lexsort((d.round(4), atoms.numbers[i] * 200 + atoms.numbers[j]))]


@pytest.mark.parametrize("axis", [(0, 0, 1), (1, 1, 0), (1, 1, 1), (1, 1, 2), (1, -1, 2)])
@pytest.mark.parametrize("atoms", [SI, CDTE, STO, ASKEW], ids=lambda atoms: str(atoms.symbols))
def test_the_crystal_is_the_given_one_whatever_the_beam(atoms, axis):
    crystal = project(atoms, axis).crystal
    solid = crystal.to_ase()
    assert np.linalg.det(solid.cell) > 0  # right-handed
    share = len(solid) / len(atoms)
    assert solid.get_volume() == pytest.approx(atoms.get_volume() * share)
    whole = np.lcm(len(solid), len(atoms))  # the same number of atoms: the same distances
    ours, given = (np.tile(distances(a), whole // len(a)) for a in (solid, atoms))
    np.testing.assert_allclose(np.sort(ours), np.sort(given), atol=1e-4)


def test_silicon_along_110_has_two_atoms_in_the_projected_cell():
    crystal = project(SI, (1, 1, 0)).crystal
    assert crystal.period_A == pytest.approx(5.431 / 2**0.5)
    solid = crystal.to_ase()
    assert len(solid) == 2
    assert solid.get_volume() / 2 == pytest.approx(5.431**3 / 8)
    assert crystal.density_g_cm3 == pytest.approx(2.329, abs=0.001)  # of silicon
    large = project(SI.repeat((3, 3, 2)), (1, 1, 0)).crystal
    assert len(large.atoms) == 2


def test_strontium_titanate_has_the_oxygen_that_is_not_seen():
    material = load_material("SrTiO3")
    assert material.site_species == ("Sr", "TiO")
    assert material.crystal.formula == "O3SrTi"
    assert material.crystal.density_g_cm3 == pytest.approx(5.12, abs=0.01)  # measured: 5.11
    stack = {c.symbols: c.heights_A for c in material.crystal.columns()}
    assert stack["O", "Ti"] == (0.0, 1.9525)
    assert sum(c.symbols == ("O",) for c in material.crystal.columns()) == 2
    ours, given = (distances(a.repeat(2), 4.0) for a in (material.crystal.to_ase(), STO))
    np.testing.assert_allclose(ours, given, atol=1e-4)


def test_a_column_of_sulfur_is_two_atoms_above_each_other():
    crystal = load_material("MoS2").crystal
    assert crystal.is_sheet
    sulfur, metal = sorted(crystal.columns(), key=lambda c: -len(c.symbols))
    assert (sulfur.symbols, sulfur.heights_A) == (("S", "S"), (-1.56, 1.56))
    assert (metal.symbols, metal.heights_A) == (("Mo",), (0.0,))
    shortest = distances(crystal.to_ase().repeat((3, 3, 1)), 2.6)
    assert shortest == pytest.approx(2.40, abs=0.02)  # Mo-S of the crystal: 2.41 Å
    janus = load_material("MoSSe").crystal
    assert {c.symbols: c.heights_A for c in janus.columns()}["S", "Se"] == (-1.53, 1.7)


def test_every_lattice_of_the_library_has_the_atoms_of_its_columns():
    for name in material_names():
        material = load_material(name)
        if not material.has_lattice:
            assert material.crystal is None
            continue
        cell = material.cell()
        assert material.crystal.is_sheet == (material.form == "sheet")
        for label, (u, v) in zip(material.site_species, material.basis, strict=True):
            away = [np.array(c.xy_A) - (u, v) @ cell for c in material.crystal.columns()]
            steps = np.array(away) @ np.linalg.inv(cell)
            on = np.flatnonzero(np.abs(steps - steps.round()).max(axis=1) < 1e-3)
            assert len(on) == 1, name
            symbols = material.crystal.columns()[on[0]].symbols
            assert sorted(symbols) == sorted(Atoms(label).get_chemical_symbols()), name
    assert len(GRAPHENE.crystal.atoms) == 2


def test_a_sheet_from_a_file_is_whole_and_centred(tmp_path):
    sheet = ase.build.mx2("MoS2", a=3.16, thickness=3.12, vacuum=8)
    sheet.positions[:, 2] -= 9.0  # across the boundary of its cell
    sheet.pbc = True
    sheet.wrap()
    sheet.repeat((3, 2, 1)).write(tmp_path / "MoS2.cif")
    crystal = load_material(str(tmp_path / "MoS2.cif")).crystal
    assert crystal.is_sheet
    assert len(crystal.atoms) == 3
    assert sorted(crystal.positions_A[:, 2].round(3)) == [-1.56, 0.0, 1.56]


def test_crystals_without_vacuum_and_askew_stay_periodic():
    for atoms in (CDTE, ASKEW):
        crystal = project(atoms, (0, 0, 1)).crystal
        assert crystal.as_sheet() is crystal


def test_heights_are_given_for_every_atom_or_for_none(tmp_path):
    text = """name = "X"\n[crystal]\ncell_A = [[3.2, 0.0], [1.6, 2.77]]
columns = [{ is = "S2", at = [0.0, 0.0]%s }]\n"""
    path = tmp_path / "x.toml"
    path.write_text(text % "")
    assert load_material(str(path)).crystal is None
    path.write_text(text % ", z_A = [1.0]")
    with pytest.raises(BadInput, match="expected 2 heights, got 1"):
        load_material(str(path))
