"""Candidates told by lattice and pattern, on frames of sheets that a user's files describe."""

from dataclasses import replace

import ase.build
import ase.io
import numpy as np
import pytest

import adatom as ad
from adatom.bench.monolayers import monolayers
from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.frames.lattice.candidates import compare_candidates
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import image_specimen
from adatom.materials.library import load_material
from adatom.materials.same_structure import same_structure

PX = 0.14


def frame_of(material, counts=5.0, pixels=224, seed=1):
    """A frame of a perfect sheet, seen in full (dim columns are those of the material)."""
    rng = np.random.default_rng(seed)
    extent = (pixels * PX, pixels * PX)
    xy, site = lattice_sites(material, extent, 4.0, 0.4)
    number = {s: k for k, s in enumerate(material.species)}
    kind = np.array([number[s] for s in material.site_species])[site]
    conditions = Conditions(pixel_size_A=PX, probe_sigma_A=(0.4, 0.4), counts=counts)
    specimen = Specimen(xy, kind, np.zeros((0, 2)))
    labelled = image_specimen(specimen, (pixels, pixels), material, conditions, rng)
    return np.asarray(labelled.frame.data)


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    return {m.name: m for m in monolayers(tmp_path_factory.mktemp("sheets"))}


@pytest.mark.parametrize("name", ["graphene", "MoS2", "TiS2", "TaS2", "SnSe2"])
def test_a_monolayer_is_told_among_22(sheets, name):
    found = compare_candidates([frame_of(sheets[name])], PX, [*sheets.values()], scale_sd=0.015)
    assert same_structure(sheets[found[0].name], sheets[name])
    assert found[0].structure_probability > 0.8
    assert sum(c.probability for c in found) == pytest.approx(1.0, abs=1e-6)


def test_two_arrangements_of_one_lattice_are_told_by_their_pattern(tmp_path):
    both = []
    for kind in ("2H", "1T"):
        path = tmp_path / f"MoSe2-{kind}.extxyz"
        ase.io.write(path, ase.build.mx2("MoSe2", kind, 3.32, 3.34, vacuum=8.0))
        both.append(load_material(str(path)))
    for material in both:
        found = compare_candidates([frame_of(material)], PX, both)
        assert found[0].name == material.name
        assert found[0].probability > 0.95
        assert found[0].structure_probability == found[0].probability


def test_the_more_exact_the_scale_the_surer(sheets):
    near = [sheets["MoS2"], sheets["MoSe2"]]  # 4.4 % apart
    image = [frame_of(sheets["MoS2"])]
    rough, exact = (compare_candidates(image, PX, near, scale_sd=sd)[0] for sd in (0.1, 0.01))
    assert rough.probability < exact.probability
    assert exact.name == "MoS2"
    assert exact.probability > 0.98


def test_noise_shows_none_of_them(sheets):
    noise = np.random.default_rng(3).poisson(4.0, (224, 224)).astype(np.float32)
    found = compare_candidates([noise], PX, [*sheets.values()])
    assert sum(c.probability for c in found) < 0.3


def test_atoms_too_dim_for_a_column_belong_to_the_structure(sheets):
    assert sheets["HfS2"].site_species == ("Hf",)  # S beside Hf is below a tenth
    assert same_structure(sheets["HfS2"], sheets["ZrS2"])
    assert not same_structure(sheets["HfS2"], sheets["MoTe2"])
    assert not same_structure(sheets["graphene"], sheets["MoS2"])


def test_a_structure_is_the_same_however_its_cell_is_written():
    rows = np.array([[1.0, 0.0], [-1.0, 1.0]]) @ GRAPHENE.cell()
    turned = np.array([[0.0, 1.0], [-1.0, 0.0]])
    atoms = ase.build.graphene(a=2.46, vacuum=8.0)
    assert len(atoms) == 2
    basis = np.asarray(GRAPHENE.basis) @ GRAPHENE.cell() @ np.linalg.inv(rows)
    other = replace(
        GRAPHENE,
        cell_A=tuple(map(tuple, (rows @ turned).tolist())),
        basis=tuple(map(tuple, basis.tolist())),
        crystal=None,
    )
    assert same_structure(GRAPHENE, other)
    assert same_structure(other, GRAPHENE)


def test_bad_candidates_are_named():
    frame = np.random.default_rng(0).poisson(4.0, (96, 96)).astype(float)
    for given, words in (
        ({"candidates": ["graphene", "graphene"]}, "twice"),
        ({"candidates": ["Pt-on-carbon"]}, "none with a lattice"),
        ({"scale_error": 0.0}, "scale_error"),
        ({"candidates": ["graphen"]}, "graphen"),
    ):
        with pytest.raises(BadInput) as error:
            ad.identify(frame, pixel_size_A=0.15, **given)
        assert words in str(error.value)
    with pytest.raises(BadInput, match="pixel"):
        ad.identify(frame, ["graphene"])
