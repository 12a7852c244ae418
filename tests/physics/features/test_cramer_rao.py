"""Errors of the refinement against the Cramér-Rao bound and the inverse Fisher information."""

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.features.refinement.refine import RefineOptions, refine
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import image_specimen
from refining import fit_of, refine_truth, start_of
from sheets import NONE, graphene_frame, inner, rms


def test_no_error_bar_runs_away_whatever_lies_beyond_the_border():
    """Belief propagation around small rings of faint atoms must not exceed the exact inverse."""
    worst = 0.0
    for seed in range(8):
        truth = graphene_frame(400 + seed, px=0.15, counts=100.0)
        fit = fit_of(truth)
        fit.run(RefineOptions().iterations)
        weight = (1.0 / fit.noise.variance(fit.model())).astype(np.float32)
        info, prior = fit.information(weight), fit.prior()
        dense = np.linalg.inv(info.matrix(prior).toarray())
        found = np.einsum("nii->ni", info.covariance(prior, fit.outside))
        ratio = found / np.diag(dense).reshape(-1, 3)
        worst = max(worst, float(ratio[~fit.outside].max()))
    assert worst < 1.5


@pytest.mark.parametrize(("counts", "px"), [(20.0, 0.15), (100.0, 0.15), (30.0, 0.1)])
def test_refinement_comes_near_to_the_bound(counts, px):
    error, said = [], []
    for seed in range(3):
        truth = graphene_frame(440 + seed, px=px, counts=counts, tail_fraction=0.1)
        refined, keep = refine_truth(truth, start_of(truth)), inner(truth.frame, truth.xy, 1.5)
        error.append((refined.xy - truth.xy)[keep])
        said.append(np.einsum("nii->ni", refined.covariance)[keep])
        assert refined.reduced_chi2 == pytest.approx(1.0, abs=0.05)
    said = np.median(np.concatenate(said)) ** 0.5
    assert rms(np.concatenate(error)) < 1.2 * said
    # Isolated atom, Poisson noise, no background (Cramér-Rao): sigma / sqrt(detected electrons).
    alone = 0.42 / np.sqrt(2 * np.pi * (0.42 / px) ** 2 * counts)
    assert alone < said < 2.2 * alone  # neighbours and background cost


def test_the_images_own_error_bars_are_those_of_repeated_noise():
    """Without the prior, covariance is the Cramér-Rao bound, and the spread over draws meets it."""
    xy = np.array([[3.0, 3.1], [8.2, 3.0], [3.1, 8.0], [7.6, 8.1], [8.7, 8.1]])  # the last two near
    specimen = Specimen(xy, np.zeros(5, dtype=np.int64), NONE)
    conditions = Conditions(pixel_size_A=0.12, counts=20.0, tail_fraction=0.0, background=0.5)
    rng, places, said = np.random.default_rng(0), [], []
    for _ in range(40):
        frame = image_specimen(specimen, (95, 99), GRAPHENE, conditions, rng).frame
        refined = refine(frame, xy, RefineOptions(start_sigma_A=9.0))
        places.append(refined.xy)
        said.append(np.einsum("nii->ni", refined.covariance))
    spread, bars = np.var(places, axis=0), np.median(said, axis=0)
    assert np.mean(spread[:3] / bars[:3]) == pytest.approx(1.0, abs=0.35)
    np.testing.assert_allclose(np.mean(places, axis=0), xy, atol=5 * np.sqrt(spread.max() / 40))
    assert (bars[3:, 0] > 1.3 * bars[3:, 1]).all()  # neighbours along x blur x
