"""The common form of all formats: a stack of frames that can be loaded one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.core.acquisition import UNKNOWN, Acquisition
from adatom.errors import AdatomError, BadInput, DamagedFile
from adatom.frames.readers.axes import Axis, Layout, is_image, lay_out
from adatom.frames.readers.pixel_size import Scale

# Names of the image in published files that also hold other arrays.
WELL_KNOWN = ("nn_input", "image_data", "haadf")


@dataclass(frozen=True, slots=True)
class Stack:
    """The frames of one file or array.

    Parameters
    ----------
    count
        Number of frames.
    shape
        Rows and columns.
    load
        Gives frame i, shape (row, col); reads only that frame.
    scale
        Pixel size of the file, not checked yet.
    acquisition
        How the frames were recorded, as far as the file says.
    """

    count: int
    shape: tuple[int, int]
    load: Callable[[int], NDArray[Any]]
    scale: Scale
    acquisition: Acquisition = UNKNOWN

    def with_notes(self, *notes: str) -> Stack:
        """Give the same frames with more notes about the scale."""
        return self.with_scale(self.scale.with_notes(*notes))

    def with_acquisition(self, *found: Acquisition) -> Stack:
        """Fill what is not known of the recording from other descriptions, the best first."""
        known = self.acquisition
        for one in found:
            known = known.or_else(one)
        return replace(self, acquisition=known)

    def with_scale(self, scale: Scale) -> Stack:
        """Give the same frames with another scale."""
        return replace(self, scale=scale)


def choose(options: Sequence[tuple[str, str]], dataset: str | None, subject: str) -> int:
    """Choose one of several images in a file; return its position in `options`.

    Parameters
    ----------
    options
        Name and description of each image.
    dataset
        Name from the user (the last part of a path is enough), or number, or None.
    subject
        File, for messages.

    Raises
    ------
    BadInput
        If no image fits, or more than one.
    """
    names = [name.strip("/") for name, _ in options]
    last = [name.rpartition("/")[2] for name in names]
    listing = "; ".join(
        f"{i} {name or '(no name)'} {text}"
        for i, (name, (_, text)) in enumerate(list(zip(names, options, strict=True))[:12])
    )
    if dataset is None:
        known = [i for i, name in enumerate(last) if name.lower() in WELL_KNOWN]
        hits = [0] if len(options) == 1 else known
        expected, got = "a file with one image", f"{len(options)} of them ({listing})"
        todo = "Choose one with `dataset`: its name, or its number from 0."
    else:
        wanted = dataset.strip("/")
        hits = [i for i, name in enumerate(names) if name == wanted]
        hits = hits or [i for i, name in enumerate(last) if name == wanted]
        if not hits and wanted.isdecimal() and int(wanted) < len(options):
            hits = [int(wanted)]
        expected = f"one image named {dataset!r}"
        got = f"{len(hits)} of that name" if hits else "none of that name"
        todo = f"The file holds: {listing or 'no image'}."
    if not options and dataset is None:
        expected, got = "at least one image", "no array of two or three dimensions"
        todo = "Check that this is the file with the frames."
    if len(hits) != 1:
        raise BadInput(subject, expected=expected, got=got, todo=todo)
    return hits[0]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One array in a file, which may hold the frames.

    Parameters
    ----------
    name
        Its name in the file; empty for the only array.
    axes
        Its axes, in order.
    dtype
        Type of its numbers.
    """

    name: str
    axes: tuple[Axis, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of entries along every axis."""
        return tuple(axis.size for axis in self.axes)


def choose_image(
    found: Sequence[Candidate], dataset: str | None, order: str | None, subject: str
) -> tuple[int, Layout]:
    """Choose the array with the frames, and its channel if it has several.

    Parameters
    ----------
    found
        Every array of the file.
    dataset
        Name or number of an image from the user: an array, or a channel of one.
    order
        The user's order of the axes; see `adatom.frames.readers.axes.lay_out`.
    subject
        File, for messages.

    Returns
    -------
    Position in `found`, and how to read it.

    Raises
    ------
    BadInput
        If no image fits or more than one, or the array holds no frames.
    """
    images = [i for i, one in enumerate(found) if is_image(one.shape, one.dtype)]
    images += [i for i, one in enumerate(found) if i not in images and _channels(one, order)]
    images = sorted(images) or [i for i, one in enumerate(found) if _holds_frames(one, order)]
    if dataset is not None:
        images = list(range(len(found)))
    elif not images and len(found) == 1:
        images = [0]  # the error message then describes this array
    names: list[tuple[str, str]] = []
    where: list[tuple[int, int | None]] = []
    for i in images:
        one = found[i]
        text = f"{one.shape}"
        channels = _channels(one, order)
        names.append((one.name, text))
        where.append((i, None))
        if channels:
            inside = [f"{one.name}/{name}".strip("/") for name in channels]
            names[-1:] = [(name, f"of {text}") for name in inside]
            where[-1:] = [(i, channel) for channel in range(len(inside))]
    if len(where) == 1 and where[0][1] is None and not names[0][0] and dataset is not None:
        raise BadInput(
            subject,
            expected="a file with named images for `dataset`",
            got=f"one array of shape {found[0].shape}",
            todo="Leave `dataset` out.",
        )
    number, channel = where[choose(names, dataset, subject)]
    one = found[number]
    layout = lay_out(one.axes, one.dtype, f"{subject}, {one.name}" if one.name else subject, order)
    if channel is None:
        return number, layout
    note = f"of the channels {', '.join(layout.channels[:8])}, {layout.channels[channel]} is read"
    return number, replace(layout.of_channel(channel), notes=(*layout.notes, note))


def _channels(one: Candidate, order: str | None) -> tuple[str, ...]:
    """Names of an array's channels; none where it holds no frames, which is told later."""
    try:
        return lay_out(one.axes, one.dtype, one.name, order).channels
    except BadInput:
        return ()


def _holds_frames(one: Candidate, order: str | None) -> bool:
    try:
        lay_out(one.axes, one.dtype, one.name, order)
    except BadInput:
        return False
    return True


@contextmanager
def as_bad_input(subject: str, expected: str, todo: str) -> Iterator[None]:
    """Turn exceptions of a file library into `DamagedFile`, or name the package that it lacks."""
    try:
        yield
    except AdatomError:
        raise
    except ModuleNotFoundError as error:
        raise BadInput(
            subject,
            expected=expected,
            got=f"a format whose reader needs the package {error.name}, which is not installed",
            todo=f"Install it, `python -m pip install {error.name}`, or save the frames as .tif.",
        ) from error
    except Exception as error:
        # For a damaged file, the libraries raise many types, from struct.error to AssertionError.
        words = " ".join(str(error).split())[:160]
        got = f"{type(error).__name__}: {words}" if words else type(error).__name__
        raise DamagedFile(subject, expected=expected, got=got.rstrip("."), todo=todo) from error
