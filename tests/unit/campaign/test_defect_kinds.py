"""Kinds of defect through the analysis of a frame, and which engines a campaign may use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adatom.analysis.lattice import lattice_of
from adatom.analysis.naming import name_defects
from adatom.campaign.config import Config, InputOptions
from adatom.campaign.simulate import check_simulation
from adatom.core import GRAPHENE, AtomTable, EmptySites, Frame, Substitution, Vacancy
from adatom.errors import BadInput
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import image_specimen
from adatom.materials.library import load_material

MOS2 = load_material("MoS2")
FIELD_A = 30.0


def config(**options):
    return Config(input=InputOptions(paths=("frames.npy",)), **options)


def image_of(xy, names) -> Frame:
    species = np.array([MOS2.species.index(name) for name in names])
    seen = Conditions(pixel_size_A=0.2, counts=200.0)
    specimen = Specimen(xy, species, np.zeros((0, 2)))
    return image_specimen(specimen, (150, 150), MOS2, seen, np.random.default_rng(1)).frame


def test_vanadium_on_a_mo_site_and_a_missing_mo_are_two_kinds():
    xy, site = lattice_sites(MOS2, (FIELD_A, FIELD_A), 0.0, 0.3)
    names = np.array(MOS2.site_species)[site].astype(object)
    inner = np.flatnonzero(np.all((xy > 6) & (xy < FIELD_A - 6), axis=1) & (names == "Mo"))
    vanadium, gone = inner[0], inner[-1]
    names[vanadium] = "V"
    kept = np.arange(len(xy)) != gone
    n = int(kept.sum())
    atoms = AtomTable.build(
        frame=4, xy=xy[kept], covariance=np.tile(np.eye(2) * 1e-3, (n, 1, 1)),
        p_exists=np.full(n, 0.99), element=names[kept], p_element=np.full(n, 0.98),
        votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip
    frame = replace(image_of(xy[kept], names[kept]), index=4)
    empty = EmptySites(xy[[gone]], np.array([0.9]))
    atoms = replace(atoms, empty_sites=empty.table(frame.index))
    lattice = lattice_of(atoms, MOS2)
    found = name_defects(frame, atoms, lattice, MOS2)
    assert lattice is not None
    where = dict(zip(found.kind_values, found.xy, strict=True))
    assert set(where) == {Substitution("V", "Mo"), Vacancy.at("Mo")}
    np.testing.assert_allclose(where[Substitution("V", "Mo")], xy[vanadium])
    np.testing.assert_allclose(where[Vacancy.at("Mo")], xy[gone])
    assert sorted(found.kinds) == ["V_Mo", "vac_Mo"]


def test_engines_of_a_material_must_exist():
    check_simulation(config(), GRAPHENE)
    check_simulation(config(), replace(GRAPHENE, simulated_by=("lammps",)))
    unknown = replace(GRAPHENE, simulated_by=("gfn1-xtb", "lammps", "lamps"))
    with pytest.raises(BadInput, match=r"gpaw.*'lamps'"):
        check_simulation(config(), unknown)
