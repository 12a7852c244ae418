"""Holes of any size are named, from every face; contamination and noise are not holes."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

import adatom as ad
from adatom.analysis.frame import analyse_frame
from adatom.analysis.lattice import lattice_of
from adatom.analysis.naming import name_defects
from adatom.core import GRAPHENE, AtomTable
from adatom.features.defects.holes import hole_evidence, sites_of_holes
from adatom.features.refinement.refine import refine
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning import weights
from sheets import extent, inner

PX = 0.16
EDGE_A = 1.5  # sites nearer to the border are not counted


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def ensemble():
    return weights.load_shipped("graphene")


def sheet_with_hole(seed, n, *, field_A=22.0, half=False, counts=20.0, **conditions):
    """A sheet without `n` sites that touch each other, or without its right half."""
    rng = np.random.default_rng(910 + seed)
    xy = lattice_points(GRAPHENE, (field_A, field_A), 3.0, rng.uniform(0, 6))
    xy += rng.uniform(-1, 1, 2)
    tree = cKDTree(xy)
    gone = np.flatnonzero(xy[:, 0] > field_A / 2).tolist() if half else []
    start = xy[tree.query((field_A / 2, field_A / 2))[1]]
    for _ in range(n):
        around = set(tree.query_ball_point(xy[gone], 1.6).sum()) if gone else range(len(xy))
        far = {k: np.linalg.norm(xy[k] - start) for k in set(around) - set(gone)}
        gone.append(min(far, key=far.__getitem__))
    kept = np.delete(xy, gone, axis=0)
    specimen = Specimen(kept, np.zeros(len(kept), dtype=np.int64), xy[gone])
    edge = round(field_A / PX) + 1
    taken = Conditions(pixel_size_A=PX, counts=counts, **conditions)
    return image_specimen(specimen, (edge, edge), GRAPHENE, taken, rng)


def vacancies(defects):
    return [k for k in defects.kinds if k.startswith("V")]


@pytest.mark.parametrize("n", [13, slow(8), slow(60)])
def test_a_hole_is_named_by_its_missing_atoms_with_its_edge(ensemble, n):
    truth = sheet_with_hole(n, n)
    result = analyse_frame(truth.frame, ensemble, GRAPHENE)
    assert result.defects.kinds == [f"V{n}"]
    assert result.defects.data["p"][0] > 0.9
    np.testing.assert_allclose(result.defects.xy[0], truth.vacancies_xy.mean(axis=0), atol=0.3)
    edge = result.defects.data["atoms"][0].to_list()
    at = result.atoms.xy[np.isin(result.atoms.data["atom"], edge)]
    # Every atom of the edge is next to an empty site, and every such atom is one of the edge.
    rim = cKDTree(truth.vacancies_xy).query(truth.xy)[0] < 1.6
    assert len(at) == rim.sum()
    assert cKDTree(truth.xy[rim]).query(at)[0].max() < 0.5


def test_a_frame_that_is_half_empty_has_one_hole(ensemble):
    truth = sheet_with_hole(1, 0, half=True)
    result = analyse_frame(truth.frame, ensemble, GRAPHENE)
    n = int(inner(truth.frame, truth.vacancies_xy, EDGE_A).sum())
    assert n > 60
    (kind,) = vacancies(result.defects)
    assert abs(int(kind[1:]) - n) <= 1  # of a site at the margin


@pytest.mark.parametrize(
    "conditions",
    [
        {"contamination": 0.3, "contamination_level": 1.5},
        slow({"counts": 1.0}),
        slow({"slow_background": 0.3}),
    ],
    ids=["contamination", "few counts", "uneven"],
)
def test_no_hole_is_invented(ensemble, conditions):
    truth = sheet_with_hole(5, 0, **conditions)
    assert vacancies(analyse_frame(truth.frame, ensemble, GRAPHENE).defects) == []


@pytest.mark.slow
def test_a_hole_is_the_same_for_atoms_from_elsewhere(ensemble):
    truth = sheet_with_hole(3, 20)
    atoms = analyse_frame(truth.frame, ensemble, GRAPHENE).atoms
    alone = AtomTable(atoms.data)
    named = name_defects(truth.frame, alone, lattice_of(alone, GRAPHENE), GRAPHENE)
    assert vacancies(named) == ["V20"]


def test_covered_sites_are_not_empty():
    truth = sheet_with_hole(4, 30)
    inside = inner(truth.frame, truth.xy, 0.0)
    xy = truth.xy[inside]
    n = len(xy)
    atoms = AtomTable.build(
        frame=0, xy=xy, covariance=np.tile(np.eye(2) * 1e-4, (n, 1, 1)), p_exists=np.ones(n),
        element=np.full(n, "C"), p_element=np.ones(n), votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip
    sites = truth.vacancies_xy
    everything = np.concatenate([xy, sites])
    assert sites_of_holes(everything, xy, 1.42).tolist() == [False] * n + [True] * len(sites)
    data = truth.frame.data.copy()
    rows, cols = np.indices(data.shape)
    left = cols * PX < extent(truth.frame)[0] / 2 - 1.0
    near = cKDTree(sites).query(np.stack([cols, rows], axis=-1).reshape(-1, 2) * PX)[0] < 1.4
    cover = near.reshape(data.shape) & left
    rng = np.random.default_rng(0)
    data[cover] += rng.poisson(20.0, int(cover.sum()))
    frame = type(truth.frame)(data, truth.frame.calibration)
    fit = refine(frame, xy)
    atoms = AtomTable(atoms.data.with_columns(amplitude=fit.amplitude))
    p = hole_evidence(frame, atoms, fit, sites, np.full(len(sites), "C"), 1.0)
    covered = sites[:, 0] < extent(frame)[0] / 2 - 2.0
    open_ = sites[:, 0] > extent(frame)[0] / 2 + 1.5
    assert covered.sum() > 4
    assert p[covered].max() < 0.5
    assert p[open_].min() > 0.99


@pytest.mark.slow
def test_find_and_find_defects_agree_on_a_hole():
    truth = sheet_with_hole(6, 13)
    atoms = ad.find(truth.frame.data, pixel_size_A=PX)
    defects = ad.find_defects(truth.frame.data, atoms, pixel_size_A=PX)
    assert defects.kinds == ["V13"]


@pytest.mark.realdata
def test_the_pore_of_thirteen_atoms_is_named_from_both(shared_data):
    cases = shared_data.parent / "cases"
    movie = ad.read(cases / "pore13.npz")
    atoms = ad.find(movie)
    defects = ad.find_defects(movie, atoms)
    assert defects.kinds == ["V13"]
    middle = np.load(cases / "pore13_truth.npy").mean(axis=0)
    np.testing.assert_allclose(defects.xy[0], middle, atol=0.2)


@pytest.mark.realdata
@pytest.mark.parametrize(("number", "least"), [(187, 18), (229, 26), (267, 14), (304, 14)])
def test_large_holes_of_real_frames_are_named(shared_data, number, least):
    movie = ad.read(shared_data / "graphene_si_library" / "Si1C3" / f"{number}.hdf5")
    atoms = ad.find(movie, material="graphene")
    defects = ad.find_defects(movie, atoms, material="graphene")
    assert max(int(k[1:]) for k in vacancies(defects)) >= least
