"""Which axes of an array are frames, rows, columns and channels: by labels, units and order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adatom.errors import BadInput
from adatom.frames.readers.pixel_size import is_reciprocal, normal_unit

# Fewest rows and columns of an image: smaller arrays are spectra, tables or thumbnails.
MIN_PIXELS = 16
Kind = Literal["", "row", "column", "frame", "depth", "channel", "spectrum", "sample"]

# Words in the name of an axis, lower case, and the kind of axis they stand for.
_WORDS: dict[str, Kind] = {
    **dict.fromkeys(("y", "row", "rows", "line", "lines", "height"), "row"),
    **dict.fromkeys(("x", "column", "columns", "col", "cols", "width"), "column"),
    **dict.fromkeys(
        ("t", "time", "times", "frame", "frames", "sequence", "movie", "timepoint"), "frame"
    ),
    **dict.fromkeys(("z", "slice", "slices", "depth", "focus", "defocus", "tilt"), "depth"),
    **dict.fromkeys(("c", "ch", "channel", "channels", "detector", "detectors"), "channel"),
    **dict.fromkeys(("energy", "loss", "eels", "wavelength", "spectrum"), "spectrum"),
    **dict.fromkeys(("s", "sample", "samples", "rgb", "rgba", "colour", "color"), "sample"),
}
_TIMES = frozenset({"s", "sec", "second", "seconds", "ms", "us", "µs", "μs", "ns", "min"})
_ENERGIES = frozenset({"ev", "kev", "mev"})
# Letters of `axes`, the user's order of the axes.
_LETTERS: dict[str, Kind] = {"t": "frame", "c": "channel", "y": "row", "x": "column"}
# A reading of unlabelled axes is doubted where another makes images this much more nearly square.
_SQUARER = 1.5


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of an array, as its file describes it.

    Parameters
    ----------
    size
        Number of entries.
    name
        Label in the file; empty if it has none.
    scale
        Step along it, in `unit`; anything that is no number counts as unknown.
    unit
        As the file spells it.
    kind
        What the format itself says of it; empty where only name, unit and place tell.
    labels
        Names of the entries, such as detectors.
    """

    size: int
    name: str = ""
    scale: object = None
    unit: object = None
    kind: Kind = ""
    labels: tuple[str, ...] = ()

    @property
    def role(self) -> Kind:
        """Kind of this axis: the format's word, else by unit, else by name."""
        unit = normal_unit(self.unit)
        if self.kind:
            return self.kind
        if unit in _ENERGIES:
            return "spectrum"
        words = {_WORDS[w] for w in re.split(r"[^a-z]+", self.name.lower()) if w in _WORDS}
        if len(words) == 1:
            return words.pop()
        return "frame" if unit in _TIMES else ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which axes of an array are frames, rows and columns.

    Parameters
    ----------
    count, shape
        Number of frames; rows and columns.
    ndim
        Number of axes, those of length one included.
    row, column
        Axes of rows and columns.
    frame
        Axis of the frames; None for one image.
    channel
        Axis of the channels (detectors); None if there is one channel.
    channels
        Names of the channels; ``channel 0`` and so on where the file has no names.
    chosen
        Which channel `index` gives.
    notes
        What was assumed of the axes, for the user.
    """

    count: int
    shape: tuple[int, int]
    ndim: int
    row: int
    column: int
    frame: int | None = None
    channel: int | None = None
    channels: tuple[str, ...] = ()
    chosen: int = 0
    notes: tuple[str, ...] = ()

    def index(self, i: int) -> tuple[int | slice, ...]:
        """Index of frame `i` in the array; see `take` for its rows and columns."""
        out: list[int | slice] = [0] * self.ndim
        out[self.row] = out[self.column] = slice(None)
        if self.frame is not None:
            out[self.frame] = i
        if self.channel is not None:
            out[self.channel] = self.chosen
        return tuple(out)

    def take(self, array: Any, i: int) -> Any:
        """Give frame `i`, shape (row, col), of an array that is indexed as NumPy's are."""
        found = array[self.index(i)]
        return found.T if self.column < self.row else found

    def of_channel(self, chosen: int) -> Layout:
        """Give the layout of another channel."""
        return replace(self, chosen=chosen)


def is_image(shape: Sequence[int], dtype: np.dtype[Any]) -> bool:
    """Whether an array of this shape can hold frames, in contrast to a table or a spectrum."""
    kept = [n for n in shape if n != 1]
    return dtype.kind in "buif" and len(kept) in {2, 3} and min(kept[-2:]) >= MIN_PIXELS


def parse_layout(shape: Sequence[int], dtype: np.dtype[Any], subject: str) -> Layout:
    """Find frames, rows and columns in an array without labels; see `lay_out`."""
    return lay_out([Axis(int(n)) for n in shape], dtype, subject)


def lay_out(
    axes: Sequence[Axis], dtype: np.dtype[Any], subject: str, order: str | None = None
) -> Layout:
    """Find frames, rows, columns and channels among the axes; those of length one are dropped.

    Parameters
    ----------
    axes
        In the order of the array.
    dtype
        Type of its numbers.
    subject
        File, for messages.
    order
        The user's order of the axes, a letter each: ``t`` frames, ``c`` channels, ``y`` rows,
        ``x`` columns; it decides before anything in the file.

    Raises
    ------
    BadInput
        If it is a colour picture, complex, not of numbers, empty, tiny, has other axes, or can be
        read in two ways.

    Examples
    --------
    >>> found = lay_out([Axis(220, "x"), Axis(150, "y")], np.dtype("f4"), "a file")
    >>> found.shape, found.take(np.zeros((220, 150)), 0).shape
    ((150, 220), (150, 220))
    """
    shape = tuple(axis.size for axis in axes)
    _check_numbers(dtype, shape, subject)
    if 0 in shape:
        raise BadInput(
            subject,
            expected="at least one frame",
            got=f"an empty array of shape {shape}",
            todo="Check that the acquisition was saved.",
        )
    kept = [i for i, axis in enumerate(axes) if axis.size != 1]
    notes: list[str] = []
    if order is not None:
        roles = _ordered_by_user(order, axes, kept, subject)
    else:
        roles = _by_labels(axes, kept, dtype, subject, notes)
    return _layout(axes, roles, notes, subject)


def _layout(axes: Sequence[Axis], roles: dict[int, Kind], notes: list[str], subject: str) -> Layout:
    place: dict[Kind, int] = {role: axis for axis, role in roles.items()}
    row, column = place.get("row"), place.get("column")
    pixels = [axes[i].size for i in (row, column) if i is not None]
    if row is None or column is None or min(pixels) < MIN_PIXELS:
        raise BadInput(
            subject,
            expected=f"frames of at least {MIN_PIXELS} x {MIN_PIXELS} pixels",
            got=f"an array of shape {tuple(axis.size for axis in axes)}",
            todo="Check that the file holds images and not spectra, a table or a thumbnail.",
        )
    frame, channel = place.get("frame"), place.get("channel")
    names = axes[channel].labels if channel is not None else ()
    if channel is not None and len(names) != axes[channel].size:
        names = tuple(f"channel {i}" for i in range(axes[channel].size))
    return Layout(
        count=1 if frame is None else axes[frame].size,
        shape=(axes[row].size, axes[column].size),
        ndim=len(axes),
        row=row,
        column=column,
        frame=frame,
        channel=channel,
        channels=names,
        notes=tuple(notes),
    )


def _ordered_by_user(
    order: str, axes: Sequence[Axis], kept: Sequence[int], subject: str
) -> dict[int, Kind]:
    letters = order.strip().lower()
    over = list(range(len(axes))) if len(letters) == len(axes) else list(kept)
    known = set(letters) <= set(_LETTERS) and len(set(letters)) == len(letters)
    if not known or not {"y", "x"} <= set(letters) or len(letters) != len(over):
        raise BadInput(
            f"{subject}, `axes`",
            expected=f"one letter for each of {len(kept)} axes, of {described(axes, kept)}: "
            "y rows, x columns, t frames, c channels",
            got=repr(order),
            todo="Give for instance tyx for frames, rows, columns.",
        )
    return {axis: _LETTERS[letter] for axis, letter in zip(over, letters, strict=True)}


def _by_labels(
    axes: Sequence[Axis],
    kept: Sequence[int],
    dtype: np.dtype[Any],
    subject: str,
    notes: list[str],
) -> dict[int, Kind]:
    """Role of every axis by labels and units, and by order where there are none."""
    roles: dict[int, Kind] = {i: axes[i].role for i in kept}
    named = list(roles.values())
    if "spectrum" in named:
        raise BadInput(
            subject,
            expected="images",
            got=f"spectra: {described(axes, kept)}",
            todo="Give an image made from them, such as the sum over an energy window.",
        )
    if "sample" in named:
        raise colour(
            subject,
            f"{described(axes, kept)}: a colour picture, such as a screenshot",
            "If these are frames, give `axes`, such as yxt.",
        )
    for one in ("row", "column", "channel"):
        if named.count(one) > 1:  # two axes of one name: a datacube, or a name of no meaning
            roles = {i: "" if role == one else role for i, role in roles.items()}
    free = [i for i in kept if not roles[i]]
    if len(free) == 4 and axes[kept[-1]].size in {3, 4} and dtype.itemsize == 1:
        raise colour(subject, f"{described(axes, kept)}: colour pictures, such as screenshots")
    if len(kept) == 3 and len(free) == 3:
        free = _ordered_by_shape(axes, kept, dtype, subject, notes)
    for role in ("column", "row"):  # rows before columns, both after what else is unnamed
        if role not in roles.values() and free:
            roles[free.pop()] = role
    frames = [i for i in kept if roles[i] in {"frame", "depth"}] + free
    if len(frames) > 1 or len(kept) > 4 or (free and roles and _is_reciprocal(axes, roles)):
        raise BadInput(
            subject,
            expected="frames of shape (frame, row, col)",
            got=f"{len(kept)}-dimensional data, {described(axes, kept)}, "
            "such as a 4D-STEM datacube",
            todo="Give an image made from it: sum each diffraction pattern over an annular "
            "(virtual) dark-field detector, or choose one slice. If these are frames and "
            "channels, name them with `axes`, such as tcyx.",
        )
    for i in frames:
        if roles[i] == "depth" or (not roles[i] and axes[i].name):
            notes.append(f"the axis {axes[i].name or 'z'!r} is taken as the frames of a movie")
        roles[i] = "frame"
    return roles


def _is_reciprocal(axes: Sequence[Axis], roles: dict[int, Kind]) -> bool:
    """Whether rows and columns are those of a diffraction pattern, so that more axes are a scan."""
    return any(
        is_reciprocal(normal_unit(axes[i].unit))
        for i, role in roles.items()
        if role in {"row", "column"}
    )


def _ordered_by_shape(
    axes: Sequence[Axis],
    kept: Sequence[int],
    dtype: np.dtype[Any],
    subject: str,
    notes: list[str],
) -> list[int]:
    """Order three axes without labels as (frame, row, col); refuse what can be read in two ways.

    Images are rarely long and narrow. So frames last, (row, col, frame), are recognised where the
    first two axes are equal, or the last is too short for columns.
    """
    first, second, last = (axes[i].size for i in kept)
    frames_last = [kept[2], kept[0], kept[1]]
    if min(first, second) < MIN_PIXELS:
        return list(kept)
    if last in {3, 4} and dtype.itemsize == 1:
        raise colour(
            subject,
            f"shape {(first, second, last)}: a colour picture, such as a screenshot, or {last} "
            "frames of (row, col, frame)",
            "If these are frames, give `axes` yxt.",
        )
    last_is_short = last < MIN_PIXELS or (first == second and last <= first / 3)
    square, other = _elongation(first, second), _elongation(second, last)
    if last_is_short:
        notes.append(
            f"shape {(first, second, last)} without labels: taken as {last} frames of "
            f"{first} x {second}; `axes` tyx reads it the other way"
        )
        return frames_last
    if square * _SQUARER < other:
        raise BadInput(
            subject,
            expected="frames of shape (frame, row, col)",
            got=f"shape {(first, second, last)} without labels: {first} frames of "
            f"{second} x {last}, or {last} frames of {first} x {second}",
            todo="Say which with `axes`: tyx for the first, yxt for the second.",
        )
    return list(kept)


def _elongation(rows: int, columns: int) -> float:
    return max(rows, columns) / min(rows, columns)


def described(axes: Sequence[Axis], kept: Sequence[int]) -> str:
    """Sizes and names of axes in words."""
    names = [axes[i].name for i in kept]
    sizes = tuple(axes[i].size for i in kept)
    return f"shape {sizes}" + (
        f" with axes {', '.join(n or '?' for n in names)}" if any(names) else ""
    )


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


def colour(subject: str, got: str, more: str = "") -> BadInput:
    """Make the error for a colour picture: its values are not proportional to the signal."""
    todo = "Give the file that the microscope saved (.dm4, .emd, .tif ...), not a picture of it."
    return BadInput(
        subject,
        expected="grey-scale data from the detector",
        got=got,
        todo=f"{todo} {more}".strip(),
    )


def array_frame(layout: Layout, array: NDArray[Any], i: int) -> NDArray[Any]:
    """Give frame `i` of an array or of what can be indexed as one, as an array in memory."""
    found = layout.take(array, i)
    # One thread: starting a pool of threads takes longer than loading one frame.
    return np.asarray(
        found.compute(scheduler="synchronous") if hasattr(found, "compute") else found
    )
