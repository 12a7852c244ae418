"""Linking against a dense solver, over gaps, and in any order of the rows."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from adatom.features.linking import link_points, nearest


@pytest.mark.parametrize("seed", range(5))
def test_two_crowded_frames_are_linked_as_a_dense_solver_links_them(seed):
    rng = np.random.default_rng(seed)
    old, new, step = rng.uniform(0, 4, (25, 2)), rng.uniform(0, 4, (23, 2)), 0.9
    squared = ((old[:, None] - new[None]) ** 2).sum(axis=2)
    alone = step**2
    # What a link saves against two points alone; pairs that are too far save nothing.
    saved = np.where(squared < step**2, 2 * alone - squared, 0.0)
    i, j = linear_sum_assignment(saved, maximize=True)
    best = saved[i, j].sum()
    track = link_points(
        np.repeat([0, 1], [25, 23]), np.concatenate([old, new]), nearest(48, step), 0
    )
    same = track[:25, None] == track[None, 25:]
    assert same.sum(axis=0).max() == same.sum(axis=1).max() == 1
    assert saved[same].min() > 0
    assert saved[same].sum() == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("unseen", [0, 1, 3])
def test_a_point_may_be_unseen_in_as_many_frames_as_allowed(unseen):
    for hidden in range(6):
        frame = np.array([0, hidden + 1])
        track = link_points(frame, np.array([[1.0, 1.0], [1.1, 1.0]]), nearest(2, 0.5), unseen)
        assert (track[0] == track[1]) == (hidden <= unseen)


def test_the_order_of_the_rows_changes_no_track():
    rng = np.random.default_rng(3)
    start = rng.uniform(0, 20, (60, 2))
    frame = np.repeat(np.arange(8), 60)
    position = np.concatenate([start + rng.normal(0, 0.15, start.shape) for _ in range(8)])
    keep = rng.random(len(frame)) > 0.1
    frame, position = frame[keep], position[keep]
    track = link_points(frame, position, nearest(len(frame), 1.0), 2)
    assert track.max() < 75
    order = rng.permutation(len(frame))
    again = np.empty_like(track)
    again[order] = link_points(frame[order], position[order], nearest(len(frame), 1.0), 2)
    pairs = set(zip(track.tolist(), again.tolist(), strict=True))
    assert len(pairs) == track.max() + 1 == again.max() + 1


def test_one_point_and_frames_far_apart_are_not_linked():
    assert link_points(np.array([4]), np.zeros((1, 3)), nearest(1, 1.0), 3).tolist() == [0]
    assert link_points(np.array([9, 0]), np.zeros((2, 3)), nearest(2, 1.0), 3).tolist() == [1, 0]
