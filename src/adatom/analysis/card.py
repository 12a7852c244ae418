"""Read the fits in a model card, and compare its options with those of an analysis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from adatom.errors import BadInput
from adatom.features.calibration.calibrator import Calibrator
from adatom.features.find import FindOptions
from adatom.features.novelty.frame import OodModel

Fit = TypeVar("Fit", bound=BaseModel)
# These options only drop rows of the table; they change no probability.
_ONLY_DROP_ROWS = {"lowest_p_exists"}


def check_card(card: Mapping[str, Any]) -> None:
    """Refuse a card whose fits cannot be read, before frames are analysed with it.

    Parameters
    ----------
    card
        Model card of an ensemble.

    Raises
    ------
    BadInput
        If it has no calibration, a fit that lacks a number or has one that is not finite, or
        options that are no table.
    """
    fitted = fit_in_card(card, "calibration", Calibrator)
    widths = {len(fitted.spread), len(fitted.spread_mean), len(fitted.spread_scale)}
    if len(widths) > 1 or len({len(row) for row in fitted.exists}) > 1:
        raise _unreadable("calibration", "series of different lengths")
    for key in ("novelty", "novelty_of_regions"):
        if key in card:
            fit_in_card(card, key, OodModel)
    if not isinstance(card.get("options", {}), Mapping):
        raise _unreadable("options", repr(card["options"])[:60])


def fit_in_card(card: Mapping[str, Any], key: str, kind: type[Fit]) -> Fit:
    """Read one fit of a model card.

    Parameters
    ----------
    card
        Model card of an ensemble.
    key
        Its key in the card.
    kind
        What it is.

    Raises
    ------
    BadInput
        If the card does not have it, or it cannot be read.
    """
    if key not in card:
        raise BadInput(
            "the ensemble's card",
            expected="a calibration of its probabilities" if key == "calibration" else key,
            got="none",
            todo="Train it with `adatom train`, which fits one on held-out frames.",
        )
    if not _is_finite(card[key]):
        raise _unreadable(key, "numbers that are not finite")
    try:
        return kind.model_validate(card[key])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _unreadable(key, f"{where}: {first['msg']}") from error


def _unreadable(key: str, got: str) -> BadInput:
    return BadInput(
        f"the ensemble's card, {key}",
        expected="what `adatom train` writes",
        got=got,
        todo="Use the card that was written with the weights, or train the networks again.",
    )


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def calibration_warning(card: Mapping[str, Any], options: FindOptions) -> str | None:
    """Describe how the options differ from those that the probabilities were calibrated with.

    Parameters
    ----------
    card
        Model card of an ensemble; its key ``options`` has the options of the calibration.
    options
        Options of the analysis.

    Returns
    -------
    One sentence for the user with both values of each option; None if the options agree.

    Examples
    --------
    >>> card = {"options": FindOptions().model_dump()}
    >>> calibration_warning(card, FindOptions()) is None
    True
    >>> other = FindOptions.model_validate({"locate": {"threshold": 0.2}})
    >>> print(calibration_warning(card, other))
    the probabilities are not calibrated for these options: find.locate.threshold is 0.2 here and \
was 0.08 when the networks were calibrated
    """
    if "options" not in card:
        return (
            "the networks' card does not say with which options their probabilities were "
            "calibrated: train them again"
        )
    here, there = dict(_flat(options.model_dump())), dict(_flat(card["options"]))
    names = sorted((here.keys() | there.keys()) - _ONLY_DROP_ROWS)
    differ = [
        f"find.{name} is {here.get(name)} here and was {there.get(name)}"
        for name in names
        if here.get(name) != there.get(name)
    ]
    if not differ:
        return None
    return (
        "the probabilities are not calibrated for these options: "
        + ", ".join(differ)
        + " when the networks were calibrated"
    )


def _flat(table: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Give every value of a nested table with the path of its key."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{key}.")
        else:
            yield where + key, value
