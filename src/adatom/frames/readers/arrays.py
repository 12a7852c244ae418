"""Arrays of NumPy, dask, zarr and h5py, and signals with axes of HyperSpy, sidpy and xarray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.core.acquisition import UNKNOWN, Acquisition
from adatom.errors import BadInput
from adatom.frames.readers.axes import Axis, Kind, array_frame
from adatom.frames.readers.pixel_size import from_axes
from adatom.frames.readers.recorded import (
    recorded_by_axis,
    recorded_by_hyperspy,
    recorded_in_tree,
)
from adatom.frames.readers.stack import Candidate, Stack, choose_image

_TODO = "Give a NumPy array of shape (row, col) or (frame, row, col), such as numpy.asarray(it)."


def is_array_like(item: object) -> bool:
    """Whether an object is one array or signal, in contrast to a sequence of files or arrays."""
    return _has_array(item) or hasattr(item, "axes_manager") or hasattr(item, "__array__")


def _has_array(item: object) -> bool:
    """Whether it has shape, NumPy's type of numbers, and can be indexed, as dask's arrays have."""
    dtype = getattr(item, "dtype", None)
    return hasattr(item, "shape") and isinstance(dtype, np.dtype) and hasattr(item, "__getitem__")


def open_array(
    item: Any, subject: str, dataset: str | None = None, axes: str | None = None
) -> Stack:
    """Make a stack of frames from an array or a signal; lazy ones stay lazy.

    Parameters
    ----------
    item
        NumPy, dask, zarr or h5py array, HyperSpy signal, sidpy or xarray data set.
    subject
        What it is called in messages.
    dataset
        Name or number of the channel, where it has channels.
    axes
        The user's order of the axes; see `adatom.frames.readers.axes.lay_out`.

    Raises
    ------
    BadInput
        If it is something else, has masked pixels, or holds no frames.
    """
    data, labels = _axes_of(item)
    if not _has_array(data):
        raise BadInput(subject, expected="an array of numbers", got=f"a {_kind(item)}", todo=_TODO)
    masked = int(np.count_nonzero(np.ma.getmaskarray(data))) if np.ma.isMA(data) else 0
    if masked:
        raise BadInput(
            subject,
            expected="an array without masked pixels",
            got=f"{masked} masked of {data.size}",
            todo="Fill them (array.filled(value)), cut them off, or leave those frames out.",
        )
    found = [Candidate("", labels, data.dtype)]
    _, layout = choose_image(found, dataset, axes, subject)
    rows, columns = labels[layout.row], labels[layout.column]
    scale = from_axes((rows.scale, columns.scale), (rows.unit, columns.unit), subject)

    def load(i: int) -> NDArray[Any]:
        return array_frame(layout, data, i)

    recorded = _recorded(item).or_else(recorded_by_axis(labels, layout))
    return Stack(layout.count, layout.shape, load, scale.with_notes(*layout.notes), recorded)


def _recorded(item: Any) -> Acquisition:
    """How a HyperSpy signal, a sidpy or xarray data set was recorded, by its metadata."""
    if hasattr(item, "axes_manager") and hasattr(item, "metadata"):
        return recorded_by_hyperspy(item.metadata.as_dictionary())
    trees = (getattr(item, name, None) for name in ("metadata", "original_metadata", "attrs"))
    found = UNKNOWN
    for tree in trees:
        found = found.or_else(recorded_in_tree(tree))
    return found


def _axes_of(item: Any) -> tuple[Any, tuple[Axis, ...]]:
    """Array of an object, and its axes; none where it is no array."""
    if hasattr(item, "axes_manager"):
        return item.data, _hyperspy_axes(item)
    if not _has_array(item):
        return item, ()
    if hasattr(item, "dims") and hasattr(item, "coords"):
        return item.data, _xarray_axes(item)
    if type(item).__module__.partition(".")[0] == "sidpy":
        return item, _sidpy_axes(item)
    return np.asanyarray(item) if isinstance(item, np.ndarray) else item, tuple(
        Axis(int(n)) for n in item.shape
    )


def _hyperspy_axes(signal: Any) -> tuple[Axis, ...]:
    """Axes of a HyperSpy signal in the order of its data; see `axes_manager._axes`."""
    out = []
    spectra = signal.axes_manager.signal_dimension == 1 and signal.data.ndim > 1
    for axis in sorted(_all_axes(signal.axes_manager), key=lambda a: a.index_in_array):
        name = str(axis.name) if isinstance(axis.name, str) else ""
        unit = axis.units if isinstance(axis.units, str) else None
        plain = Axis(int(axis.size), name, getattr(axis, "scale", None), unit)
        kind: Kind = ""
        if axis.navigate and plain.role in {"", "row", "column"}:
            kind = "frame" if signal.axes_manager.signal_dimension else ""
        elif spectra and not axis.navigate:
            kind = "spectrum"
        out.append(Axis(plain.size, plain.name, plain.scale, plain.unit, kind))
    return tuple(out)


def _all_axes(manager: Any) -> Sequence[Any]:
    return (*manager.navigation_axes, *manager.signal_axes)


def _xarray_axes(item: Any) -> tuple[Axis, ...]:
    out = []
    for size, name in zip(item.shape, item.dims, strict=True):
        values = item.coords.get(name)
        numbers = values is not None and values.dtype.kind in "fiu"
        labels = () if values is None or numbers else tuple(str(v) for v in np.asarray(values))
        step = None
        if numbers and size > 1:
            step = float(values[-1] - values[0]) / (size - 1)
        unit = None if values is None else values.attrs.get("units")
        out.append(Axis(int(size), str(name), step, unit, labels=labels))
    return tuple(out)


def _sidpy_axes(item: Any) -> tuple[Axis, ...]:
    from adatom.frames.readers.hdf5 import SIDPY_KINDS

    out = []
    for i, size in enumerate(item.shape):
        axis = getattr(item, f"dim_{i}")
        kind = SIDPY_KINDS.get(str(axis.dimension_type).rpartition(".")[2], "")
        step = float(axis.values[-1] - axis.values[0]) / (size - 1) if size > 1 else None
        out.append(Axis(int(size), str(axis.name), step, axis.units, kind))
    return tuple(out)


def _kind(item: object) -> str:
    module = type(item).__module__.partition(".")[0]
    return type(item).__name__ if module == "builtins" else f"{module} {type(item).__name__}"
