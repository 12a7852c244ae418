"""Atoms that are followed as frames come: drift, hops, what is new and what is gone."""

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.features.live_tracks import LiveTracks
from adatom.frames.simulate.specimen import lattice_points

LOW, HIGH = np.array([12.0, 12.0]), np.array([36.0, 36.0])


def sheet():
    return lattice_points(GRAPHENE, (48.0, 48.0), 0.0, 0.35)


def frame(xy, elements, shift, low=LOW, high=HIGH, noise=0.08, seed=0):
    rng = np.random.default_rng(seed)
    moved = xy + shift + rng.normal(0, noise, xy.shape)
    inside = np.all((moved > low) & (moved < high), axis=1)
    return moved[inside], elements[inside], low, high


def elements_with(xy, *places):
    elements = np.full(len(xy), "C", dtype="<U2")
    for place in places:
        elements[np.argmin(np.linalg.norm(xy - place, axis=1))] = "Si"
    return elements


def test_drift_is_followed_over_more_than_a_lattice_vector():
    xy, tracks, rng, shift = sheet(), LiveTracks(1.42), np.random.default_rng(1), np.zeros(2)
    elements = elements_with(xy, (24, 24))
    for k in range(40):
        seen = tracks.see(*frame(xy, elements, shift, seed=k))
        np.testing.assert_allclose(seen.shift_xy_A, shift, atol=0.1)
        assert not seen.moved
        shift = shift + rng.normal(0.12, 0.15, 2)
    assert np.linalg.norm(shift) > 4.9


def test_a_small_field_that_reaches_beyond_the_known_one_is_laid_right():
    xy = sheet()
    for k in range(30):
        rng = np.random.default_rng(k)
        tracks = LiveTracks(1.42)
        tracks.see(*frame(xy, elements_with(xy), np.zeros(2), seed=k))
        middle, shift = rng.uniform(15, 33, 2), rng.normal(0, 0.25, 2)
        part = frame(xy, elements_with(xy), shift, middle - 6, middle + 6, seed=100 + k)
        np.testing.assert_allclose(tracks.see(*part).shift_xy_A, shift, atol=0.12)


def test_a_hop_is_no_drift_and_drift_is_no_hop():
    xy = sheet()
    tracks, start = LiveTracks(1.42), np.array([24.0, 24.0])
    one = xy[np.argmin(np.linalg.norm(xy - start, axis=1))]
    other = xy[np.argsort(np.linalg.norm(xy - one, axis=1))[1]]
    for k in range(5):
        tracks.see(*frame(xy, elements_with(xy, one), 0.1 * k * np.ones(2), seed=k))
    seen = tracks.see(*frame(xy, elements_with(xy, other), 0.5 * np.ones(2), seed=9))
    np.testing.assert_allclose(seen.shift_xy_A, 0.5, atol=0.1)
    ((element, before, after),) = seen.moved
    assert element == "Si"
    np.testing.assert_allclose([before, after], [one, other], atol=0.2)


def test_a_missing_and_a_new_atom_are_told_once():
    xy, tracks = sheet(), LiveTracks(1.42)
    gone = np.argmin(np.linalg.norm(xy - [20, 20], axis=1))
    less = np.delete(xy, gone, axis=0)
    for k in range(3):
        tracks.see(*frame(xy, elements_with(xy), np.zeros(2), seed=k))
    seen = [
        tracks.see(*frame(less, elements_with(less), np.zeros(2), seed=5 + k)) for k in range(2)
    ]
    assert [len(s.vanished) for s in seen] == [1, 0]
    np.testing.assert_allclose(seen[0].vanished[0], xy[gone], atol=0.2)
    more = np.concatenate([xy, [xy[gone] + [0.0, 0.75]]])
    assert len(tracks.see(*frame(more, elements_with(more), np.zeros(2), seed=8)).appeared) == 1


def test_another_place_begins_anew_and_memory_stays_bounded():
    xy, tracks = sheet(), LiveTracks(1.42)
    tracks.see(*frame(xy, elements_with(xy), np.zeros(2)))
    rng = np.random.default_rng(0)
    noise = rng.uniform(LOW, HIGH, (60, 2))
    assert tracks.see(noise, np.full(60, "C"), LOW, HIGH).lost
    for _ in range(80):
        scattered = rng.uniform(LOW, HIGH, (60, 2))
        tracks.see(scattered, np.full(60, "C"), LOW, HIGH)
    assert len(tracks._xy) < 80 * 60 / 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_atoms_are_no_error(count):
    tracks = LiveTracks(1.42)
    for _ in range(3):
        seen = tracks.see(np.full((count, 2), 20.0) + np.arange(count)[:, None],
                          np.full(count, "C"), LOW, HIGH)  # fmt: skip
    np.testing.assert_allclose(seen.shift_xy_A, 0.0)
