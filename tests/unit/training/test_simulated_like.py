"""Simulated frames under the conditions that were estimated from an experiment."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.core.imaging import Estimate
from adatom.features.calibration.texture import texture_contrast
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import expected_image, random_labelled
from adatom.learning.device import use_threads
from adatom.materials.library import load_material
from adatom.training.adapt.simulated_like import SimulatedLike, conditions_like, with_texture
from imaging import known_imaging
from sheets import NONE, graphene_frame


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


def drawn(count=400, material=GRAPHENE, **change):
    given = known_imaging(**change)
    return [conditions_like(given, material, np.random.default_rng(i)) for i in range(count)]


@pytest.mark.parametrize(
    ("name", "value", "spread"),
    [("pixel_size_A", 0.15, 0.01), ("counts", 12.0, 0.25), ("slow_length_A", 7.0, 0.06)],
)
def test_conditions_lie_about_those_that_were_estimated(name, value, spread):
    values = np.array([getattr(c, name) for c in drawn()])
    assert values.mean() == pytest.approx(value, rel=4 * spread / 20)
    assert values.std() / value == pytest.approx(spread, rel=0.15)


def test_conditions_spread_as_far_as_the_estimate_is_uncertain():
    values = np.array([c.counts for c in drawn(counts=Estimate(12.0, 6.0))])
    assert values.std() == pytest.approx(6.0, rel=0.2)
    assert values.min() >= 0.3 * 12.0 - 1e-9  # and never to nothing
    wide = np.array([c.probe_sigma_A[0] for c in drawn(probe_sigma_A=(Estimate(0.5, 0.1),) * 2)])
    assert wide.std() > 0.05


def test_the_long_axis_of_the_probe_comes_first():
    alike = (Estimate(0.45, 0.0), Estimate(0.44, 0.0))
    for c in drawn(50, probe_sigma_A=alike):
        assert c.probe_sigma_A[0] >= c.probe_sigma_A[1] > 0.3
        assert c.probe_angle_rad == pytest.approx(0.7)
        assert 0.36 < c.blur_px < 0.44
        assert c.support == 0.0


def test_a_quarter_of_the_frames_of_a_crystal_have_contamination():
    shares = np.array([c.contamination for c in drawn()])
    assert np.mean(shares > 0) == pytest.approx(0.25, abs=0.07)
    assert all(c.contamination == 0.0 for c in drawn(60, load_material("Pt-on-carbon")))


def test_the_mean_background_is_the_estimated_one():
    """Hills rise from their lowest place: level and hills together must give the mean."""
    mean = []
    for i in range(12):
        c = conditions_like(known_imaging(), GRAPHENE, np.random.default_rng(i))
        c = replace(c, counts=1.0, jitter_A=0.0, read_noise=0.0, blur_px=0.0, contamination=0.0)
        nothing = Specimen(NONE, np.zeros(0, dtype=int), NONE)
        image = expected_image(nothing, (200, 200), GRAPHENE, c, np.random.default_rng(i))
        mean.append(image.mean())
        assert 0.1 < image.std() < 0.3
    assert np.mean(mean) == pytest.approx(1.5, abs=0.15)


def test_under_dispersed_atoms_the_background_is_a_support():
    for c in drawn(30, load_material("Pt-on-carbon")):
        assert c.background == c.slow_background == 0.0
        assert c.support == pytest.approx(1.5, rel=0.3)
        assert c.support_hills == pytest.approx(0.2 / 1.5, rel=0.3)


def test_simulated_frames_have_the_asked_field_and_their_truth():
    source = SimulatedLike(GRAPHENE, known_imaging(), 18.0, training_share=0.0)
    for seed in range(6):
        (one, fainter), (two, _) = (source(np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(one.frame.data, two.frame.data)
        np.testing.assert_array_equal(fainter.xy, one.xy)  # one specimen, other noise
        assert (fainter.frame.data != one.frame.data).any()
        extent = one.frame.calibration.extent_xy(one.frame.shape)
        assert min(extent) >= 18.0
        assert max(extent) < 18.5
        assert one.frame.calibration.pixel_size_A == pytest.approx(0.15, rel=0.05)
        assert one.classes == GRAPHENE.species
        assert len(one.xy) > 20
    empty = source.frame(np.random.default_rng(0), empty=True)
    assert len(empty.xy) == len(empty.vacancies_xy) == 0


def at_scale(scale):
    return SimulatedLike(GRAPHENE, known_imaging(), 10.0, scale, training_share=0.0)


def test_frames_are_simulated_at_the_pixel_size_that_the_user_gave():
    """The same pixels and the same truth in longer ångströms."""
    true, given = (
        SimulatedLike(GRAPHENE, known_imaging(), 10.0, scale, training_share=0.0).frame(
            np.random.default_rng(3)
        )
        for scale in (1.0, 1.04)
    )
    np.testing.assert_array_equal(given.frame.data, true.frame.data)
    px = true.frame.calibration.pixel_size_A
    assert given.frame.calibration.pixel_size_A == pytest.approx(1.04 * px)
    np.testing.assert_allclose(given.xy, 1.04 * true.xy)
    np.testing.assert_allclose(given.vacancies_xy, 1.04 * true.vacancies_xy)
    for one, other in zip(
        *(at_scale(scale)(np.random.default_rng(3)) for scale in (1.0, 1.04)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(other.frame.data, one.frame.data)
        np.testing.assert_allclose(other.xy, 1.04 * one.xy)


def test_counts_are_reduced_by_the_factor_at_most():
    level = {}
    for fewer in (1.0, 8.0):
        source = SimulatedLike(
            GRAPHENE,
            known_imaging(background_variation=Estimate(0.0, 0.0)),
            8.0,
            training_share=0.0,
            fewer=fewer,
        )
        rngs = [np.random.default_rng(i) for i in range(120)]
        level[fewer] = np.array([source.frame(r, empty=True).frame.data.mean() for r in rngs])
    usual = np.median(level[1.0])  # 1.5 of 12 counts
    assert usual == pytest.approx(18.0, rel=0.1)
    ratio = level[8.0] / usual
    assert 1 / 8 * 0.3 < ratio.min() < 0.2
    assert ratio.max() < level[1.0].max() / usual * 1.05
    # Evenly in the logarithm.
    assert np.median(np.log(ratio)) == pytest.approx(-np.log(8) / 2, abs=0.35)


def test_a_share_of_the_frames_shows_any_conditions_of_training():
    def sizes(share):
        source = SimulatedLike(GRAPHENE, known_imaging(), 5.0, training_share=share)
        frames = [source(np.random.default_rng(i))[0].frame for i in range(60)]
        return np.array([f.calibration.pixel_size_A for f in frames])

    assert np.abs(sizes(0.0) / 0.15 - 1).max() < 0.05
    # A twelfth of all pixel sizes, drawn evenly in the logarithm, lies as near by chance.
    assert np.mean(np.abs(sizes(0.5) / 0.15 - 1) > 0.05) == pytest.approx(0.5 * 11 / 12, abs=0.15)


@pytest.fixture
def frames():
    return [graphene_frame(1, px=0.15, field=(8.0, 8.0)).frame]


def test_atoms_stand_out_of_a_simulated_support_as_far_as_in_the_experiment():
    m = load_material("Pt-on-carbon")
    start = Conditions(
        pixel_size_A=0.3, probe_sigma_A=(1.0, 1.0), counts=300.0, tail_fraction=0.1,
        support=6.0, support_speckle=0.04, support_lumps=0.25,
    )  # fmt: skip
    medians = []
    for wanted in (3.0, 4.5, 6.0):
        found = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            conditions = with_texture(start, m, wanted, rng)
            labelled = random_labelled(m, rng, field_A=90.0, conditions=conditions)
            contrast = texture_contrast(labelled.frame, labelled.xy, 1.0)
            found.append(np.median(contrast))
        medians.append(np.median(found))
        assert medians[-1] == pytest.approx(wanted, rel=0.3)
    assert medians == sorted(medians)
    rougher = with_texture(start, m, 0.1, np.random.default_rng(0))
    assert rougher.support_lumps == pytest.approx(4.0 * start.support_lumps)  # the largest factor
