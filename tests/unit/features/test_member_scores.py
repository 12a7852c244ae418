"""Scores of the members of an ensemble, and which members have artefacts."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from adatom.core import GRAPHENE, VACANCY, Calibration, Frame, Prediction
from adatom.features.member_scores import MemberScore, choose_members, mean_scores, score_members
from adatom.frames.simulate.specimen import lattice_sites
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import predict
from adatom.materials.library import load_material
from sheets import graphene_frame


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


@cache
def shipped():
    return weights.load_shipped("graphene")


@cache
def shown(seed=3, counts=8.0):
    """A frame with a vacancy and a Si, and its maps."""
    truth = graphene_frame(
        seed, counts=counts, field=(16.0, 15.0), missing=((5.0, 5.0),), silicon=((11.0, 10.0),)
    )
    return truth, predict(truth.frame, shipped())


def corrupted(maps, member, change):
    own = maps.probabilities.copy()
    own[member] = change(own[member])
    return replace(maps, probabilities=own)


def shifted_by_half_a_bond(own):
    return np.roll(own, 4, axis=2)  # 0.8 Å of 1.42


def with_blobs(own):
    rng, out = np.random.default_rng(2), own.copy()
    rows, cols = np.indices(own.shape[1:])
    for _ in range(25):
        r, c = rng.uniform(0, own.shape[1]), rng.uniform(0, own.shape[2])
        spot = np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / (2 * 1.25**2))
        out[0] = np.maximum(out[0], spot)
    return out


def without_a_third(own):
    truth, maps = shown()
    out = own.copy()
    rows, cols = np.indices(own.shape[1:])
    gone = np.random.default_rng(4).permutation(len(truth.xy))[: len(truth.xy) // 3]
    for r, c in maps.calibration.rc(truth.xy[gone]):
        out[:, (rows - r) ** 2 + (cols - c) ** 2 < 4.5**2] = 0.0
    return out


ARTEFACTS = {
    # What is done to one member, and which scores can tell.
    "shift": (shifted_by_half_a_bond, {"agreement"}),
    "blobs": (with_blobs, {"spacing", "coordination", "angles", "density"}),
    "third": (without_a_third, {"coordination", "density", "agreement"}),
}


@pytest.mark.parametrize(("counts", "seed"), [(8.0, 3), (8.0, 4), (1.0, 3), (0.3, 5)])
def test_clean_members_are_all_kept(counts, seed):
    truth, maps = shown(seed, counts)
    scores = score_members([truth.frame], [maps], GRAPHENE, residuals=False)
    assert len(scores) == 10
    assert choose_members(scores) == (list(range(10)), {})


@pytest.mark.parametrize("name", ARTEFACTS)
@pytest.mark.parametrize("member", [0, 6])
def test_a_member_with_artefacts_is_dropped_alone_and_for_them(name, member):
    truth, maps = shown()
    change, reasons = ARTEFACTS[name]
    spoilt = corrupted(maps, member, change)
    scores = score_members([truth.frame], [spoilt], GRAPHENE, residuals=False)
    kept, dropped = choose_members(scores)
    assert list(dropped) == [member]
    assert kept == [m for m in range(10) if m != member]
    assert dropped[member].split()[0] in reasons
    assert "where the members' median is" in dropped[member]


def test_scores_of_artefacts_are_what_was_done():
    truth, maps = shown()
    clean = score_members([truth.frame], [maps], GRAPHENE, residuals=False)[6]
    assert clean.spacing > 0.95
    assert clean.agreement > 0.99
    assert abs(clean.density) < 0.02
    assert np.isnan(clean.residual)
    of = {
        name: score_members([truth.frame], [corrupted(maps, 6, change)], GRAPHENE, residuals=False)[
            6
        ]
        for name, (change, _) in ARTEFACTS.items()
    }
    assert of["shift"].agreement < 0.05  # everywhere wrong, and a perfect lattice
    assert of["shift"].spacing == pytest.approx(clean.spacing, abs=0.02)
    assert of["shift"].coordination == pytest.approx(clean.coordination, abs=0.06)
    assert of["third"].density == pytest.approx(np.log(2 / 3), abs=0.05)
    # Precision 1 and recall 2/3.
    assert of["third"].agreement == pytest.approx(0.8, abs=0.03)
    assert of["blobs"].density > 0.05
    assert of["blobs"].spacing < clean.spacing - 0.08


def test_the_frame_itself_speaks_against_atoms_in_the_wrong_places():
    """Half a bond aside the lattice is perfect, and explains nothing of the image."""
    truth = graphene_frame(3, counts=8.0, field=(9.0, 9.0))
    maps = predict(truth.frame, shipped().with_members([0, 1, 5]))
    alone = corrupted(maps, 1, shifted_by_half_a_bond)
    scores = score_members([truth.frame], [alone], GRAPHENE)
    assert scores[1].residual > 1.3
    for m in (0, 2):
        assert scores[m].residual == pytest.approx(1.0, abs=0.1)


def test_crystals_with_few_neighbours_are_scored_by_what_they_have():
    """Dumbbells have one neighbour each, dispersed atoms none that counts."""

    def scored(material, xy, extent):
        px = 0.2 * material.scale
        shape = (round(extent / px) + 1,) * 2
        rows, cols = np.indices(shape)
        rc = Calibration(px).rc(xy)
        own = np.max([np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / 3.1) for r, c in rc], axis=0)
        maps = np.zeros((3, 1 + len(material.species), *shape), dtype=np.float32)
        maps[:, 0] = own
        frame = Frame(own.astype(np.float32), Calibration(px))
        classes = (*material.species, VACANCY)
        seen = Prediction(maps, classes, Calibration(px), spot_A=0.25 * material.scale)
        return score_members([frame], [seen], material, residuals=False)[0]

    cdte = load_material("CdTe")
    sites = lattice_sites(cdte, (30.0, 30.0), 0.0, 0.5)[0]
    score = scored(cdte, sites, 30.0)
    assert score.spacing > 0.95
    assert score.coordination > 0.95
    lone = load_material("Pt-on-carbon")
    grid = np.stack(np.meshgrid(np.arange(6.0, 60, 6), np.arange(6.0, 60, 6)), -1).reshape(-1, 2)
    score = scored(lone, grid, 66.0)
    assert score.spacing == 1.0
    assert np.isnan(score.coordination)
    assert np.isnan(score.angles)


def usual(**change):
    values = {
        "spacing": 0.98, "coordination": 0.9, "angles": 0.95, "density": 0.0, "agreement": 0.99,
        "residual": 1.0,
    }  # fmt: skip
    return MemberScore(**(values | change))


@pytest.mark.parametrize(
    ("name", "worse", "better"),
    [
        ("spacing", 0.90, 1.0),
        ("coordination", 0.80, 1.0),
        ("angles", 0.80, 1.0),
        ("agreement", 0.94, 1.0),
        ("residual", 1.2, 0.8),
    ],
)
def test_each_score_drops_for_being_worse_and_not_for_being_better(name, worse, better):
    scores = [usual() for _ in range(9)]
    kept, dropped = choose_members([*scores[:4], usual(**{name: worse}), *scores[4:]])
    assert kept == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert dropped[4].startswith(f"{name} {worse:.3g} where the members' median is ")
    assert choose_members([*scores, usual(**{name: better})])[1] == {}


@pytest.mark.parametrize("density", [0.3, -0.3])
def test_too_many_and_too_few_atoms_are_both_wrong(density):
    scores = [usual() for _ in range(9)]
    assert choose_members([*scores, usual(density=density)])[1].keys() == {9}
    assert choose_members([*scores, usual(density=density / 10)])[1] == {}


def test_at_most_half_are_dropped_the_worst_first():
    """Of five members three are spoilt, each in its own way: two go."""
    scores = [usual(coordination=0.3), usual(spacing=0.5), usual(), usual(agreement=0.4), usual()]
    kept, dropped = choose_members(scores)  # 0.60 / 0.06, 0.48 / 0.04 and 0.59 / 0.03 of the least
    assert kept == [0, 2, 4]
    assert dropped[1].startswith("spacing 0.5 ")
    assert dropped[3].startswith("agreement 0.4 ")


def test_the_worst_of_several_reasons_is_named():
    scores = [usual(), usual(), usual(), usual(), usual(spacing=0.9, residual=3.0)]
    assert choose_members(scores)[1][4].startswith("residual 3 ")


def test_members_that_differ_by_chance_are_kept():
    rng = np.random.default_rng(1)
    noisy = [
        usual(spacing=0.8 + rng.normal(0, 0.03), coordination=0.5 + rng.normal(0, 0.05))
        for _ in range(10)
    ]
    assert choose_members(noisy)[1] == {}


def test_scores_of_several_frames_are_their_means_without_what_is_unknown():
    nan = float("nan")
    parts = [[usual(angles=nan, spacing=0.9)], [usual(angles=0.7, spacing=0.7)]]
    mean = mean_scores(parts)[0]
    assert mean.angles == pytest.approx(0.7)
    assert mean.spacing == pytest.approx(0.8)
    assert np.isnan(mean_scores([[usual(angles=nan)], [usual(angles=nan)]])[0].angles)
    # What nobody knows drops nobody.
    blank = [usual(angles=nan, coordination=nan) for _ in range(5)]
    assert choose_members(blank)[1] == {}
