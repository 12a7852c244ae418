"""What a model card says of the options that its probabilities hold for."""

from __future__ import annotations

import pytest

from adatom.analysis.card import calibration_warning
from adatom.features.find import FindOptions
from adatom.learning.weights import SHIPPED, load_shipped

NAMES = sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


@pytest.mark.parametrize("name", NAMES)
def test_shipped_networks_are_calibrated_for_the_default_options(name):
    card = load_shipped(name).card
    assert FindOptions.model_validate(card["options"]) == FindOptions()
    assert calibration_warning(card, FindOptions()) is None


def test_a_difference_is_named_with_both_values():
    card = {"options": FindOptions().model_dump()}
    other = FindOptions.model_validate({"locate": {"threshold": 0.11}, "refine": {"iterations": 7}})
    told = calibration_warning(card, other)
    assert "find.locate.threshold is 0.11 here and was 0.08" in told
    assert "find.refine.iterations is 7 here and was 4" in told
    assert "separation" not in told


def test_what_only_shortens_the_table_changes_no_probability():
    card = {"options": FindOptions().model_dump()}
    assert calibration_warning(card, FindOptions(lowest_p_exists=0.5)) is None


def test_a_card_without_options_is_told_of():
    assert "train them again" in calibration_warning({}, FindOptions())
