"""Readers of ``.npy`` and ``.npz`` files; each frame is read when it is accessed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from adatom.errors import BadInput
from adatom.frames.readers.pixel_size import Scale, from_metadata
from adatom.frames.readers.stack import Layout, Stack, choose, is_image, parse_layout


class NpyReader:
    """One array of NumPy."""

    name = "npy"
    summary = "One array of NumPy"

    def suffixes(self) -> tuple[str, ...]:
        """Endings that it reads."""
        return (".npy",)

    def read(self, path: Path, dataset: str | None) -> Stack:
        """Open a file; see `adatom.frames.readers.base.Reader`."""
        return _open_npy(path, dataset)


class NpzReader:
    """Named arrays of NumPy, compressed or not."""

    name = "npz"
    summary = "Named arrays of NumPy, compressed or not"

    def suffixes(self) -> tuple[str, ...]:
        """Endings that it reads."""
        return (".npz",)

    def read(self, path: Path, dataset: str | None) -> Stack:
        """Open a file; see `adatom.frames.readers.base.Reader`."""
        return _open_npz(path, dataset)


def _open_npy(path: Path, dataset: str | None) -> Stack:
    _no_dataset(path, dataset)
    with path.open("rb") as file:
        shape, _, dtype = _npy_header(file)
    layout = parse_layout(shape, dtype, str(path))
    # open_memmap never unpickles; np.load would also accept an archive under this name.
    np.lib.format.open_memmap(path, mode="r")  # a file that is too short fails here

    def load(i: int) -> NDArray[Any]:
        return np.array(np.lib.format.open_memmap(path, mode="r")[layout.index(i)])

    return Stack(layout.count, layout.shape, load, Scale())


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


def _open_npz(path: Path, dataset: str | None) -> Stack:
    headers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    scalars: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if not member.endswith(".npy"):
                continue
            with archive.open(member) as file:
                shape, _, dtype = _npy_header(file)
                headers[member.removesuffix(".npy")] = shape, dtype
                if shape == () and dtype.kind in "if":
                    scalars[member.removesuffix(".npy")] = np.frombuffer(file.read(), dtype)[0]
    names = [n for n, (shape, dtype) in headers.items() if n == dataset or is_image(shape, dtype)]
    if not names and len(headers) == 1:
        names = list(headers)  # the error message then describes this array
    name = names[choose([(n, f"{headers[n][0]}") for n in names], dataset, str(path))]
    layout = parse_layout(*headers[name], f"{path}, {name}")

    def load(i: int) -> NDArray[Any]:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            return _npy_frame(file, layout, i)

    scale = from_metadata(scalars, layout.shape, str(path))
    return Stack(layout.count, layout.shape, load, scale)


def _npy_frame(file: IO[bytes], layout: Layout, i: int) -> NDArray[Any]:
    """Read one frame from a ``.npy`` stream; the frames before it are skipped."""
    shape, fortran, dtype = _npy_header(file)
    if fortran:  # the frames are interleaved, so all must be read
        everything = np.frombuffer(file.read(), dtype).reshape(shape, order="F")
        return np.array(everything[layout.index(i)])
    size = layout.shape[0] * layout.shape[1] * dtype.itemsize
    # Read in pieces of 64 kiB: a seek in an archive would unpack 16 MiB at once.
    before = i * size
    while before > 0:
        skipped = len(file.read(min(before, 1 << 16)))
        before = before - skipped if skipped else 0
    data = file.read(size)
    if len(data) < size:
        raise EOFError(f"frame {i} has {len(data)} bytes of {size}")
    return np.frombuffer(data, dtype).reshape(layout.shape)


def _no_dataset(path: Path, dataset: str | None) -> None:
    if dataset is not None:
        raise BadInput(
            str(path),
            expected="a file with named datasets for `dataset`",
            got=f"a {path.suffix} file, which holds one array",
            todo="Leave `dataset` out.",
        )


NPY, NPZ = NpyReader(), NpzReader()
