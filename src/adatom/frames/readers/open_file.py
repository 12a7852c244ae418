"""Open one file: find its reader, check the file, read a sidecar with the scale."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from adatom.errors import BadInput
from adatom.frames.readers.axes import MIN_PIXELS
from adatom.frames.readers.base import Reader, find_reader
from adatom.frames.readers.nion import read_sidecar
from adatom.frames.readers.pixel_size import from_metadata
from adatom.frames.readers.recorded import recorded_in_tree
from adatom.frames.readers.square import with_square_pixels
from adatom.frames.readers.stack import Stack, as_bad_input
from adatom.frames.readers.zarr_images import is_zarr

Opener = Callable[[Path, str | None, str | None], Stack]


def open_file(
    path: Path, dataset: str | None, axes: str | None = None, *, apart: Opener | None = None
) -> Stack:
    """Open one file of frames without reading them.

    Parameters
    ----------
    path
        The file, or the directory of a zarr store; its suffix decides the format.
    dataset
        Name or number of the image in a file with several.
    axes
        The user's order of the axes; see `adatom.frames.readers.axes.lay_out`.
    apart
        Opens files whose reader is not known to be bounded in memory and time, in another process;
        None to open every file in this one.

    Raises
    ------
    BadInput
        If it is missing, empty, damaged, of an unknown kind, or holds no single image or movie.
    """
    check_present(path)
    reader, note = find_reader(".zarr" if is_zarr(path) else path.suffix)
    if reader is None:
        from adatom.frames.readers.vendor import unreadable_file

        raise unreadable_file(path)
    if apart is not None and not getattr(reader, "is_bounded", False):
        return apart(path, dataset, axes)
    stack = open_with(reader, path, dataset, axes)
    stack = stack.with_notes(note) if note else stack
    return with_square_pixels(_with_sidecar(stack, path), str(path))


def check_present(path: Path) -> None:
    """Refuse a path where there is no file, or an empty one.

    Raises
    ------
    BadInput
        Saying which of these it is.
    """
    if not path.is_file() and not is_zarr(path):
        raise BadInput(
            str(path),
            expected="a file of frames",
            got=_what_is_there(path),
            todo="Check the name.",
        )
    if path.is_file() and path.stat().st_size == 0:
        raise BadInput(
            str(path),
            expected="a file of frames",
            got="an empty file (0 bytes)",
            todo="Copy it again from the microscope.",
        )


def _what_is_there(path: Path) -> str:
    if path.exists():
        return "something that is not a file"
    if path.is_symlink():
        return "a link that leads nowhere"
    return "no such file"


def open_with(reader: Reader, path: Path, dataset: str | None, axes: str | None = None) -> Stack:
    """Open one file with a given reader; any exception of the reader becomes `BadInput`.

    Parameters
    ----------
    reader
        Reader of any package.
    path, dataset, axes
        As for `open_file`.

    Raises
    ------
    BadInput
        If the reader fails, gives no frames, or takes no `axes` where they are given.
    """
    subject, suffix = str(path), path.suffix.lower()
    kind = f"a {suffix} file of frames" if suffix else "a file of frames"
    todo = "The file is damaged, cut off, or not what its name says: copy it again."
    takes_axes = "axes" in inspect.signature(reader.read).parameters
    if axes is not None and not takes_axes:
        raise BadInput(
            f"{subject}, `axes`",
            expected=f"no order of the axes, which the reader {reader.name} decides itself",
            got=repr(axes),
            todo="Leave `axes` out.",
        )
    with as_bad_input(subject, kind, todo):
        more = {"axes": axes} if takes_axes else {}
        stack = reader.read(path, dataset, **more)
        if stack.count < 1 or min(stack.shape) < MIN_PIXELS:
            raise ValueError(f"{stack.count} frames of {stack.shape} pixels")
    return stack


def _with_sidecar(stack: Stack, path: Path) -> Stack:
    """Read scale and recording from a JSON file of the same name, as some published arrays have."""
    sidecar = path.with_suffix(".json")
    tree = read_sidecar(path)
    stack = stack.with_acquisition(recorded_in_tree(tree))
    if stack.scale.pixel_A is not None:
        return stack
    if tree is None:
        return stack.with_notes(f"{sidecar.name} could not be read: no scale taken from it")
    found = from_metadata(tree, stack.shape, str(sidecar))
    if found.pixel_A is None:
        return stack.with_notes(*found.notes)
    note = f"pixel size {found.pixel_A:.4g} Å from {sidecar.name}"
    return stack.with_scale(found.with_notes(*stack.scale.notes, note))
