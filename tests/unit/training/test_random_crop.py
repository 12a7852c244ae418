"""Random crops of labelled frames."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from adatom.core import Calibration, Frame, LabelledFrame
from adatom.learning.device import use_threads
from adatom.training.adapt.pseudo_labels import (
    random_crop,
)
from sheets import NONE, graphene_frame, inner


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


def spotted(shape, count=40, px=0.1, seed=1):
    """One bright pixel at every label and dim ones around it, at places without a symmetry."""
    rng = np.random.default_rng(seed)
    rc = rng.choice(shape[0] * shape[1], 2 * count, replace=False)
    rc = np.stack([rc // shape[1], rc % shape[1]], axis=1)
    data = np.zeros(shape, dtype=np.float32)
    atoms, empty = rc[:count], rc[count:]
    data[tuple(atoms.T)] = 100.0 + np.arange(count)  # each its own
    data[tuple(empty.T)] = -100.0 - np.arange(count)
    cal = Calibration(px)
    return LabelledFrame(
        Frame(data, cal, index=5, source="movie"), cal.xy(atoms.astype(float)),
        (np.arange(count) % 2).astype(np.int64), ("C", "Si"), cal.xy(empty.astype(float)),
        cal.xy(atoms[:7].astype(float)), np.linspace(0.1, 1.0, 7),
    )  # fmt: skip


def read(part, xy):
    """Values of the image at positions inside it, and which those are."""
    rc = part.frame.calibration.rc(xy)
    np.testing.assert_allclose(rc, np.round(rc), atol=1e-6)
    r, c = np.round(rc).astype(int).T
    inside = (r >= 0) & (c >= 0) & (r < part.frame.shape[0]) & (c < part.frame.shape[1])
    return part.frame.data[r[inside], c[inside]], inside


def test_after_any_turn_and_flip_the_labels_lie_on_their_own_spots():
    whole = spotted((90, 120))
    seen = set()
    for seed in range(60):
        part = random_crop(whole, 5.0, np.random.default_rng(seed))
        assert part.frame.shape == (51, 51)
        assert part.frame.calibration == whole.frame.calibration
        assert (part.frame.index, part.frame.source) == (5, "movie")
        value, inside = read(part, part.xy)
        np.testing.assert_array_equal(value, 100.0 + np.flatnonzero(inside))
        assert inside.sum() == (part.frame.data > 50).sum()  # none of those that show is lost
        empty, where = read(part, part.vacancies_xy)
        np.testing.assert_array_equal(empty, -100.0 - np.flatnonzero(where))
        doubted, where = read(part, part.doubtful_xy)
        np.testing.assert_array_equal(doubted, 100.0 + np.flatnonzero(where))
        np.testing.assert_array_equal(part.species, whole.species)
        np.testing.assert_array_equal(part.doubt, whole.doubt)
        two = part.xy[:3] - part.xy[3]  # a turn keeps distances, a flip changes the hand
        first = whole.xy[:3] - whole.xy[3]
        np.testing.assert_allclose(
            np.linalg.norm(two, axis=1), np.linalg.norm(first, axis=1), atol=1e-9
        )
        linear = np.linalg.lstsq(first, two, rcond=None)[0]
        seen.add(tuple(np.round(linear).astype(int).ravel().tolist()))
    assert len(seen) == 8, "four turns, each mirrored or not"


def test_crops_reach_every_part_of_a_frame():
    whole = spotted((60, 56))
    number = np.arange(60 * 56, dtype=np.float32).reshape(60, 56)
    whole = replace(whole, frame=Frame(number, whole.frame.calibration))
    seen = np.zeros(number.shape, dtype=bool)
    firsts = set()
    for seed in range(300):
        part = random_crop(whole, 5.0, np.random.default_rng(seed)).frame.data.astype(int)
        seen.ravel()[part.ravel()] = True
        firsts.add(int(part.min()))
        np.testing.assert_array_equal(  # a square of the frame, not an assortment
            np.sort(part.ravel()), np.sort(number[firsts_rc(part)].ravel().astype(int))
        )
    assert seen.all()
    assert len(firsts) == 10 * 6  # every place that the square can have


def firsts_rc(part):
    row, col = divmod(int(part.min()), 56)
    return np.s_[row : row + 51, col : col + 51]


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (30, 45)])
def test_a_frame_smaller_than_the_field_is_used_whole(shape):
    whole = spotted(shape, count=20)
    for seed in range(12):
        part = random_crop(whole, 5.0, np.random.default_rng(seed))
        wanted = sorted(min(n, 51) for n in shape)
        assert sorted(part.frame.shape) == wanted
        value, inside = read(part, part.xy)
        np.testing.assert_array_equal(value, 100.0 + np.flatnonzero(inside))
        if max(shape) <= 51:
            assert inside.all()


def test_labels_of_a_sheet_stay_on_its_atoms():
    truth = graphene_frame(1, counts=400.0, field=(20.0, 24.0), tail_fraction=0.0)
    for seed in range(8):
        part = random_crop(truth, 12.0, np.random.default_rng(seed))
        near = inner(part.frame, part.xy, 0.2)
        rc = part.frame.calibration.rc(part.xy[near]).T
        at = ndimage.map_coordinates(part.frame.data, rc, order=1)
        assert near.sum() > 40
        assert at.min() > 1.15 * part.frame.data.mean()


def test_a_crop_without_contrast_is_replaced():
    data = np.zeros((200, 200), dtype=np.float32)
    data[3, 7] = 1.0
    blank = LabelledFrame(
        Frame(data, Calibration(0.1)), np.array([[0.7, 0.3]]), np.zeros(1, dtype=int), ("C",), NONE
    )
    for seed in range(10):
        assert random_crop(blank, 5.0, np.random.default_rng(seed)).frame.data.max() == 1.0


def test_a_crop_without_counts_gives_the_whole_frame():
    """Labels stay on their atoms when the cut is given up."""
    data = np.zeros((60, 60), dtype=np.float32)
    data[40, 50] = 7.0
    frame = Frame(data, Calibration(0.1))
    lone = LabelledFrame(frame, np.array([[5.0, 4.0]]), np.zeros(1, dtype=np.int64), ("C",), NONE)
    given_up = 0
    for seed in range(30):
        part = random_crop(lone, 2.0, np.random.default_rng(seed))
        if part.frame.shape == (60, 60):
            given_up += 1
            col, row = np.round(part.xy[0] / 0.1).astype(int)
            assert part.frame.data[row, col] == 7.0
    assert given_up > 20
