"""What adatom can do with a material is said by the material."""

from __future__ import annotations

import pytest

from adatom.campaign.advise import damage_by_voltage
from adatom.core import GRAPHENE, KnockOnData
from adatom.core.plugins import DEFECT_NAMERS, plugin
from adatom.errors import BadInput
from adatom.materials.library import load_material, material_names

SHEET = """
name = "silicene"
{keys}
[crystal]
cell_A = [[3.86, 0.0], [1.93, 3.342858]]
columns = [{{ is = "Si", at = [0.33333, 0.33333] }}, {{ is = "Si", at = [0.66667, 0.66667] }}]
{tables}
"""
KNOCK_ON = """
[knock_on]
element = "Si"
threshold_eV = {threshold}
threshold_sd_eV = 1.0
mean_square_velocity_m2_s2 = 2.0e5
source = "a paper"
"""


def written(tmp_path, keys="", tables=""):
    path = tmp_path / "silicene.toml"
    path.write_text(SHEET.format(keys=keys, tables=tables))
    return str(path)


def test_every_built_in_material_has_a_namer_that_is_registered():
    for name in material_names():
        material = load_material(name)
        assert plugin(DEFECT_NAMERS, material.defect_namer).name == material.defect_namer


def test_a_material_file_says_what_can_be_done_with_it(tmp_path):
    plain = load_material(written(tmp_path))
    assert (plain.defect_namer, plain.simulated_by, plain.knock_on) == ("columns", (), None)
    keys = 'defect_namer = "Bonded-Sheet"\nsimulated_by = ["LAMMPS"]'
    told = load_material(written(tmp_path, keys, KNOCK_ON.format(threshold=16.0)))
    assert told.defect_namer == "bonded-sheet"
    assert told.simulated_by == ("lammps",)
    assert told.knock_on == KnockOnData("Si", 16.0, 1.0, 2.0e5, "a paper")


def test_sites_have_thresholds_of_their_own(tmp_path):
    site = """
[[knock_on.site]]
element = "Si"
beside = "C"
coordination = 3
threshold_eV = 11.0
threshold_sd_eV = 0.5
mean_square_velocity_m2_s2 = 1.9e5
outcome = "moves"
source = "another paper"
"""
    tables = KNOCK_ON.format(threshold=16.0) + site
    told = load_material(written(tmp_path, tables=tables)).knock_on
    assert [str(s) for s in told.sites] == ["Si beside C with 3 neighbours"]
    assert told.sites[0].threshold_eV == 11.0
    with pytest.raises(BadInput, match=r"knock_on\.site\.0\.beside"):
        load_material(written(tmp_path, tables=tables.replace('"C"', '"C3"')))


def test_a_namer_that_nobody_brings_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(BadInput, match=r"bonded-sheet, columns.*'bonded-shet'.*Did you mean"):
        load_material(written(tmp_path, 'defect_namer = "bonded-shet"'))


@pytest.mark.parametrize("threshold", ["-1.0", "inf", '"high"'])
def test_knock_on_data_are_checked(tmp_path, threshold):
    with pytest.raises(BadInput, match=r"knock_on\.threshold_eV"):
        load_material(written(tmp_path, tables=KNOCK_ON.format(threshold=threshold)))


def test_the_displaced_atom_must_be_an_element(tmp_path):
    tables = KNOCK_ON.format(threshold=16.0).replace('"Si"', '"S2"')
    with pytest.raises(BadInput, match=r"knock_on\.element"):
        load_material(written(tmp_path, tables=tables))


def test_damage_is_estimated_where_the_material_has_the_data(tmp_path):
    assert damage_by_voltage(load_material("SrTiO3"), 60.0) == {}
    graphene = damage_by_voltage(GRAPHENE, 70.0)
    assert sorted(graphene) == [60.0, 70.0, 80.0, 100.0]
    assert graphene[60.0][0] < graphene[80.0][0] < graphene[100.0][0]
    low, high = (
        damage_by_voltage(
            load_material(written(tmp_path, tables=KNOCK_ON.format(threshold=t))), 100.0
        )[100.0][0]
        for t in (6.0, 9.0)
    )
    assert low > high > 0.0


def test_forms_are_asked_by_what_they_mean():
    mos2, gold, platinum = (load_material(n) for n in ("MoS2", "Au", "Pt-on-carbon"))
    assert [m.has_lattice for m in (GRAPHENE, mos2, gold, platinum)] == [True, True, True, False]
    assert [m.has_support for m in (GRAPHENE, mos2, gold, platinum)] == [False, False, False, True]
    assert [m.is_thick for m in (GRAPHENE, mos2, gold, platinum)] == [False, False, True, False]


def test_an_engine_that_nobody_brings_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(BadInput, match=r"gfn1-xtb, .*lammps.*'lamps'.*Did you mean 'lammps'"):
        load_material(written(tmp_path, 'simulated_by = ["gfn1-xtb", "lamps"]'))
