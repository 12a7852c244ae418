"""Refinement: the fit of all atoms of a frame, and what lies beyond its border."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from adatom.core import GRAPHENE, Calibration, Frame
from adatom.errors import BadInput
from adatom.features.candidates.beyond_border import atoms_beyond_border
from adatom.features.neighbours import border_distance
from adatom.features.refinement import fisher
from adatom.features.refinement import refine as refinement
from adatom.features.refinement.fit import Fit
from adatom.features.refinement.refine import RefineOptions, refine, tiles
from adatom.features.scaled_lengths import scale_refined
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points
from adatom.frames.simulate.synthesize import image_specimen
from refining import fit_of, refine_truth, start_of
from sheets import NONE, extent, graphene_frame, inner, rms


@pytest.mark.parametrize("counts", [0.2, 2.0, 30.0, 300.0])
def test_no_step_makes_the_fit_worse(counts):
    truth = graphene_frame(420, px=0.14, counts=counts, silicon=[(6, 6)], missing=[(11, 9)])
    fit = fit_of(truth)
    fit.set_start(counts, 0.1 * counts)
    values = [fit.objective()]
    for _ in range(8):
        fit.step()
        values.append(fit.objective())
    assert (np.diff(values) <= 1e-6 * fit.data.size).all(), values
    assert values[-1] < values[0]


@pytest.mark.parametrize("counts", [0.2, 1.0, 5.0, 30.0, 300.0])
def test_positions_are_no_worse_than_their_start(counts):
    before, after = [], []
    for seed in range(3):
        truth = graphene_frame(430 + seed, px=0.14, counts=counts, silicon=[(6, 6)])
        start, keep = start_of(truth, 0.08, seed), inner(truth.frame, truth.xy, 0.3)
        before.append((start - truth.xy)[keep])
        after.append((refine_truth(truth, start).xy - truth.xy)[keep])
    # Where nothing is seen the start stays; where something is, it helps.
    limit = 1.1 if counts < 1 else 1.0 if counts < 5 else 0.6
    assert rms(np.concatenate(after)) < limit * rms(np.concatenate(before))


def test_the_probe_and_the_amplitudes_are_those_of_the_frame():
    truth = graphene_frame(450, px=0.12, counts=30.0, tail_fraction=0.0, silicon=[(9, 9)],
                           probe_sigma_A=(0.48, 0.38), probe_angle_rad=0.5)  # fmt: skip
    refined = refine_truth(truth, start_of(truth))
    assert refined.optics.sigma_A == pytest.approx(np.sqrt(0.48 * 0.38), abs=0.015)
    assert refined.optics.ellipticity == pytest.approx(0.48 / 0.38, abs=0.06)
    noise, keep = refined.optics.noise, inner(truth.frame, truth.xy)
    assert noise.gain == pytest.approx(1.0, abs=0.15)
    assert noise.correlation == pytest.approx(1.0, abs=0.1)
    host, heavy = keep & (truth.species == 0), keep & (truth.species == 1)
    assert np.median(refined.amplitude[host]) == pytest.approx(30.0, rel=0.1)
    ratio = refined.amplitude[heavy] / np.median(refined.amplitude[host])
    assert heavy.sum() == 1
    assert ratio == pytest.approx((14 / 6) ** 1.64, rel=0.12)


def test_starts_far_off_are_drawn_in_where_counts_are_plenty():
    truth = graphene_frame(451, counts=30.0)
    refined, keep = (
        refine_truth(truth, start_of(truth, 0.15), start_sigma_A=0.2),
        inner(truth.frame, truth.xy),
    )
    assert rms((refined.xy - truth.xy)[keep]) < 0.25 * 0.15


def test_jitter_of_scan_lines_is_measured_and_taken_out(monkeypatch):
    truths = [graphene_frame(460 + s, counts=30.0, jitter_A=0.1, field=(20, 20)) for s in range(3)]

    def x_errors():
        found = [refine_truth(t, start_of(t, 0.05)) for t in truths]
        keep = [inner(t.frame, t.xy, 1.5) for t in truths]
        x, y = ([(r.xy - t.xy)[k, i] for r, t, k in zip(found, truths, keep, strict=True)]
                for i in (0, 1))  # fmt: skip
        return rms(np.concatenate(x)), rms(np.concatenate(y)), [r.optics.jitter_A for r in found]

    x, y, jitter = x_errors()
    monkeypatch.setattr(Fit, "fit_line_shifts", lambda _: None)  # no line is corrected
    x_without, y_without, none = x_errors()
    assert np.mean(jitter) == pytest.approx(0.1, rel=0.2)
    assert none == [0.0] * 3
    assert x < 0.95 * x_without
    assert y < 1.05 * y_without


def test_lines_that_do_not_jitter_are_left_where_they_are():
    for seed in range(3):
        truth = graphene_frame(465 + seed, counts=30.0, field=(20, 20))
        assert refine_truth(truth, start_of(truth)).optics.jitter_A == 0.0


def test_tiles_give_what_the_whole_frame_gives():
    truth = graphene_frame(470, px=0.15, counts=20.0, field=(38, 34), silicon=[(19, 17)])
    start = start_of(truth)
    whole = refine_truth(truth, start)
    outside = atoms_beyond_border(start, truth.frame.border_distance_A, GRAPHENE)
    tiled = refine(truth.frame, start, outside_xy=outside, tile_px=90)
    assert len(tiles(truth.frame.shape, 90)) == 9
    moved = np.linalg.norm(tiled.xy - whole.xy, axis=1)
    keep = inner(truth.frame, truth.xy, 1.0)
    assert moved[keep].max() < 0.02
    assert moved.max() < 0.06  # of atoms cut by the border little is known
    assert np.median(moved) < 0.004
    np.testing.assert_allclose(tiled.amplitude, whole.amplitude, rtol=0.1)
    ratio = np.einsum("nii->n", tiled.covariance) / np.einsum("nii->n", whole.covariance)
    assert np.percentile(np.abs(np.log(ratio[keep])), 95) < 0.15


def test_refinement_tiles_cover_every_pixel_once():
    count = np.zeros((301, 97), dtype=int)
    for rows, cols in tiles(count.shape, 90):
        count[rows, cols] += 1
    assert (count == 1).all()


def test_a_hot_pixel_moves_nothing_far_away():
    truth = graphene_frame(471, counts=30.0)
    start, data = start_of(truth), truth.frame.data.copy()
    data[70, 81] = 1e5
    clean, hot = (
        refine_truth(truth, start),
        refine_truth(replace(truth, frame=replace(truth.frame, data=data)), start),
    )
    moved = np.linalg.norm(hot.xy - clean.xy, axis=1)
    far = np.linalg.norm(truth.xy - (81 * 0.12, 70 * 0.12), axis=1) > 2.5
    assert moved[far].max() < 0.005
    assert moved.max() < 0.1
    np.testing.assert_allclose(hot.amplitude[far], clean.amplitude[far], rtol=0.02)


@pytest.mark.parametrize("shape", [(16, 16), (17, 61), (83, 41), (16, 120)])
def test_odd_and_small_frames_are_refined(shape):
    truth = graphene_frame(472, counts=30.0)
    frame = replace(truth.frame, data=truth.frame.data[: shape[0], : shape[1]].copy())
    xy = truth.xy[np.all(truth.xy <= extent(frame), axis=1)]
    start = xy + np.random.default_rng(0).normal(0.0, 0.05, xy.shape)
    refined = refine(
        frame, start, None, atoms_beyond_border(start, frame.border_distance_A, GRAPHENE)
    )
    assert refined.xy.shape == xy.shape
    assert np.isfinite(refined.covariance).all()
    assert (
        np.linalg.norm(refined.xy - start, axis=1).max() <= RefineOptions().largest_shift_A + 1e-9
    )
    inside = inner(frame, xy, 0.7)
    if inside.sum() > 5:
        assert rms((refined.xy - xy)[inside]) < 0.05


def test_a_fit_returns_the_prior_on_the_start_positions():
    truth = graphene_frame(473, counts=1.0)
    start = start_of(truth)
    tight, loose = (refine(truth.frame, start, RefineOptions(start_sigma_A=s)) for s in (0.02, 0.2))
    assert (tight.start_sigma_A, loose.start_sigma_A) == (0.02, 0.2)
    assert scale_refined(loose, 1.5).start_sigma_A == pytest.approx(0.3)
    moved = [np.linalg.norm(r.xy - start, axis=1).mean() for r in (tight, loose)]
    assert moved[0] < 0.02 < moved[1]


def test_one_atom_is_refined():
    xy = np.array([[4.03, 5.27]])
    conditions = Conditions(pixel_size_A=0.12, counts=50.0)
    frame = image_specimen(Specimen(xy, np.array([0]), NONE), (81, 90), GRAPHENE, conditions,
                           np.random.default_rng(0)).frame  # fmt: skip
    refined = refine(frame, xy + 0.1)
    sigma = np.sqrt(np.einsum("nii->ni", refined.covariance))
    assert np.abs(refined.xy - xy).max() < 0.03
    assert 0.004 < sigma.min() <= sigma.max() < 0.03


def test_no_atoms_give_no_rows():
    noise = np.random.default_rng(1).poisson(5.0, (60, 70)).astype(np.float32)
    refined = refine(Frame(noise, Calibration(0.12)), NONE)
    assert refined.xy.shape == (0, 2)
    assert refined.covariance.shape == (0, 2, 2)
    assert len(refined.amplitude) == len(refined.amplitude_sd) == len(refined.background) == 0


@pytest.mark.parametrize("kind", ["constant", "a pixel without a number"])
def test_frames_without_contrast_or_with_nan_are_refused(kind):
    data = np.full((40, 40), 7.0, dtype=np.float32)
    if kind != "constant":
        data[3, 4:] = 8.0
        data[20, 20] = np.nan
    with pytest.raises(BadInput, match=r"contrast|finite"):
        Frame(data, Calibration(0.12))


def test_a_nearly_dark_frame_leaves_atoms_where_they_were():
    data = np.random.default_rng(0).poisson(0.002, (90, 90)).astype(np.float32)
    assert 5 < data.sum() < 30
    xy = lattice_points(GRAPHENE, (10.6, 10.6), -0.5, 0.1)
    refined = refine(Frame(data, Calibration(0.12)), xy)
    assert np.isfinite(refined.xy).all()
    assert np.isfinite(refined.covariance).all()
    assert rms(refined.xy - xy) < 0.12


def test_gain_and_offset_change_no_position():
    truth = graphene_frame(473, counts=20.0)
    start = start_of(truth)
    one = refine_truth(truth, start)
    frame = replace(truth.frame, data=truth.frame.data * 41.0 + 1000.0)
    other = refine_truth(replace(truth, frame=frame), start)
    assert np.abs(one.xy - other.xy).max() < 0.004
    np.testing.assert_allclose(other.amplitude / one.amplitude, 41.0, rtol=0.03)


# ---------------------------------------------------------------- beyond the border


@pytest.mark.parametrize("seed", range(3))
def test_guessed_atoms_outside_continue_the_sheet(seed):
    rng, far = np.random.default_rng(seed), (16.0, 13.0)
    sites = lattice_points(GRAPHENE, far, 4.0, rng.uniform(0, 6)) + rng.uniform(-1, 1, 2)
    inside = np.all((sites >= 0) & (sites <= far), axis=1)
    found = atoms_beyond_border(
        sites[inside] + rng.normal(0, 0.03, (inside.sum(), 2)),
        partial(border_distance, extent_xy_A=far),
        GRAPHENE,
    )
    beyond = sites[~inside]
    distance, which = cKDTree(beyond).query(found)
    assert np.mean(distance < 0.3) > 0.9
    assert len(np.unique(which)) == len(which)
    # Nearly all atoms whose tails show are there: those within a probe's width of the border.
    near = np.all((beyond > -0.5) & (beyond < np.add(far, 0.5)), axis=1)
    assert (cKDTree(found).query(beyond[near])[0] < 0.3).mean() > 0.9


def test_too_few_atoms_give_no_guesses_outside():
    for n in range(4):
        xy = np.random.default_rng(n).uniform(3.0, 9.0, (n, 2))
        away = partial(border_distance, extent_xy_A=(12.0, 12.0))
        assert atoms_beyond_border(xy, away, GRAPHENE).shape == (0, 2)


def test_linear_algebra_is_held_to_one_thread_and_let_go_again(monkeypatch):
    """Two threads wait for each other at full speed: three times slower beside other work."""

    def threads():  # of NumPy and SciPy; engines bring libraries of their own, which no fit uses
        return {p["num_threads"] for p in refinement._pools().info() if p["user_api"] == "blas"}

    seen = []
    inner = refinement.fit_probe_and_noise
    monkeypatch.setattr(
        refinement,
        "fit_probe_and_noise",
        lambda *a, **k: (seen.append(threads()), inner(*a, **k))[1],
    )
    rng = np.random.default_rng(0)
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        refine(Frame(rng.poisson(5.0, (64, 64)), Calibration(0.12)), rng.uniform(1, 6, (9, 2)))
        assert threads() == before
    assert seen == [{1}]


@given(st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3))
def test_covariances_are_positive_whatever_the_messages_say(correlations):
    b, c, f = correlations
    blocks = np.array([[1.0, b, c], [b, 1.0, f], [c, f, 1.0]])[:, :, None]
    assert np.linalg.eigvalsh(fisher._inverse(blocks)[:, :, 0])[0] > 0.0
