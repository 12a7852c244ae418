"""Calibration of an ensemble on held-out frames, and its scores."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import GRAPHENE, AtomTable, Calibration, Frame, LabelledFrame
from adatom.learning.device import use_threads
from adatom.materials.library import load_material
from adatom.training.calibrate import compare_with_truth, held_out
from sheets import graphene_frame


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


def test_the_matching_distance_of_scores_scales_with_the_material():
    """A material imaged at twice the scale is matched within twice the distance."""
    labelled = graphene_frame(5)
    table = AtomTable.build(
        frame=0, xy=labelled.xy + np.array([0.6, 0.0]),
        covariance=np.tile(np.eye(2), (len(labelled.xy), 1, 1)),
        p_exists=np.ones(len(labelled.xy)), element=["C"] * len(labelled.xy),
        p_element=np.ones(len(labelled.xy)), votes=np.ones(len(labelled.xy)),
        amplitude=np.ones(len(labelled.xy)),
    )  # fmt: skip
    coarse = replace(GRAPHENE, probe_sigma_A=(0.8, 0.92))  # its scale is 2
    assert coarse.scale == pytest.approx(2.0)
    near, far = (compare_with_truth(labelled, table, m)["right"] for m in (coarse, GRAPHENE))
    assert near.mean() > 0.95
    assert far.mean() < 0.3


def test_found_atoms_are_compared_with_the_true_ones():
    """Six atoms: one is missed, one is invented, one has the wrong element, one is doubted."""
    xy = np.stack(np.meshgrid([4.0, 8.0, 12.0], [4.0, 8.0]), axis=-1).reshape(-1, 2)
    species = np.array([0, 0, 0, 0, 0, 1])
    frame = Frame(np.eye(160, dtype=np.float32), Calibration(0.1))
    truth = LabelledFrame(frame, xy, species, ("C", "Si"), np.zeros((0, 2)))
    found = np.concatenate([xy[1:] + [0.03, 0.0], [[6.0, 6.0]]])
    table = AtomTable.build(
        frame=0, xy=found, covariance=np.tile(np.eye(2) * 1e-4, (6, 1, 1)),
        p_exists=np.array([0.9, 0.9, 0.9, 0.4, 0.9, 0.6]),
        element=["C", "C", "Si", "C", "Si", "C"], p_element=np.ones(6), votes=np.ones(6),
        amplitude=np.ones(6),
    )  # fmt: skip
    compared = compare_with_truth(truth, table, GRAPHENE)
    assert compared["true"].tolist() == [False, True, True, True, False, True]
    assert compared["predicted"].tolist() == [True, True, True, True, False]
    assert compared["right"].tolist() == [True] * 5 + [False]
    assert compared["true_impurity"].tolist() == [True]
    assert compared["predicted_impurity"].tolist() == [False, True]
    assert compared["named"].tolist() == [True, True, False, True]
    np.testing.assert_allclose(compared["error"].reshape(-1, 2), [[0.03, 0.0]] * 4, atol=1e-9)
    np.testing.assert_allclose(compared["z"].reshape(-1, 2), [[3.0, 0.0]] * 4, atol=1e-9)


@pytest.mark.parametrize("material", ["graphene", "MoS2"])
def test_held_out_frames_are_the_same_for_a_seed_and_one_in_twelve_is_empty(material):
    shown = load_material(material)
    frames, again = (held_out(shown, 5, 12) for _ in range(2))
    for one, same in zip(frames, again, strict=True):
        np.testing.assert_array_equal(one.frame.data, same.frame.data)
    assert [len(f.xy) == 0 for f in frames].index(True) == 11
    other = held_out(shown, 6, 1)[0].frame
    assert not np.array_equal(other.data, frames[0].frame.data)
