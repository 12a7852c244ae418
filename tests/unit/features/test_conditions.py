"""Conditions from frames: simulate with known ones, find the atoms, compare."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import GRAPHENE, Calibration, Estimate, Frame
from adatom.errors import BadInput
from adatom.features.conditions.estimate import estimate_imaging
from adatom.frames.simulate.sheet import graphene_sheet
from imaging import USUAL, estimate, finder, pull, take

CASES = {
    "usual": USUAL,
    "few counts": replace(USUAL, counts=1.5, background=0.1),
    "many counts, coarse": replace(USUAL, counts=90.0, pixel_size_A=0.17),
    "fine, jitter": replace(USUAL, pixel_size_A=0.075, counts=8.0, jitter_A=0.07),
    "smoothed": replace(USUAL, blur_px=0.7),
    "smoothed, jitter": replace(USUAL, blur_px=0.7, jitter_A=0.06),
    "read noise": replace(USUAL, counts=3.0, read_noise=0.8),
}


@pytest.fixture(scope="module")
def see():
    return finder()


@pytest.mark.parametrize("name", CASES)
def test_known_conditions_come_back(see, name):
    c = CASES[name]
    got = estimate(see, take(c))
    print(name, got)
    assert got.counts.value == pytest.approx(c.counts, rel=0.1)
    for width, truth in zip(got.probe_sigma_A, c.probe_sigma_A, strict=True):
        # Of a few counts a spot's width is not known to 3 per cent, and said not to be.
        assert width.value == pytest.approx(truth, abs=max(0.03 * truth, 2.5 * width.sd))
        assert pull(width, truth) < 4
    turn = (got.probe_angle_rad.value - c.probe_angle_rad + np.pi / 2) % np.pi - np.pi / 2
    assert abs(turn) < 4 * got.probe_angle_rad.sd < 1.0
    assert abs(got.background.value - c.background) < max(0.05, 2 * got.background.sd)
    assert got.background.sd < 0.12
    assert abs(got.jitter_A.value - c.jitter_A) < max(0.015, 2 * got.jitter_A.sd)
    assert got.jitter_A.sd < 0.03
    assert got.pixel_size_A.value == pytest.approx(c.pixel_size_A, rel=0.005)
    assert got.blur_px.value == pytest.approx(c.blur_px, abs=0.03)
    assert got.background_variation.value < 0.03
    for field in ("counts", "background", "tail_fraction", "tail_width", "jitter_A", "read_noise"):
        assert pull(getattr(got, field), getattr(c, field)) < 4, field
    # Known and not only allowed for: what a standard deviation claims is worth something.
    assert got.counts.sd < 0.12 * c.counts
    assert got.probe_sigma_A[0].sd < 0.02


def test_scale_and_offset_do_not_change_the_conditions(see):
    frame = take(USUAL)
    data = frame.data * 0.37 + 12
    low, high = float(data.min()), float(data.max())
    other = replace(frame, data=(data - low) / (high - low))
    first, second = estimate(see, frame), estimate(see, other)
    assert second.counts.value == pytest.approx(first.counts.value, rel=0.01)
    assert second.counts.value == pytest.approx(USUAL.counts, rel=0.1)
    assert second.background.value == pytest.approx(USUAL.background, abs=0.07)
    for a, b in zip(first.probe_sigma_A, second.probe_sigma_A, strict=True):
        assert b.value == pytest.approx(a.value, rel=0.003)
    # Nothing tells an offset from background there: so much read noise may be in it.
    assert second.read_noise.sd > 1.0 > first.read_noise.sd


def test_movie_gives_drift_and_sharper_estimates(see):
    c = replace(USUAL, counts=4.0)
    rng = np.random.default_rng(5)
    sheet = graphene_sheet((26.0, 26.0), rng, strain=0.0)
    step = np.array([0.3, -0.12])
    frames = [take(c, 30 + i, 20.0, shift=step * i - 2, specimen=sheet, index=i) for i in range(3)]
    one, three = estimate(see, frames[0]), estimate(see, *frames)
    assert three.drift_x_A.value == pytest.approx(0.3, abs=0.03)
    assert three.drift_y_A.value == pytest.approx(-0.12, abs=0.03)
    assert three.counts.sd < one.counts.sd
    assert three.tail_fraction.sd < one.tail_fraction.sd
    assert three.background.sd < one.background.sd
    assert pull(three.counts, 4.0) < 4
    assert one.drift_x_A == Estimate(0.0, 0.0)


def test_contamination_is_left_out_and_slow_background_is_seen(see):
    dirty = replace(USUAL, contamination=0.3, contamination_level=3.0)
    got = estimate(see, take(dirty, 71, 26.0))
    assert got.counts.value == pytest.approx(USUAL.counts, rel=0.15)
    assert got.probe_sigma_A[0].value == pytest.approx(0.44, rel=0.08)
    slow = estimate(see, take(replace(USUAL, slow_background=0.3, slow_length_A=5.0), 50, 28.0))
    assert slow.background_variation.value == pytest.approx(0.3, abs=0.12)
    assert 2.5 < slow.background_length_A.value < 8


def test_pixel_size_follows_the_lattice(see):
    frame = take(USUAL)
    wrong = Frame(frame.data, Calibration(0.11 * 1.02))
    got = estimate(see, wrong)
    assert got.pixel_size_A.value == pytest.approx(0.11, rel=0.003)
    assert got.probe_sigma_A[0].value == pytest.approx(0.44, rel=0.03)
    found, _ = see(wrong)
    alone = estimate_imaging([wrong], [found], GRAPHENE)
    assert alone.pixel_size_A.value == pytest.approx(0.1122)
    assert alone.pixel_size_A.sd == pytest.approx(0.03 * 0.1122)


def test_frames_without_enough_atoms_are_refused(see):
    rng = np.random.default_rng(0)
    empty = Frame(rng.poisson(3.0, (160, 160)).astype(np.float32), Calibration(0.11))
    found, _ = see(empty)
    with pytest.raises(BadInput, match="at least"):
        estimate_imaging([empty], [found], GRAPHENE)
    with pytest.raises(BadInput, match="each of 2"):
        estimate_imaging([empty, empty], [found], GRAPHENE)


def test_estimates_must_be_numbers():
    with pytest.raises(BadInput, match="finite"):
        Estimate(float("nan"), 1.0)
    with pytest.raises(BadInput, match="at least zero"):
        Estimate(1.0, -1.0)
