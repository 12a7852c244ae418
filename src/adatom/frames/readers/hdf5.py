"""Reader of HDF5 files; each frame is read when it is accessed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adatom.core import Acquisition
from adatom.frames.readers.axes import Axis, Kind, Layout
from adatom.frames.readers.hdf5_links import check_self_contained
from adatom.frames.readers.nion import nion_axes
from adatom.frames.readers.pixel_size import Scale, from_axes, from_metadata
from adatom.frames.readers.recorded import recorded_by_axis, recorded_in_tree
from adatom.frames.readers.stack import Candidate, Stack, choose_image
from adatom.frames.readers.vendor import open_vendor

if TYPE_CHECKING:
    import h5py

# What pyNSID (sidpy) says of a dimension, and the kind of axis that it means.
SIDPY_KINDS: dict[str, Kind] = {
    "TEMPORAL": "frame", "SPECTRAL": "spectrum", "CHANNEL": "channel", "UNKNOWN": "", "SPATIAL": "",
}  # fmt: skip
# py4DSTEM and emdfile call the rows of a scan Rx: their first axis, top to bottom.
_EMDFILE: dict[str, Kind] = {"Rx": "row", "Ry": "column", "_labels_": "channel"}

_DEEPEST = 4  # levels of groups with metadata


class Hdf5Reader:
    """Reader of the data sets of an HDF5 file, also one that HyperSpy wrote."""

    name = "hdf5"
    summary = "Data sets of an HDF5 file, also one that HyperSpy wrote"

    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that it reads."""
        return (".h5", ".hdf5")

    def read(self, path: Path, dataset: str | None, axes: str | None = None) -> Stack:
        """Open a file; see `adatom.frames.readers.base.Reader`."""
        return _open_hdf5(path, dataset, axes)


def _open_hdf5(path: Path, dataset: str | None, axes: str | None) -> Stack:
    import h5py

    check_self_contained(path)
    with h5py.File(path) as file:
        if file.attrs.get("file_format") == "HyperSpy":
            return open_vendor(path, dataset, axes, reader="hspy")
        found: list[h5py.Dataset] = []
        file.visititems(lambda _, x: found.append(x) if isinstance(x, h5py.Dataset) else None)
        arrays = [d for d in found if d.shape is not None and d.dtype.kind in "buifc"]
        candidates = [Candidate(str(d.name).strip("/"), _axes_of(d), d.dtype) for d in arrays]
        number, layout = choose_image(candidates, dataset, axes, str(path))
        name = str(arrays[number].name)
        scale = _scale_of(arrays[number], candidates[number].axes, layout, path)
        recorded = _recorded(arrays[number]).or_else(
            recorded_by_axis(candidates[number].axes, layout)
        )

    def load(i: int) -> NDArray[Any]:
        with h5py.File(path) as file:
            return np.asarray(layout.take(file[name], i))

    turned = () if layout.row < layout.column else (_turned(candidates[number].axes),)
    scale = scale.with_notes(*turned, *layout.notes)
    return Stack(layout.count, layout.shape, load, scale, recorded)


def _turned(axes: Sequence[Axis]) -> str:
    names = ", ".join(axis.name or "?" for axis in axes)
    return f"the file's axes are {names}: x is read as columns, y as rows"


def _axes_of(dataset: h5py.Dataset) -> tuple[Axis, ...]:
    """Axes of a data set by dimension scales, arrays beside it, NeXus, or Nion Swift."""
    shape = dataset.shape
    for found in (_dimension_scales(dataset), _emd_dimensions(dataset), _nexus_axes(dataset)):
        if any(axis.name or axis.kind for axis in found):
            return found
    for value in _hdf5_metadata(dataset).values():
        if isinstance(value, dict) and "datum_dimension_count" in value:
            return nion_axes(value, shape)
    return tuple(Axis(int(n)) for n in shape)


def _dimension_scales(dataset: h5py.Dataset) -> tuple[Axis, ...]:
    """Axes by HDF5's dimension scales, as pyNSID and netCDF write them."""
    out = []
    for size, dimension in zip(dataset.shape, dataset.dims, strict=True):
        values = dimension[0] if len(dimension) else None
        about = {} if values is None else dict(values.attrs)
        name = dimension.label or (
            str(values.name).rpartition("/")[2] if values is not None else ""
        )
        out.append(
            Axis(
                int(size),
                name=name,
                scale=None if values is None else _step(values),
                unit=about.get("units"),
                kind=SIDPY_KINDS.get(_text(about.get("dimension_type")).rpartition(".")[2], ""),
            )
        )
    return tuple(out)


def _emd_dimensions(dataset: h5py.Dataset) -> tuple[Axis, ...]:
    """Axes by the data sets ``dim0``, ``dim1`` ... in the group of an EMD file."""
    first = 0 if "dim0" in dataset.parent else 1
    beside = [dataset.parent.get(f"dim{first + i}") for i in range(dataset.ndim)]
    if not all(_is_array(one) for one in beside):
        return ()
    out = []
    for size, values in zip(dataset.shape, beside, strict=True):
        name = _text(values.attrs.get("name"))
        labels: tuple[str, ...] = ()
        if name == "_labels_":
            labels = tuple(_text(v) for v in values[: int(size)])
        numbers = values.dtype.kind in "fiu"
        out.append(
            Axis(
                int(size),
                name="labels" if name == "_labels_" else name,
                scale=_step(values) if numbers else None,
                unit=values.attrs.get("units"),
                kind=_EMDFILE.get(name, ""),
                labels=labels,
            )
        )
    return tuple(out)


def _nexus_axes(dataset: h5py.Dataset) -> tuple[Axis, ...]:
    """Axes by the attribute ``axes`` of a NeXus group."""
    names = dataset.parent.attrs.get("axes")
    if not isinstance(names, np.ndarray) or len(names) != dataset.ndim:
        return ()
    out = []
    for size, raw in zip(dataset.shape, names, strict=True):
        values = dataset.parent.get(_text(raw))
        known = _is_array(values) and values.dtype.kind in "fiu"
        out.append(
            Axis(
                int(size),
                name=_text(raw).strip("."),
                scale=_step(values) if known else None,
                unit=values.attrs.get("units") if known else None,
            )
        )
    return tuple(out)


def _scale_of(dataset: h5py.Dataset, axes: Sequence[Axis], layout: Layout, path: Path) -> Scale:
    rows, columns = axes[layout.row], axes[layout.column]
    if rows.scale is not None and columns.scale is not None:
        found = from_axes((rows.scale, columns.scale), (rows.unit, columns.unit), str(path))
        if found.pixel_A is not None:
            return found
    return from_metadata(_hdf5_metadata(dataset), layout.shape, str(path))


def _is_array(found: Any) -> bool:
    import h5py

    return isinstance(found, h5py.Dataset) and found.ndim == 1 and len(found) > 0


def _step(values: h5py.Dataset) -> float | None:
    """Step of the values of an axis; None if there are fewer than two."""
    if values.ndim != 1 or values.shape[0] < 2 or values.dtype.kind not in "fiu":
        return None
    last = min(values.shape[0], 1 << 20) - 1
    step: float = float(values[last] - values[0]) / last
    return step


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _hdf5_metadata(chosen: h5py.Dataset) -> dict[str, Any]:
    """Attributes of a dataset, JSON in them or in a ``metadata`` dataset beside it."""
    import h5py

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
            except (ValueError, RecursionError):
                continue
    return out


def _recorded(chosen: h5py.Dataset) -> Acquisition:
    """How the frames were recorded: attributes and JSON, and pyNSID's groups of metadata beside."""
    import h5py

    found = recorded_in_tree(_hdf5_metadata(chosen))
    for around in (chosen.parent, chosen.parent.parent):
        for name in ("metadata", "original_metadata", "microscope"):
            group = around.get(name)
            if isinstance(group, h5py.Group):
                found = found.or_else(recorded_in_tree(_attributes(group)))
    return found


def _attributes(group: h5py.Group, depth: int = 0) -> dict[str, Any]:
    """Attributes of a group and of the groups in it; pyNSID joins nested names by a hyphen."""
    import h5py

    out: dict[str, Any] = {str(k).rpartition("-")[2]: v for k, v in group.attrs.items()}
    if depth < _DEEPEST:
        for name, inside in group.items():
            if isinstance(inside, h5py.Group):
                out[str(name)] = _attributes(inside, depth + 1)
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
    import h5py

    with h5py.File(path) as file:
        rows = [row for name in names for row in file[name][:].tolist()]
    silicon = [[float(x), float(y)] for x, y, element in rows if element == b"Si"]
    return np.array(silicon, dtype=np.float64).reshape(-1, 2)


HDF5 = Hdf5Reader()
