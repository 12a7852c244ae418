"""Atoms on a support are judged by how far they stand out of its texture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from adatom.core import Calibration, Frame
from adatom.features.calibration.occupancy import fit_states, state_features, state_odds
from adatom.features.calibration.texture import texture_contrast
from calibrating import candidates_of, refined_of

PX, SIGMA_A = 0.3, 1.0
SITES = np.array([[15.0, 15.0], [45.0, 15.0], [15.0, 45.0], [45.0, 45.0]])


def frame(texture: float, height: float, *, hill: float = 0.0, unit: float = 1.0, seed: int = 0):
    """Four atoms on a texture of this deviation, with a slope of thickness."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:200, :200] * PX
    speckle = gaussian_filter(rng.normal(size=rows.shape), SIGMA_A / PX)
    image = texture * speckle / speckle.std() + hill * cols
    for x, y in SITES:
        image += height * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * SIGMA_A**2))
    return Frame((unit * image).astype(np.float32), Calibration(PX))


def test_the_contrast_falls_as_the_texture_grows_and_knows_no_unit_and_no_slope():
    weak, strong = (texture_contrast(frame(t, 1.0), SITES, SIGMA_A).mean() for t in (0.1, 0.2))
    assert weak == pytest.approx(2 * strong, rel=0.2)
    assert strong > 4
    same = texture_contrast(frame(0.2, 1.0), SITES, SIGMA_A)
    for change in ({"hill": 0.2}, {"unit": 1e-10}, {"unit": 3e6}):
        other = texture_contrast(frame(0.2, 1.0, **change), SITES, SIGMA_A)
        np.testing.assert_allclose(other, same, rtol=0.05)


def test_more_atoms_do_not_hide_each_other():
    # The deviation is that of the dark side: bright atoms hardly add to it.
    alone = texture_contrast(frame(0.1, 0.0), SITES, SIGMA_A)
    with_atoms = texture_contrast(frame(0.1, 3.0), SITES, SIGMA_A)
    assert (np.abs(alone) < 3.5).all()
    assert (with_atoms > 9).all()


def test_an_even_frame_and_no_site_are_no_error():
    image = np.zeros((50, 50), np.float32)
    image[10, 10] = 1.0
    assert np.isfinite(texture_contrast(Frame(image, Calibration(PX)), SITES, SIGMA_A)).all()
    assert texture_contrast(Frame(image, Calibration(PX)), np.zeros((0, 2)), SIGMA_A).size == 0


def frame_of_sites(seed: int, n: int = 200):
    """Sites of which the networks know nothing; those above a contrast of 3.5 are atoms."""
    rng = np.random.default_rng(seed)
    contrast = rng.uniform(0.0, rng.uniform(6.0, 9.0), n)
    found = candidates_of(rng.uniform(0.3, 0.7, n), vacant=rng.uniform(0.0, 0.2, n))
    fit = refined_of(found, rng.uniform(0.5, 1.5) * rng.uniform(0.7, 1.3, n))
    there = rng.random(n) < 1.0 / (1.0 + np.exp(-3.0 * (contrast - 3.5)))
    return found, replace(fit, texture_contrast=contrast), there


def test_texture_decides_where_the_networks_do_not_and_older_weights_ignore_it():
    frames = [frame_of_sites(seed) for seed in range(8)]
    weights = fit_states([(state_features(f, r), there.astype(int)) for f, r, there in frames])
    found, fit, _ = frame_of_sites(99)
    features = state_features(found, fit)
    odds = state_odds(weights, features)
    p = odds[:, 0] / (1.0 + odds.sum(axis=1))
    assert np.mean((p > 0.5) == (fit.texture_contrast > 3.5)) > 0.93

    plain = state_features(found, replace(fit, texture_contrast=None))
    np.testing.assert_array_equal(features[:, : plain.shape[1]], plain)
    older = (tuple(np.arange(12.0) / 10), tuple(-np.arange(12.0) / 10))
    np.testing.assert_array_equal(state_odds(older, features), state_odds(older, plain))
    none = candidates_of(np.zeros(0))
    empty = replace(refined_of(none, np.zeros(0)), texture_contrast=np.zeros(0))
    assert state_features(none, empty).shape == (0, features.shape[1])
