"""Axes as Nion Swift describes them, in the JSON beside an array or inside an HDF5 file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adatom.frames.readers.axes import Axis, Kind


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """Read the JSON file of the same name beside a file.

    Returns
    -------
    Its table; empty if there is no such file, None if it cannot be read.
    """
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return {}
    try:
        tree = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else {}


def axes_of_sidecar(path: Path, shape: Sequence[int]) -> tuple[Axis, ...]:
    """Axes of an array file by the JSON beside it; without labels if there is none.

    Parameters
    ----------
    path
        The array file.
    shape
        Shape of the array.
    """
    return nion_axes(read_sidecar(path) or {}, shape)


def nion_axes(tree: Mapping[str, Any], shape: Sequence[int]) -> tuple[Axis, ...]:
    """Axes of an array by Nion Swift's description: sequence, collection, datum.

    A sequence is a movie. A collection is a set of images that are no movie (detectors, a tableau),
    or a scan; its datum has two dimensions for images and one for spectra.

    Parameters
    ----------
    tree
        The description; without its keys the axes have no labels.
    shape
        Shape of the array.

    Examples
    --------
    >>> tree = {"is_sequence": False, "collection_dimension_count": 1, "datum_dimension_count": 2}
    >>> [axis.kind for axis in nion_axes(tree, (4, 64, 64))]
    ['channel', 'row', 'column']
    """
    plain = tuple(Axis(int(n)) for n in shape)
    try:
        sequence = int(bool(tree.get("is_sequence", False)))
        collection = int(tree.get("collection_dimension_count", 0))
        datum = int(tree["datum_dimension_count"])
    except (KeyError, TypeError, ValueError):
        return plain
    if sequence + collection + datum != len(shape):
        return plain
    image: tuple[Kind, ...] = ("row", "column")
    inner: tuple[Kind, ...] = image if datum == 2 else _several("spectrum", datum)
    outer = _several("channel", collection)
    if collection == 2 and not datum:  # one number for each place of a scan: an image
        outer, inner = image, ()
    elif collection == 2 and datum == 2:  # a diffraction pattern for each place of a scan
        outer = ("frame", "frame")
    kinds = _several("frame", sequence) + outer + inner
    return tuple(
        Axis(int(n), name="collection" if kind == "channel" else "", kind=kind)
        for n, kind in zip(shape, kinds, strict=True)
    )


def _several(kind: Kind, count: int) -> tuple[Kind, ...]:
    return (kind,) * count
