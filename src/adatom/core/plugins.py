"""Find the plug-ins of installed packages: engines, instruments, readers, defect namers.

Each kind has a group of entry points. adatom registers its own parts in the same groups: see
``[project.entry-points]`` in ``pyproject.toml``. A group is imported when it is first used.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from adatom.errors import AdatomError, BadInput

# Groups of entry points.
ENGINES = "adatom.engines"
INSTRUMENTS = "adatom.instruments"
READERS = "adatom.readers"
DEFECT_NAMERS = "adatom.defect_namers"
GROUPS = (ENGINES, INSTRUMENTS, READERS, DEFECT_NAMERS)
OWN_PACKAGE = "adatom"  # distribution whose parts are listed first


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
        What the entry point names; None where it cannot be used.
    error
        Why it cannot be used, or an empty string.
    """

    name: str
    group: str
    distribution: str
    value: Any
    error: str = ""

    @property
    def is_own(self) -> bool:
        """Whether adatom itself brings it."""
        return self.distribution.split(" ")[0] == OWN_PACKAGE


@cache
def plugins(group: str) -> tuple[Plugin, ...]:
    """Load every entry point of a group, adatom's own first, then by name.

    A package that does not load does not stop the others: its `Plugin.error` says why. Of two
    entry points with one name, the first is used and the other has an error.

    Parameters
    ----------
    group
        One of `GROUPS`.

    Raises
    ------
    AdatomError
        If adatom's own parts are not registered: it was not installed, or before it had them.

    Examples
    --------
    >>> "lammps" in [found.name for found in plugins(ENGINES)]
    True
    """
    if not any(_package(entry) == OWN_PACKAGE for entry in entry_points(group=ENGINES)):
        raise AdatomError(
            "installation of adatom",
            expected="entry points of its engines",
            got="none",
            todo="Install it again: pip install, or pip install -e . in a checkout.",
        )
    found = sorted(entry_points(group=group), key=lambda e: (_package(e) != OWN_PACKAGE, e.name))
    by_name: dict[str, Plugin] = {}
    out = []
    for entry in found:
        loaded = _load(entry)
        first = by_name.setdefault(entry.name.lower(), loaded)
        if first is not loaded:
            why = f"the name {entry.name} is taken by {first.distribution}"
            loaded = replace(loaded, value=None, error=why)
        out.append(loaded)
    return tuple(out)


def registered(group: str, protocol: type) -> tuple[Plugin, ...]:
    """Load every entry point of a group, and check that each is what the group is for.

    Parameters
    ----------
    group
        One of `GROUPS`.
    protocol
        A protocol that can be checked at run time; what lacks a part of it has an error.
    """
    return tuple(each if each.error else _checked(each, protocol) for each in plugins(group))


@cache
def _names(group: str, path: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a group for one search path of Python; reading them anew takes 40 ms."""
    del path
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


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
    names = _names(group, tuple(sys.path))
    if name.strip().lower() not in [n.lower() for n in names]:
        close = difflib.get_close_matches(name.lower(), names, n=1)
        raise BadInput(
            subject,
            expected="one of " + ", ".join(names) if names else "an installed package that has one",
            got=repr(name),
            todo=f"Did you mean {close[0]!r}?" if close else "Name one of these.",
        )


def plugin(group: str, name: str, protocol: type = object) -> Any:
    """Give what is registered under a name.

    Parameters
    ----------
    group
        One of `GROUPS`.
    name
        Name of the entry point, in any case.
    protocol
        What it must be, as for `registered`.

    Raises
    ------
    BadInput
        If nothing of that name is registered, or it cannot be used.
    """
    key = name.strip().lower()
    subject = f"{group.removeprefix('adatom.').removesuffix('s').replace('_', ' ')} {name}"
    every = registered(group, protocol)
    for each in every:
        if each.name.lower() == key:
            if each.error:
                raise BadInput(
                    subject,
                    expected="one that loads",
                    got=f"{each.distribution}: {each.error}",
                    todo="Mend or remove that package.",
                )
            return each.value
    names = [each.name for each in every if not each.error]
    close = difflib.get_close_matches(key, names, n=1)
    raise BadInput(
        subject,
        expected="one of " + ", ".join(names) if names else "an installed package that has one",
        got=repr(name),
        todo=f"Did you mean {close[0]!r}?" if close else "Name one of these.",
    )


def _checked(found: Plugin, protocol: type) -> Plugin:
    annotated = {
        name for base in protocol.__mro__ for name in vars(base).get("__annotations__", ())
    }
    parts = {name for name in {*dir(protocol), *annotated} if not name.startswith("_")}
    missing = sorted(name for name in parts if not hasattr(found.value, name))
    name = getattr(found.value, "name", found.name)
    error = ""
    if missing:
        error = f"{type(found.value).__name__} is no {protocol.__name__}: no {', '.join(missing)}"
    elif name != found.name:
        error = f"its entry point is named {found.name!r}, the object {name!r}"
    return replace(found, value=None, error=error) if error else found


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
