"""Noise added to a frame against Poisson statistics at the lower dose."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy import ndimage

from adatom.analysis.frame import calibrator_of
from adatom.core import GRAPHENE, Calibration, Frame
from adatom.features.find import find
from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.noise import Noise
from adatom.features.refinement.refine import Optics
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points
from adatom.frames.simulate.synthesize import expected_image
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import predict
from adatom.training.adapt.pseudo_labels import (
    with_fewer_counts,
)
from sheets import NONE, graphene_frame


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


@cache
def shipped():
    return weights.load_shipped("graphene")


def sheet_counts(px=0.12, counts=20.0, shape=(160, 160)):
    """Expected counts of a sheet, without noise."""
    edge = (shape[1] * px, shape[0] * px)
    xy = lattice_points(GRAPHENE, edge, 3.0, 0.4)
    specimen = Specimen(xy, np.zeros(len(xy), dtype=np.int64), NONE)
    taken = Conditions(pixel_size_A=px, counts=counts, background=0.5)
    return expected_image(specimen, shape, GRAPHENE, taken, np.random.default_rng(0))


def poisson_optics(gain=1.0, px=0.12, bins=1):
    """Optics whose noise is that of counts times a gain, in pixels binned so many to an edge."""
    probe = Probe(np.array([9.0, 0.0, 9.0]), np.zeros(2))
    return Optics(probe, Noise(0.0, gain / bins**2, 1.0, 1e-9), px * bins)


@pytest.mark.parametrize("factor", [0.5, 0.2])
@pytest.mark.parametrize(("gain", "bins"), [(1.0, 1), (7.0, 1), (1.0, 2), (7.0, 3)])
def test_fewer_counts_have_the_noise_of_a_real_frame_at_that_dose(factor, gain, bins):
    expected, rng = sheet_counts(), np.random.default_rng(5)
    px = 0.12
    optics = poisson_optics(gain, px, bins)
    made, real = [], []
    for _ in range(30):
        frame = Frame((gain * rng.poisson(expected)).astype(np.float32), Calibration(px))
        made.append(with_fewer_counts(frame, optics, factor, rng).data)
        real.append(gain * rng.poisson(expected * factor) / factor)
    made, real = np.array(made), np.array(real)
    np.testing.assert_allclose(made.mean(axis=0).mean(), gain * expected.mean(), rtol=0.01)
    wanted = gain**2 * expected / factor  # variance of Poisson counts, brought to the same level
    assert (real.var(axis=0, ddof=1) / wanted).mean() == pytest.approx(1.0, abs=0.02)
    assert (made.var(axis=0, ddof=1) / wanted).mean() == pytest.approx(1.0, abs=0.03)
    # Bright places are noisier than dim ones, as the counts there have it.
    for where in (expected > np.percentile(expected, 85), expected < np.percentile(expected, 15)):
        ratio = made.var(axis=0, ddof=1)[where].mean() / real.var(axis=0, ddof=1)[where].mean()
        assert ratio == pytest.approx(1.0, abs=0.08)
    d = made - made.mean(axis=0)
    assert abs((d[..., 1:] * d[..., :-1]).mean() / d.var()) < 0.01  # white, as counts are


@pytest.mark.parametrize("px", [0.12, 0.07])
def test_noise_learned_from_a_frame_serves_for_fewer_counts(px):
    """Refinement learns the noise from one frame, binned where pixels are fine."""
    truth = graphene_frame(2, px=px, counts=240.0 * px**2 / 0.12**2, field=(16.0, 16.0))
    seen = find(truth.frame, [predict(truth.frame, shipped())], GRAPHENE, calibrator_of(shipped()))
    assert seen.refined.optics.pixel_size_A >= px
    made = with_fewer_counts(truth.frame, seen.refined.optics, 0.1, np.random.default_rng(0))
    added = made.data - truth.frame.data
    mean = ndimage.gaussian_filter(truth.frame.data.astype(float), 2.0)
    assert (added**2).sum() / (mean * 9.0).sum() == pytest.approx(1.0, abs=0.12)
    assert made.calibration == truth.frame.calibration
    assert made.index == truth.frame.index


def test_as_many_counts_leave_the_frame_alone():
    frame = Frame(sheet_counts().astype(np.float32), Calibration(0.12))
    same = with_fewer_counts(frame, poisson_optics(), 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(same.data, frame.data)
