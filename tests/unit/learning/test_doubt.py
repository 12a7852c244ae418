"""Weights of pixels in the loss: doubtful places and mirrored borders teach less."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adatom.core import Calibration, Frame, LabelledFrame
from adatom.learning.device import use_threads
from adatom.learning.network import Network
from adatom.learning.train import TrainOptions, fit, prepare
from sheets import NONE


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


def labelled_at(xy, species=None, px=0.1, shape=(200, 220)):
    data = np.random.default_rng(0).poisson(5.0, shape).astype(np.float32)
    kinds = np.zeros(len(xy), dtype=np.int64) if species is None else np.asarray(species)
    return LabelledFrame(Frame(data, Calibration(px)), np.asarray(xy), kinds, ("C", "Si"), NONE)


TINY = TrainOptions(steps=2, batch=2, side_px=64, width=4)  # 64 pixels of 0.2 Å, spots of 0.25 Å


def with_doubt(places, doubt, px=0.2, shape=(80, 80)):
    labelled = labelled_at(np.array([[4.0, 4.0], [8.0, 6.0]]), px=px, shape=shape)
    return replace(labelled, doubtful_xy=np.array(places), doubt=np.array(doubt))


def test_doubt_takes_the_weight_around_its_place_and_nowhere_else():
    # x = 5 Å, y = 2 Å: row 10, column 25; three spots are 3.75 pixels, taken as 4.
    _, _, weight = prepare(with_doubt([[5.0, 2.0]], [1.0]), TINY)
    assert weight.shape == (64, 64)
    rows, cols = np.indices(weight.shape)
    near = (rows - 10) ** 2 + (cols - 25) ** 2 <= 16
    np.testing.assert_array_equal(weight, np.where(near, 0.0, 1.0))
    assert near.sum() == 49


def test_doubts_differ_in_weight_and_the_greater_one_counts():
    _, _, weight = prepare(with_doubt([[5.0, 2.0], [9.0, 9.0], [9.4, 9.0]], [0.3, 0.25, 0.8]), TINY)
    assert weight[10, 25] == pytest.approx(0.7)
    assert weight[45, 42] == pytest.approx(0.75)  # near the first alone: 0.6 Å and 1 Å away
    assert weight[45, 46] == pytest.approx(0.2)
    rows, cols = np.indices(weight.shape)
    free = np.ones(weight.shape, dtype=bool)
    for row, col in ((10, 25), (45, 45), (45, 47)):
        free &= (rows - row) ** 2 + (cols - col) ** 2 > 16
    assert (weight[free] == 1).all()
    assert (weight[~free] < 1).all()


@pytest.mark.parametrize("place", [(-0.4, 3.0), (3.0, -0.4), (12.9, 5.0), (5.0, 12.9), (0.0, 0.0)])
def test_doubt_at_a_border_reaches_in_from_outside(place):
    _, _, weight = prepare(with_doubt([place], [1.0]), TINY)
    rows, cols = np.indices(weight.shape)
    row, col = round(place[1] / 0.2), round(place[0] / 0.2)
    near = (rows - row) ** 2 + (cols - col) ** 2 <= 16
    assert near.any()
    np.testing.assert_array_equal(weight, np.where(near, 0.0, 1.0))


@pytest.mark.parametrize("place", [(-3.0, 3.0), (3.0, -9.0), (40.0, 5.0), (5.0, 40.0)])
def test_doubt_far_outside_changes_nothing(place):
    _, _, weight = prepare(with_doubt([place], [1.0]), TINY)
    assert (weight == 1).all()


@pytest.mark.parametrize("shape", [(40, 80), (80, 37), (33, 50)])
def test_nothing_is_learned_where_a_small_frame_is_mirrored(shape):
    image, wanted, weight = prepare(with_doubt(NONE, [], shape=shape), TINY)
    assert image.shape == weight.shape == wanted.shape[1:] == (64, 64)
    rows, cols = (min(n, 64) for n in shape)
    assert (weight[:rows, :cols] == 1).all()
    assert weight.sum() == rows * cols
    if rows < 64:
        np.testing.assert_array_equal(image[rows], image[rows - 1])  # mirrored
        np.testing.assert_array_equal(image[rows + 3], image[rows - 4])
    if cols < 64:
        np.testing.assert_array_equal(image[:, cols + 2], image[:, cols - 3])


def test_a_frame_at_another_scale_has_its_doubt_in_the_same_place():
    _, _, weight = prepare(with_doubt([[5.0, 2.0]], [1.0], px=0.1, shape=(140, 140)), TINY)
    rows, cols = np.indices(weight.shape)
    np.testing.assert_array_equal(
        weight, np.where((rows - 10) ** 2 + (cols - 25) ** 2 <= 16, 0.0, 1.0)
    )


def test_a_label_in_full_doubt_teaches_nothing():
    """Two losses that differ by such a label alone are alike, without doubt they are not."""

    def first_loss(doubt, *, extra):
        labelled = with_doubt([[6.0, 9.0]], [doubt])
        if extra:
            labelled = replace(
                labelled, xy=np.vstack([labelled.xy, [[6.0, 9.0]]]), species=np.zeros(3, dtype=int)
            )
        torch.manual_seed(0)
        losses = []
        fit(
            Network(3, 4, heads=2), lambda _: [labelled], 1, TINY, steps=3, learning_rate=1e-3,
            progress=lambda _, loss: losses.append(loss),
        )  # fmt: skip
        return losses[0]

    learned = first_loss(0.0, extra=True) - first_loss(0.0, extra=False)
    blind = first_loss(1.0, extra=True) - first_loss(1.0, extra=False)
    half = first_loss(0.5, extra=True) - first_loss(0.5, extra=False)
    assert learned > 1e-3
    assert abs(blind) < 0.01 * learned
    assert half == pytest.approx(learned / 2, rel=0.02)
