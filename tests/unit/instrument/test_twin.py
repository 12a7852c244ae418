"""The simulated microscope: its Si hops, its drift, and its frames show its truth."""

import numpy as np
import pytest

from adatom.core import GRAPHENE, Calibration, ScanRequest
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import lattice_points
from adatom.frames.simulate.synthesize import image_request
from adatom.instrument import Twin, TwinOptions


def make_twin(**options):
    o = TwinOptions(**options)
    sites = lattice_points(GRAPHENE, (o.sheet_A, o.sheet_A), 0.0, 0.35)

    def render(xy, species, request, rng, index):
        return image_request(
            xy, species, GRAPHENE, request, Conditions(pixel_size_A=o.field_of_view_A / o.pixels),
            rng, index=index,
        )  # fmt: skip

    return Twin(GRAPHENE, sites, render, o, seed=7)


def silicon(twin):
    xy, species = twin.truth
    return xy[species == 1]


def test_twin_silicon_hops_to_a_neighbour_at_the_rate_of_its_dose():
    twin = make_twin(pixels=32, drift_A=0.0, vacancies=0)
    o, hops, scans = twin.options, 0, 250
    for _ in range(scans):
        before = silicon(twin)  # the beam follows it, so that it never leaves the field of view
        assert np.abs(before[0] - 24).max() < 22, "reached the edge of the sheet: take another seed"
        twin.scan(ScanRequest(tuple(before[0]), o.field_of_view_A, 32, o.dose_per_A2))
        moved = float(np.linalg.norm(silicon(twin) - before))
        assert moved < 1e-9 or moved == pytest.approx(GRAPHENE.bond_length_A, abs=0.01)
        hops += moved > 1
    p = 1 - np.exp(-o.hop_cross_section_A2 * o.dose_per_A2)
    assert hops / scans == pytest.approx(p, abs=3 * np.sqrt(p * (1 - p) / scans))


def test_twin_beam_moves_only_what_it_sees_and_only_with_a_dose():
    twin = make_twin(pixels=32, drift_A=0.0, hop_cross_section_A2=1.0)
    start = silicon(twin)
    far = ScanRequest((0.0, 0.0), 10.0, 32, 1e5)
    twin.scan(far)
    np.testing.assert_array_equal(silicon(twin), start)
    twin.scan(ScanRequest(twin.center_xy_A, 20.0, 32, 0.0))
    np.testing.assert_array_equal(silicon(twin), start)
    twin.scan(ScanRequest(twin.center_xy_A, 20.0, 32, 1e5))
    assert np.linalg.norm(silicon(twin) - start) > 1


def test_twin_vacancies_stay_and_atoms_are_kept():
    twin = make_twin(pixels=32, vacancies=2, foreign=2, drift_A=0.0)
    before = twin.truth[0]
    twin.demonstration()
    xy, species = twin.truth
    np.testing.assert_array_equal(xy, before)  # hops exchange species, no site changes
    assert species.sum() == 2
    assert len(xy) == len(lattice_points(GRAPHENE, (48.0, 48.0), 0.0, 0.35)) - 2


def test_twin_drifts_between_frames_by_its_option():
    twin = make_twin(pixels=32, drift_A=0.25, foreign=0)
    places = [twin.truth[0][0]]
    for _ in range(150):
        twin.scan(ScanRequest((0.0, 0.0), 10.0, 32, 1e5))
        places.append(twin.truth[0][0])
    assert np.diff(places, axis=0).std() == pytest.approx(0.25, rel=0.15)


def test_twin_frames_show_its_truth_and_repeat():
    one, two = make_twin(frames=3), make_twin(frames=3)
    frames = one.demonstration()
    for a, b in zip(frames, two.demonstration(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    assert [f.index for f in frames] == [0, 1, 2]
    twin = make_twin(frames=1, drift_A=0.0)
    xy, species = twin.truth
    request = ScanRequest((24.0, 22.0), 20.0, 200, 1e5)
    frame = twin.scan(request)
    corner = np.asarray(request.center_xy_A) - 10.0
    rc = Calibration(0.1).rc(xy[species == 1] - corner)
    r, c = np.round(rc[0]).astype(int)
    near = frame.data[r - 2 : r + 3, c - 2 : c + 3].mean()
    blurred = frame.data.reshape(40, 5, 40, 5).mean(axis=(1, 3))
    assert near > np.percentile(blurred, 98)
