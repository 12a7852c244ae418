"""What is on the sites of a crystal, from counts of a field that was scanned in parts."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import GRAPHENE, Calibration
from adatom.features.exposure import Exposure, Visit
from adatom.features.refinement.image_model import Grid, Probe
from adatom.features.site_counts import Sheet, SiteKinds, held_by, information
from adatom.features.site_places import moved_to_counts, shift_of
from adatom.frames.simulate.specimen import lattice_points

PX, FIELD, RATE = 0.16, 40.0, 2.4e-5
PROBE = Probe(np.array([6.8, 0.0, 6.8]), np.array([0.1, 0.0]))


def sheet_and_counts(dose, odd, seed=0, move=lambda xy: xy):
    """Sites of a perfect sheet, and the counts of it with other atoms on some sites."""
    xy = lattice_points(GRAPHENE, (FIELD + 6, FIELD + 6), 0.0, 0.4) - 3.0
    amplitude = np.ones(len(xy))
    amplitude[list(odd)] = list(odd.values())
    size = round(FIELD / PX)
    grid, calibration = Grid((size, size)), Calibration(PX)
    kernel = grid.kernel(PROBE)
    image = grid.image(grid.spectrum(calibration.rc(move(xy)), amplitude), kernel)
    mean = dose * RATE * (np.asarray(image, dtype=np.float64) + 0.2)
    counts = np.random.default_rng(seed).poisson(np.maximum(mean, 0)).astype(float)
    inside = np.minimum(xy, FIELD - xy).min(axis=1) > 2.0
    kinds = (SiteKinds.of(GRAPHENE, "C", 1e-3),)
    number = np.zeros(len(xy), dtype=np.int64)
    return Sheet(xy, kinds, number, inside, PROBE, PX, 0.0, 0.0), counts


def middle_sites(count):
    xy = lattice_points(GRAPHENE, (FIELD + 6, FIELD + 6), 0.0, 0.4) - 3.0
    near = np.argsort(np.hypot(*(xy - FIELD / 2).T))
    return [int(near[20 * k]) for k in range(count)]


def field_of(counts, dose):
    return Exposure.none(counts.shape, Calibration(PX)).plus(Visit(counts, dose, (0.0, 0.0)))


def test_a_hole_a_si_and_two_atoms_in_one_spot_are_told():
    a, b, c = middle_sites(3)
    sheet, counts = sheet_and_counts(1e5, {a: 0.0, b: 4.0, c: 2.0})
    held = held_by(field_of(counts, 1e5), sheet)
    names = np.array(held.names())
    assert [names[a], names[b], names[c]] == ["", "Si", "C2"]
    assert held.p[[a, b, c]].max(axis=1).min() > 0.9
    others = sheet.asked.copy()
    others[[a, b, c]] = False
    assert (names[others] == "C").all()
    assert held.sheet.rate == pytest.approx(RATE, rel=0.03)
    assert held.sheet.level == pytest.approx(0.2, abs=0.04)


def test_probabilities_are_frequencies():
    """Of the sites that are empty with probability p, a share p is empty."""
    told, true = [], []
    rng = np.random.default_rng(5)
    for seed in range(4):
        sheet, _ = sheet_and_counts(1.0, {})
        holes = rng.choice(np.flatnonzero(sheet.asked), 30, replace=False)
        sheet, counts = sheet_and_counts(8e3, dict.fromkeys(holes.tolist(), 0.0), seed)
        share = 30 / sheet.asked.sum()
        sheet = replace(sheet, kinds=(SiteKinds.of(GRAPHENE, "C", share),))
        held = held_by(field_of(counts, 8e3), sheet)
        told.append(held.p[sheet.asked, 1])
        true.append(np.isin(np.flatnonzero(sheet.asked), holes))
    p, empty = np.concatenate(told), np.concatenate(true)
    assert p.sum() == pytest.approx(120, abs=40)
    unsure = (p > 0.2) & (p < 0.8)
    assert empty[unsure].mean() == pytest.approx(p[unsure].mean(), abs=0.15)
    assert empty[p > 0.9].mean() > 0.85


def test_more_dose_on_a_part_counts_there_alone():
    a, b = middle_sites(2)
    sheet, counts = sheet_and_counts(1e4, {a: 0.0, b: 0.0})
    _, more = sheet_and_counts(8e4, {a: 0.0, b: 0.0}, seed=1)
    field = field_of(counts, 1e4)
    low = np.round((sheet.xy[a] - 2.0) / PX).astype(int)
    patch = more[low[1] : low[1] + 25, low[0] : low[0] + 25]
    both = field.plus(Visit(patch, 8e4, tuple(low * PX)))
    before = held_by(field, sheet)
    after = held_by(both, before.sheet, before, np.array([a]))
    assert before.p[a, 1] < 0.9
    assert after.p[a, 1] > 0.99
    assert after.p[b, 1] == before.p[b, 1]


def test_sites_follow_a_bent_lattice():
    def bent(xy):
        return xy + np.stack([0.15 * (xy[:, 0] / FIELD) ** 2, -0.1 * xy[:, 1] / FIELD], axis=1)

    sheet, counts = sheet_and_counts(1e4, {}, move=bent)
    field = field_of(counts, 1e4)
    moved = moved_to_counts(field, held_by(field, sheet)).sheet
    true = bent(sheet.xy)[sheet.asked]
    error = np.sqrt(np.mean((moved.xy[sheet.asked] - true) ** 2))
    assert error < 0.03 < np.sqrt(np.mean((sheet.xy[sheet.asked] - true) ** 2))


def test_the_place_of_a_patch_is_found_by_its_counts():
    sheet, counts = sheet_and_counts(1e5, {})
    held = held_by(field_of(counts, 1e5), sheet)
    _, again = sheet_and_counts(2e4, {}, seed=3)
    patch = again[100:125, 80:105]
    found, _ = shift_of(held, Calibration(PX), patch, 2e4, np.array([80, 100]) * PX + 0.3, 0.3)
    assert found == pytest.approx(np.array([80, 100]) * PX, abs=0.08)
    # A perfect sheet looks the same a lattice vector away: only the expectation tells.
    _, margin = shift_of(held, Calibration(PX), patch, 2e4, np.array([80, 100]) * PX + 1.2, 1.5)
    assert margin < 5.0


def test_information_is_the_mean_gain_of_the_log_likelihood():
    (a,) = middle_sites(1)
    gains = []
    for seed in range(20):
        sheet, counts = sheet_and_counts(2e4, {a: 0.0}, seed)
        held = held_by(field_of(counts, 2e4), sheet)
        gains.append(np.log(held.p[a, 1] / held.p[a, 0]) - np.log(1e-3))
    expected = 2e4 * information(held, PX, 0.0, 1.0)
    assert np.mean(gains) == pytest.approx(expected, rel=0.3)
