"""Open one file or array: find its reader, check the file, read a sidecar with the scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from adatom.errors import BadInput
from adatom.frames.readers.base import Reader, find_reader
from adatom.frames.readers.pixel_size import Scale, from_metadata
from adatom.frames.readers.stack import MIN_PIXELS, Stack, as_bad_input, parse_layout
from adatom.frames.readers.vendor import unreadable_file


def open_file(path: Path, dataset: str | None) -> Stack:
    """Open one file of frames without reading them.

    Parameters
    ----------
    path
        The file; its suffix decides the format.
    dataset
        Name or number of the image in a file with several.

    Raises
    ------
    BadInput
        If it is missing, empty, damaged, of an unknown kind, or holds no single image or movie.
    """
    subject = str(path)
    if not path.is_file():
        raise BadInput(
            subject,
            expected="a file of frames",
            got="no such file" if not path.exists() else "something that is not a file",
            todo="Check the name.",
        )
    if path.stat().st_size == 0:
        raise BadInput(
            subject,
            expected="a file of frames",
            got="an empty file (0 bytes)",
            todo="Copy it again from the microscope.",
        )
    reader, note = find_reader(path.suffix)
    if reader is None:
        raise unreadable_file(path)
    stack = open_with(reader, path, dataset)
    stack = stack.with_notes(note) if note else stack
    return stack if stack.scale.pixel_A is not None else _with_sidecar(stack, path)


def open_with(reader: Reader, path: Path, dataset: str | None) -> Stack:
    """Open one file with a given reader; any exception of the reader becomes `BadInput`.

    Parameters
    ----------
    reader
        Reader of any package.
    path, dataset
        As for `open_file`.

    Raises
    ------
    BadInput
        If the reader fails, or gives no frames.
    """
    subject, suffix = str(path), path.suffix.lower()
    kind = f"a {suffix} file of frames" if suffix else "a file of frames"
    todo = "The file is damaged, cut off, or not what its name says: copy it again."
    with as_bad_input(subject, kind, todo):
        stack = reader.read(path, dataset)
        if stack.count < 1 or min(stack.shape) < MIN_PIXELS:
            raise ValueError(f"{stack.count} frames of {stack.shape} pixels")
    return stack


def open_array(array: NDArray[Any], subject: str) -> Stack:
    """Make a stack of frames from an array of shape (row, col) or (frame, row, col)."""
    layout = parse_layout(array.shape, array.dtype, subject)
    return Stack(layout.count, layout.shape, lambda i: array[layout.index(i)], Scale())


def _with_sidecar(stack: Stack, path: Path) -> Stack:
    """Read the scale from a JSON file of the same name, as some published arrays have."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return stack
    try:
        tree = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return stack.with_notes(f"{sidecar.name} could not be read: no scale taken from it")
    found = from_metadata(tree, stack.shape, str(sidecar))
    if found.pixel_A is None:
        return stack.with_notes(*found.notes)
    note = f"pixel size {found.pixel_A:.4g} Å from {sidecar.name}"
    return Stack(
        stack.count,
        stack.shape,
        stack.load,
        Scale(found.pixel_A, (*stack.scale.notes, note, *found.notes)),
    )
