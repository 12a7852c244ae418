"""The simulated microscope: its Si hops, its drift, and its frames show its truth."""

import numpy as np
import pytest

from adatom.core import GRAPHENE, BeamRequest, Calibration, ScanRequest
from adatom.errors import BadInput
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import lattice_points
from adatom.frames.simulate.synthesize import image_request
from adatom.instrument import Twin, TwinOptions


def make_twin(seed=7, **options):
    o = TwinOptions(**options)
    sites = lattice_points(GRAPHENE, (o.sheet_A, o.sheet_A), 0.0, 0.35)

    def render(xy, species, request, rng, index):
        conditions = Conditions(pixel_size_A=request.calibration.pixel_size_A)
        return image_request(xy, species, GRAPHENE, request, conditions, rng, index=index)

    def signal(place, xy, species):  # a Si is 4 times as bright as C
        distance2 = np.sum((xy - place) ** 2, axis=1)
        return float(1e-3 * np.sum((1 + 3 * species) * np.exp(-0.5 * distance2 / 0.42**2)))

    return Twin(GRAPHENE, sites, render, signal, o, seed)


def silicon(twin):
    xy, species = twin.truth
    return xy[species == 1]


def test_twin_silicon_hops_to_a_neighbour_at_the_rate_of_its_dose():
    twin = make_twin(pixels=32, drift_A=0.0, vacancies=0)
    o, scans = twin.options, 250
    for _ in range(scans):
        before, known = silicon(twin), len(twin.hops)
        assert np.abs(before[0] - 24).max() < 22, "reached the edge of the sheet: take another seed"
        # The beam follows it, so that it never leaves the field of view.
        twin.acquire(ScanRequest(tuple(before[0]), o.field_of_view_A, 64, o.dose_per_A2))
        moved = float(np.linalg.norm(silicon(twin) - before))
        hops = len(twin.hops) - known
        steps = [0.0, GRAPHENE.bond_length_A][hops] if hops < 2 else pytest.approx(moved)
        assert moved == pytest.approx(steps, abs=0.01)
    expected = scans * o.hop_cross_section_A2 * o.dose_per_A2
    assert len(twin.hops) == pytest.approx(expected, abs=3 * np.sqrt(expected))


def test_twin_beam_moves_only_what_it_sees_and_only_with_a_dose():
    twin = make_twin(pixels=32, drift_A=0.0, hop_cross_section_A2=5e-5)
    start = silicon(twin)
    far = ScanRequest((0.0, 0.0), 10.0, 32, 1e5)
    twin.acquire(far)
    np.testing.assert_array_equal(silicon(twin), start)
    twin.acquire(ScanRequest(twin.center_xy_A, 20.0, 32, 0.0))
    np.testing.assert_array_equal(silicon(twin), start)
    twin.acquire(ScanRequest(twin.center_xy_A, 20.0, 32, 1e5))
    assert twin.hops


def test_an_atom_that_jumps_in_the_middle_of_a_frame_is_seen_at_both_places_or_at_none():
    seen = []
    for seed in range(60):
        twin = make_twin(seed=seed, drift_A=0.0, vacancies=0, hop_cross_section_A2=5e-6)
        request = ScanRequest(twin.center_xy_A, 20.0, 200, 2e5)
        frame = twin.acquire(request)
        if len(twin.hops) != 1:
            continue
        (hop,) = twin.hops
        turn_px = 200 * hop.time_s / twin.time_s
        xy = twin.sites_xy[[hop.start, hop.end]] - request.to_specimen(np.zeros(2))
        cols, rows = np.round(xy / 0.1).astype(int).T
        bright = [
            frame.data[r - 2 : r + 3, c - 2 : c + 3].mean() > 40
            for r, c in zip(rows, cols, strict=True)
        ]
        if np.abs(rows - turn_px).min() > 3:  # the spot is not cut
            assert bright == [rows[0] < turn_px, rows[1] > turn_px]
            seen.append(tuple(bright))
    assert {(True, False), (False, True)} <= set(seen) | {(True, True), (False, False)}
    assert {(True, True), (False, False)} & set(seen)


def test_a_parked_beam_moves_silicon_at_its_rate_and_the_trace_shows_it():
    waits = []
    for seed in range(40):
        twin = make_twin(seed=seed, drift_A=0.0, vacancies=0, hop_cross_section_A2=2.8e-8)
        si = silicon(twin)[0]
        distance = np.linalg.norm(twin.truth[0] - si, axis=1)
        neighbour = twin.truth[0][np.argsort(distance)[1]]
        request = ScanRequest(twin.center_xy_A, 20.0, 200, 1e5)
        aim = twin.hop_model.peaks(si, neighbour[None])[0] - request.to_specimen(np.zeros(2))
        before = twin._signal_at(request.to_specimen(aim)) * 5e-3 * 50.0 * 6.24e6
        trace = twin.place_beam(
            BeamRequest(request, tuple(aim), 10.0),
            lambda counts, before=before: counts[-1] > 2 * before,
        )
        assert trace.stopped
        assert len(twin.hops) == 1
        np.testing.assert_allclose(silicon(twin)[0], neighbour, atol=0.01)
        assert 0 <= trace.dwell_s - twin.hops[0].time_s <= 2 * trace.slice_s + 1e-9
        waits.append(twin.hops[0].time_s)
    rate = twin.hop_model.rate_per_s
    assert np.mean(waits) * rate == pytest.approx(1.0, abs=3 / np.sqrt(40))


def test_what_a_twin_cannot_do_is_refused_and_costs_nothing():
    twin = make_twin(traces=False, drift_A=0.0)
    seen = ScanRequest(twin.center_xy_A, 20.0, 200, 1e5)
    with pytest.raises(BadInput, match="with a trace"):
        twin.place_beam(BeamRequest(seen, (5.0, 5.0), 1.0), lambda counts: True)
    with pytest.raises(BadInput, match="at most 60 s"):
        twin.place_beam(BeamRequest(seen, (5.0, 5.0), 61.0))
    assert twin.time_s == 0.0
    assert np.isnan(twin.place_beam(BeamRequest(seen, (5.0, 5.0), 0.1)).counts).all()
    assert twin.time_s == pytest.approx(0.1)


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
        twin.acquire(ScanRequest((0.0, 0.0), 20.0, 32, 2e5))
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
    frame = twin.acquire(request)
    corner = np.asarray(request.center_xy_A) - 10.0
    rc = Calibration(0.1).rc(xy[species == 1] - corner)
    r, c = np.round(rc[0]).astype(int)
    near = frame.data[r - 2 : r + 3, c - 2 : c + 3].mean()
    blurred = frame.data.reshape(40, 5, 40, 5).mean(axis=(1, 3))
    assert near > np.percentile(blurred, 98)


def test_carbon_is_knocked_out_by_the_cross_section_and_a_lost_atom_is_a_vacancy():
    from adatom.campaign.twin import make_twin as whole
    from adatom.simulation import displacement_cross_section_barn

    known, frames, dose = GRAPHENE.knock_on, 12, 4e6
    barn = displacement_cross_section_barn(
        100.0, "C", known.threshold_eV, known.mean_square_velocity_m2_s2
    )
    twin = whole(TwinOptions(voltage_kV=100.0, foreign=0, vacancies=0), GRAPHENE, 1)
    atoms = len(twin.truth[0])
    for _ in range(frames):
        twin.acquire(ScanRequest(twin.center_xy_A, 24.0, 64, dose))
    inside = 24.0**2 / (np.sqrt(3) / 4 * 2.46**2)  # sites in the field of view
    expected = frames * dose * barn * 1e-8 * inside
    assert len(twin.lost) == pytest.approx(expected, abs=3 * np.sqrt(expected))
    assert len(twin.truth[0]) == atoms - len(twin.lost)
    quiet = whole(TwinOptions(foreign=0), GRAPHENE, 1)
    quiet.acquire(ScanRequest(quiet.center_xy_A, 24.0, 64, 1e9))
    assert not quiet.lost  # at 60 kV


def test_a_parked_beam_takes_one_sulphur_of_a_column_and_leaves_the_other():
    from adatom.campaign.twin import make_twin as whole
    from adatom.materials.library import load_material

    mos2 = load_material("MoS2")
    options = TwinOptions(loss_cross_section_A2=1e-7, vacancies=0, drift_A=0.0)
    twin = whole(options, mos2, 2)
    xy, species = twin.truth
    assert {mos2.species[k] for k in species} == {"Mo", "S2", mos2.species[-1]}
    near = np.argmin(np.linalg.norm(xy - twin.center_xy_A, axis=1) + 99 * (species != 1))
    seen = ScanRequest(twin.center_xy_A, 20.0, 160, 1.0)
    place = xy[near] - seen.to_specimen(np.zeros(2))
    twin.place_beam(BeamRequest(seen, tuple(place), 0.2))
    after = twin.truth[1]
    assert len(after) == len(species)  # no column is empty
    assert mos2.species[after[near]] == "S"
    assert not twin.hops


def test_contamination_gathers_where_the_beam_is_and_shows_in_frames_and_in_the_signal():
    from adatom.campaign.twin import make_twin as whole

    rate, dose, frames = 2e-8, 2e5, 8
    options = TwinOptions(deposited_per_electron=rate, vacancies=0, foreign=0, drift_A=0.0)
    twin, clean = whole(options, GRAPHENE, 4), whole(
        options.model_copy(update={"deposited_per_electron": 0.0}), GRAPHENE, 4
    )  # fmt: skip
    request = ScanRequest(twin.center_xy_A, 16.0, 96, dose)
    first, last = twin.acquire(request), None
    np.testing.assert_array_equal(first.data, clean.acquire(request).data)
    for _ in range(frames - 1):
        last, other = twin.acquire(request), clean.acquire(request)
    expected = frames * dose * 16.0**2 * rate
    dirt = twin.specimen.deposit_xy
    assert len(dirt) == pytest.approx(expected, abs=4 * np.sqrt(expected))
    assert np.abs(dirt - twin.center_xy_A).max() < 8.0 + 5 * 2.0
    assert last.data.mean() > 1.05 * other.data.mean()
    # Its atoms belong to no site: the crystal is what it was.
    np.testing.assert_array_equal(twin.truth[0], clean.truth[0])


def test_contamination_gathers_under_a_parked_beam_and_adds_to_its_signal():
    from adatom.campaign.twin import make_twin as whole

    rate, seconds = 1e-6, 0.25
    options = TwinOptions(deposited_per_electron=rate, vacancies=0, foreign=0, drift_A=0.0)
    twin = whole(options, GRAPHENE, 4)
    request = ScanRequest(twin.center_xy_A, 16.0, 96, 0.0)
    place = np.array([10.3, 10.1])
    trace = twin.place_beam(BeamRequest(request, tuple(place), seconds))
    away = twin.specimen.deposit_xy - request.to_specimen(place)
    expected = seconds * twin.conditions.electrons_per_s * rate
    assert len(away) == pytest.approx(expected, abs=4 * np.sqrt(expected))
    assert away.std() == pytest.approx(2.0, rel=4 / np.sqrt(expected))
    assert trace.counts[-10:].mean() > 1.5 * trace.counts[:10].mean()
