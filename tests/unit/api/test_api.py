"""The Python functions: what they take, what they refuse, and what they call things."""

from __future__ import annotations

import inspect
import subprocess
import sys

import ase.io
import numpy as np
import polars as pl
import pytest
from ase.build import bulk, graphene, mx2

import adatom as ad
from adatom import api
from adatom.core import GRAPHENE, AtomTable, DefectTable, Structure
from adatom.errors import BadInput
from adatom.features.find import FindOptions
from adatom.frames.simulate.specimen import lattice_points
from adatom.learning import weights
from adatom.learning.weights import SHIPPED
from adatom.materials.library import load_material

TAKE_A_MATERIAL = ("adapt", "advise", "find", "find_defects", "simulate", "supercells")
TAKE_NETWORKS = ("adapt", "find")


@pytest.fixture
def silicon(tmp_path):
    """A file of silicon, whose columns along [110] stand in pairs 1.36 Å apart."""
    path = tmp_path / "my silicon.cif"
    ase.io.write(path, bulk("Si", "diamond", a=5.431, cubic=True))
    return path


def columns(material, field_A=26.0):
    """Every column of a perfect crystal as an atom that is surely there."""
    xy = lattice_points(material, (field_A, field_A), 1.0, 0.4)
    n = len(xy)
    return AtomTable.build(
        frame=0, xy=xy, covariance=np.tile(np.eye(2) * 0.02**2, (n, 1, 1)), p_exists=np.ones(n),
        element=[material.host] * n, p_element=np.ones(n), votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip


@pytest.mark.parametrize("name", TAKE_A_MATERIAL)
def test_a_material_is_told_in_the_same_words_everywhere(name):
    parameters = inspect.signature(getattr(api, name)).parameters
    # `simulate` finds the material of a structure where none is named.
    assert parameters["material"].annotation.removesuffix(" | None") == "MaterialLike"
    assert parameters["zone_axis"].default == (0, 0, 1)
    assert ("weights" in parameters) == (name in TAKE_NETWORKS)


def test_the_public_names_are_listed_without_importing_what_is_slow():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, adatom; print(*dir(adatom)); print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names, modules = done.stdout.splitlines()
    assert set(names.split()) == {*api.__all__, "AdatomError", "__version__"}
    assert not {"torch", "ase"} & set(modules.split())


def test_a_structure_file_along_a_zone_axis_works_from_python(silicon):
    """Along [110] these atoms are the crystal; along [001], the default, they are none of it."""
    along = (1, 1, 0)
    seen = load_material(str(silicon), along)
    frames = np.random.default_rng(0).poisson(5.0, (1, 260, 260))
    atoms = columns(seen)
    found = ad.find_defects(frames, atoms, material=silicon, zone_axis=along, pixel_size_A=0.1)
    assert len(found) == 0
    (cell,) = ad.supercells(atoms, material=silicon, zone_axis=along, draws=0)
    assert cell.atoms.get_volume() / len(cell.atoms) == pytest.approx(5.431**3 / 8, rel=1e-6)
    with pytest.raises(BadInput, match="`pixel_size_A`"):
        ad.supercells(atoms, material=silicon)


def test_networks_that_do_not_exist_yet_are_asked_for_by_the_right_command(
    silicon, tmp_path, monkeypatch
):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    with pytest.raises(BadInput, match="train") as refused:
        ad.find(np.ones((64, 64)), material=silicon, zone_axis=(1, 1, 0), pixel_size_A=0.1)
    assert f"adatom train '{silicon}' --zone-axis 1,1,0 -o my-silicon.safetensors" in str(
        refused.value
    )
    assert "`weights`" in refused.value.todo
    with pytest.raises(BadInput, match=r"adatom train Pt-on-carbon .*"):
        ad.find(np.ones((64, 64)), material=load_material("Pt-on-carbon"), pixel_size_A=0.1)
    unknown = load_material(str(silicon), (1, 1, 0))  # nobody can load it by its name
    with pytest.raises(BadInput, match=r"adatom train FILE\.toml"):
        ad.find(np.ones((64, 64)), material=unknown, pixel_size_A=0.1)


def test_a_material_may_be_a_name_a_path_or_the_thing_itself(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\n[crystal]\ncell_A = [[2.46, 0.0], [-1.23, 2.1304]]\n'
        'columns = [{is = "C", at = [0.0, 0.0]}, {is = "C", at = [0.33333, 0.66667]}]\n'
    )
    sheet = graphene(size=(12, 12, 1), vacuum=5.0)
    made = [ad.supercells(sheet, draws=0, material=m) for m in ("graphene", GRAPHENE, path)]
    assert len({len(cells[0].atoms) for cells in made}) == 1


def test_one_structure_or_several():
    sheet = graphene(size=(12, 12, 1), vacuum=5.0)
    other = sheet.copy()
    other.symbols[160] = "Si"
    both = [sheet, Structure.from_ase(other)]
    assert "Si" not in ad.supercells(both, frame=0, draws=0)[0].atoms.get_chemical_symbols()
    assert "Si" in ad.supercells(both, frame=1, draws=0)[0].atoms.get_chemical_symbols()
    one = ad.supercells(other, draws=2)
    for cell in one[1:]:  # positions are exact: draws differ in height alone
        np.testing.assert_allclose(cell.atoms.positions[:, :2], one[0].atoms.positions[:, :2])


SHEET = graphene(size=(12, 12, 1), vacuum=5.0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ad.example_frames(1, seed=-1), "`seed`"),
        (lambda: ad.example_frames(0), "`count`"),
        (lambda: ad.supercells(SHEET, seed=-1), "`seed`"),
        (lambda: ad.simulate([], seed=1.5), "`seed`"),
        (lambda: ad.simulate([], temperatures_K=[300.0, -3.0]), "`temperatures_K`"),
        (lambda: ad.simulate([], temperatures_K=[float("nan")]), "`temperatures_K`"),
        (lambda: ad.simulate("sheet.cif"), "ase.Atoms"),
        (lambda: ad.simulate([SHEET, 1]), "ase.Atoms"),
        (lambda: ad.supercells(3), "ase.Atoms"),
        (lambda: ad.supercells(SHEET, zone_axis=(1, 1)), "`zone_axis`"),
        (lambda: ad.supercells(SHEET, zone_axis="110"), "`zone_axis`"),
        (lambda: ad.supercells(SHEET, zone_axis=None), "`zone_axis`"),
        (lambda: ad.advise(AtomTable.empty(), None, material=3), "`material` 3"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(call, says):
    with pytest.raises(BadInput, match=says):
        call()


def test_the_voltage_of_the_frames_reaches_the_advice():
    atoms = columns(GRAPHENE)
    elements = atoms.data["element"].to_list()
    elements[np.argmin(np.linalg.norm(atoms.xy - 13.0, axis=1))] = "Si"
    badly_seen = {"sigma_x_A": pl.lit(0.4), "sigma_y_A": pl.lit(0.4)}
    atoms = AtomTable(atoms.data.with_columns(pl.Series("element", elements), **badly_seen))
    frames = np.random.default_rng(0).poisson(5.0, (1, 260, 260))
    defects = ad.find_defects(frames, atoms, material="graphene", pixel_size_A=0.1)
    advice = ad.advise(atoms, defects, voltage_kV=51.0)
    # Knock-on damage is weighed at it, as in campaigns; above 60 kV no Si is moved.
    (voltage,) = [a for a in advice if a.action == "set_voltage"]
    assert "at 51 kV" in voltage.reason


def test_options_that_the_networks_were_not_calibrated_for_give_a_warning(tmp_path):
    frames, pixel_size_A = ad.example_frames(1)
    small = frames[:, :96, :96]
    other = FindOptions.model_validate({"locate": {"threshold": 0.11}})
    with pytest.warns(UserWarning, match=r"find\.locate\.threshold is 0\.11 here and was 0\.08"):
        ad.find(small, material="graphene", pixel_size_A=pixel_size_A, options=other)
    ensemble = weights.load(SHIPPED / "graphene.safetensors")
    ensemble.card["options"] = other.model_dump()
    weights.save(ensemble, tmp_path / "mine.safetensors")
    mine = tmp_path / "mine.safetensors"
    with pytest.warns(UserWarning, match="not calibrated"):
        ad.find(small, material="graphene", pixel_size_A=pixel_size_A, weights=mine)


def test_a_pixel_size_that_the_lattice_contradicts_is_kept_and_told_with_both_values():
    frames, pixel_size_A = ad.example_frames(1)
    wrong = round(1.12 * pixel_size_A, 4)
    given = {"material": "graphene", "pixel_size_A": wrong}
    with pytest.warns(UserWarning, match=f"pixel size is {wrong:.4g} Å") as told:
        atoms = ad.find(frames, **given)
    # Only ours are counted: an unclosed file of another test may be told of here as well.
    (message,) = [str(w.message) for w in told if "pixel size" in str(w.message)]
    assert "graphene lattice would make it 0.10" in message
    assert atoms.xy[:, 0].max() == pytest.approx(wrong * frames.shape[2], rel=0.05)
    with pytest.warns(UserWarning, match="fitted to the graphene lattice") as told:
        fitted = ad.find(frames, **given, fit_scale=True)
    assert sum("pixel size" in str(w.message) for w in told) == 1
    assert fitted.xy[:, 0].max() == pytest.approx(pixel_size_A * frames.shape[2], rel=0.05)


def test_defects_have_the_scale_of_the_atoms():
    """A scale that is fitted to the lattice is the same in `find_defects` as in `find`."""
    frames, _ = ad.example_frames(1)
    given = {"material": "graphene", "pixel_size_A": 0.16, "fit_scale": True}
    with pytest.warns(UserWarning, match=r"0\.16 Å"):
        atoms = ad.find(frames, **given)
    assert sorted(ad.find_defects(frames, atoms, **given).kinds) == ["Si1C3", "V1"]


def test_atoms_above_each_other_are_one_column():
    sheet = mx2("MoS2", size=(12, 12, 1), vacuum=5.0)
    symbols = np.array(sheet.get_chemical_symbols())
    middle = sheet.positions.mean(axis=0)
    away = np.linalg.norm(sheet.positions - middle, axis=1)
    gone = int(np.argmin(np.where(symbols == "S", away, np.inf)))
    x, y, _ = sheet.positions[gone]
    (perfect,) = ad.supercells(sheet, material="MoS2", center_xy_A=(x, y), draws=0)
    del sheet[gone]
    likeliest, drawn = ad.supercells(sheet, material="MoS2", center_xy_A=(x, y), draws=1)
    assert perfect.atoms.get_chemical_formula() == "Mo25S50"
    for cell in (likeliest, drawn):
        assert cell.atoms.get_chemical_formula() == "Mo25S49"


def test_frames_voltages_and_directions_that_are_none_are_refused():
    sheet = graphene(size=(12, 12, 1), vacuum=5.0)
    with pytest.raises(BadInput, match=r"`frame`: expected a frame that has atoms: 0, got 5"):
        ad.supercells(sheet, frame=5)
    with pytest.raises(BadInput, match=r"`voltage_kV`"):
        ad.advise(AtomTable.empty(), DefectTable.empty(), voltage_kV=-5.0)
    with pytest.raises(BadInput, match=r"`zone_axis`: expected a direction"):
        ad.supercells(sheet, zone_axis=(0, 0, 0))
