"""Rates of jumps of a Si atom against the published prior and a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adatom.feedback import ManipulateOptions, plan_jump

BOND = 1.42  # Å, C-C in graphene


def jump(si_sigma=0.02, n_sigma=0.02, which=0, **options):
    angle = np.array([0.0, 2.0, 4.0]) * np.pi / 3
    neighbours = BOND * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return plan_jump(
        np.zeros(2), np.eye(2) * si_sigma**2, neighbours,
        np.tile(np.eye(2) * n_sigma**2, (3, 1, 1)), which,
        options=ManipulateOptions(**options),
    )  # fmt: skip


def test_jump_has_the_published_rate_where_all_is_certain():
    sure = jump(0.0, 0.0, beam_sigma_A=0.0, rate_relative_sd=0.0, wanted_p=0.8)
    assert sure.target_xy_A == pytest.approx((0.85 * BOND, 0.0))
    assert sure.rate_per_s == pytest.approx(math.log(2) / 3)
    assert sure.dwell_s == pytest.approx(math.log(5) / (math.log(2) / 3), rel=1e-4)
    assert sure.probability == pytest.approx(0.8, abs=1e-3)
    assert sure.probability_sd == pytest.approx(0.0, abs=1e-6)
    half = jump(0.0, 0.0, beam_sigma_A=0.0, max_dwell_s=3.0)
    assert half.probability == pytest.approx(0.5, abs=1e-3)  # that is what ln 2 / 3 means


def test_jump_rate_and_odds_match_a_simulation_of_the_offset():
    plan = jump(0.15, 0.15, beam_sigma_A=0.2, rate_relative_sd=0.0, max_dwell_s=5.0)
    rng = np.random.default_rng(0)
    n = 200_000
    offset = (
        0.15 * rng.normal(0, 0.15, (n, 2))
        + 0.85 * rng.normal(0, 0.15, (n, 2))
        + rng.normal(0, 0.2, (n, 2))
    )
    rate = math.log(2) / 3 * np.exp(-0.5 * (offset**2).sum(axis=1) / (0.1 * BOND**2))
    assert plan.rate_per_s == pytest.approx(rate.mean(), rel=0.01)
    odds = 1 - np.exp(-rate * plan.dwell_s)
    assert plan.probability == pytest.approx(odds.mean(), rel=0.06)
    assert plan.probability_sd == pytest.approx(odds.std(), rel=0.3)
    assert plan.sigma_A == pytest.approx(offset[:, 0].std(), rel=0.01)
