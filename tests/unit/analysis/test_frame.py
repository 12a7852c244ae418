"""One way from a frame to its answer: the same from every face, refined once."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import adatom as ad
from adatom.analysis.frame import analyse_frame, with_tested_sites
from adatom.analysis.lattice import lattice_of
from adatom.analysis.movie import analyse_movie
from adatom.analysis.naming import name_defects
from adatom.analysis.options import AnalysisOptions
from adatom.campaign.config import Config, InputOptions
from adatom.campaign.pipeline import run_campaign
from adatom.core import GRAPHENE, AtomTable
from adatom.features.find import FindOptions
from adatom.frames import read
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning import weights
from adatom.materials.library import load_material
from adatom.store.tables import read_table
from sheets import graphene_frame
from small import PIXEL_A, simulated_movie

MISSING = [(9.0, 9.0), (15.0, 12.0)]


@pytest.fixture(scope="module")
def ensemble():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def truth():
    return graphene_frame(71, counts=5.0, field=(24, 24), missing=MISSING)


@pytest.fixture(scope="module")
def result(truth, ensemble):
    return analyse_frame(truth.frame, ensemble, GRAPHENE)


def test_vacancies_lattice_and_flags_come_with_the_atoms(result, truth):
    assert sorted(result.defects.kinds) == ["V1", "V1"]
    for x, y in truth.vacancies_xy:
        assert np.linalg.norm(result.defects.xy - (x, y), axis=1).min() < 0.4
    assert result.lattice.matched > 0.95
    assert not result.flags.is_out_of_distribution
    assert not result.flags.has_few_confident_atoms
    assert set(result.maps) == {"mean", "std", "entropy", "mutual_information"}


def test_a_site_is_not_both_filled_and_empty(result, truth):
    found = result.found
    far = np.hypot(*(found.atoms.xy[:, None] - result.defects.xy).T).min(axis=0)
    far[truth.frame.border_distance_A(found.atoms.xy) < 4.0] = 0.0
    atom = int(np.argmax(far))  # away from the vacancies and the border
    p = found.atoms.column("p_exists").copy()
    p[atom] = 0.53
    doubtful = replace(
        found,
        atoms=replace(found.atoms, data=found.atoms.data.with_columns(p_exists=pl.Series(p))),
        vacancies_xy=np.concatenate([found.vacancies_xy, found.atoms.xy[atom][None]]),
        p_empty=np.append(found.p_empty, 0.97),
    )
    atoms = with_tested_sites(doubtful, result.lattice, truth.frame)
    assert atoms.column("p_exists")[atom] == pytest.approx(0.53 / 1.5)
    near = np.hypot(*(atoms.empty_sites.select("x_A", "y_A").to_numpy() - atoms.xy[atom]).T) < 0.3
    assert atoms.empty_sites["p"].to_numpy()[near] == pytest.approx([0.97 / 1.5])
    others = np.arange(len(p)) != atom
    assert (atoms.column("p_exists")[others] == p[others]).all()
    named = name_defects(truth.frame, atoms, result.lattice, GRAPHENE)
    assert named.kinds == ["V1", "V1", "V1"]


def test_a_frame_is_refined_once(truth, ensemble, monkeypatch):
    from adatom.features import find as room
    from adatom.features.defects import vacancy_test

    calls = []

    def counted(*given, **more):
        calls.append(len(given[1]))
        return refine(*given, **more)

    refine = room.refine
    monkeypatch.setattr(room, "refine", counted)
    monkeypatch.setattr(vacancy_test, "refine", counted)
    result = analyse_frame(truth.frame, ensemble, GRAPHENE)
    assert len(calls) == 1
    # Atoms from elsewhere bring no tested sites: the counts are asked, once more.
    alone = AtomTable(result.atoms.data)
    named = name_defects(truth.frame, alone, lattice_of(alone, GRAPHENE), GRAPHENE)
    assert len(calls) == 2
    assert sorted(named.kinds) == ["V1", "V1"]


def test_options_of_the_analysis_reach_it(truth, ensemble):
    options = AnalysisOptions(find=FindOptions(lowest_p_exists=0.9))
    few = analyse_frame(truth.frame, ensemble, GRAPHENE, options)
    assert few.atoms.column("p_exists").min() >= 0.9


def test_python_and_the_campaign_give_the_same_tables(tmp_path):
    stack = simulated_movie(3)
    np.save(tmp_path / "frames.npy", stack)
    given = InputOptions(paths=(str(tmp_path / "frames.npy"),), pixel_size_A=PIXEL_A)
    config = Config(material="graphene", input=given)
    run_campaign(config, tmp_path / "out", only_find=True)
    atoms = ad.find(stack, material="graphene", pixel_size_A=PIXEL_A)
    defects = ad.find_defects(stack, atoms, material="graphene", pixel_size_A=PIXEL_A)
    own = pl.exclude("track", "first_frame", "origin", "defect", "hops", "p_beam_induced")
    for name, table in (("atoms", atoms), ("defects", defects)):
        kept = type(table)(read_table(tmp_path / "out" / f"{name}.parquet")).data
        assert len(table) > 0
        assert kept.select(own).equals(table.data.select(own)), name


def test_frames_in_turn_and_overlapped_are_the_same(ensemble):
    movie = read(simulated_movie(4), pixel_size_A=PIXEL_A)
    together = [r.atoms.data for r in analyse_movie(movie, ensemble, GRAPHENE)]
    alone = [analyse_frame(frame, ensemble, GRAPHENE).atoms.data for frame in movie]
    assert [t["frame"][0] for t in together] == [0, 1, 2, 3]
    for one, other in zip(together, alone, strict=True):
        for name in ("x_A", "y_A", "sigma_x_A", "p_exists"):
            np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), atol=1e-6)


def test_a_missing_column_of_another_crystal_is_named_from_python():
    """Atoms from elsewhere bring no tested sites: the counts tell which column is missing."""
    material = load_material("MoS2")
    rng = np.random.default_rng(5)
    xy, site = lattice_sites(material, (26.0, 26.0), 3.0, 0.37)
    label = np.array(material.site_species)[site]
    middle = np.linalg.norm(xy - 13.0, axis=1)
    gone = [int(np.argmin(np.where(label == each, middle, np.inf))) for each in ("Mo", "S2")]
    kept = np.delete(np.arange(len(xy)), gone)
    species = np.array([material.species.index(each) for each in label[kept]])
    conditions = Conditions(pixel_size_A=0.12, counts=20.0)
    shown = image_specimen(
        Specimen(xy[kept], species, xy[gone]), (218, 218), material, conditions, rng
    )
    inside = np.all((shown.xy > 0) & (shown.xy < 26.0), axis=1)
    n = int(inside.sum())
    atoms = AtomTable.build(
        frame=0, xy=shown.xy[inside], covariance=np.tile(np.eye(2) * 1e-4, (n, 1, 1)),
        p_exists=np.ones(n), element=np.array(shown.classes)[shown.species[inside]],
        p_element=np.ones(n), votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip
    named = ad.find_defects(shown.frame.data, atoms, material="MoS2", pixel_size_A=0.12)
    assert sorted(named.kinds) == ["vac_Mo", "vac_S2"]
    assert named.data["p"].min() > 0.9
    for kind, place in zip(("vac_Mo", "vac_S2"), xy[gone], strict=True):
        at = named.xy[named.kinds.index(kind)]
        assert np.linalg.norm(at - place) < 0.3
