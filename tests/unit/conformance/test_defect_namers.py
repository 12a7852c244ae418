"""The conformance check passes the shipped namers and finds what is wrong with others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl
import pytest

from adatom.conformance.defect_namers import check_defect_namer
from adatom.core import GRAPHENE, DefectTable
from adatom.core.plugins import DEFECT_NAMERS, plugin, plugins
from adatom.features.defects.columns import ColumnsNamer
from adatom.materials.library import load_material, material_names

CRYSTALS = [n for n in material_names() if load_material(n).has_lattice]


def test_the_shipped_namers_are_registered():
    assert {"bonded-sheet", "columns"} <= {p.name for p in plugins(DEFECT_NAMERS)}
    assert not [p.error for p in plugins(DEFECT_NAMERS) if p.error]


@pytest.mark.parametrize("name", CRYSTALS)
def test_every_material_has_a_namer_that_conforms(name):
    material = load_material(name)
    check_defect_namer(plugin(DEFECT_NAMERS, material.defect_namer), material)


def test_the_bonded_sheet_namer_serves_a_sheet_of_two_elements():
    check_defect_namer(plugin(DEFECT_NAMERS, "bonded-sheet"), load_material("h-BN"))


@dataclass(frozen=True)
class Changed:
    """The namer of columns with one fault."""

    fault: str
    name: str = "changed"

    def name_defects(self, atoms, lattice, material, extent_xy_A, empty, frame, options):
        if self.fault == "other frame":
            table = atoms.data.with_columns(frame=pl.lit(0))
            atoms, frame = type(atoms)(table), 0
        named = ColumnsNamer().name_defects(
            atoms, lattice, material, extent_xy_A, empty, frame, options
        )
        data = named.data
        if self.fault == "undistorted axes" and len(named):
            x, y = lattice.undistort(named.xy)[0]
            data = data.with_columns(x_A=pl.lit(float(x)), y_A=pl.lit(float(y)))
        if self.fault == "order":
            data = data.with_columns(p=pl.lit(0.5 + 1e-3 * float(atoms.data["atom"][0])))
        if self.fault == "percent":
            data = data.with_columns(p=100.0 * pl.col("p"))
        if self.fault == "name":
            data = data.with_columns(kind=pl.lit("a hole"))
        if self.fault == "blind":
            data = data.clear()
        if self.fault == "everywhere" and len(atoms):
            every = replace(empty, xy=atoms.xy, p=atoms.column("p_exists"))
            data = ColumnsNamer().name_defects(
                atoms, lattice, material, extent_xy_A, every, frame, options
            ).data  # fmt: skip
        return DefectTable(data)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("everywhere", "no defects in a perfect sheet"),
        ("blind", "one vacancy where an atom was removed"),
        ("undistorted axes", "in measured axes"),
        ("order", "atoms in another order"),
        ("percent", "probabilities above 0"),
        ("other frame", "defects of frame 7"),
        ("name", "kind of defect"),
    ],
)
def test_a_fault_is_named(fault, words):
    with pytest.raises(Exception, match=words):
        check_defect_namer(Changed(fault), GRAPHENE)
