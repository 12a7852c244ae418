"""Materials: what the built-in ones are, what files say, and crystals drawn and fitted exactly."""

import re
from dataclasses import replace
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import typer
from ase import Atoms
from scipy.spatial import cKDTree

from adatom.cli import main as cli
from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.frames.lattice.fit import fit_lattice
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.crystal import draw_specimen
from adatom.frames.simulate.specimen import EMPTY_A, Specimen, lattice_sites
from adatom.frames.simulate.synthesize import expected_image, random_labelled
from adatom.frames.simulate.universal import random_material, universal_pair
from adatom.materials.library import (
    Crystal,
    FromStructure,
    MaterialFile,
    load_material,
    material_names,
)

# Bond (Å), neighbours, area of the cell (Å²), sites and further species: from the lattice constants
# in the literature, by hand.
_ROOT3 = 3.0**0.5
TRUTH = {
    "graphene": (2.46 / _ROOT3, 3, 2.46**2 * _ROOT3 / 2, {"C"}, {"Si"}),
    "h-BN": (2.504 / _ROOT3, 3, 2.504**2 * _ROOT3 / 2, {"N", "B"}, {"C", "O"}),
    "MoS2": (3.16 / _ROOT3, 3, 3.16**2 * _ROOT3 / 2, {"Mo", "S2"}, {"S", "W", "V"}),
    "WS2": (3.153 / _ROOT3, 3, 3.153**2 * _ROOT3 / 2, {"W", "S2"}, {"S", "Mo"}),
    "MoSe2": (3.288 / _ROOT3, 3, 3.288**2 * _ROOT3 / 2, {"Mo", "Se2"}, {"Se", "W"}),
    "MoSSe": (3.22 / _ROOT3, 3, 3.22**2 * _ROOT3 / 2, {"Mo", "SSe"}, {"S2", "Se2", "W"}),
    "SrTiO3": (3.905 / 2**0.5, 4, 3.905**2, {"Sr", "TiO"}, {"Ti"}),
    "BaTiO3": (4.005 / 2**0.5, 4, 4.005**2, {"Ba", "TiO"}, {"Ti"}),
    # Along [110] of an fcc lattice: a centred rectangle a x a/√2 with two columns or dumbbells.
    "Au": (4.078 * (3 / 8) ** 0.5, 4, 4.078**2 / 8**0.5, {"Au"}, set()),
    "CdTe": (6.482 / 4, 1, 6.482**2 / 8**0.5, {"Cd", "Te"}, set()),
}
Z = {"Mo": 42, "S": 16, "W": 74, "V": 23, "Sr": 38, "Ti": 22, "O": 8, "Se": 34}
# Columns of two layers over each other.
STACKED = {"MoS2": {"MoS2"}, "WS2": {"WS2"}, "MoSe2": {"MoSe2"}}
CRYSTALS = tuple(TRUTH)


def intensity(label, exponent=1.64):
    """Σ Zⁿ of labels of the form used here: symbols with an optional 2."""
    parts = {
        "S2": "S S", "Se2": "Se Se", "SSe": "S Se", "TiO": "Ti O", "MoS2": "Mo S S",
        "WS2": "W S S", "MoSe2": "Mo Se Se",
    }.get(label, label).split()  # fmt: skip
    return sum(Z[s] ** exponent for s in parts)


def test_every_built_in_material_is_known_here():
    assert set(material_names()) == {*TRUTH, "Pt-on-carbon", "Re-on-carbon"}


@pytest.mark.parametrize("name", CRYSTALS)
def test_built_in_crystals_are_as_in_the_literature(name):
    m = load_material(name)
    bond, neighbours, area, sites, extra = TRUTH[name]
    assert m.name == name
    assert m.bond_length_A == pytest.approx(bond, abs=2e-3)
    assert m.coordination == neighbours
    assert np.linalg.det(m.cell()) == pytest.approx(area, rel=1e-4)  # right-handed, too
    assert set(m.site_species) == sites
    assert set(m.species) == sites | extra | STACKED.get(name, set())
    assert m.species[0] == m.host
    assert len(set(m.species)) == len(m.species)
    assert m.form == ("columns" if name in ("SrTiO3", "BaTiO3", "Au", "CdTe") else "sheet")
    assert m.brightness()[0] == 1.0
    brightest = max(m.brightness()[: len(sites)])
    assert m.brightness()[0] == brightest, "the host is the brightest column of the crystal"


@pytest.mark.parametrize("name", ["Pt-on-carbon", "Re-on-carbon"])
def test_dispersed_atoms_have_no_lattice(name):
    m = load_material(name)
    assert (m.form, m.coordination, m.bond_length_A) == ("atoms", 0, 2.4)
    assert m.species == (name[:2],)
    assert m.probe_sigma_A == (0.6, 1.5)
    assert fit_lattice(np.random.default_rng(0).uniform(0, 50, (200, 2)), m) is None


@pytest.mark.parametrize("typed", ["MOS2", " mos2 ", "MoS2"])
def test_names_are_found_however_they_are_typed(typed):
    assert load_material(typed) == load_material("MoS2")


@pytest.mark.parametrize("name", ["MoS2", "WS2", "MoSe2", "MoSSe", "SrTiO3"])
@pytest.mark.parametrize("exponent", [None, 1.4, 2.0])
def test_brightness_is_the_sum_of_the_powers_of_the_charges(name, exponent):
    m = load_material(name)
    value = m.brightness(exponent)
    power = 1.64 if exponent is None else exponent
    wanted = [intensity(s, power) / intensity(m.host, power) for s in m.species]
    np.testing.assert_allclose(value, wanted, rtol=1e-12)


def test_a_column_of_two_is_twice_as_bright_in_the_image():
    m = load_material("MoS2")
    image = {}
    for label in ("S2", "S", "Mo"):
        lone = Specimen(
            np.array([[4.0, 4.0]]), np.array([m.species.index(label)]), np.zeros((0, 2))
        )
        conditions = Conditions(background=0.0)
        image[label] = expected_image(lone, (81, 81), m, conditions, np.random.default_rng(0))
    here = np.s_[30:51, 30:51]
    np.testing.assert_allclose(image["S2"][here], 2 * image["S"][here], rtol=1e-5)
    np.testing.assert_allclose(image["Mo"][here], image["S"][here] * (42 / 16) ** 1.64, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("graphene", 1.0),
        ("CdTe", 6.482 / 4 / 1.42),
        ("MoS2", 3.16 / 3**0.5 / 1.42),
        ("Au", 1.5),  # long bonds, but the probe has to be sampled all the same
        ("Pt-on-carbon", (0.6 + 1.5) / 2 / 0.43),  # the probe is wider than any bond
    ],
)
def test_scale_is_that_of_the_pattern(name, wanted):
    assert load_material(name).scale == pytest.approx(wanted, rel=1e-3)


# --- files -----------------------------------------------------------------------------------

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
    assert m.bond_length_A == pytest.approx(3.16 / _ROOT3, abs=1e-4)
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
        ('name = "m"\n[structure]\nfile = "gone.cif"\n', ("gone.cif", "No such file")),
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


@pytest.mark.parametrize(("typed", "meant"), [("MoS3", "mos2"), ("graphen", "graphene")])
def test_a_mistyped_name_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(BadInput) as refused:
        load_material(typed)
    assert f"Did you mean {meant!r}?" in str(refused.value)
    assert "MoS2" in refused.value.expected
    assert "Pt-on-carbon" in refused.value.expected


# --- the page about them --------------------------------------------------------------------

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "add-a-material.md").read_text("utf-8")


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
    assert wse2.bond_length_A == pytest.approx(3.282 / _ROOT3, abs=1e-4)
    assert wse2.probe_sigma_A == (0.35, 0.6)
    assert gaas.species == ("As", "Ga", "Al")
    assert gaas.bond_length_A == pytest.approx(5.653 / 4, abs=1e-4)


def test_the_page_explains_every_key_and_the_options_are_there():
    for model in (MaterialFile, Crystal, FromStructure):
        for key in model.model_fields:
            assert any(f"`{shown}`" in PAGE for shown in (key, f"[{key}]", f"[[{key}]]")), key
    text = " ".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)) + " ".join(
        re.findall(r"`(--[^`]+)`", PAGE)
    )
    known = set()
    for command in typer.main.get_command(cli.app).commands.values():
        if command.name in ("train", "find"):
            known |= {o for p in command.params for o in p.opts}
    used = set(re.findall(r"(?<!\S)-{1,2}[a-z][a-z-]*", text))
    assert {"--zone-axis", "--weights", "--steps", "--start", "-o"} <= used
    assert used <= known


# --- crystals --------------------------------------------------------------------------------


def field_of(material, bonds=16.0):
    return (bonds * material.bond_length_A, 0.9 * bonds * material.bond_length_A)


@pytest.mark.parametrize("name", [n for n in CRYSTALS if n != "graphene"])
def test_crystals_that_are_drawn_have_a_consistent_truth(name):
    """Graphene has specimens of its own, and tests of them."""
    m = load_material(name)
    unit = m.bond_length_A
    sites = {m.species.index(s) for s in m.site_species}
    vacancies = foreign = misplaced = 0
    for seed in range(40):
        whole = seed % 2 > 0
        s = draw_specimen(m, field_of(m), np.random.default_rng(seed), whole=whole)
        assert s.xy.shape == (len(s.species), 2)
        assert np.isfinite(s.xy).all()
        assert s.species.min() >= 0
        assert s.species.max() < len(m.species)
        assert s.brightness.shape == s.species.shape
        assert (s.brightness > 0).all()
        vacancies += len(s.vacancies_xy)
        foreign += int((~np.isin(s.species, list(sites))).sum())
        if len(s.vacancies_xy):
            gap = cKDTree(s.xy).query(s.vacancies_xy)[0]
            assert gap.min() > EMPTY_A * unit / 1.42, f"seed {seed}: a vacancy with an atom on it"
            apart = cKDTree(s.vacancies_xy).query(s.vacancies_xy, k=2)[0][:, 1]
            assert apart.min() > 0.5 * unit, f"seed {seed}: one empty site counted twice"
        near = cKDTree(s.xy).query_pairs(0.5 * unit, output_type="ndarray")
        if whole:
            # Only what lies on top, and one or two do in a seventh of the specimens, is so near.
            misplaced += len(near) > 0
            assert len(np.unique(near[:, 1])) <= 6, f"seed {seed}: columns in one place"
            for a, b in near:
                assert np.linalg.norm(s.xy[a] - s.xy[b]) > 0.2 * unit
            inside = np.all((s.xy > 0) & (s.xy < field_of(m)), axis=1).sum()
            empty = np.all((s.vacancies_xy > 0) & (s.vacancies_xy < field_of(m)), axis=1).sum()
            cells = np.prod(field_of(m)) / np.linalg.det(m.cell())
            columns = {2, 3} if name in STACKED else {len(m.basis)}  # 3R has three a cell
            assert any(inside + empty == pytest.approx(n * cells, rel=0.2) for n in columns)
    assert vacancies > 30
    assert misplaced <= 8
    if set(m.species) - set(m.site_species):
        assert foreign > 20


def test_no_site_is_empty_on_which_an_ad_atom_lies():
    m, vacancies = load_material("h-BN"), 0
    for seed in range(400):
        s = draw_specimen(m, field_of(m), np.random.default_rng(seed), whole=True)
        if len(s.vacancies_xy):
            gap = cKDTree(s.xy).query(s.vacancies_xy)[0]
            assert gap.min() > EMPTY_A * m.bond_length_A / 1.42
        vacancies += len(s.vacancies_xy)
    assert vacancies > 1000


def test_sites_of_one_kind_are_about_equally_bright_and_a_wedge_is_smooth():
    m = load_material("SrTiO3")
    for seed in range(10):
        s = draw_specimen(m, field_of(m, 24.0), np.random.default_rng(seed), whole=True)
        near = cKDTree(s.xy).query_pairs(1.6 * m.bond_length_A, output_type="ndarray")
        same = s.species[near[:, 0]] == s.species[near[:, 1]]
        ratio = s.brightness[near[same, 0]] / s.brightness[near[same, 1]]
        assert np.median(np.abs(np.log(ratio))) < 0.1
        assert len(np.unique(s.brightness.round(9))) > 10  # a thickness that varies


def test_dispersed_atoms_keep_their_distance_and_differ_in_number():
    m = load_material("Pt-on-carbon")
    counts = []
    for seed in range(60):
        s = draw_specimen(m, (60.0, 50.0), np.random.default_rng(seed))
        counts.append(len(s.xy))
        assert not cKDTree(s.xy).query_pairs(m.bond_length_A * (1 - 1e-9))
        assert (s.species == 0).all()
        assert len(s.vacancies_xy) == 0
        assert (
            s.xy.min(initial=0.0) >= -3 * m.scale - 15
        )  # clusters reach a little beyond the margin
    assert min(counts) < 15
    assert max(counts) > 60


def crystal_with_noise(m, seed, noise_bonds=0.03):
    """Sites of a turned and strained crystal, with noise: exact, measured, species, and map."""
    rng = np.random.default_rng(seed)
    extent = np.array(field_of(m))
    perfect, site = lattice_sites(m, tuple(extent), 6.0, rng.uniform(0, 2 * np.pi))
    strain = np.eye(2) + rng.normal(0.0, 0.02, (2, 2))
    exact = (perfect - extent / 2) @ strain.T + extent / 2 + rng.uniform(-1, 1, 2)
    measured = exact + rng.normal(0.0, noise_bonds * m.bond_length_A, exact.shape)
    inside = np.all((measured > 0) & (measured < extent), axis=1)
    species = np.array(m.site_species)[site]
    return exact[inside], measured[inside], species[inside], strain


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("seed", range(4))
def test_a_turned_and_strained_crystal_is_fitted_by_its_host_atoms(name, seed):
    """`fit_lattice` is given the host's atoms; their sites must come out, and the strain."""
    m = load_material(name)
    exact, measured, species, strain = crystal_with_noise(m, seed)
    host = species == m.host
    lattice = fit_lattice(measured[host], m)
    assert lattice is not None
    assert lattice.matched > 0.97
    assert lattice.rms_A == pytest.approx(0.03 * m.bond_length_A, rel=0.25)
    index, off = lattice.nearest_site(lattice.undistort(exact[host]))
    assert np.linalg.norm(off, axis=1).max() < 0.1 * m.bond_length_A
    assert len(np.unique(index, axis=0)) == host.sum(), "two atoms on one site"
    # The correction undoes the strain: what is left is a rotation.
    left = lattice.affine.array() @ strain
    np.testing.assert_allclose(np.linalg.svd(left, compute_uv=False), 1.0, atol=0.008)


@pytest.mark.parametrize("name", CRYSTALS)
def test_no_lattice_is_fitted_to_noise(name):
    m = load_material(name)
    extent = field_of(m)
    count = round(np.prod(extent) / m.site_area_A2)
    xy = np.random.default_rng(5).uniform(0, extent, (count, 2))
    lattice = fit_lattice(xy, m)
    # A third of a bond around every site covers this share of the plane.
    share = len(m.basis) * np.pi * (m.bond_length_A / 3) ** 2 / np.linalg.det(m.cell())
    assert lattice is None or lattice.matched < share + 0.25


# --- conditions and images ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["graphene", "MoS2", "Au", "Pt-on-carbon"])
def test_conditions_grow_with_the_pattern(name):
    m = load_material(name)
    drawn = [Conditions.random(np.random.default_rng(i), m) for i in range(300)]
    px = np.array([c.pixel_size_A for c in drawn]) / m.scale
    assert 0.065 <= px.min() < 0.07
    assert 0.2 < px.max() <= 0.22
    counts = np.array([c.counts_per_A2 for c in drawn]) * m.scale**2
    assert 2.5 <= counts.min() < 4
    assert 6000 < counts.max() <= 10_000
    gaussian = [c for c in drawn if c.optics is None]
    width = np.array([np.sqrt(np.prod(c.probe_sigma_A)) for c in gaussian])
    low, high = m.probe_sigma_A or (0.3, 0.56 * m.scale)
    assert low <= width.min() + 1e-9
    assert width.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < width.max() <= high + 1e-9
    assert len(gaussian) == (300 if m.probe_sigma_A else pytest.approx(180, abs=40))


def test_only_dispersed_atoms_lie_on_a_support():
    for name, under in (("MoS2", False), ("Au", False), ("Re-on-carbon", True)):
        m = load_material(name)
        for i in range(30):
            c = Conditions.random(np.random.default_rng(i), m)
            assert (c.support > 0) == under
            if under:
                assert 0.3 <= c.support <= 20.0
                assert c.slow_background == c.contamination == 0.0


def test_a_support_has_its_level_its_hills_and_its_speckle():
    m = load_material("Pt-on-carbon")
    nothing = Specimen(np.zeros((0, 2)), np.zeros(0, dtype=int), np.zeros((0, 2)))
    plain = Conditions(
        pixel_size_A=0.2, probe_sigma_A=(1.0, 1.0), counts=10.0, background=0.5, tail_fraction=0.0,
        support=2.0, support_speckle=0.0, support_hills=0.0,
    )  # fmt: skip

    def image(seed=0, **change):
        c = replace(plain, **change)
        return expected_image(nothing, (300, 300), m, c, np.random.default_rng(seed)) / 10.0

    np.testing.assert_allclose(image(), 2.5, rtol=1e-6)
    speckle = [image(s, support_speckle=0.1) for s in range(3)]
    for part in speckle:
        assert part.mean() == pytest.approx(2.5, rel=0.03)
        assert part.std() == pytest.approx(0.1 * 2.0, rel=0.15)
        # White noise through a Gaussian of σ has an autocorrelation of exp(-d² / 4 σ²); the probe
        # has σ = 1 Å, the lumps 1.8 Å, and the speckle is some of each.
        d = part - part.mean()
        at = (d[:, 10:] * d[:, :-10]).mean() / d.var()  # 2 Å
        assert np.exp(-1.0) - 0.12 < at < np.exp(-1.0 / 1.8**2) + 0.12
    hills = [image(s, support_hills=0.3, slow_length_A=8.0) for s in range(6)]
    assert np.mean([h.mean() for h in hills]) == pytest.approx(2.5, rel=0.1)
    assert np.mean([h.std() for h in hills]) == pytest.approx(0.3 * 2.0, rel=0.25)
    assert np.abs(np.diff(hills[0], axis=1)).max() < 0.1  # nothing in them is sharp


@pytest.mark.parametrize("name", ["MoS2", "Au", "CdTe", "SrTiO3", "Pt-on-carbon"])
def test_labels_lie_on_the_bright_spots(name):
    m = load_material(name)
    s = m.scale
    conditions = Conditions(
        pixel_size_A=0.1 * s, probe_sigma_A=(0.4 * s, 0.4 * s) if m.form == "atoms" else (0.4, 0.4),
        counts=400.0, tail_fraction=0.0, background=0.05,
    )  # fmt: skip
    labelled = random_labelled(
        m, np.random.default_rng(4), field_A=20 * s, conditions=conditions, whole=True
    )
    assert labelled.classes == m.species
    assert len(labelled.xy) > 10
    data, cal = labelled.frame.data, labelled.frame.calibration
    r, c = np.round(cal.rc(labelled.xy)).astype(int).T
    at = data[r, c]
    assert np.mean(at) > 1.5 * data.mean()
    assert np.mean(at) > 1.3 * np.mean(data[c, r])  # rows and columns not swapped
    if name == "MoS2":  # the brighter the species, the brighter its spots
        mo, s2 = (np.median(at[labelled.species == k]) for k in range(2))
        assert mo > 1.4 * s2


# --- the universal material ----------------------------------------------------------------------


def test_universal_pairs_are_nameless_and_of_one_size():
    for seed in range(6):
        a, b = universal_pair(np.random.default_rng(seed), field_A=24.0)
        assert a.classes == b.classes == ("X",)
        assert (a.species == 0).all()
        np.testing.assert_array_equal(a.xy, b.xy)
        extent = a.frame.calibration.extent_xy(a.frame.shape)
        assert min(extent) >= 24.0
        assert max(extent) < 26.0
        assert 0.065 * 0.999 <= a.frame.calibration.pixel_size_A <= 0.22 * 1.001
        assert ((a.xy >= 0) & (a.xy <= extent)).all()


def test_random_materials_have_the_bond_that_they_say():
    for seed in range(40):
        m = random_material(np.random.default_rng(seed))
        points, _ = lattice_sites(m, (40.0, 40.0), 0.0, 0.3)
        apart = cKDTree(points).query(points, k=2)[0][:, 1]
        assert apart.min() == pytest.approx(1.42, abs=1e-6)
        assert set(m.site_species) == {"X"}
        assert GRAPHENE.bond_length_A == pytest.approx(m.bond_length_A, rel=1e-3)
