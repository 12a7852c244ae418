"""Calibration of the shipped ensemble on held-out frames."""

from dataclasses import replace

import pytest

from adatom.core import GRAPHENE
from adatom.features.calibration.calibrator import Calibrator
from adatom.features.find import FindOptions
from adatom.features.novelty.frame import Novelty
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.training.calibrate import calibrate_ensemble

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def ensemble():
    return weights.load_shipped("graphene")


def test_an_ensemble_is_calibrated_and_measured_on_held_out_frames(ensemble):
    known = ("options", "calibration", "novelty", "scores")
    bare = replace(ensemble, card={k: v for k, v in ensemble.card.items() if k not in known})
    options = FindOptions.model_validate({"locate": {"separation_A": 0.8}})
    made = calibrate_ensemble(bare, GRAPHENE, seed=3, frames=13, options=options)
    assert FindOptions.model_validate(made.card["options"]) == options
    assert made.networks is bare.networks
    Calibrator.model_validate(made.card["calibration"])
    Novelty.model_validate(made.card["novelty"])
    scores = made.card["scores"]
    assert scores["frames"] == 4  # a third of 13
    assert all(0 <= band["f1"] <= 1 for band in scores["bands"])
    assert max(band["f1"] for band in scores["bands"]) > 0.9
