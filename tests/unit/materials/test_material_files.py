"""Material files and structure files: what they say, and bad ones are refused."""

import re
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import typer
from ase import Atoms

from adatom.cli import main as cli
from adatom.errors import BadInput
from adatom.materials.file_schema import Column, FromStructure, MaterialFile, WrittenCell
from adatom.materials.library import load_material, material_names

MOS2_TOML = """
name = "mine"
form = "sheet"
extra = ["S", "W"]

[crystal]
cell_A = [[3.16, 0.0], [1.58, 2.73664]]
columns = [
  { is = "S2", at = [0.6666666667, 0.6666666667] },
  { is = "Mo", at = [0.3333333333, 0.3333333333] },
]
"""

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "add-a-material.md").read_text("utf-8")


def written(folder, text, name="mine.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def perovskite(a, large):
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms(large + "TiO3", scaled_positions=places, cell=[a] * 3, pbc=True)


def test_a_file_with_a_crystal_written_out(tmp_path):
    m, known = load_material(str(written(tmp_path, MOS2_TOML))), load_material("MoS2")
    assert m.name == "mine"
    assert m.species == ("Mo", "S2", "S", "W")
    assert m.site_species == ("Mo", "S2")  # the brightest is the host, in whatever order
    assert (m.cell_A, m.basis, m.bond_length_A) == (known.cell_A, known.basis, known.bond_length_A)


def test_a_file_that_names_a_structure_beside_it(tmp_path, monkeypatch):
    ase.io.write(tmp_path / "gold.cif", ase.build.bulk("Au", "fcc", a=4.078, cubic=True))
    text = 'name = "gold"\nform = "columns"\nextra = ["Ag"]\n\n[structure]\nfile = "gold.cif"\n'
    path = written(tmp_path, text + "zone_axis = [1, 1, 0]\n")
    monkeypatch.chdir("/")  # the file is looked for beside the one that names it
    m, known = load_material(str(path)), load_material("Au")
    assert m.species == ("Au", "Ag")
    assert m.bond_length_A == pytest.approx(known.bond_length_A, abs=1e-6)
    assert np.linalg.det(m.cell()) == pytest.approx(np.linalg.det(known.cell()), rel=1e-6)


def test_a_file_of_dispersed_atoms(tmp_path):
    text = 'name = "pair"\nform = "atoms"\natoms = ["Pt", "Au"]\nextra = ["Ag"]\nclosest_A = 2.5\n'
    m = load_material(str(written(tmp_path, text)))
    assert (m.form, m.species, m.bond_length_A) == ("atoms", ("Pt", "Au", "Ag"), 2.5)
    assert m.probe_sigma_A is None


def test_a_file_sets_contrast_and_probe(tmp_path):
    text = "contrast_exponent = 2.0\nprobe_sigma_A = [0.7, 0.9]\n" + MOS2_TOML
    m = load_material(str(written(tmp_path, text)))
    assert m.brightness()[m.species.index("S2")] == pytest.approx(2 * (16 / 42) ** 2)
    assert m.probe_sigma_A == (0.7, 0.9)
    assert m.scale == pytest.approx(0.8 / 0.43)


def test_columns_too_dim_to_be_seen_are_left_out(tmp_path):
    """O beside Ba: (8 / 56)^1.64 = 4 %; beside Ti alone it would be 19 % and stay."""
    ase.io.write(tmp_path / "BaTiO3.cif", perovskite(4.005, "Ba"))
    m, known = load_material(str(tmp_path / "BaTiO3.cif")), load_material("BaTiO3")
    assert m.name == "BaTiO3"
    assert m.form == "columns"
    assert m.site_species == m.species == ("Ba", "TiO")
    assert m.bond_length_A == pytest.approx(known.bond_length_A, abs=1e-6)
    anatase_like = Atoms("TiO", positions=[(0, 0, 0), (1.9, 1.9, 0)], cell=[3.8] * 3, pbc=True)
    ase.io.write(tmp_path / "TiO.cif", anatase_like)
    assert load_material(str(tmp_path / "TiO.cif")).site_species == ("Ti", "O")


def test_a_structure_file_of_a_sheet(tmp_path):
    path = tmp_path / "my sheet.cif"
    ase.io.write(path, ase.build.mx2("MoS2", a=3.16, vacuum=8))
    m = load_material(str(path))
    assert m.name == "my-sheet"
    assert m.form == "sheet"
    assert m.site_species == ("Mo", "S2")
    assert m.bond_length_A == pytest.approx(3.16 / 3**0.5, abs=1e-4)
    assert m.coordination == 3
    assert m.ring_size == 6


def test_a_structure_file_is_seen_along_the_axis_asked_for(tmp_path):
    path = tmp_path / "CdTe.cif"
    ase.io.write(path, ase.build.bulk("CdTe", "zincblende", a=6.482, cubic=True))
    m = load_material(str(path), (1, 1, 0))
    assert m.form == "columns"
    assert m.site_species == ("Te", "Cd")
    assert m.bond_length_A == pytest.approx(1.6205, abs=1e-4)
    on_end = load_material(str(path))  # along [001] every column is of one kind, a/(2√2) apart
    assert set(on_end.site_species) == {"Te", "Cd"}
    assert on_end.bond_length_A == pytest.approx(6.482 / 8**0.5, abs=1e-4)


GOOD = 'name = "m"\n[crystal]\ncell_A = [[3, 0], [0, 3]]\ncolumns = [{ is = "Fe", at = [0, 0] }]\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bonds = 3\n" + GOOD, ("bonds", "not permitted")),
        (GOOD.replace("at =", "xy ="), ("crystal.columns.0.at", "required")),
        (GOOD.replace('name = "m"\n', ""), ("name", "required")),
        (GOOD.replace('"m"', '"a b"'), ("name", "a b")),
        ('name = "m"\n', ("give one of [crystal], [structure] and atoms",)),
        (GOOD + '[structure]\nfile = "x.cif"\n', ("give one of [crystal], [structure] and atoms",)),
        (GOOD.replace('"Fe"', '"Xq"'), ("chemical symbols", "'Xq'")),
        (GOOD.replace('"Fe"', '"X"'), ("chemical symbols", "'X'")),
        (GOOD.replace('"Fe"', '"iron"'), ("crystal.columns.0.is", "'iron'")),
        ('extra = ["Si", "Qq2"]\n' + GOOD, ("chemical symbols", "'Qq2'")),
        (GOOD.replace("[0, 3]", "[6, 0]"), ("two independent lattice vectors", "[6.0, 0.0]")),
        (GOOD.replace("[0, 3]", "[0, 0]"), ("two independent lattice vectors",)),
        (GOOD.replace('"m"', '"m'), ("a TOML file", "line 1")),
        ('form = "layer"\n' + GOOD, ("form", "'sheet', 'columns' or 'atoms'", "layer")),
        ('form = "atoms"\n' + GOOD, ("atoms go with form = 'atoms'",)),
        ('name = "m"\natoms = ["Pt"]\n', ("atoms go with form = 'atoms'",)),
        ('name = "m"\nform = "atoms"\natoms = ["Qq"]\n', ("chemical symbols", "'Qq'")),
        ("contrast_exponent = 0\n" + GOOD, ("contrast_exponent", "greater than 0")),
        (
            'name = "m"\n[structure]\nbulk = { name = "Au" }\nzone_axis = [0, 0, 0]\n',
            ("structure", "the zone axis must not be 0 0 0"),
        ),
        ('name = "m"\n[structure]\nzone_axis = [0, 0, 1]\n', ("give either file or bulk",)),
        ('name = "m"\n[structure]\nfile = "gone.cif"\n', ("gone.cif", "no such file")),
        ('name = "m"\n[structure]\nbulk = { name = "Qq" }\n', ("ase.build.bulk", "Qq")),
        ('name = "m"\n[structure]\nbulk = { colour = "red" }\n', ("ase.build.bulk", "colour")),
    ],
)
def test_bad_material_files_are_refused_with_a_reason(tmp_path, text, words):
    assert load_material(str(written(tmp_path, GOOD))).species == ("Fe",)
    with pytest.raises(BadInput) as refused:
        load_material(str(written(tmp_path, text)))
    for word in (str(tmp_path), *words):
        assert word in str(refused.value)
    assert refused.value.todo


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("broken.cif", lambda p: p.write_text("no structure"), ("a structure file that ASE",)),
        (
            "molecule.xyz",
            lambda p: ase.io.write(p, ase.build.molecule("CO")),
            ("three lattice vectors", "Write the cell into the file"),
        ),
        ("gone.cif", lambda p: None, ("MoS2", "a TOML material file", "a structure file")),
    ],
)
def test_bad_structure_files_are_refused_with_a_reason(tmp_path, name, make, words):
    make(tmp_path / name)
    with pytest.raises(BadInput) as refused:
        load_material(str(tmp_path / name))
    for word in (name, *words):
        assert word in str(refused.value)


@pytest.mark.parametrize(("typed", "meant"), [("mos-2", "MoS2"), ("graphen", "graphene")])
def test_a_mistyped_name_gives_the_nearest_in_the_error(typed, meant):
    with pytest.raises(BadInput) as refused:
        load_material(typed)
    assert f"Did you mean {meant!r}?" in str(refused.value)
    assert "MoS2" in refused.value.expected
    assert "Pt-on-carbon" in refused.value.expected


def test_the_page_lists_the_built_in_materials_as_they_are():
    rows = re.findall(r"^\| `([^`]+)` \| (sheet|columns|atoms)\b[^|]*\|(.*)\|$", PAGE, re.MULTILINE)
    assert sorted(name for name, *_ in rows) == sorted(material_names())
    for name, form, rest in rows:
        m = load_material(name)
        sites, extra, bond = (cell.strip() for cell in rest.split("|"))
        assert m.form == form
        assert tuple(sites.split(", ")) == tuple(dict.fromkeys(m.site_species))
        others = tuple(s for s in m.species if s not in m.site_species)
        assert (() if extra == "–" else tuple(extra.split(", "))) == others
        assert float(bond) == pytest.approx(m.bond_length_A, abs=0.006)


def test_the_files_on_the_page_are_read(tmp_path):
    wse2, gaas = (
        load_material(str(written(tmp_path, text)))
        for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    )
    assert wse2.species == ("W", "Se2", "Se", "Mo")
    assert wse2.bond_length_A == pytest.approx(3.282 / 3**0.5, abs=1e-4)
    assert wse2.probe_sigma_A == (0.35, 0.6)
    assert gaas.species == ("As", "Ga", "Al")
    assert gaas.bond_length_A == pytest.approx(5.653 / 4, abs=1e-4)


def test_the_page_explains_every_key_and_the_options_are_there():
    for model in (MaterialFile, WrittenCell, Column, FromStructure):
        for name, about in model.model_fields.items():
            key = about.alias or name
            assert any(f"`{shown}`" in PAGE for shown in (key, f"[{key}]", f"[[{key}]]")), key
    text = " ".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)) + " ".join(
        re.findall(r"`(--[^`]+)`", PAGE)
    )
    known = set()
    for command in typer.main.get_command(cli.app).commands.values():
        if command.name in ("train", "find", "identify"):
            known |= {o for p in command.params for o in p.opts}
    used = set(re.findall(r"(?<!\S)-{1,2}[a-z][a-z-]*", text))
    assert {"--zone-axis", "--weights", "--steps", "--start", "-o"} <= used
    assert used <= known
