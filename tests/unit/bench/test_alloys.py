"""Frames of alloys, and how their missed and invented columns are counted."""

from dataclasses import dataclass

import numpy as np

from adatom.bench.alloys import Counts, alloys, count_columns, row_of
from adatom.materials.library import load_material


@dataclass
class Found:
    xy: np.ndarray
    p: np.ndarray

    @property
    def is_likely(self):
        return self.p > 0.5

    def column(self, name):
        assert name == "p_exists"
        return self.p


def test_columns_are_counted_once_and_named_by_regions():
    (truth,) = alloys(load_material("MoSSe"), (0.4, 0.6))
    far = np.asarray(truth.frame.calibration.extent_xy(truth.frame.shape))
    total = Counts()
    whole = Found(truth.xy, np.ones(len(truth.xy)))
    count_columns(total, truth, whole, (), 1.0, whole=False)
    assert total.columns > 200
    assert (total.missed, total.invented) == (0, 0)
    # Of the right half all are missed, and a region names them; two are invented.
    left = truth.xy[truth.xy[:, 0] < far[0] / 2]
    apart = truth.xy[0] * 0 + far / 4
    near = np.linalg.norm(truth.xy - apart, axis=1).argmin()
    other = truth.xy[near] + (0.9, 0.0)
    total = Counts()
    found = Found(np.vstack([left, other]), np.r_[np.ones(len(left)), 0.95])
    region = (far[0] / 2, 0.0, far[0], far[1], 1.0)
    count_columns(total, truth, found, (region,), 1.0, whole=False)
    assert total.missed == total.named > 50
    assert total.sure == total.invented == 1
    assert row_of("MoSSe", total)["met"]
    total.named = 0
    assert not row_of("MoSSe", total)["met"]


def test_a_third_of_the_columns_has_another_brightness():
    gold = load_material("Au")
    plain, changed = (next(alloys(gold, factors)) for factors in ((1.0, 1.0), (3.0, 3.0)))
    np.testing.assert_array_equal(plain.xy, changed.xy)
    at = np.rint(plain.frame.calibration.rc(plain.xy)).astype(int)
    inside = ((at > 3) & (at < 252)).all(axis=1)
    row, column = at[inside].T
    ratio = changed.frame.data[row, column] / plain.frame.data[row, column]
    assert 0.2 < (ratio > 2.0).mean() < 0.4
