"""A fit leaves masked pixels out, and takes clipped ones for limits."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import Calibration, Frame, Pixels
from adatom.features.refinement.binning import bin_frame, restored_frame
from adatom.features.refinement.noise import Noise
from adatom.features.refinement.refine import refine
from adatom.features.refinement.used_pixels import UsedPixels
from sheets import graphene_frame


def marked(frame, *, masked=None, clipped=None):
    pixels = Pixels.all_seen(frame.shape)
    changed = {"masked": masked, "clipped": clipped}
    pixels = replace(pixels, **{k: v for k, v in changed.items() if v is not None})
    return replace(frame, pixels=pixels)


@pytest.fixture(scope="module")
def truth():
    return graphene_frame(5, counts=60.0, field=(14, 14), px=0.14, silicon=[(7.0, 7.0)])


def test_masked_pixels_do_not_matter(truth):
    masked = np.zeros(truth.frame.shape, dtype=bool)
    masked[:, :25] = True
    data = truth.frame.data.copy()
    data[masked] = 7.0
    other = data.copy()
    other[masked] = np.random.default_rng(0).normal(500.0, 300.0, int(masked.sum()))
    seen = truth.xy[truth.xy[:, 0] > 28 * 0.14]
    fits = [
        refine(marked(replace(truth.frame, data=d), masked=masked), seen) for d in (data, other)
    ]
    # Hot pixels are replaced over the whole frame, beside the mask too: hence no exact equality.
    assert np.abs(fits[0].xy - fits[1].xy).max() < 0.02
    ratio = fits[0].amplitude / fits[1].amplitude
    assert np.median(np.abs(ratio - 1)) < 0.01


@pytest.mark.parametrize("share", [0.5, 5.0])
def test_amplitudes_are_fitted_beyond_the_limit(truth, share):
    frame = truth.frame
    limit = np.percentile(frame.data, 100 - share)
    cut = np.minimum(frame.data, limit)
    at = (frame.data >= limit).astype(np.int8)
    silicon = truth.species == 1
    inner = (truth.xy > 1.0).all(axis=1) & (truth.xy < 13.0).all(axis=1)

    def ratio(fit):
        return fit.amplitude[silicon].mean() / np.median(fit.amplitude[~silicon & inner])

    whole, naive = refine(frame, truth.xy), refine(replace(frame, data=cut), truth.xy)
    limited = refine(marked(replace(frame, data=cut), clipped=at), truth.xy)
    # What is left of the spot is its wings, so an error of the probe's shape counts more.
    assert ratio(limited) == pytest.approx(ratio(whole), rel=0.3)
    assert abs(ratio(limited) / ratio(whole) - 1) < abs(ratio(naive) / ratio(whole) - 1)
    assert limited.amplitude_sd[silicon].mean() > whole.amplitude_sd[silicon].mean()
    restored = restored_frame(marked(replace(frame, data=cut), clipped=at), limited.restored)
    assert np.array_equal(restored.data[at == 0], cut[at == 0])
    assert restored.data[at == 1].mean() > limit


def test_the_deviance_of_a_limit_has_the_slope_of_its_residual():
    noise = Noise(constant=4.0, gain=0.5, correlation=1.5, least=1.0)
    pixels = UsedPixels(None, np.array([[1, -1, 0]], dtype=np.int8))
    data = np.array([[6.0, 6.0, 6.0]], dtype=np.float32)
    for level in (2.0, 6.0, 12.0):
        model = np.full_like(data, level)
        slope = -2 * pixels.weight(data, model, noise) * pixels.residual(data, model, noise)
        for k in range(2):
            up, down = model.copy(), model.copy()
            up[0, k] += 0.05
            down[0, k] -= 0.05
            numeric = (pixels.deviance(data, up, noise) - pixels.deviance(data, down, noise)) / 0.1
            assert slope[0, k] == pytest.approx(numeric, rel=0.02, abs=2e-3)


def test_binned_pixels_keep_what_is_masked_and_clipped():
    data = np.random.default_rng(0).poisson(5.0, (32, 32)).astype(np.float32)
    masked, clipped = np.zeros((32, 32), dtype=bool), np.zeros((32, 32), dtype=np.int8)
    masked[0, 0], clipped[9, 9] = True, 1
    binned = bin_frame(marked(Frame(data, Calibration(0.08)), masked=masked, clipped=clipped))
    assert np.argwhere(binned.masked).tolist() == [[0, 0]]
    assert np.argwhere(binned.clipped).tolist() == [[4, 4]]
    plain = bin_frame(Frame(data, Calibration(0.08)))
    assert plain.masked is None
    assert plain.clipped is None
