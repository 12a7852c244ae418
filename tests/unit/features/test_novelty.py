"""The out-of-distribution score: high for noise and other lattices, independent of gain."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from adatom.analysis.flags import flags_of
from adatom.analysis.frame import find_atoms
from adatom.core import GRAPHENE, Calibration, Frame
from adatom.features.find import FindOptions, find_candidates
from adatom.features.novelty.frame import (
    DESCRIPTIONS,
    OodModel,
    confident_share,
    describe,
    fit_ood_model,
)
from adatom.features.refinement.fit import RefineOptions
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import predict_tiles
from sheets import NONE, graphene_frame

OPTIONS = RefineOptions()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def ensemble():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def distance(ensemble):
    novelty = OodModel.model_validate(ensemble.card["novelty"])

    def of(frame: Frame) -> tuple[float, float]:
        found = find_candidates(frame, predict_tiles(frame, ensemble), GRAPHENE, FindOptions())
        d = novelty.score(describe(*found, GRAPHENE, OPTIONS))
        return d, novelty.share_farther(d)

    return of


def square_lattice(spacing_A, seed, *, px=0.12, pixels=151):
    rng, edge = np.random.default_rng(seed), (pixels - 1) * px
    angle, axis = rng.uniform(0, 1.5), np.arange(-edge, edge, spacing_A)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    xy = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2) @ turn + edge / 2
    xy = xy[np.all((xy > -3) & (xy < edge + 3), axis=1)]
    specimen = Specimen(xy, np.zeros(len(xy), dtype=np.int64), NONE)
    conditions = Conditions(pixel_size_A=px, counts=20.0)
    return image_specimen(specimen, (pixels, pixels), GRAPHENE, conditions, rng).frame


def noise_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind == "gaussian":
        return rng.normal(0.0, 1.0, (150, 150))
    if kind == "smoothed":  # as lumpy as a frame of atoms
        return gaussian_filter(rng.normal(0.0, 1.0, (150, 150)), 2.0)
    return rng.poisson(float(kind), (150, 150)).astype(np.float64)


@pytest.mark.parametrize("kind", ["0.05", "0.3", "1", "5", "100", "gaussian", "smoothed"])
def test_noise_is_flagged_and_shows_no_sure_atom(ensemble, kind):
    for seed in range(4):
        image = noise_of(kind, np.random.default_rng(seed)).astype(np.float32)
        found = find_atoms(Frame(image, Calibration(0.12)), ensemble, GRAPHENE)
        flags = flags_of(found, ensemble.card)
        assert flags.is_out_of_distribution or flags.has_few_confident_atoms
        assert not (found.atoms.column("p_exists") > 0.9).any()


def test_atoms_are_sure_by_their_share_of_what_is_to_be_expected():
    assert confident_share(np.array([0.95, 0.99, 0.5, 0.06])) == pytest.approx(1.94 / 2.5)
    assert confident_share(np.full(300, 0.4)) == 0.0
    assert confident_share(np.zeros(0)) == 0.0
    assert confident_share(np.zeros(5)) == 0.0


@pytest.mark.parametrize("spacing_A", [1.8, 2.0, 2.3, 2.6])
def test_another_lattice_is_farther_than_training_frames(distance, spacing_A):
    assert distance(square_lattice(spacing_A, 0))[1] < 0.05


def test_gain_and_offset_make_no_frame_novel(distance):
    frame = graphene_frame(310, px=0.14, counts=8.0).frame
    one = distance(frame)[0]
    other = distance(replace(frame, data=frame.data * 41.0 + 1000.0))[0]
    assert other == pytest.approx(one, abs=0.1)


def test_too_few_sites_are_infinitely_far(distance):
    conditions = Conditions(pixel_size_A=0.12, counts=50.0)
    specimen = Specimen(np.array([[4.03, 5.27]]), np.array([0]), NONE)
    rng = np.random.default_rng(0)
    frame = image_specimen(specimen, (81, 90), GRAPHENE, conditions, rng).frame
    assert distance(frame) == (np.inf, 0.0)


def test_a_fitted_distance_has_its_share_of_its_own_frames_beyond():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(-5, -2, 600)
    rows = sigma[:, None] * 0.1 + rng.normal(0, 0.2, (600, 1 + len(DESCRIPTIONS)))
    rows[:, 0] = sigma
    rows[7, 3] = np.nan  # a frame with too few sites
    rows[8, 1] += 9.0
    novelty = fit_ood_model(rows)
    again = OodModel.model_validate(novelty.model_dump())
    d = np.array([again.score(r) for r in np.delete(rows, 7, axis=0)])
    assert 0.01 < (d > 1).mean() < 0.12
    assert again.score(rows[7]) == np.inf
    assert np.mean([again.share_farther(x) < 0.05 for x in d]) == pytest.approx(0.05, abs=0.01)
    far = rows[0].copy()
    far[1] += 15.0  # a far wider probe
    assert again.share_farther(again.score(far)) == 0.0
    # One frame far from all others does not make the ones before it less rare.
    for x in np.sort(d)[-6:-1]:
        assert again.share_farther(x * 1.001) == pytest.approx(np.mean(d > x), abs=0.003)
