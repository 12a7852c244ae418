"""Read TOML of a user: what is nested past reason is refused as other mistakes in it are."""

from __future__ import annotations

import tomllib
from typing import Any

_DEEPEST = 32  # levels of tables and lists; those of adatom have at most five


def parse_toml(text: str) -> dict[str, Any]:
    r"""Read a TOML text.

    Parameters
    ----------
    text
        Content of the file.

    Raises
    ------
    ValueError
        If it is no TOML, or its tables are nested more than 32 levels deep.

    Examples
    --------
    >>> parse_toml("[a]\nb = [1, 2]")
    {'a': {'b': [1, 2]}}
    """
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("tables or lists nested too deeply") from error
    level: list[Any] = [table]
    for _ in range(_DEEPEST):
        inside = [v for node in level for v in (node.values() if isinstance(node, dict) else node)]
        level = [v for v in inside if isinstance(v, (dict, list))]
    if level:
        raise ValueError(f"tables or lists nested more than {_DEEPEST} deep")
    return table
