"""Simulated frames: positions, labels, pairs and specimens are as asked for."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

from adatom.core import GRAPHENE
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, random_specimen
from adatom.frames.simulate.synthesize import (
    expected_image,
    image_twice,
    random_labelled,
    random_pair,
    spots,
)

NONE = np.zeros((0, 2))


def lone(xy, species=0):
    return Specimen(np.array([xy], dtype=float), np.array([species]), NONE)


def clean(conditions, specimen, shape=(61, 61)):
    return expected_image(specimen, shape, GRAPHENE, conditions, np.random.default_rng(0))


def test_spots_are_the_sum_of_their_gaussians():
    rng = np.random.default_rng(0)
    rc, amplitude = rng.uniform(-3, 20, (7, 2)), rng.uniform(1, 5, 7)
    rows, cols = np.mgrid[:15, :19]
    direct = sum(
        a * np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / (2 * 1.7**2))
        for (r, c), a in zip(rc, amplitude, strict=True)
    )
    np.testing.assert_allclose(spots((15, 19), rc, amplitude, 1.7), direct, atol=1e-5)


@pytest.mark.parametrize("probe", [(0.42, 0.42), (0.3, 0.35), (0.58, 0.45)])
@pytest.mark.parametrize(("tail", "width"), [(0.0, 2.5), (0.4, 1.8), (0.4, 3.5)])
def test_a_lone_host_atom_peaks_at_the_counts_of_its_conditions(probe, tail, width):
    conditions = Conditions(
        probe_sigma_A=probe, probe_angle_rad=0.6, tail_fraction=tail, tail_width=width,
        counts=37.0, background=0.0,
    )  # fmt: skip
    image = clean(conditions, lone((3.0, 3.0)))
    assert image[30, 30] == image.max()
    assert image.max() == pytest.approx(37.0, rel=0.01)


@pytest.mark.parametrize("xy", [(3.0, 3.0), (2.234, 3.871), (3.55, 1.949)])
@pytest.mark.parametrize("px", [0.08, 0.15])
def test_positions_are_exact_and_x_runs_along_columns(xy, px):
    conditions = Conditions(pixel_size_A=px, background=0.0, tail_fraction=0.0)
    image = clean(conditions, lone(xy), (round(7 / px), round(6 / px)))
    rows, cols = np.indices(image.shape)
    centroid = np.array([(cols * image).sum(), (rows * image).sum()]) / image.sum()
    np.testing.assert_allclose(centroid, np.asarray(xy) / px, atol=0.01)


def test_jitter_shifts_whole_rows_along_x_and_nothing_else():
    conditions = Conditions(background=0.0, tail_fraction=0.0, jitter_A=0.15)
    still = clean(Conditions(background=0.0, tail_fraction=0.0), lone((3.0, 3.0)))
    moved = clean(conditions, lone((3.0, 3.0)))
    np.testing.assert_allclose(moved.sum(axis=1), still.sum(axis=1), rtol=1e-6, atol=1e-3)
    rows = slice(22, 39)  # where the atom is
    cols = np.arange(61)
    shift = (moved[rows] * cols).sum(axis=1) / moved[rows].sum(axis=1) - 30
    assert shift.std() == pytest.approx(1.5, rel=0.5)
    pairs = zip(shift, still[rows], strict=True)
    expected = np.array([np.interp(cols - s, cols, r) for s, r in pairs])
    np.testing.assert_allclose(moved[rows], expected, atol=0.05 * still.max())


def test_the_same_seed_gives_the_same_frame_and_another_does_not():
    one, two, other = (random_labelled(GRAPHENE, np.random.default_rng(s)) for s in (4, 4, 5))
    np.testing.assert_array_equal(one.frame.data, two.frame.data)
    np.testing.assert_array_equal(one.xy, two.xy)
    assert one.xy.shape != other.xy.shape or not np.allclose(one.xy, other.xy)


def test_labels_lie_inside_the_frame_and_on_its_bright_spots():
    conditions = Conditions(counts=200.0, tail_fraction=0.0)
    labelled = random_labelled(GRAPHENE, np.random.default_rng(8), conditions=conditions)
    extent = labelled.frame.calibration.extent_xy(labelled.frame.shape)
    assert (labelled.xy >= 0).all()
    assert (labelled.xy <= extent).all()
    r, c = np.round(labelled.frame.calibration.rc(labelled.xy)).astype(int).T
    swapped = labelled.frame.data[c, r]  # square frame: what a swap of rows and columns reads
    assert np.mean(labelled.frame.data[r, c]) > 1.3 * labelled.frame.data.mean()
    assert np.mean(labelled.frame.data[r, c]) > 1.2 * np.mean(swapped)


@pytest.mark.parametrize("block", range(4))
def test_random_specimens_are_chemically_possible_and_cover_the_field(block):
    bare_frames = 0
    for seed in range(40 * block, 40 * block + 40):
        whole = seed % 2 > 0
        s = random_specimen(GRAPHENE, (18.0, 18.0), np.random.default_rng(seed), whole=whole)
        pairs = cKDTree(s.xy).query_pairs(0.9)
        assert not pairs, f"seed {seed}: atoms closer than 0.9 Å"
        if len(s.vacancies_xy):
            gap = cKDTree(s.xy).query(s.vacancies_xy)[0]
            assert gap.min() > 0.6, f"seed {seed}: an atom {gap.min():.2f} Å from a vacancy"
            assert len(np.unique(s.vacancies_xy.round(6), axis=0)) == len(s.vacancies_xy)
        bare = sum(
            not np.any(np.all((s.xy > low) & (s.xy < high), axis=1))
            for low, high in (
                ((0, -2.5), (18, 0)), ((0, 18), (18, 20.5)),
                ((-2.5, 0), (0, 18)), ((18, 0), (20.5, 18)),
            )
        )  # fmt: skip
        assert not (whole and bare), f"seed {seed}: a whole sheet ends within the field"
        bare_frames += bare > 0
    assert bare_frames <= 6  # some sheets end in the field


def test_a_pair_shows_one_specimen_at_two_doses():
    seen = 0
    for seed in range(40):
        a, b = random_pair(GRAPHENE, np.random.default_rng(seed), field_A=16.0, empty_share=0.0)
        np.testing.assert_array_equal(a.xy, b.xy)
        np.testing.assert_array_equal(a.species, b.species)
        np.testing.assert_array_equal(a.vacancies_xy, b.vacancies_xy)
        assert a.frame.shape == b.frame.shape
        assert a.frame.calibration == b.frame.calibration
        assert min(a.frame.calibration.extent_xy(a.frame.shape)) >= 16.0
        if min(a.frame.data.mean(), b.frame.data.mean()) > 5:
            correlation = np.corrcoef(a.frame.data.ravel(), b.frame.data.ravel())[0, 1]
            seen += correlation > 0.3
    assert seen >= 3  # where counts are plenty, the two look alike


def test_empty_pairs_have_no_truth():
    for labelled in random_pair(GRAPHENE, np.random.default_rng(0), field_A=16.0, empty_share=1.0):
        assert len(labelled.xy) == len(labelled.species) == len(labelled.vacancies_xy) == 0
        assert labelled.frame.data.std() > 0


def test_the_second_frame_has_the_counts_that_it_was_asked_for():
    first = Conditions(pixel_size_A=0.15, counts=40.0, background=0.5)
    nothing = Specimen(NONE, np.zeros(0, dtype=np.int64), NONE)
    pair = image_twice(
        nothing, (200, 200), GRAPHENE, (first, replace(first, counts=10.0)),
        np.random.default_rng(0),
    )  # fmt: skip
    means = [float(f.frame.data.mean()) for f in pair]
    assert means == pytest.approx([20.0, 5.0], rel=0.02)


def test_two_atoms_around_a_vacancy_may_come_together():
    """Both kinds are seen under a beam: 2.46 Å apart as in the sheet, and with a bond across."""
    nearest = []
    for seed in range(60):
        sheet = random_specimen(
            GRAPHENE, (28.0, 28.0), np.random.default_rng([77, seed]), whole=True
        )
        tree = cKDTree(sheet.xy[sheet.species == 0])
        for around in tree.query_ball_point(sheet.vacancies_xy, 1.9):
            if len(around) == 3:
                xy = sheet.xy[sheet.species == 0][around]
                nearest.append(pdist(xy).min())
    nearest = np.array(nearest)
    assert len(nearest) > 40
    assert 0.15 < (nearest > 2.35).mean() < 0.6
    assert 0.3 < ((nearest > 1.9) & (nearest < 2.3)).mean() < 0.8
    assert nearest.min() > 1.6
