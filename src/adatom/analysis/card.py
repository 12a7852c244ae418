"""What a model card says of the options that its probabilities hold for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adatom.features.find import FindOptions

# Options that decide what enters the table and leave every probability as it is.
_OF_THE_TABLE_ALONE = {"lowest_p_exists"}


def uncalibrated(card: Mapping[str, Any], options: FindOptions) -> str | None:
    """Say where options of finding differ from those that the probabilities were calibrated with.

    Parameters
    ----------
    card
        Model card of an ensemble; ``options`` holds those of its calibration.
    options
        Those that a frame is analysed with.

    Returns
    -------
    One sentence for the user, naming each option with both values; None where they agree.

    Examples
    --------
    >>> card = {"options": FindOptions().model_dump()}
    >>> uncalibrated(card, FindOptions()) is None
    True
    >>> other = FindOptions.model_validate({"locate": {"threshold": 0.2}})
    >>> print(uncalibrated(card, other))
    the probabilities are not calibrated for these options: find.locate.threshold is 0.2 here and \
was 0.08 when the networks were calibrated
    """
    if "options" not in card:
        return (
            "the networks' card does not say with which options their probabilities were "
            "calibrated: train them again"
        )
    here, there = dict(_flat(options.model_dump())), dict(_flat(card["options"]))
    names = sorted((here.keys() | there.keys()) - _OF_THE_TABLE_ALONE)
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
    """Every value with the path of its key."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{key}.")
        else:
            yield where + key, value
