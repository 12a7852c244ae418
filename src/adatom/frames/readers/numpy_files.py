"""Readers of ``.npy`` and ``.npz`` files; each frame is read when it is accessed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from adatom.errors import BadInput
from adatom.frames.readers.axes import Layout
from adatom.frames.readers.limits import most_unpacked
from adatom.frames.readers.nion import axes_of_sidecar
from adatom.frames.readers.pixel_size import Scale, from_metadata
from adatom.frames.readers.stack import Candidate, Stack, choose_image


class NpyReader:
    """One array of NumPy."""

    name = "npy"
    summary = "One array of NumPy"
    is_bounded = True

    def suffixes(self) -> tuple[str, ...]:
        """Endings that it reads."""
        return (".npy",)

    def read(self, path: Path, dataset: str | None, axes: str | None = None) -> Stack:
        """Open a file; see `adatom.frames.readers.base.Reader`."""
        return _open_npy(path, dataset, axes)


class NpzReader:
    """Named arrays of NumPy, compressed or not."""

    name = "npz"
    summary = "Named arrays of NumPy, compressed or not"
    is_bounded = True

    def suffixes(self) -> tuple[str, ...]:
        """Endings that it reads."""
        return (".npz",)

    def read(self, path: Path, dataset: str | None, axes: str | None = None) -> Stack:
        """Open a file; see `adatom.frames.readers.base.Reader`."""
        return _open_npz(path, dataset, axes)


def _open_npy(path: Path, dataset: str | None, axes: str | None) -> Stack:
    with path.open("rb") as file:
        shape, _, dtype = _npy_header(file)
    only = Candidate("", axes_of_sidecar(path, shape), dtype)
    _, layout = choose_image([only], dataset, axes, str(path))
    # open_memmap never unpickles; np.load would also accept an archive under this name.
    np.lib.format.open_memmap(path, mode="r")  # a file that is too short fails here

    def load(i: int) -> NDArray[Any]:
        return np.array(layout.take(np.lib.format.open_memmap(path, mode="r"), i))

    return Stack(layout.count, layout.shape, load, Scale(notes=layout.notes))


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype of a ``.npy`` stream; leaves it at the first byte of data."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"version {version} of the .npy format")
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _open_npz(path: Path, dataset: str | None, axes: str | None) -> Stack:
    found: list[Candidate] = []
    scalars: dict[str, Any] = {}
    most = most_unpacked(path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            with archive.open(member) as file:
                shape, _, dtype = _npy_header(file)
                name = member.filename.removesuffix(".npy")
                if shape == () and dtype.kind in "if":
                    scalars[name] = np.frombuffer(file.read(dtype.itemsize), dtype)[0]
            # Python's int: a product of NumPy's would overflow where a header lies.
            size = dtype.itemsize
            for n in shape:
                size *= int(n)
            if size > most:
                raise BadInput(
                    str(path),
                    expected=f"arrays of at most {most >> 20} MiB in a file of its size",
                    got=f"{name}, which unpacks to {size >> 20} MiB",
                    todo="If that is right, save the array as .npy.",
                )
            found.append(Candidate(name, axes_of_sidecar(path, shape), dtype))
    number, layout = choose_image(found, dataset, axes, str(path))
    name = found[number].name

    def load(i: int) -> NDArray[Any]:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            return _npy_frame(file, layout, i)

    scale = from_metadata(scalars, layout.shape, str(path)).with_notes(*layout.notes)
    return Stack(layout.count, layout.shape, load, scale)


def _npy_frame(file: IO[bytes], layout: Layout, i: int) -> NDArray[Any]:
    """Read one frame from a ``.npy`` stream; the frames before it are skipped."""
    shape, fortran, dtype = _npy_header(file)
    size = layout.shape[0] * layout.shape[1] * dtype.itemsize
    kept = [axis for axis, n in enumerate(shape) if n != 1]
    in_order = [a for a in (layout.frame, layout.row, layout.column) if a is not None] == kept
    if fortran or not in_order:  # the frames are interleaved, so all must be read
        content = np.frombuffer(file.read(), dtype)
        return np.array(layout.take(content.reshape(shape, order="F" if fortran else "C"), i))
    # Read in pieces of 64 kiB: a seek in an archive would unpack 16 MiB at once.
    before = i * size
    while before > 0:
        skipped = len(file.read(min(before, 1 << 16)))
        before = before - skipped if skipped else 0
    data = file.read(size)
    if len(data) < size:
        raise EOFError(f"frame {i} has {len(data)} bytes of {size}")
    return np.frombuffer(data, dtype).reshape(layout.shape)


NPY, NPZ = NpyReader(), NpzReader()
