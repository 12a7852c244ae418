"""Options of a step from the command line, with errors that name the option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from adatom.errors import BadInput

_T = TypeVar("_T")


def checked(kind: type[_T], names: Mapping[str, str] | None = None, **given: Any) -> _T:
    """Make the options of a step from what the command line gives.

    Parameters
    ----------
    kind
        Model of the options.
    names
        Option of the command line for each argument; by default ``--`` and the argument's name.
    given
        The arguments.

    Raises
    ------
    BadInput
        If a value is out of its range; it is named as on the command line.

    Examples
    --------
    >>> from adatom.feedback.live import LiveOptions
    >>> try:
    ...     checked(LiveOptions, {"dose_per_A2": "--dose"}, dose_per_A2=-3.0)
    ... except BadInput as error:
    ...     print(error.subject, error.expected, error.got)
    --dose a value greater than 0 -3.0
    """
    from pydantic import ValidationError

    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise BadInput(
            (names or {}).get(name, "--" + name.replace("_", "-")),
            expected=str(first["msg"]).replace("Input should be", "a value", 1),
            got=repr(first.get("input")),
            todo="Give another value, or leave the option out for its default.",
        ) from error
