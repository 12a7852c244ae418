"""Compare the options of an analysis with those of the networks' calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adatom.features.find import FindOptions

# These options only drop rows of the table; they change no probability.
_ONLY_DROP_ROWS = {"lowest_p_exists"}


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
