"""Read frames and their scale from the files of microscopes; frames are read when accessed."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.core import Calibration, Movie, content_hash
from adatom.core.frame import parse_image
from adatom.errors import BadInput
from adatom.frames.readers.base import readable_suffixes
from adatom.frames.readers.open_file import open_array, open_file
from adatom.frames.readers.pixel_size import check_range
from adatom.frames.readers.stack import Stack, as_bad_input

Source = Path | NDArray[Any]
# Most open files of a movie; the number of file handles of a process is limited.
_KEEP_OPEN = 4


def read(
    paths: str | Path | NDArray[Any] | Sequence[str | Path | NDArray[Any]],
    *,
    pixel_size_A: float | None = None,
    frames: slice | str | None = None,
    dataset: str | None = None,
) -> Movie:
    """Read frames from files or arrays; each frame is read when it is accessed.

    Parameters
    ----------
    paths
        One file or several (joined in natural order: frame2 before frame10), a directory of
        frames of one format, or arrays of shape (row, col) or (frame, row, col).
    pixel_size_A
        Edge of a pixel in Å; replaces the file's value.
    frames
        Selection of frames: a slice, or text ``START:STOP`` counted from 0, without STOP itself.
    dataset
        Name (or number from 0) of the image in a file that holds several.

    Returns
    -------
    A movie. Its ``calibration`` is None if neither the file nor the caller gives a scale; its
    ``notes`` list the assumptions. Nothing is unpickled.

    Raises
    ------
    BadInput
        If a file is missing, empty, damaged, not of grey-scale images, without frames or of an
        unknown kind, if the files differ in shape or scale, or if the scale cannot be right.

    Examples
    --------
    >>> import numpy as np
    >>> movie = read(np.random.default_rng(0).random((3, 32, 32)), pixel_size_A=0.1, frames="1:")
    >>> len(movie), movie[0].shape
    (2, (32, 32))
    """
    if pixel_size_A is not None:
        check_range(Calibration(pixel_size_A).pixel_size_A, "pixel size", given=True)
    sources, names = _sources(paths)
    stacks = [_open(s, n, dataset) for s, n in zip(sources, names, strict=True)]
    _check_same_shape(stacks, names)
    size_A, notes = _scale(stacks, names, pixel_size_A)
    label = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names)} files)"
    counts = tuple(stack.count for stack in stacks)
    chosen = _select(frames, sum(counts), label)
    loader = FrameLoader(tuple(sources), tuple(names), counts, chosen, dataset)
    # A truncated file fails at its last frame: read it now, before anything is written.
    for probe in {0, len(chosen) - 1}:
        loader.raw(probe)
    doses = {stack.dose_per_A2 for stack in stacks}
    return Movie(
        load=loader,
        count=len(chosen),
        shape=stacks[0].shape,
        calibration=None if size_A is None else Calibration(size_A),
        source=label,
        fingerprint=content_hash(
            [_digest(s) for s in sources], list(chosen), dataset or "", size_A or 0.0
        ),
        dose_per_A2=doses.pop() if len(doses) == 1 else None,
        notes=notes,
    )


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
    """

    sources: tuple[Source, ...]
    names: tuple[str, ...]
    counts: tuple[int, ...]
    chosen: range
    dataset: str | None
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
            self._opened[which] = _open(self.sources[which], self.names[which], self.dataset)
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


def _sources(
    paths: str | Path | NDArray[Any] | Sequence[str | Path | NDArray[Any]],
) -> tuple[list[Source], list[str]]:
    items: list[Any]
    items = [paths] if isinstance(paths, (str, Path, np.ndarray)) else list(paths)
    wrong = [type(item).__name__ for item in items if not isinstance(item, (str, Path, np.ndarray))]
    if not items or wrong:
        raise BadInput(
            "frames",
            expected="files or NumPy arrays",
            got=f"a {wrong[0]}" if wrong else "nothing",
            todo="Give at least one file of frames.",
        )
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    if arrays:
        if len(arrays) < len(items):
            raise BadInput(
                "frames",
                expected="files or arrays",
                got="both",
                todo="Read the files first, or give only one kind.",
            )
        return list(arrays), [
            f"array {i}" if len(arrays) > 1 else "array" for i in range(len(arrays))
        ]
    files: list[Path] = []
    for item in items:
        path = Path(item).expanduser()
        files += _directory(path) if path.is_dir() else [path]
    files.sort(key=natural_key)
    return list(files), [str(path) for path in files]


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
        if f.is_file() and not f.name.startswith(".") and f.suffix.lower() in suffixes
    ]
    kinds = sorted({f.suffix.lower() for f in files})
    if len(kinds) != 1:
        held = ", ".join(f"{sum(f.suffix.lower() == k for f in files)} {k}" for k in kinds)
        raise BadInput(
            str(path),
            expected="a directory with frames of one format",
            got=f"files of several: {held}" if kinds else "no file of a format that can be read",
            todo="Name the files themselves.",
        )
    return files


def _open(source: Source, name: str, dataset: str | None) -> Stack:
    if isinstance(source, np.ndarray):
        return open_array(source, name)
    return open_file(source, dataset)


def _check_same_shape(stacks: Sequence[Stack], names: Sequence[str]) -> None:
    for stack, name in zip(stacks, names, strict=True):
        if stack.shape != stacks[0].shape:
            raise BadInput(
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
            raise BadInput(
                name,
                expected=f"a pixel size of {known[0][0]:.5g} Å as in {known[0][1]}",
                got=f"{size:.5g} Å",
                todo="The frames of one movie have one scale: run the files apart, or give the "
                "right one for all with `pixel_size_A`.",
            )
    if 0 < len(known) < len(sizes):
        notes.append(f"{len(sizes) - len(known)} files give no scale: that of {known[0][1]} taken")
    return (known[0][0] if known else None), tuple(notes)


def _select(frames: slice | str | None, total: int, label: str) -> range:
    """Positions of the chosen frames among all of them."""
    wanted = slice(None) if frames is None else frames
    if isinstance(wanted, str):
        match = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", wanted)
        if match is None:
            raise BadInput(
                "`frames`",
                expected="START:STOP, whole numbers from 0, such as 0:10, 5: or :20",
                got=repr(wanted),
                todo="STOP itself is left out; leave either side empty for the first or last.",
            )
        wanted = slice(*(int(g) if g else None for g in match.groups()))
    if wanted.step is not None and wanted.step < 1:
        raise BadInput(
            "`frames`", expected="a step of 1 or more", got=str(wanted.step), todo="Time runs on."
        )
    chosen = range(total)[wanted]
    if not chosen:
        start, stop = wanted.start or 0, total if wanted.stop is None else wanted.stop
        raise BadInput(
            "`frames`",
            expected=f"frames among the {total} of {label} (0 to {total - 1})",
            got=f"{start}:{stop}, which is none of them",
            todo="Choose with START:STOP, counted from 0.",
        )
    return chosen


def _digest(source: Source) -> str:
    """Hash the contents of a source, without its name."""
    if isinstance(source, np.ndarray):
        return content_hash(source)
    digest = hashlib.sha256()
    # A TIA .emi file has its pixels in .ser files in the same directory.
    beside = sorted(source.parent.glob(f"{source.stem}_*.ser")) if _is_emi(source) else []
    for path in [source, *beside]:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _is_emi(path: Path) -> bool:
    return path.suffix.lower() == ".emi"
