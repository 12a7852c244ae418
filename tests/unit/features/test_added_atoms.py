"""Ad-atoms are told by brightness and place together, and a perfect sheet has none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from adatom.analysis.frame import analyse_frame
from adatom.analysis.naming import name_defects
from adatom.core import GRAPHENE
from adatom.core.defect_kind import Adatom, DefectKind
from adatom.features.defects.shapes import graphene_shapes, images
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning.weights import load_shipped
from sheets import graphene_frame

FIELD_A, PIXEL_A = 24.0, 0.15
ADDED = {str(s.kind): s for s in graphene_shapes() if s.added}


@pytest.fixture(scope="module")
def ensemble():
    return load_shipped("graphene")


def sheet_with(name, counts, seed=0):
    """A frame of a sheet with one stored shape near its middle, and its place."""
    shape = ADDED[name]
    rng = np.random.default_rng([6_300, seed, round(10 * counts)])
    sites = lattice_points(GRAPHENE, (FIELD_A, FIELD_A), 3.0, rng.uniform(0, 6))
    sites = sites + rng.uniform(-1, 1, 2)
    first = int(np.argmin(np.hypot(*(sites - FIELD_A / 2).T)))
    second = int(np.argsort(np.hypot(*(sites - sites[first]).T))[1 + seed % 3])
    step = sites[second] - sites[first]
    along = step / np.linalg.norm(step)
    axes = np.array([along, [-along[1], along[0]]])
    centre = sites[first] + {"site": 0.0, "bond": 0.5, "ring": -1.0}[shape.origin] * step
    xy, old = images(shape)[0]
    far = cKDTree(centre + old @ axes).query(sites)[0] > 0.3
    every = np.concatenate([sites[far], centre + xy @ axes])
    every = every + rng.normal(0.0, 0.02, every.shape)
    species = np.zeros(len(every), dtype=np.int64)
    if "Si" in shape.added:
        species[-1] = 1
    conditions = Conditions(pixel_size_A=PIXEL_A, counts=counts)
    size = (round(FIELD_A / PIXEL_A) + 1,) * 2
    specimen = Specimen(every, species, np.zeros((0, 2)))
    return image_specimen(specimen, size, GRAPHENE, conditions, rng), centre


@pytest.mark.parametrize("name", ADDED)
def test_an_added_atom_is_named_by_its_element_and_place(ensemble, name):
    truth, centre = sheet_with(name, 5.0)
    found = analyse_frame(truth.frame, ensemble, GRAPHENE)
    assert found.defects.kinds == [name]
    assert np.hypot(*(found.defects.xy[0] - centre)) < 0.3
    # As many atoms of each element as there are: two in one spot are two.
    likely = found.atoms.is_likely
    for element, species in (("C", 0), ("Si", 1)):
        near = np.hypot(*(truth.xy - centre).T) < 3.35
        seen = np.hypot(*(found.atoms.xy - centre).T) < 3.35
        own = likely & seen & (found.atoms.elements == element)
        assert own.sum() == (near & (truth.species == species)).sum()
    assert name_defects(truth.frame, found.atoms, found.lattice, GRAPHENE).kinds == [name]


def test_the_atoms_of_an_ad_atom_are_listed_with_it(ensemble):
    truth, _ = sheet_with("ad-Si-bridge", 20.0)
    found = analyse_frame(truth.frame, ensemble, GRAPHENE)
    members = found.defects.data["atoms"].to_list()[0]
    assert [found.atoms.elements[i] for i in members] == ["Si", "C", "C"]


def test_what_the_counts_cannot_tell_is_an_alternative(ensemble):
    truth, _ = sheet_with("ad-Si-top", 0.5, seed=1)
    found = analyse_frame(truth.frame, ensemble, GRAPHENE)
    p = dict(zip(found.defects.kinds, found.defects.data["p"], strict=True))
    told = found.defects.data["alternatives"].to_list()
    assert len(p) == 1
    assert max(p.values()) < 0.99
    assert any("Si" in one for one in told)


@pytest.mark.parametrize("counts", [0.5, 2.0, 5.0])
def test_silicon_in_the_place_of_carbon_is_no_ad_atom_where_the_sheet_stays(ensemble, counts):
    places = [(10.0, 10.0), (20.0, 12.0), (12.0, 21.0)]
    truth = graphene_frame(17, px=PIXEL_A, counts=counts, field=(30.0, 30.0), silicon=places)
    found = analyse_frame(truth.frame, ensemble, GRAPHENE).defects
    near = cKDTree(np.array(places)).query(found.xy)[0] < 1.0
    assert [k for k, is_near in zip(found.kinds, near, strict=True) if is_near] == ["Si1C3"] * 3


@pytest.mark.parametrize("counts", [0.5, 5.0, 50.0])
def test_a_perfect_sheet_has_no_ad_atom(ensemble, counts):
    rng = np.random.default_rng([6_301, round(10 * counts)])
    xy = lattice_points(GRAPHENE, (36.0, 36.0), 3.0, rng.uniform(0, 6))
    xy = xy + rng.normal(0.0, 0.04, xy.shape)
    specimen = Specimen(xy, np.zeros(len(xy), dtype=np.int64), np.zeros((0, 2)))
    conditions = Conditions(pixel_size_A=PIXEL_A, counts=counts)
    truth = image_specimen(specimen, (241, 241), GRAPHENE, conditions, rng)
    kinds = analyse_frame(truth.frame, ensemble, GRAPHENE).defects.kinds
    assert not [k for k in kinds if isinstance(DefectKind.parse(k), Adatom)]
