"""Conformance of a reader: the right frames in Å, one at a time, and damage told in words."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.conformance.expect import expect, expect_refused
from adatom.errors import BadInput
from adatom.frames.readers.base import Reader
from adatom.frames.readers.open_file import open_with
from adatom.frames.readers.stack import Stack, as_bad_input


def check_reader(
    reader: Reader,
    path: Path,
    frames: NDArray[Any],
    pixel_size_A: float | None,
    *,
    dataset: str | None = None,
) -> None:
    """Check that a reader gives the frames of a file as they are.

    Number, shape and values of the frames are right, rows are rows, and the pixel size is in Å;
    opening a movie holds no frame of it in memory, and reading one holds few; a file that was cut
    off, or overwritten with noise, is refused with `BadInput` and no other error.

    Parameters
    ----------
    reader
        What the entry point names.
    path
        A file of its format, or a directory.
    frames
        What the file holds, shape (frame, row, col). Rows and columns differ in number. With eight
        frames or more, of 100 kB or more each, laziness is checked too.
    pixel_size_A
        Pixel size that the file gives, Å; None for a format that gives none.
    dataset
        Which image of the file.

    Raises
    ------
    AssertionError
        At the first thing that is wrong: what was expected, what came.
    BadInput
        If `frames` cannot show whether the axes are right.

    Examples
    --------
    >>> from adatom.frames.readers.base import find_reader
    >>> frames = np.random.default_rng(0).random((2, 20, 30))
    >>> with TemporaryDirectory() as directory:
    ...     path = Path(directory) / "movie.npy"
    ...     np.save(path, frames)
    ...     check_reader(find_reader(".npy")[0], path, frames, None)
    """
    if frames.ndim != 3 or frames.shape[1] == frames.shape[2]:
        raise BadInput(
            "frames of check_reader",
            expected="shape (frame, row, col) with rows and columns that differ in number",
            got=f"shape {frames.shape}",
            todo="Give such a file.",
        )
    expect(isinstance(reader, Reader), "reader", expected="a Reader", got=type(reader).__name__)
    name, suffixes = reader.name, reader.suffixes()
    good = all(s.startswith(".") and s == s.lower() for s in suffixes)
    expect(good and suffixes, name, expected="lower-case endings with the dot", got=suffixes)
    expect(path.suffix.lower() in suffixes, name, expected=f"{path.suffix} claimed", got=suffixes)
    stack = _check_memory(reader, path, frames, dataset)
    expect(stack.count == len(frames), name, expected=f"{len(frames)} frames", got=stack.count)
    shape = frames.shape[1:]
    expect(stack.shape == shape, name, expected=f"{shape} rows and columns", got=stack.shape)
    for i in (len(frames) - 1, 0, len(frames) // 2):  # in any order
        frame = np.asarray(stack.load(i))
        expect(frame.shape == shape, f"{name}, frame {i}", expected=str(shape), got=frame.shape)
        same = np.allclose(frame, frames[i], rtol=1e-5, atol=0.0)
        expect(same, f"{name}, frame {i}", expected="the values of the file", got="others")
    size = stack.scale.pixel_A
    if pixel_size_A is None:
        expect(size is None, name, expected="no pixel size", got=size)
    else:
        right = size is not None and abs(size / pixel_size_A - 1.0) < 1e-3
        expect(right, f"{name}: pixel size", expected=f"{pixel_size_A:g} Å", got=size)
    _check_damage(reader, path, dataset)


def _check_memory(reader: Reader, path: Path, frames: NDArray[Any], dataset: str | None) -> Stack:
    """Open the file; the memory for it is far less than the movie would take."""
    open_with(reader, path, dataset).load(0)  # libraries that it imports are not to be measured
    one = frames[0].nbytes
    tracemalloc.start()
    try:
        stack = open_with(reader, path, dataset)
        opened = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        stack.load(0)
        loaded = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if len(frames) >= 8 and one >= 100_000:
        limit = len(frames) * one // 2
        few = f"less than {limit} bytes, half of the movie"
        expect(opened < limit, f"{reader.name}: to open", expected=few, got=f"{opened} bytes")
        expect(loaded < limit, f"{reader.name}: to read one", expected=few, got=f"{loaded} bytes")
    return stack


def _check_damage(reader: Reader, path: Path, dataset: str | None) -> None:
    def read_all(damaged: Path) -> None:
        stack = open_with(reader, damaged, dataset)
        with as_bad_input(str(damaged), "a whole frame", "Copy the file again."):
            for i in range(stack.count):
                stack.load(i)

    rng = np.random.default_rng(0)
    for what in ("cut off", "of noise"):
        with TemporaryDirectory() as directory:
            damaged = Path(directory) / f"damaged{path.suffix}"
            copy = shutil.copytree if path.is_dir() else shutil.copyfile
            copy(path, damaged)
            files = [damaged, *damaged.rglob("*")]  # a directory of zarr has many
            for file in filter(Path.is_file, files):
                whole = file.read_bytes()
                half, noise = whole[: len(whole) // 2], rng.bytes(min(len(whole), 4096))
                file.write_bytes(half if what == "cut off" else noise)
            expect_refused(lambda p=damaged: read_all(p), f"{reader.name}: a file {what}")  # type: ignore[misc]
