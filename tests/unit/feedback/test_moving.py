"""Decisions on the way of an atom: sites, rates, the jump in the signal, the drift."""

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.core.hops import HopModel
from adatom.errors import BadInput
from adatom.feedback.hop_rate import RateBelief
from adatom.feedback.moving import aim_at, blind_dwell_s, exposure_of, why_hopeless
from adatom.feedback.sites import Sites
from adatom.feedback.watch import Drift, JumpWatch, Spots, places_around
from adatom.frames.simulate.specimen import lattice_points

SLICE_S, ELECTRONS_PER_S = 0.005, 3.12e8


@pytest.fixture(scope="module")
def sites():
    return Sites.of(lattice_points(GRAPHENE, (30.0, 30.0), 0.0, 0.4), GRAPHENE.bond_length_A)


def middle(sites):
    return int(np.argmin(np.linalg.norm(sites.xy - sites.xy.mean(axis=0), axis=1)))


def test_every_inner_site_of_graphene_has_three_neighbours(sites):
    inner = np.flatnonzero(np.abs(sites.xy - 15.0).max(axis=1) < 11)
    for site in inner:
        near = sites.neighbours(int(site))
        assert len(near) == 3
        distance = np.linalg.norm(sites.xy[near] - sites.xy[site], axis=1)
        np.testing.assert_allclose(distance, GRAPHENE.bond_length_A, atol=1e-6)


def test_a_route_goes_around_closed_sites_and_says_where_there_is_none(sites):
    start = middle(sites)
    goal = int(sites.neighbours(int(sites.neighbours(start)[0]))[-1])
    goal = goal if goal != start else int(sites.neighbours(int(sites.neighbours(start)[0]))[0])
    direct = sites.route(start, goal)
    assert len(direct) == 3
    around = sites.route(start, goal, {direct[1]})
    assert len(around) == 5  # the other way around the ring
    assert direct[1] not in around
    with pytest.raises(BadInput, match="vacancies or other impurity atoms are between"):
        sites.route(start, goal, set(sites.neighbours(start).tolist()))
    with pytest.raises(BadInput, match=r"a lattice site within 0\.7 Å"):
        sites.nearest(np.array([300.0, 0.0]))


def test_the_shift_of_a_frame_is_found_up_to_lattice_vectors(sites):
    rng = np.random.default_rng(1)
    shift = np.array([0.8, -0.9])
    inner = sites.xy[np.abs(sites.xy - 15.0).max(axis=1) < 7]
    seen = inner + shift + rng.normal(0, 0.05, inner.shape)
    found = sites.shifts_of(seen, np.array([0.6, -0.6]), 3.0)
    np.testing.assert_allclose(found[0], shift, atol=0.02)
    steps = np.linalg.norm(found[1:] - found[0], axis=1)
    assert len(steps)
    a = GRAPHENE.lattice_constant_A  # shifts by lattice vectors look alike
    assert all(np.abs(step / a - [1.0, 3**0.5, 2.0]).min() < 0.03 for step in steps)
    with pytest.raises(BadInput, match="60% of its atoms"):
        sites.shifts_of(3.0 * sites.xy, np.zeros(2), 1.0)


def test_the_learned_rate_covers_the_truth():
    rng, inside = np.random.default_rng(2), 0
    for _ in range(400):
        belief = RateBelief()
        truth = rng.gamma(belief.shape, 1 / belief.weight)
        for exposure in rng.uniform(0.1, 2.0, 6):
            belief = belief.after(exposure, rng.poisson(truth * exposure))
        inside += belief.quantile(0.05) <= truth <= belief.quantile(0.95)
    assert inside / 400 == pytest.approx(0.9, abs=3 * np.sqrt(0.09 / 400))
    assert RateBelief(200.0, 100.0).p_hop(1.0) == pytest.approx(1 - np.exp(-2.0), abs=0.01)


def test_the_jump_is_seen_within_two_slices_and_never_by_chance():
    rng = np.random.default_rng(3)
    watch = JumpWatch(40.0, 130.0)  # a tenth of a usual signal
    counts = rng.poisson(40.0, 20_000).astype(float)
    assert not any(watch(counts[: i + 1]) for i in range(len(counts)))
    waits = []
    for _ in range(200):
        watch = JumpWatch(1440.0, 4300.0)
        counts = np.concatenate([rng.poisson(1440.0, 30), rng.poisson(4300.0, 5)]).astype(float)
        waits.append(next(i for i in range(35) if watch(counts[: i + 1])) - 30)
    assert min(waits) >= 0
    assert max(waits) <= 1
    assert not JumpWatch(100.0, 120.0).can_tell


def test_the_drift_is_followed_by_the_signal_alone(sites):
    rng, si = np.random.default_rng(4), middle(sites)
    goal = int(sites.neighbours(si)[0])
    peak = np.full(len(sites.xy), 9e-4)
    peak[si] *= 3.8
    spots = Spots(
        sites.xy, peak, lambda step: np.exp(-0.5 * (step**2).sum(-1) / 0.42**2), background=2e-4
    )
    around, electrons = places_around(sites.xy[goal]), SLICE_S * ELECTRONS_PER_S
    drift, truth, errors = Drift.start(0.05), np.zeros(2), []
    for i in range(4000):  # 20 s, in which it drifts by 0.8 Å
        truth = truth + rng.normal(0, np.sqrt(0.031 * SLICE_S), 2)
        place = around[i % 3] + drift.shift_xy
        # The parked beam is 10 % brighter than the frame said.
        counts = rng.poisson(1.1 * electrons * float(spots.at(place - truth)))
        drift, _ = drift.later(SLICE_S).measured(spots, place, float(counts), electrons)
        errors.append(drift.shift_xy - truth)
    errors = np.array(errors[200:])
    rms = np.sqrt((errors**2).mean())
    assert rms < 0.08  # a tenth of what the place of the beam may be off
    assert np.linalg.norm(truth) > 0.4
    assert drift.scale == pytest.approx(1.1, abs=0.05)
    assert drift.sigma_A == pytest.approx(rms, rel=0.5)  # it knows how well it knows
    assert 0.01 < drift.diffusion_A2_s < 0.1


def test_the_expected_hops_of_a_dwell_agree_with_drawn_offsets(sites):
    rng, si, model = np.random.default_rng(5), middle(sites), HopModel()
    aim = aim_at(sites, si, int(sites.neighbours(si)[1]), model)
    sigma, seconds, growth = 0.15, 3.0, 0.03
    dt, total = 0.02, []
    for _ in range(400):
        offset, exposure = rng.normal(0, sigma, 2), 0.0
        for _ in range(int(seconds / dt)):
            rates = model.rates_per_s(aim.xy + offset, sites.xy[si], sites.xy[[aim.goal]], 50.0)
            exposure += float(rates[0]) * dt
            offset = offset + rng.normal(0, np.sqrt(growth * dt), 2)
        total.append(exposure)
    expected = exposure_of(aim, sites, model, 50.0, sigma, seconds, growth)
    assert np.mean(total) == pytest.approx(expected, rel=0.04)


def test_a_blind_dwell_is_longer_where_a_look_costs_more_and_shorter_where_hops_are_fast():
    times = np.geomspace(0.02, 10.0, 60)
    belief = RateBelief(20.0, 20.0)
    usual = blind_dwell_s(0.2 * times, times, 0.3, belief)
    assert blind_dwell_s(0.2 * times, times, 2.0, belief) > 1.5 * usual
    assert blind_dwell_s(2.0 * times, times, 0.3, belief) < 0.5 * usual


def test_a_goal_is_given_up_only_where_the_rate_is_surely_too_low():
    assert why_hopeless(RateBelief(), 3, 0.2, 600.0) == ""
    slow = RateBelief().after(exposure=60.0, hops=0)
    assert "is below" in why_hopeless(slow, 3, 0.2, 30.0)
    assert why_hopeless(slow, 0, 0.2, 100.0) == ""
