"""Networks that find next to nothing are calibrated as far as they go, or refused in words."""

import numpy as np
import pytest

from adatom.analysis.card import check_card
from adatom.core import GRAPHENE
from adatom.errors import StepFailed
from adatom.features.find import FindOptions
from adatom.features.novelty.regions import Regions
from adatom.learning import weights
from adatom.learning.network import network_of
from adatom.training import calibrate, train


@pytest.fixture
def fitted(monkeypatch):
    """Calibration without its fit of probabilities, which takes seconds."""
    ensemble = weights.load_shipped("graphene")

    class Known:
        def model_dump(self):
            return ensemble.card["calibration"]

    monkeypatch.setattr(calibrate, "fit_calibrator", lambda *_: Known())
    return ensemble


def test_atoms_too_far_apart_for_regions_leave_the_regions_out(fitted):
    rng = np.random.default_rng(0)
    boxes = Regions(np.zeros((4, 4)), np.full((4, 7), np.nan))
    described = [(rng.normal(size=19), boxes) for _ in range(40)]
    card = calibrate.with_calibration(fitted, GRAPHENE, [object()], described, FindOptions()).card
    assert "novelty" in card
    assert "novelty_of_regions" not in card
    check_card(card)


def test_networks_that_find_nothing_are_refused_in_words(fitted):
    with pytest.raises(StepFailed, match="more steps"):
        calibrate.with_calibration(fitted, GRAPHENE, [], [], FindOptions())


def test_scores_without_a_found_atom_have_no_error():
    none = np.zeros(0)
    keys = ("true", "predicted", "true_impurity", "predicted_impurity", "named", "error", "z")
    scores = calibrate._scores(dict.fromkeys(keys, none))
    assert scores["rmse_A"] is None


def test_a_kept_network_that_lost_its_card_is_trained_again(tmp_path):
    options = train.train_options("graphene", steps=10, start="scratch", members=2)
    stored = train._FinishedNetworks(tmp_path, GRAPHENE, options)
    network = network_of(weights.load_shipped("graphene").networks[0])
    stored.save("start0", [network])
    assert len(stored.load("start0")) == 1
    stored.path("start0").with_suffix(".json").unlink()
    assert stored.load("start0") is None
    stored.save("start0", [network])
    whole = stored.path("start0").read_bytes()
    stored.path("start0").write_bytes(whole[: len(whole) // 2])
    assert stored.load("start0") is None
