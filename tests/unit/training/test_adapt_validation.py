"""Validation of a round of iterative training, and the detection limit."""

import numpy as np
import pytest

from adapting import TINY, validation_scores
from adatom.core import GRAPHENE
from adatom.learning.device import use_threads
from adatom.materials.library import load_material
from adatom.training.adapt import runner as running
from adatom.training.adapt.checks import passes_validation
from adatom.training.adapt.simulated_like import conditions_like
from adatom.training.scores import ToolResult
from imaging import known_imaging
from sheets import NONE, graphene_frame


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.mark.parametrize(
    ("after", "accepted"),
    [
        ({}, True),
        ({"atom": 1.0, "vacancy": 1.0, "foreign": 1.0}, True),
        ({"atom": 0.985}, True),  # within the standard error of 200 sites
        ({"atom": 0.95}, False),
        ({"vacancy": 0.8}, False),
        ({"foreign": 0.85}, False),
        (
            {"atom": 1.0, "vacancy": 1.0, "foreign": 0.5},
            False,
        ),
        ({"atom": 0.0, "vacancy": 0.0, "foreign": 0.0}, False),
    ],
)
def test_a_round_passes_if_no_f1_fell(after, accepted):
    assert passes_validation(validation_scores(), validation_scores(**after), 0.004) == accepted


def test_validation_is_stricter_with_more_sites():
    few, many = (
        passes_validation(validation_scores(sites=n), validation_scores(atom=0.97, sites=n), 0.004)
        for n in (20.0, 20_000.0)
    )
    assert few
    assert not many
    assert passes_validation(
        validation_scores(sites=20_000.0), validation_scores(atom=0.97, sites=20_000.0), 0.05
    )


def test_atoms_on_a_support_need_a_gain_beyond_its_error():
    before = validation_scores(sites=2000.0)
    for atom, accepted in ((0.0, False), (-0.05, False), (0.001, False), (0.009, True)):
        after = validation_scores(atom=before["atom"] + atom, sites=2000.0)
        assert passes_validation(before, after, 0.004, must_gain=True) == accepted
    worse = validation_scores(atom=before["atom"] + 0.009, foreign=0.5, sites=2000.0)
    assert not passes_validation(before, worse, 0.004, must_gain=True)


class Scored(running.RoundRunner):
    """Its F1 is a known function of the counts."""

    def validate(self, ensemble, imaging, number, factor=1.0, frames=None, *, clean=False):
        return {"atom": ensemble(imaging.counts.value * factor)}


@pytest.mark.parametrize(
    ("curve", "limit"),
    [
        # Down from 12 by halves; between the last two evenly in the logarithm.
        (lambda c: 1.0 if c > 2.9 else 0.9, 3.0 / 2**0.5),
        (lambda c: 0.97 if c > 5.9 else 0.93, 6.0 / 2**0.5),
        (lambda c: 0.98 if c > 11 else 0.86, 12.0 / 2**0.25),
        (lambda c: 0.9 if c < 90 else 1.0, 96.0 / 2**0.5),  # up from 12
        (lambda c: 0.94, float("inf")),  # however many
        (lambda c: 0.99, 12.0 / 2**10),  # as far down as is looked
    ],
)
def test_the_detection_limit_lies_where_f1_falls(curve, limit):
    runner = Scored(None, GRAPHENE, TINY, 0.15)
    assert runner.detection_limit(curve, known_imaging()) == pytest.approx(limit)


class Recorded:
    """A pool that records the source of the frames and finds each atom 0.9 Å from its place."""

    def map(self, job, items):
        self.source = job.args[1]
        for i in items:
            truth = self.source.frame(np.random.default_rng(i), whole=True)
            xy = truth.xy + np.array([0.9, 0.0])
            n = len(xy)
            names = np.array(truth.classes)[truth.species]
            yield truth, ToolResult(xy, names, np.ones((n, 2)), np.ones(n), np.ones(n), NONE)


def test_validation_uses_the_counts_of_the_experiment_only():
    pool = Recorded()
    running.RoundRunner(pool, GRAPHENE, TINY, 0.15).validate(None, known_imaging(), 1, 0.25)
    assert pool.source.training_share == 0.0
    assert pool.source.fewer == 1.0
    assert pool.source.imaging.counts.value == pytest.approx(3.0)


def test_the_detection_limit_is_that_of_clean_frames():
    """Atoms under contamination are lost at any dose and would hide the effect of the dose."""
    pool = Recorded()
    runner = running.RoundRunner(pool, GRAPHENE, TINY, 0.15)
    runner.validate(None, known_imaging(), 1)
    assert pool.source.contaminated == pytest.approx(0.25)
    runner.detection_limit(None, known_imaging())
    assert pool.source.contaminated == 0.0
    rng = np.random.default_rng(0)
    clean = [conditions_like(known_imaging(), GRAPHENE, rng, 0.0) for _ in range(40)]
    assert all(c.contamination == 0.0 for c in clean)


def test_the_matching_distance_of_validation_scales_with_the_material():
    far = running.RoundRunner(Recorded(), GRAPHENE, TINY, 0.15).validate(None, known_imaging(), 1)
    wide = load_material("Pt-on-carbon")  # 0.5 Å of graphene's are 1.2 Å of its
    near = running.RoundRunner(Recorded(), wide, TINY, 0.15, density_A2=0.003).validate(
        None, known_imaging(), 1
    )
    assert far["atom"] < 0.5
    assert near["atom"] == 1.0


@pytest.fixture
def frames():
    return [graphene_frame(1, px=0.15, field=(8.0, 8.0)).frame]
