"""Conditions of a frame: contamination, scan errors, and the training range."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.frames.simulate.conditions import COUNTS_PER_A2, PIXEL_A, Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points
from adatom.frames.simulate.synthesize import expected_image, image_specimen
from sheets import NONE

PX = 0.05
SIZE = 256


CLEAN = Conditions(pixel_size_A=PX, background=0.0, tail_fraction=0.0, counts=100.0)


def sheet(conditions, seed=0, edge=12.0):
    n = round(edge / conditions.pixel_size_A) + 1
    xy = lattice_points(GRAPHENE, (edge, edge), 3.0, 0.2)
    specimen = Specimen(xy, np.zeros(len(xy), dtype=np.int64), NONE)
    image = expected_image(specimen, (n, n), GRAPHENE, conditions, np.random.default_rng(seed))
    return image, specimen


def contaminated(share, level):
    """What contamination adds to a few frames, in units of a host's peak and of its level."""
    base = Conditions(pixel_size_A=0.15, background=0.0, tail_fraction=0.0, counts=100.0)
    dirty = replace(base, contamination=share, contamination_level=level)
    return np.stack(
        [sheet(dirty, s, 30.0)[0] - sheet(base, s, 30.0)[0] for s in range(6)]
    ) / (100.0 * level)  # fmt: skip


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_contamination_covers_its_share_with_lumps(share):
    added = contaminated(share, 2.0)
    assert added.min() > -1e-6  # it only ever adds
    covered = added > 0.003
    assert share < covered.mean() < share + 0.25  # the probe spreads its rim
    assert added[covered].std() > 0.3 * added[covered].mean()
    np.testing.assert_allclose(added, contaminated(share, 0.5), atol=1e-6)  # goes with its level


def test_contamination_has_its_level():
    added = contaminated(0.5, 1.0)
    assert 0.3 < added[added > 0.01].mean() < 1.0  # hills: less at their feet


def test_the_fly_back_shifts_the_start_of_lines_and_the_truth_with_it():
    conditions = replace(CLEAN, fly_back_A=0.4, fly_back_length_A=1.5)
    xy = np.array([[1.0, 2.0], [1.0, 6.0], [7.0, 4.0]])
    specimen = Specimen(xy, np.zeros(3, dtype=np.int64), np.array([[2.0, 4.0]]))
    rng = np.random.default_rng(0)
    labelled = image_specimen(specimen, (161, 181), GRAPHENE, conditions, rng)
    moved = xy[:, 0] + 0.4 * np.exp(-xy[:, 0] / 1.5)
    np.testing.assert_allclose(labelled.xy, np.stack([moved, xy[:, 1]], axis=1))
    np.testing.assert_allclose(labelled.vacancies_xy, [[2.0 + 0.4 * np.exp(-2 / 1.5), 4.0]])
    clean = expected_image(specimen, (161, 181), GRAPHENE, conditions, rng)
    for x, y in labelled.xy:  # the spots are where the truth says
        r, c = round(y / PX), round(x / PX)
        patch = clean[r - 16 : r + 17, c - 16 : c + 17]
        cols = np.arange(c - 16, c + 17)
        assert (patch.sum(axis=0) * cols).sum() / patch.sum() * PX == pytest.approx(x, abs=0.01)


def line_shifts(conditions, seed=0):
    """Shift of every scan line that has an atom in it, Å."""
    xy = np.stack([np.full(60, 4.0), np.arange(60) * 0.15], axis=1)  # a wall along y
    specimen = Specimen(xy, np.zeros(60, dtype=np.int64), NONE)
    image = expected_image(specimen, (161, 161), GRAPHENE, conditions, np.random.default_rng(seed))
    return (image * np.arange(161)).sum(axis=1) / image.sum(axis=1) * PX - 4.0


def test_vibration_shifts_lines_by_a_sine_of_its_period():
    shift = line_shifts(replace(CLEAN, vibration_A=0.1, vibration_lines=8.0))
    assert np.abs(shift).max() == pytest.approx(0.1, rel=0.1)
    spectrum = np.abs(np.fft.rfft(shift[:160]))
    assert spectrum.argmax() == 20  # 160 lines of 8
    np.testing.assert_allclose(shift[:-8], shift[8:], atol=2e-3)


def test_jitter_shifts_every_line_on_its_own():
    shift = line_shifts(replace(CLEAN, jitter_A=0.1))
    assert shift.std() == pytest.approx(0.1, rel=0.2)
    assert abs(np.corrcoef(shift[1:], shift[:-1])[0, 1]) < 0.25


def test_undisturbed_keeps_probe_dose_and_pixel_alone():
    for seed in range(20):
        conditions = Conditions.random(np.random.default_rng(seed))
        still = conditions.undisturbed()
        kept = ("pixel_size_A", "probe_sigma_A", "optics", "counts", "background", "tail_fraction")
        assert all(getattr(still, k) == getattr(conditions, k) for k in kept)
        gone = ("slow_background", "contamination", "jitter_A", "vibration_A", "fly_back_A",
                "read_noise", "blur_px")  # fmt: skip
        assert all(getattr(still, k) == 0 for k in gone)


def test_random_conditions_stay_in_the_training_range_and_fill_it():
    drawn = [Conditions.random(np.random.default_rng(s)) for s in range(300)]
    px, dose = (np.array([getattr(c, k) for c in drawn]) for k in ("pixel_size_A", "counts_per_A2"))
    for values, (low, high) in ((px, PIXEL_A), (dose, COUNTS_PER_A2)):
        assert low <= values.min() * (1 + 1e-9)
        assert values.max() <= high * (1 + 1e-9)
        assert (np.log(values.min()) - np.log(low)) / np.log(high / low) < 0.03
        assert np.median(np.log(values)) == pytest.approx(0.5 * np.log(low * high), rel=0.1)
    share = np.mean([c.optics is not None for c in drawn])
    assert 0.3 < share < 0.5
    assert all(0 <= c.contamination < 1 and c.background >= 0 for c in drawn)
