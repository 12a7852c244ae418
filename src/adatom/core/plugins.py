"""Find what packages add to adatom: engines, instruments, readers, defect namers.

Each kind has a group of entry points, and adatom's own parts come through the same door: see
``[project.entry-points]`` in ``pyproject.toml``. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from adatom.errors import BadInput

ENGINES = "adatom.engines"
INSTRUMENTS = "adatom.instruments"
READERS = "adatom.readers"
DEFECT_NAMERS = "adatom.defect_namers"
GROUPS = (ENGINES, INSTRUMENTS, READERS, DEFECT_NAMERS)


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point, loaded.

    Parameters
    ----------
    name
        As in the entry point.
    group
        One of `GROUPS`.
    distribution
        Name and version of the package that brings it, such as ``adatom 0.1.0``.
    value
        What the entry point names; None where it does not load.
    error
        Why it does not load, or an empty string.
    """

    name: str
    group: str
    distribution: str
    value: Any
    error: str = ""


@cache
def plugins(group: str) -> tuple[Plugin, ...]:
    """Load every entry point of a group, adatom's own first, then by name.

    A package that does not load does not stop the others: its `Plugin.error` says why.
    """
    found = sorted(entry_points(group=group), key=lambda e: (_package(e) != "adatom", e.name))
    return tuple(_load(entry) for entry in found)


def check_registered(group: str, name: str, subject: str) -> None:
    """Make sure that a name is registered, without loading anything.

    Parameters
    ----------
    group
        One of `GROUPS`.
    name
        The name to look for.
    subject
        Where the name was given, for the message.

    Raises
    ------
    BadInput
        If it is not registered; the message lists the names that are.
    """
    names = sorted({entry.name for entry in entry_points(group=group)})
    if name.strip().lower() not in [n.lower() for n in names]:
        close = difflib.get_close_matches(name.lower(), names, n=1)
        raise BadInput(
            subject,
            expected="one of " + ", ".join(names) if names else "an installed package that has one",
            got=repr(name),
            todo=f"Did you mean {close[0]!r}?" if close else "Name one of these.",
        )


def plugin(group: str, name: str) -> Any:
    """Give what is registered under a name.

    Raises
    ------
    BadInput
        If nothing of that name is registered, or it does not load.
    """
    key = name.strip().lower()
    for each in plugins(group):
        if each.name.lower() == key:
            if each.error:
                raise BadInput(
                    f"{group} {name}",
                    expected="one that loads",
                    got=f"{each.distribution}: {each.error}",
                    todo="Mend or remove that package.",
                )
            return each.value
    names = [each.name for each in plugins(group) if not each.error]
    close = difflib.get_close_matches(key, names, n=1)
    raise BadInput(
        f"{group} {name}",
        expected="one of " + ", ".join(names) if names else "an installed package that has one",
        got=repr(name),
        todo=f"Did you mean {close[0]!r}?" if close else "Name one of these.",
    )


def _load(entry: EntryPoint) -> Plugin:
    package = _package(entry)
    version = entry.dist.version if entry.dist is not None else "?"
    where = f"{package} {version}"
    try:
        return Plugin(entry.name, entry.group, where, entry.load())
    except Exception as error:  # noqa: BLE001 (any package may fail in any way)
        return Plugin(entry.name, entry.group, where, None, f"{type(error).__name__}: {error}")


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "?"
