"""Errors of estimated conditions are as large as their standard deviations."""

from dataclasses import replace

import numpy as np
import pytest

from imaging import USUAL, estimate, finder, pull, take


@pytest.mark.slow
def test_pulls_are_of_order_one():
    see = finder()
    pulls = []
    rng = np.random.default_rng(8)
    for seed in range(5):
        c = replace(
            USUAL,
            counts=float(np.exp(rng.uniform(0.5, 4))),
            tail_fraction=rng.uniform(0, 0.3),
            background=rng.uniform(0, 0.4),
            probe_sigma_A=(rng.uniform(0.42, 0.5), rng.uniform(0.34, 0.41)),
            jitter_A=0.05 * (seed % 2),
        )
        got = estimate(see, take(c, seed=20 + seed, field_A=20.0))
        pulls += [
            pull(got.counts, c.counts),
            *(pull(w, t) for w, t in zip(got.probe_sigma_A, c.probe_sigma_A, strict=True)),
            pull(got.tail_fraction, c.tail_fraction),
            pull(got.background, c.background),
        ]
    print(np.round(pulls, 1))
    assert max(pulls) < 4
    assert 0.45 < np.mean(np.less(pulls, 1)) < 0.95
    assert 0.4 < np.sqrt(np.mean(np.square(pulls))) < 1.7
