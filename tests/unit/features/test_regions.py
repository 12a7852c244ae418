"""Which parts of a frame are unlike anything the networks were trained on."""

import numpy as np
import pytest

from adatom.analysis.flags import flags_of, ood_model_of
from adatom.analysis.frame import find_atoms
from adatom.campaign.warn import ood_warnings
from adatom.core import GRAPHENE, Calibration, Frame
from adatom.features.novelty.frame import OodModel
from adatom.features.novelty.regions import Regions, fit_ood_model_of_regions
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points
from adatom.frames.simulate.synthesize import expected_image
from adatom.learning import weights
from adatom.learning.device import use_threads
from sheets import NONE, graphene_frame

PX, FIELD = 0.14, (44.0, 30.0)


@pytest.fixture(scope="module")
def ensemble():
    use_threads(1)
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def local(ensemble):
    return ood_model_of(ensemble.card, "novelty_of_regions")


def layer(seed, keep):
    rng = np.random.default_rng(seed)
    xy = lattice_points(GRAPHENE, FIELD, 3.0, rng.uniform(0, 6)) + rng.uniform(-1, 1, 2)
    xy = xy[keep(xy[:, 0])]
    specimen = Specimen(xy, np.zeros(len(xy), dtype=np.int64), NONE)
    shape = (round(FIELD[1] / PX) + 1, round(FIELD[0] / PX) + 1)
    taken = Conditions(pixel_size_A=PX, counts=20.0)
    return expected_image(specimen, shape, GRAPHENE, taken, rng)


def with_second_layer(seed):
    """A sheet whose right half carries another one, turned by any angle."""
    image = layer(seed, lambda x: x > -9) + layer(seed + 50, lambda x: x > FIELD[0] / 2)
    data = np.random.default_rng(seed).poisson(image).astype(np.float32)
    return Frame(data, Calibration(PX))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_second_layer_in_half_of_the_frame_is_flagged_there_and_not_beside(ensemble, local, seed):
    boxes = find_atoms(with_second_layer(seed), ensemble, GRAPHENE).regions.out_of_distribution(
        local
    )
    assert len(boxes) >= 3  # of six in that half
    assert all(left > 0.4 * FIELD[0] for left, *_ in boxes)
    assert all(distance > 1.0 for *_, distance in boxes)


def test_regions_cover_the_frame_once(ensemble):
    frame = graphene_frame(3, px=0.13, field=(31.0, 18.5)).frame
    regions = find_atoms(frame, ensemble, GRAPHENE).regions
    width, height = frame.calibration.extent_xy(frame.shape)
    left, top, right, bottom = regions.boxes.T
    assert np.sum((right - left) * (bottom - top)) == pytest.approx(width * height)
    assert (left.min(), top.min()) == (0.0, 0.0)
    assert (right.max(), bottom.max()) == pytest.approx((width, height))
    assert len(regions.boxes) == 3 * 2
    # A perfect sheet: three neighbours, a bond apart, as bright as everywhere.
    good = regions.description
    np.testing.assert_allclose(good[:, 2], 1.0, atol=0.08)
    np.testing.assert_allclose(good[:, 3], 0.0, atol=0.04)
    np.testing.assert_allclose(good[:, 5], 0.0, atol=0.1)


def test_where_too_few_atoms_are_nothing_is_said(ensemble, local):
    truth = graphene_frame(4, px=0.13, field=(24.0, 12.0))
    half = truth.frame.data.copy()
    half[:, half.shape[1] // 2 :] = np.random.default_rng(0).poisson(
        3.0, half[:, half.shape[1] // 2 :].shape
    )
    regions = find_atoms(Frame(half, Calibration(0.13)), ensemble, GRAPHENE).regions
    assert np.isfinite(regions.description[0]).all()
    assert not np.isfinite(regions.description[-1]).all()
    assert all(box[0] < 12.0 for box in regions.out_of_distribution(local))


def test_the_distance_of_regions_survives_its_card():
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.2, (400, 7))
    rows[:, 0] = rng.uniform(-5, -2, 400)
    novelty = fit_ood_model_of_regions([Regions(np.zeros((400, 4)), rows)])
    again = OodModel.model_validate(novelty.model_dump())
    far = rows[:1].copy()
    far[0, 5] += 3.0  # far brighter than the rest of its frame
    region = Regions(np.array([[1.0, 2.0, 3.0, 4.0]]), far)
    ((*box, distance),) = region.scaled(2.0).out_of_distribution(again)
    assert box == [2.0, 4.0, 6.0, 8.0]
    assert distance == pytest.approx(again.score(far[0]))
    assert Regions(region.boxes, rows[:1]).out_of_distribution(again) == []
    assert Regions(region.boxes, np.full((1, 7), np.nan)).out_of_distribution(again) == []


def test_a_campaign_keeps_the_boxes_and_says_where_they_are(ensemble, local):
    found = find_atoms(with_second_layer(0), ensemble, GRAPHENE)
    flags = flags_of(found, ensemble.card)
    assert list(flags.unlike_regions) == found.regions.out_of_distribution(local)
    near = {"share_farther": 0.5, "share_sure": 0.9}
    beside = flags.model_copy(update={**near, "unlike_regions": ()})

    def told(**changed):
        second = flags.model_copy(update={**near, **changed})
        return ood_warnings({0: beside, 1: second})

    (warning,) = told()
    assert "parts of 1 of 2 frames" in warning
    assert f"frame 1: {len(flags.boxes)}" in warning
    assert told(share_farther=0.001)[0].count("frames") == 1
    unsure, regions = told(share_sure=0.1)
    assert "hardly an atom is sure in 1 of 2 frames (first 1)" in unsure
    assert regions == warning
    nothing_known = flags_of(found, {})
    assert nothing_known.unlike_regions == ()
    assert not nothing_known.is_out_of_distribution


def test_where_no_region_can_be_described_there_is_no_model():
    rows = np.full((400, 7), np.nan)
    assert fit_ood_model_of_regions([Regions(np.zeros((400, 4)), rows)]) is None
    assert fit_ood_model_of_regions([]) is None
