"""Rates of jumps: the true one lies in the interval as often as it says."""

import numpy as np
import pytest
from scipy.linalg import expm

from adatom.core import GRAPHENE
from adatom.features.walks import SitePath, Walks, jump_rate, site_path
from lattices import make_lattice

LATTICE = make_lattice()


def walk(rng, rate, frames, lost=0.0):
    """Positions of a defect that jumps to neighbouring sites at a rate a frame."""
    flat = LATTICE.undistort(np.array([[10.0, 10.0]]))
    index = LATTICE.nearest_site(flat)[0][0]
    sites = [index]
    around = np.array([(i, j, b) for i in (-1, 0, 1) for j in (-1, 0, 1) for b in (0, 1)])
    for _ in range(frames - 1):
        for _ in range(rng.poisson(rate)):
            near = np.column_stack([index[:2] + around[:, :2], around[:, 2]])
            far = np.hypot(*(LATTICE.site_xy(near) - LATTICE.site_xy(index[None])).T)
            index = near[rng.choice(np.flatnonzero((far > 0.1) & (far < 1.6)))]
        sites.append(index)
    xy = LATTICE.distort(LATTICE.site_xy(np.array(sites)))
    seen = rng.random(frames) >= lost
    seen[0] = True
    at = xy + rng.normal(0.0, 0.12, xy.shape)
    return site_path(LATTICE, np.flatnonzero(seen), at[seen], np.full(int(seen.sum()), 0.12), "C")


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0, 3.0])
def test_the_true_rate_lies_in_the_interval_in_nine_runs_of_ten(rate):
    rng = np.random.default_rng(round(100 * rate))
    within = []
    for _ in range(200):
        low, high = jump_rate(GRAPHENE, "C", [walk(rng, rate, 80, lost=0.1)]).quantile(0.05, 0.95)
        within.append(low <= rate <= high)
    assert 0.85 <= np.mean(within) <= 0.95


def test_counting_the_steps_gives_too_low_a_rate_where_jumps_are_many():
    path = walk(np.random.default_rng(1), 3.0, 400)
    sites = path.likeliest
    counted = (sites[1:] != sites[:-1]).any(axis=1).mean()
    (median,) = jump_rate(GRAPHENE, "C", [path]).quantile(0.5)
    assert counted < 1.0
    assert median == pytest.approx(3.0, rel=0.15)


def test_the_chance_of_a_way_is_the_matrix_exponential_of_the_generator():
    """A ring of 24 by 24 cells, wide enough that nothing goes round it in one frame."""
    n, rate = 24, 2.0
    walks = Walks(GRAPHENE, "C")
    vectors = np.concatenate(walks.jump_vectors(GRAPHENE))
    assert np.hypot(*vectors.T) == pytest.approx(GRAPHENE.bond_length_A)
    number = np.arange(n * n * 2).reshape(n, n, 2)
    generator = np.zeros((number.size, number.size))
    for i in range(n):
        for j in range(n):
            for di, dj in ((0, 0), (-1, 0), (0, -1)):  # the three B sites round an A site
                a, b = number[i, j, 0], number[(i + di) % n, (j + dj) % n, 1]
                generator[a, b] = generator[b, a] = rate / 3.0
    np.fill_diagonal(generator, -generator.sum(axis=1))
    chance = expm(generator)[number[12, 12, 0]]
    for site in ((0, 0, 0), (0, 0, 1), (-1, 0, 1), (1, -1, 0), (0, 1, 1)):
        path = SitePath(
            np.arange(2), (np.zeros((1, 3), dtype=np.int64), np.array([site])), (np.ones(1),) * 2
        )
        posterior = jump_rate(GRAPHENE, "C", [path])
        got = np.exp(np.interp(np.log(rate), np.log(posterior.rate), posterior.log_likelihood))
        i, j, b = site
        assert got == pytest.approx(chance[number[12 + i, 12 + j, b]], rel=0.01)
