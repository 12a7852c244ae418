"""Read frames and their scale from the files of microscopes; frames are read when accessed."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.core import Calibration, Movie, content_hash
from adatom.core.acquisition import common_acquisition
from adatom.core.frame import parse_image
from adatom.errors import BadInput, DamagedFile, FilesDiffer, printable
from adatom.frames.readers.apart import READING
from adatom.frames.readers.arrays import is_array_like, open_array
from adatom.frames.readers.base import readable_suffixes
from adatom.frames.readers.open_file import open_file
from adatom.frames.readers.pixel_size import check_range
from adatom.frames.readers.square import with_square_pixels
from adatom.frames.readers.stack import Stack, as_bad_input
from adatom.frames.readers.zarr_images import is_zarr

Source = Any  # a Path, or what `adatom.frames.readers.arrays.open_array` takes
# Most open files of a movie; the number of file handles of a process is limited.
_KEEP_OPEN = 4


def read(
    paths: str | Path | NDArray[Any] | Sequence[str | Path | NDArray[Any]] | Any,
    *,
    pixel_size_A: float | None = None,
    frames: slice | str | None = None,
    dataset: str | None = None,
    axes: str | None = None,
) -> Movie:
    """Read frames from files or arrays; each frame is read when it is accessed.

    Parameters
    ----------
    paths
        One file or several (joined in natural order: frame2 before frame10), a directory of
        frames of one format, an OME-Zarr directory, or arrays of shape (row, col) or (frame, row,
        col): of NumPy, dask, zarr or h5py, a HyperSpy signal, a sidpy or xarray data set.
    pixel_size_A
        Edge of a pixel in Å; replaces the file's value.
    frames
        Selection of frames: a slice, or text such as ``2:5`` or ``:3,4:``, counted from 0, without
        the number after the colon.
    dataset
        Name (or number from 0) of the image in a file that holds several, or of the channel.
    axes
        Order of the axes, a letter each: ``t`` frames, ``c`` channels, ``y`` rows, ``x`` columns.
        By default labels, units and order in the file decide.

    Returns
    -------
    A movie. Its ``calibration`` is None if neither the file nor the caller gives a scale; its
    ``notes`` list the assumptions. Nothing is unpickled. Rectangular pixels are averaged to square
    ones. Files of other programs' formats are read in a child process, with limits of memory and
    time that follow their size.

    Raises
    ------
    BadInput
        If a file is missing, empty, damaged, not of grey-scale images, without frames or of an
        unknown kind, if its axes can be read in two ways, if its reader takes too long or too much
        memory, if the files differ in shape or scale, or if the scale cannot be right.

    Examples
    --------
    >>> import numpy as np
    >>> movie = read(np.random.default_rng(0).random((3, 32, 32)), pixel_size_A=0.1, frames="1:")
    >>> len(movie), movie[0].shape
    (2, (32, 32))
    """
    if pixel_size_A is not None:
        check_range(Calibration(pixel_size_A).pixel_size_A, "pixel size", given=True)
    sources, names, stacks, damaged = _open_all(*list_sources(paths), dataset, axes)
    _check_same_shape(stacks, names)
    size_A, notes = _scale(stacks, names, pixel_size_A)
    label = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names)} files)"
    counts = tuple(stack.count for stack in stacks)
    chosen = _select(frames, sum(counts), label)
    loader = FrameLoader(tuple(sources), tuple(names), counts, chosen, dataset, axes)
    # A truncated file fails at its last frame: read it now, before anything is written.
    for probe in {0, len(chosen) - 1}:
        loader.raw(probe)
    acquisition, differ = common_acquisition([stack.acquisition for stack in stacks])
    if differ:
        notes += (f"the files differ in {', '.join(differ)}: not taken from them",)
    return Movie(
        load=loader,
        count=len(chosen),
        shape=stacks[0].shape,
        calibration=None if size_A is None else Calibration(size_A),
        source=label,
        fingerprint=content_hash(
            [_digest(s, stack) for s, stack in zip(sources, stacks, strict=True)],
            [*chosen],
            *([dataset or ""] if axes is None else [dataset or "", axes]),
            size_A or 0.0,
        ),
        acquisition=acquisition.with_dose(size_A),
        notes=tuple(printable(note) for note in (*damaged, *notes)),
    )


def prepare_to_read(paths: Sequence[str | Path]) -> None:
    """Start the process that will read these files, where they need one, and do not wait for it."""
    if any(Path(path).suffix.lower() not in {".npy", ".npz"} for path in paths):
        READING.start()


@dataclass
class FrameLoader:
    """Load frame i of a movie from its files; can be sent to other processes.

    Parameters
    ----------
    sources
        Files or arrays, in order.
    names
        Their names, for messages.
    counts
        Number of frames in each source.
    chosen
        Position of every frame of the movie among all frames of the sources.
    dataset
        Name or number of the image in each file.
    axes
        The user's order of the axes.
    """

    sources: tuple[Source, ...]
    names: tuple[str, ...]
    counts: tuple[int, ...]
    chosen: Sequence[int]
    dataset: str | None
    axes: str | None = None
    _opened: dict[int, Stack] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, i: int) -> NDArray[np.float32]:
        """Give frame i, shape (row, col), checked; errors name the file that it came from."""
        which, local = self._locate(i)
        return parse_image(self.raw(i), f"{self.names[which]}, frame {local}")

    def raw(self, i: int) -> NDArray[Any]:
        """Give frame i, shape (row, col), without checks of its values."""
        which, local = self._locate(i)
        subject = f"{self.names[which]}, frame {local}"
        if which not in self._opened:
            while len(self._opened) >= _KEEP_OPEN:
                self._opened.pop(next(iter(self._opened)))
            self._opened[which] = _open(
                self.sources[which], self.names[which], self.dataset, self.axes
            )
        with as_bad_input(
            subject, "a whole frame", "The file is damaged or cut off: copy it again."
        ):
            stack = self._opened[which]
            frame = stack.load(local)
            if np.shape(frame) != stack.shape:
                raise ValueError(f"a frame of shape {np.shape(frame)} in place of {stack.shape}")
            return frame

    def _locate(self, i: int) -> tuple[int, int]:
        ends = list(accumulate(self.counts))
        position = self.chosen[i]
        which = bisect_right(ends, position)
        return which, position - (ends[which] - self.counts[which])

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open files, which cannot be sent to another process."""
        return {**self.__dict__, "_opened": {}}


def list_sources(paths: Any) -> tuple[list[Source], list[str]]:
    """List the files or arrays of a movie in order, with their names; directories are opened.

    Raises
    ------
    BadInput
        If there is nothing to read, or files and arrays are mixed.
    """
    single = isinstance(paths, (str, Path)) or is_array_like(paths)
    items = [paths] if single or not isinstance(paths, Iterable) else list(paths)
    wrong = [i for i in items if not isinstance(i, (str, Path)) and not is_array_like(i)]
    if not items or wrong:
        raise BadInput(
            "frames",
            expected="files or NumPy arrays",
            got=f"a {type(wrong[0]).__name__}" if wrong else "nothing",
            todo="Give at least one file of frames.",
        )
    arrays = [item for item in items if not isinstance(item, (str, Path))]
    if arrays:
        if len(arrays) < len(items):
            raise BadInput(
                "frames",
                expected="files or arrays",
                got="both",
                todo="Read the files first, or give only one kind.",
            )
        return arrays, [f"array {i}" if len(arrays) > 1 else "array" for i in range(len(arrays))]
    files: list[Path] = []
    for item in items:
        path = _expanded(Path(item))
        files += _directory(path) if path.is_dir() and not is_zarr(path) else [path]
    files.sort(key=natural_key)
    return list(files), [str(path) for path in files]


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # a name that starts with ~ and is no user
        return path


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that compares numbers in a name by value: frame2 before frame10."""
    parts = re.split(r"(\d+)", str(path).casefold())
    key = [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p]
    return key, str(path)


def _directory(path: Path) -> list[Path]:
    """Frames in a directory: every readable file, which must all be of one kind."""
    suffixes = readable_suffixes()
    files = [
        f
        for f in path.iterdir()
        if (f.is_file() or is_zarr(f))
        and not f.name.startswith(".")
        and f.suffix.lower() in suffixes
    ]
    kinds = sorted({f.suffix.lower() for f in files})
    if (path / "campaign.toml").is_file():
        raise BadInput(
            str(path),
            expected="a directory of frames",
            got="a campaign directory",
            todo=f"Give its frames, {path / 'frames.zarr'}.",
        )
    if len(kinds) != 1:
        held = ", ".join(f"{sum(f.suffix.lower() == k for f in files)} {k}" for k in kinds)
        raise BadInput(
            str(path),
            expected="a directory with frames of one format",
            got=f"files of several: {held}" if kinds else "no file of a format that can be read",
            todo="Name the files themselves.",
        )
    return files


def _open_all(
    sources: Sequence[Source], names: Sequence[str], dataset: str | None, axes: str | None
) -> tuple[list[Source], list[str], list[Stack], list[str]]:
    """Open every source; of several files, damaged ones are left out and named in a note."""
    opened: list[tuple[Source, str, Stack]] = []
    damaged: list[DamagedFile] = []
    for source, name in zip(sources, names, strict=True):
        try:
            stack = _open(source, name, dataset, axes)
            if len(sources) > 1:
                stack.load(stack.count - 1)  # a file that was cut off fails at its last frame
            opened.append((source, name, stack))
        except DamagedFile as error:
            damaged.append(error)
    if not opened:
        raise damaged[0]
    notes = [f"left out, damaged: {e.subject}: {e.got}" for e in damaged]
    return [s for s, _, _ in opened], [n for _, n, _ in opened], [k for *_, k in opened], notes


def _open(source: Source, name: str, dataset: str | None, axes: str | None) -> Stack:
    if isinstance(source, Path):
        return open_file(source, dataset, axes, apart=READING.open)
    return with_square_pixels(open_array(source, name, dataset, axes), name)


def _check_same_shape(stacks: Sequence[Stack], names: Sequence[str]) -> None:
    for stack, name in zip(stacks, names, strict=True):
        if stack.shape != stacks[0].shape:
            raise FilesDiffer(
                name,
                expected="{} x {} pixels as in {}".format(*stacks[0].shape, names[0]),
                got="{} x {}".format(*stack.shape),
                todo="The frames of one movie have one size: run files of other sizes apart.",
            )


def _scale(
    stacks: Sequence[Stack], names: Sequence[str], given_A: float | None
) -> tuple[float | None, tuple[str, ...]]:
    """Pixel size of the movie in Å, and the assumptions made for it."""
    several = len(stacks) > 1
    notes = [
        f"{name}: {note}" if several else note
        for stack, name in zip(stacks, names, strict=True)
        for note in stack.scale.notes
    ]
    sizes = [(s.scale.pixel_A, n) for s, n in zip(stacks, names, strict=True)]
    known = [(size, name) for size, name in sizes if size is not None]
    if given_A is not None:
        apart = [k for k in known if abs(given_A / k[0] - 1) > 0.02]
        if apart:
            says, where = apart[0]
            notes.append(
                f"pixel size {given_A:.5g} Å as given; {where} says {says:.5g} Å "
                f"({(says / given_A - 1) * 100:+.1f} %)"
            )
        return given_A, tuple(notes)
    for size, name in known:
        check_range(size, name, given=False)
        if abs(size / known[0][0] - 1) > 0.01:
            raise FilesDiffer(
                name,
                expected=f"a pixel size of {known[0][0]:.5g} Å as in {known[0][1]}",
                got=f"{size:.5g} Å",
                todo="The frames of one movie have one scale: run the files apart, or give the "
                "right one for all with `pixel_size_A`.",
            )
    if 0 < len(known) < len(sizes):
        notes.append(f"{len(sizes) - len(known)} files give no scale: that of {known[0][1]} taken")
    return (known[0][0] if known else None), tuple(notes)


def _select(frames: slice | str | None, total: int, label: str) -> Sequence[int]:
    """Positions of the chosen frames among all of them, in order."""
    given = "" if frames is None else str(frames)
    wanted = [slice(None) if frames is None else frames]
    if isinstance(frames, str):
        wanted = [_parse_range(part, frames) for part in frames.split(",")]
    slices = [part for part in wanted if isinstance(part, slice)]
    if any(part.step is not None and part.step < 1 for part in slices):
        raise BadInput("`frames`", expected="a step of 1 or more", got=given, todo="Time runs on.")
    chosen = [range(total)[part] for part in slices]
    if not all(chosen):
        empty = slices[[bool(part) for part in chosen].index(False)]
        start, stop = empty.start or 0, total if empty.stop is None else empty.stop
        raise BadInput(
            "`frames`",
            expected=f"frames among the {total} of {label} (0 to {total - 1})",
            got=f"{start}:{stop}, which is none of them",
            todo="Choose with START:STOP, counted from 0.",
        )
    return chosen[0] if len(chosen) == 1 else sorted({i for part in chosen for i in part})


def _parse_range(part: str, given: str) -> slice:
    match = re.fullmatch(r"\s*(\d{0,18})\s*:\s*(\d{0,18})\s*", part)
    if match is None:
        raise BadInput(
            "`frames`",
            expected="START:STOP, whole numbers from 0, such as 0:10, 5:, :20, or :3,4: without 3",
            got=repr(given),
            todo="STOP itself is left out; leave either side empty for the first or last.",
        )
    return slice(*(int(g) if g else None for g in match.groups()))


def _digest(source: Source, stack: Stack) -> str:
    """Hash the contents of a source, without its name."""
    if isinstance(source, np.ndarray):
        return content_hash(source)
    if not isinstance(source, Path):
        return content_hash(*(stack.load(i) for i in range(stack.count)))
    digest = hashlib.sha256()
    # A TIA .emi file has its pixels in .ser files in the same directory.
    beside = sorted(source.parent.glob(f"{source.stem}_*.ser")) if _is_emi(source) else []
    files = [source, *beside]
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.is_file())
    for path in files:
        if source.is_dir():
            digest.update(str(path.relative_to(source)).encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _is_emi(path: Path) -> bool:
    return path.suffix.lower() == ".emi"
