"""Reader of zarr directories: OME-Zarr of any version, adatom's own frames, plain arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adatom.frames.readers.axes import Axis, Kind
from adatom.frames.readers.pixel_size import from_axes
from adatom.frames.readers.recorded import recorded_by_axis
from adatom.frames.readers.stack import Candidate, Stack, choose_image

if TYPE_CHECKING:
    import zarr

_MARKS = ("zarr.json", ".zgroup", ".zarray")  # files that make a directory a zarr store
_DEEPEST = 3  # levels of groups in which images are looked for: plate, well, field
# Types of axes by the OME-Zarr specification (https://ngff.openmicroscopy.org, axes).
_TYPES: dict[str, Kind] = {"time": "frame", "channel": "channel", "space": "", "": ""}


class ZarrReader:
    """Directories of zarr arrays with OME's metadata or without."""

    name = "zarr"
    summary = "OME-Zarr directories, also a campaign's frames.zarr, and plain zarr arrays"

    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the directories that it reads."""
        return (".zarr",)

    def read(self, path: Path, dataset: str | None, axes: str | None = None) -> Stack:
        """Open a directory; see `adatom.frames.readers.base.Reader`."""
        return _open_zarr(path, dataset, axes)


def is_zarr(path: Path) -> bool:
    """Whether a directory is a zarr store, whatever its name."""
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)


def _open_zarr(path: Path, dataset: str | None, order: str | None) -> Stack:
    import zarr
    from zarr.storage import LocalStore

    # A store, not text: text with "::" or "://" in it would be taken for an address.
    root = zarr.open(LocalStore(path, read_only=True), mode="r")
    images = list(_images(root))
    found = [Candidate(name, axes, array.dtype) for name, array, axes in images]
    number, layout = choose_image(found, dataset, order, str(path))
    _, array, axes = images[number]
    rows, columns = axes[layout.row], axes[layout.column]
    scale = from_axes((rows.scale, columns.scale), (rows.unit, columns.unit), str(path))

    def load(i: int) -> NDArray[Any]:
        return np.asarray(layout.take(array, i))

    recorded = recorded_by_axis(axes, layout)
    return Stack(layout.count, layout.shape, load, scale.with_notes(*layout.notes), recorded)


def _images(
    root: zarr.Group | zarr.Array[Any],
) -> Iterator[tuple[str, zarr.Array[Any], tuple[Axis, ...]]]:
    """Images in a store: the finest level of each OME image, and arrays of no OME image."""
    import zarr

    if isinstance(root, zarr.Array):
        yield "", root, _plain_axes(root)
        return
    waiting = [("", root, 0)]
    while waiting:
        name, group, depth = waiting.pop(0)
        attributes = dict(group.attrs)
        about: Any = attributes.get("ome", attributes)
        if isinstance(about, Mapping) and about.get("multiscales"):
            yield from _ome_images(name, group, about)
            continue
        for key in sorted(group.keys()):
            inside = group[key]
            full = f"{name}/{key}".strip("/")
            if isinstance(inside, zarr.Array):
                yield full, inside, _plain_axes(inside)
            elif depth < _DEEPEST:
                waiting.append((full, inside, depth + 1))


def _ome_images(
    name: str, group: zarr.Group, about: Mapping[str, Any]
) -> Iterator[tuple[str, zarr.Array[Any], tuple[Axis, ...]]]:
    labels = tuple(str(c.get("label", "")) for c in about.get("omero", {}).get("channels", ()))
    several = list(about["multiscales"])
    for one in several:
        finest = one["datasets"][0]
        array: Any = group[str(finest["path"])]
        scales = _scales(one, array.ndim) * _scales(finest, array.ndim)
        axes = one.get("axes") or list("tczyx")[-array.ndim :]
        own = str(one.get("name") or "") if len(several) > 1 else ""
        yield (
            f"{name}/{own}".strip("/"),
            array,
            tuple(
                _ome_axis(int(n), axis, float(scale), labels)
                for n, axis, scale in zip(array.shape, axes, scales, strict=True)
            ),
        )


def _ome_axis(size: int, axis: Any, scale: float, labels: tuple[str, ...]) -> Axis:
    about = axis if isinstance(axis, Mapping) else {"name": axis}
    name = str(about.get("name") or "")
    kind = _TYPES.get(str(about.get("type") or ""), "")
    unit = about.get("unit")
    is_channel = kind == "channel" or (not kind and name == "c")
    return Axis(size, name, scale, unit, kind, labels if is_channel else ())


def _scales(level: Mapping[str, Any], ndim: int) -> NDArray[np.float64]:
    for step in level.get("coordinateTransformations") or ():
        if step.get("type") == "scale":
            return np.asarray(step["scale"], dtype=np.float64)
    return np.ones(ndim)


def _plain_axes(array: zarr.Array[Any]) -> tuple[Axis, ...]:
    """Axes by zarr's dimension names, or those that xarray writes."""
    names: Any = getattr(array.metadata, "dimension_names", None)
    names = names or dict(array.attrs).get("_ARRAY_DIMENSIONS") or [""] * array.ndim
    return tuple(Axis(int(n), str(name or "")) for n, name in zip(array.shape, names, strict=True))


ZARR = ZarrReader()
