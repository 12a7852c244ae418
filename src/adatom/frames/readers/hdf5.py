"""Reader of HDF5 files; each frame is read when it is accessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from adatom.frames.readers.pixel_size import from_metadata
from adatom.frames.readers.stack import Stack, choose, is_image, parse_layout
from adatom.frames.readers.vendor import open_vendor


class Hdf5Reader:
    """Reader of the data sets of an HDF5 file, also one that HyperSpy wrote."""

    name = "hdf5"
    summary = "Data sets of an HDF5 file, also one that HyperSpy wrote"

    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that it reads."""
        return (".h5", ".hdf5")

    def read(self, path: Path, dataset: str | None) -> Stack:
        """Open a file; see `adatom.frames.readers.base.Reader`."""
        return _open_hdf5(path, dataset)


def _open_hdf5(path: Path, dataset: str | None) -> Stack:
    with h5py.File(path) as file:
        if file.attrs.get("file_format") == "HyperSpy":
            return open_vendor(path, dataset, "hspy")
        found: list[h5py.Dataset] = []
        file.visititems(lambda _, x: found.append(x) if isinstance(x, h5py.Dataset) else None)
        arrays = [d for d in found if d.shape is not None and d.dtype.kind in "buifc"]
        images = [d for d in arrays if is_image(d.shape, d.dtype)]
        if dataset is not None:
            images = arrays
        elif not images and len(arrays) == 1:
            images = arrays  # the error message then describes this array
        chosen = images[choose([(d.name, f"{d.shape}") for d in images], dataset, str(path))]
        name = str(chosen.name)
        layout = parse_layout(chosen.shape, chosen.dtype, f"{path}, {name}")
        scale = from_metadata(_hdf5_metadata(chosen), layout.shape, str(path))

    def load(i: int) -> NDArray[Any]:
        with h5py.File(path) as file:
            return np.asarray(file[name][layout.index(i)])

    return Stack(layout.count, layout.shape, load, scale)


def _hdf5_metadata(chosen: h5py.Dataset) -> dict[str, Any]:
    """Attributes of a dataset, JSON in them or in a ``metadata`` dataset beside it."""
    out: dict[str, Any] = dict(chosen.attrs)
    beside = chosen.parent.get("metadata")
    texts = dict(out)
    if isinstance(beside, h5py.Dataset) and beside.shape == ():
        texts["metadata beside"] = beside[()]
    for key, value in texts.items():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(text, str) and text.lstrip().startswith("{"):
            try:
                out[key] = json.loads(text)
            except ValueError:
                continue
    return out


def published_defects(path: Path, names: list[str]) -> NDArray[np.float64]:
    """Read the Si atoms of the published defect library's labels.

    Parameters
    ----------
    path
        A file of the library.
    names
        Data sets of labels in it: rows of x and y in pixels and the element.

    Returns
    -------
    Positions of the Si atoms, x and y in pixels, shape (atom, 2).
    """
    with h5py.File(path) as file:
        rows = [row for name in names for row in file[name][:].tolist()]
    silicon = [[float(x), float(y)] for x, y, element in rows if element == b"Si"]
    return np.array(silicon, dtype=np.float64).reshape(-1, 2)


HDF5 = Hdf5Reader()
