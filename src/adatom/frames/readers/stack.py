"""The common form of all formats: a stack of frames that can be loaded one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.errors import AdatomError, BadInput
from adatom.frames.readers.pixel_size import Scale

MIN_PIXELS = (
    16  # fewest rows and columns of an image: smaller arrays are spectra, tables or thumbnails
)
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
    dose_per_A2
        Electrons per Å² and frame; None if the file does not say.
    """

    count: int
    shape: tuple[int, int]
    load: Callable[[int], NDArray[Any]]
    scale: Scale
    dose_per_A2: float | None = None

    def with_notes(self, *notes: str) -> Stack:
        """Give the same frames with more notes about the scale."""
        return replace(self, scale=Scale(self.scale.pixel_A, notes + self.scale.notes))


@dataclass(frozen=True, slots=True)
class Layout:
    """Which axes of an array are frames, rows and columns.

    Parameters
    ----------
    count, shape
        Number of frames; rows and columns.
    kept
        Axes longer than one: (row, column) or (frame, row, column).
    ndim
        Number of axes, those of length one included.
    """

    count: int
    shape: tuple[int, int]
    kept: tuple[int, ...]
    ndim: int

    def index(self, i: int) -> tuple[int | slice, ...]:
        """Index of frame `i`, shape (row, col), in the array."""
        out: list[int | slice] = [0] * self.ndim
        for axis in self.kept[-2:]:
            out[axis] = slice(None)
        if len(self.kept) == 3:
            out[self.kept[0]] = i
        return tuple(out)


def is_image(shape: Sequence[int], dtype: np.dtype[Any]) -> bool:
    """Whether an array of this shape can hold frames, in contrast to a table or a spectrum."""
    kept = [n for n in shape if n != 1]
    return dtype.kind in "buif" and len(kept) in {2, 3} and min(kept[-2:]) >= MIN_PIXELS


def parse_layout(shape: Sequence[int], dtype: np.dtype[Any], subject: str) -> Layout:
    """Find frames, rows and columns in an array; axes of length one are dropped.

    Parameters
    ----------
    shape
        (row, col) or (frame, row, col), with any axes of length one between.
    dtype
        Type of its numbers.
    subject
        File, for messages.

    Raises
    ------
    BadInput
        If it is a colour picture, complex, not of numbers, empty, tiny, or has other axes.
    """
    shape = tuple(int(n) for n in shape)
    _check_numbers(dtype, shape, subject)
    kept = tuple(axis for axis, n in enumerate(shape) if n != 1)
    sizes = tuple(shape[axis] for axis in kept)
    if 0 in sizes:
        raise BadInput(
            subject,
            expected="at least one frame",
            got=f"an empty array of shape {shape}",
            todo="Check that the acquisition was saved.",
        )
    if len(sizes) in {3, 4} and sizes[-1] in {3, 4} and min(sizes[-3:-1]) >= MIN_PIXELS:
        raise colour(subject, f"shape {shape}: a colour picture, such as a screenshot")
    if len(sizes) > 3:
        raise BadInput(
            subject,
            expected="frames of shape (frame, row, col)",
            got=f"{len(sizes)}-dimensional data of shape {shape}, such as a 4D-STEM datacube",
            todo="Give an image made from it: sum each diffraction pattern over an annular "
            "(virtual) dark-field detector, or choose one slice.",
        )
    if len(sizes) < 2 or min(sizes[-2:]) < MIN_PIXELS:
        raise BadInput(
            subject,
            expected=f"frames of at least {MIN_PIXELS} x {MIN_PIXELS} pixels",
            got=f"an array of shape {shape}",
            todo="Check that the file holds images and not spectra, a table or a thumbnail.",
        )
    count = sizes[0] if len(sizes) == 3 else 1
    return Layout(count, (sizes[-2], sizes[-1]), kept, len(shape))


def _check_numbers(dtype: np.dtype[Any], shape: tuple[int, ...], subject: str) -> None:
    if dtype.names is not None:
        if {"R", "G", "B"} <= {name.upper() for name in dtype.names}:
            raise colour(subject, f"RGB pixels, shape {shape}: a colour picture or a screenshot")
        raise BadInput(
            subject,
            expected="an array of real numbers",
            got=f"records with fields {', '.join(dtype.names)}",
            todo="Give the field that holds the image as an array of its own.",
        )
    if dtype.kind == "c":
        raise BadInput(
            subject,
            expected="real numbers",
            got=f"complex numbers ({dtype}) of shape {shape}",
            todo="Give the recorded image, or the modulus of the wave or the transform.",
        )
    if dtype.kind not in "buif":
        raise BadInput(
            subject,
            expected="an image of real numbers",
            got=f"an array of {dtype} of shape {shape}",
            todo="Give grey-scale frames of numbers, shape (row, col) or (frame, row, col).",
        )


def colour(subject: str, got: str) -> BadInput:
    """Make the error for a colour picture: its values are not proportional to the signal."""
    return BadInput(
        subject,
        expected="grey-scale data from the detector",
        got=got,
        todo="Give the file that the microscope saved (.dm4, .emd, .tif ...), not a picture of it.",
    )


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


@contextmanager
def as_bad_input(subject: str, expected: str, todo: str) -> Iterator[None]:
    """Turn any exception of a file library into `BadInput`; the original is its cause."""
    try:
        yield
    except AdatomError:
        raise
    except Exception as error:
        # For a damaged file, the libraries raise many types, from struct.error to AssertionError.
        words = " ".join(str(error).split())[:160]
        got = f"{type(error).__name__}: {words}" if words else type(error).__name__
        raise BadInput(subject, expected=expected, got=got.rstrip("."), todo=todo) from error
