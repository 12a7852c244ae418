"""Calibrated positions and their covariances."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import GRAPHENE, Frame
from adatom.features.calibration.calibrator import (
    Calibrator,
    fit_calibrator,
    match_truth,
)
from adatom.features.find import FindOptions, find_candidates
from adatom.features.novelty.frame import OodModel, describe
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import predict_tiles
from calibrating import OPTIONS, candidates_of, observe_eight_frames, refined_of
from sheets import inner, rms

SPREAD = 24  # features of a position's variance


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def ensemble():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def observations(ensemble):
    return observe_eight_frames(ensemble)


@pytest.fixture(scope="module")
def fitted(observations):
    return fit_calibrator(observations, OPTIONS)


@pytest.fixture(scope="module")
def shipped(ensemble):
    return Calibrator.model_validate(ensemble.card["calibration"])


def plain(**changes):
    return Calibrator(
        **{
            "states": ((0.0,), (0.0,)), "exists": ((-9.0, 9.0), (-9.0, 9.0)),
            "foreign": ((0.0,) * 4,), "trust": ((1.0,) * 10,) * 2,
            "spread": (np.log(0.03**2), *(0.0,) * (SPREAD - 1)),
            "spread_mean": (0.0,) * SPREAD, "spread_scale": (1.0,) * SPREAD, **changes,
        }
    )  # fmt: skip


def test_a_position_goes_as_far_from_the_networks_as_the_image_is_trusted():
    """The farther refinement moves a frame's atoms, in its own errors, the more it is trusted."""
    sites, trust = candidates_of(np.ones(12)), tuple(np.linspace(0.1, 1.0, 10).tolist())
    calibrator = plain(trust=(trust, trust))
    shift, shares = np.array([0.03, -0.03]), []
    for sigma in (0.005, 0.02, 0.03, 0.05, 0.2):
        refined = refined_of(sites, 1.0, shift=shift, sigma=sigma)
        share = (calibrator.position(sites, refined, OPTIONS) - sites.xy) / shift
        np.testing.assert_allclose(share, share[0, 0], atol=1e-9)
        shares.append(float(share[0, 0]))
    assert shares[0] == pytest.approx(1.0)
    assert (np.diff(shares) < 0).all()
    assert shares[-1] < 0.25
    none = plain(trust=((0.0,) * 10,) * 2)
    np.testing.assert_allclose(none.position(sites, refined, OPTIONS), sites.xy)


def test_a_covariance_has_the_shape_of_the_counts_and_the_size_of_the_fit():
    sites = candidates_of(np.ones(12))
    refined = refined_of(sites, 1.0)
    shape = np.array([[2.0, 0.5], [0.5, 1.0]]) * 1e-4
    refined = replace(refined, covariance=np.tile(shape, (12, 1, 1)))
    covariance = plain().covariance(sites, refined, OPTIONS)
    np.testing.assert_allclose(covariance, np.tile(shape * 0.03**2 / 1.5e-4, (12, 1, 1)))


def test_a_fitted_calibrator_makes_error_bars_hold(observations, fitted):
    pulls = []
    for o in observations:
        xy = fitted.position(o.candidates, o.refined, OPTIONS)
        match = match_truth(xy, o.truth.xy)
        keep = (match >= 0) & inner(o.truth.frame, xy)
        c = fitted.covariance(o.candidates, o.refined, OPTIONS)[keep]
        pulls.append((xy[keep] - o.truth.xy[match[keep]]) / np.sqrt(np.einsum("nii->ni", c)))
    within = np.abs(np.concatenate(pulls))
    assert 0.62 < (within < 1).mean() < 0.75
    assert (within < 2).mean() > 0.9


def loss_against_the_better(calibrator, observations):
    """Error of positions over that of the networks or of the image, whichever is less."""
    out = []
    for o in observations:
        match = match_truth(o.candidates.xy, o.truth.xy)
        keep = (match >= 0) & inner(o.truth.frame, o.candidates.xy)
        each = [
            rms(p[keep] - o.truth.xy[match[keep]])
            for p in (
                o.candidates.xy, o.refined.xy,
                calibrator.position(o.candidates, o.refined, OPTIONS),
            )
        ]  # fmt: skip
        out.append(each[2] / min(each[:2]))
    return np.array(out)


def test_networks_and_image_together_are_as_good_as_the_better_at_every_dose(observations, shipped):
    assert loss_against_the_better(shipped, observations).max() < 1.1


def test_a_few_frames_are_enough_to_know_how_far_to_trust_the_image(observations, fitted):
    assert loss_against_the_better(fitted, observations).max() < 1.15


def test_matching_is_one_to_one_and_near_first():
    truth = np.array([[0.0, 0.0], [5.0, 0.0]])
    found = np.array([[0.3, 0.0], [0.1, 0.0], [5.0, 0.49], [9.0, 9.0]])
    np.testing.assert_array_equal(match_truth(found, truth), [-1, 0, 1, -1])
    assert match_truth(np.zeros((0, 2)), truth).shape == (0,)
    np.testing.assert_array_equal(match_truth(found, np.zeros((0, 2))), [-1] * 4)


@pytest.fixture(scope="module")
def distance(ensemble):
    novelty = OodModel.model_validate(ensemble.card["novelty"])

    def of(frame: Frame) -> tuple[float, float]:
        found = find_candidates(frame, predict_tiles(frame, ensemble), GRAPHENE, FindOptions())
        d = novelty.score(describe(*found, GRAPHENE, OPTIONS))
        return d, novelty.share_farther(d)

    return of


@pytest.mark.parametrize("odd", ["vacant", "foreign"])
def test_next_to_an_odd_site_the_image_is_trusted_sooner(odd, shipped):
    atom, other = np.ones(64), np.zeros(64)
    other[27] = 1.0
    sites = (
        candidates_of(1 - other, vacant=other) if odd == "vacant" else candidates_of(atom, other)
    )
    sites = replace(sites, xy=0.71 * sites.xy)  # 1.42 Å apart
    fit = refined_of(sites, 1.0, shift=(0.03, 0.0))
    moved = shipped.position(sites, fit, OPTIONS)[:, 0] - sites.xy[:, 0]
    distance = np.linalg.norm(sites.xy - sites.xy[27], axis=1)
    near, far = (distance > 0) & (distance < 1.9), distance > 1.9
    assert near.sum() == 4
    assert 0 < moved[far].max() < 0.95 * moved[near].min()
    assert moved.max() <= 0.03 + 1e-9
    if odd == "foreign":  # in a crystal of both, neither is odd
        both = shipped.model_copy(update={"hosts": (0, 1)})
        alike = both.position(sites, fit, OPTIONS)[:, 0] - sites.xy[:, 0]
        np.testing.assert_allclose(alike, moved[far].max(), rtol=1e-6)
