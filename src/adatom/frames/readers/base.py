"""The protocol of file readers, and the lookup of the reader for a file.

Readers, also adatom's own, are registered as entry points of the group ``adatom.readers``. A new
reader is one file with one object that fits `Reader`, and one line in a ``pyproject.toml``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from adatom.core.plugins import READERS, Plugin, registered
from adatom.frames.readers.stack import Stack


@runtime_checkable
class Reader(Protocol):
    """Reads the files of one format.

    `adatom.conformance.readers.check_reader` tests one.

    Attributes
    ----------
    name
        Name of the format; also the name of its entry point.
    summary
        One line of description.

    Notes
    -----
    The reader runs in a child process, so that a damaged file ends only that. A reader that bounds
    its memory and time itself may say so with an attribute ``is_bounded = True``, and is then used
    in this process. A reader may take ``axes`` as a third argument, the user's order of the axes;
    see `adatom.frames.readers.axes.lay_out`.
    """

    name: str
    summary: str

    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the file names that it reads, lower case, with the dot."""
        ...

    def read(self, path: Path, dataset: str | None) -> Stack:
        """Open a file without reading the pixels.

        Parameters
        ----------
        path
            The file; it exists and is not empty.
        dataset
            Name or number of the image in a file with several; see
            `adatom.frames.readers.stack.choose`.

        Returns
        -------
        Number, shape (row, col) and pixel size (Å) of the frames, and a function that reads one of
        them. `adatom.frames.readers.pixel_size.from_axes` turns any unit into Å.

        Raises
        ------
        Exception
            Any exception if the file is damaged; it becomes `BadInput` with its message.
        """
        ...


def registered_readers() -> tuple[Plugin, ...]:
    """Every registered reader, adatom's own first; those that cannot be used have an error."""
    return tuple(
        found if found.error or found.is_own else _with_good_suffixes(found)
        for found in registered(READERS, Reader)
    )


def find_reader(suffix: str) -> tuple[Reader | None, str]:
    """Find the reader for a suffix.

    A reader of another package is preferred to adatom's own, because the user installed it.

    Parameters
    ----------
    suffix
        With the dot, in any case.

    Returns
    -------
    The reader, or None if no reader has this suffix; and a note for the user, which may be empty.

    Examples
    --------
    >>> reader, note = find_reader(".TIF")
    >>> reader.name, note
    ('tiff', '')
    """
    usable = [found for found in registered_readers() if not found.error]
    ending = suffix.lower()
    for found in usable:
        if not found.is_own and ending in found.value.suffixes():
            twice = any(each.is_own and ending in each.value.suffixes() for each in usable)
            note = f"read by {found.name} of {found.distribution}, not by adatom's own reader"
            return found.value, note if twice else ""
    for found in usable:
        if found.is_own and ending in found.value.suffixes():
            return found.value, ""
    return None, ""


def readable_suffixes() -> tuple[str, ...]:
    """Suffixes of all files that can be read, lower case, with the dot."""
    usable = [found.value for found in registered_readers() if not found.error]
    return tuple(sorted({suffix for reader in usable for suffix in reader.suffixes()}))


def _with_good_suffixes(found: Plugin) -> Plugin:
    try:
        suffixes = tuple(found.value.suffixes())
        good = suffixes and all(s.startswith(".") and s == s.lower() for s in suffixes)
    except Exception as error:  # noqa: BLE001 (any package may fail in any way)
        return replace(found, value=None, error=f"suffixes(): {type(error).__name__}: {error}")
    if good:
        return found
    why = f"suffixes(): expected lower-case endings with the dot, got {suffixes}"
    return replace(found, value=None, error=why)
