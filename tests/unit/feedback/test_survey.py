"""Decisions of a survey."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adatom.feedback.survey import SurveyOptions, doses_of, is_open, missing_nats, patches_of


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60))
def test_every_open_site_lies_well_inside_a_patch_with_its_dose(seed, count):
    rng = np.random.default_rng(seed)
    options = SurveyOptions()
    xy, dose = rng.uniform(0, 40, (count, 2)), rng.uniform(1e3, 1e4, count)
    patches = patches_of(xy, dose, options)
    for place, wanted in zip(xy, dose, strict=True):
        near = [
            p for p in patches
            if np.abs(place - p.center_xy_A).max() <= options.patch_A / 2 - 1.0 + 1e-9
        ]  # fmt: skip
        assert any(p.dose_per_A2 >= wanted for p in near)
    assert len(patches) <= count


def test_no_site_is_promised_more_than_the_most_dose():
    options = SurveyOptions(most_dose_per_A2=4e4)
    given_ = np.array([1e4, 3.9e4, 4e4])
    dose = doses_of(np.full(3, 50.0), np.full(3, 1e-4), given_, options)
    assert (given_ + dose <= options.most_dose_per_A2 + 1e-6).all()
    assert dose[0] == 1e4  # at most as much as it has
    assert dose[2] == 0.0


def test_a_known_site_lacks_nothing_and_an_open_one_does():
    options = SurveyOptions()
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.2, 0.05, 0.05, 0.05], 500)
    open_ = is_open(p, options)
    assert (missing_nats(p[open_], options) > 0).all()
    assert (missing_nats(p[~open_], options) == 0).all()
