"""Vendor files by rosettasciio: Gatan, Velox, TIA, NCEM, HyperSpy, MRC, pictures and more."""

from __future__ import annotations

import importlib
import logging
import struct
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.errors import BadInput
from adatom.frames.readers.axes import Axis, Kind, array_frame, colour
from adatom.frames.readers.hdf5_links import check_self_contained
from adatom.frames.readers.pixel_size import Scale, from_axes
from adatom.frames.readers.recorded import recorded_by_axis, recorded_in_vendor_file
from adatom.frames.readers.stack import Candidate, Stack, as_bad_input, choose_image

# rosettasciio logs damaged files to stderr; adatom raises an error instead.
logging.getLogger("rsciio").addHandler(logging.NullHandler())
# Suffixes of adatom's own readers, which read one frame without the others.
_READ_ELSEWHERE = frozenset({".npy", ".npz", ".h5", ".hdf5", ".tif", ".tiff"})
# Allowed readers: they give images, and their source code neither unpickles nor evaluates what is
# in the file. A reader that a later rosettasciio adds is not allowed until its source was reviewed.
READERS = frozenset(
    {
        "Bruker", "DigitalMicrograph", "DigitalSurf", "EMD", "EMPAD", "HSPY", "Hamamatsu",
        "Image", "JEOL", "MRC", "NeXus", "Phenom", "QuantumDetector", "Semper", "TIA", "TVIPS",
    }
)  # fmt: skip
# Readers that unpickle or evaluate text, or that use a library which was not reviewed for it.
_RUN_CODE = frozenset({"MRCZ", "MSA", "PantaRhei", "Ripple", "USID", "ZSPY", "netCDF"})


class VendorReader:
    """Reader of vendor files by rosettasciio, which is imported when a file is opened."""

    name = "vendor"
    summary = "Vendors' files by rosettasciio: Gatan, Velox, TIA, NCEM, HyperSpy, MRC and more"

    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the allowed readers of rosettasciio."""
        return tuple(s for s in vendor_suffixes() if s not in _READ_ELSEWHERE)

    def read(self, path: Path, dataset: str | None, axes: str | None = None) -> Stack:
        """Open a file; see `adatom.frames.readers.base.Reader`."""
        return open_vendor(path, dataset, axes)


def _plugins() -> list[dict[str, Any]]:
    import rsciio

    return [dict(plugin) for plugin in rsciio.IO_PLUGINS]


def vendor_suffixes() -> tuple[str, ...]:
    """Suffixes of the allowed readers, lower case, with the dot."""
    allowed = [p for p in _plugins() if p["name"] in READERS]
    return tuple(sorted({f".{e.lower()}" for p in allowed for e in p["file_extensions"]}))


def open_vendor(
    path: Path, dataset: str | None, order: str | None = None, reader: str | None = None
) -> Stack:
    """Open a file of one of the formats that rosettasciio reads, without reading the pixels.

    Parameters
    ----------
    path
        The file.
    dataset
        Title or number of the image in a file with several.
    order
        The user's order of the axes; see `adatom.frames.readers.axes.lay_out`.
    reader
        Name of the reader, if the suffix does not decide.

    Raises
    ------
    BadInput
        If no allowed reader reads it, or it has no image.
    """
    suffix, name = path.suffix.lower().lstrip("."), reader or ""
    fitting = [
        p
        for p in _plugins()
        if p["name"].lower() == name
        or (not name and suffix in {str(e).lower() for e in p["file_extensions"]})
    ]
    allowed = [p for p in fitting if p["name"] in READERS]
    if not allowed:
        raise unreadable_file(path)
    if allowed[0]["name"] == "Image":
        _check_grey(path)
    if _is_hdf5(path):
        check_self_contained(path)
    images: list[dict[str, Any]] = []
    for plugin in allowed:
        try:
            images = _read(str(plugin["api"]), path)
            break
        except Exception:
            if plugin is allowed[-1]:
                raise
    return _stack(images, path, dataset, order)


def _is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


def _check_grey(path: Path) -> None:
    """Refuse a picture whose mode is colour, even if all of its pixels are grey."""
    from PIL import Image as Picture

    with Picture.open(path) as picture:
        mode = picture.mode
    if mode not in {"1", "L", "F"} and not mode.startswith("I"):
        raise colour(str(path), f"a colour picture ({mode}), such as a screenshot")


def unreadable_file(path: Path) -> BadInput:
    """Make the error for a file that no reader reads; it says what the suffix stands for."""
    suffix = path.suffix.lower()
    fitting = {
        str(p["name"])
        for p in _plugins()
        if suffix.lstrip(".") in {str(e).lower() for e in p["file_extensions"]}
    }
    got = f"a {suffix} file" if suffix else "a file without an ending to its name"
    if fitting & _RUN_CODE:
        got += ", a format whose reader may run code that the file holds"
    elif fitting or suffix in {".txt", ".csv", ".json", ".xlsx", ".pdf"}:
        got += ", which holds no frames"
    return BadInput(
        str(path),
        expected="a file of microscope frames "
        "(.dm3 .dm4 .emd .ser .mrc .hspy .tif .png .hdf5 .npy .npz ...)",
        got=got,
        todo="Export the frames to .tif, .dm4 or .hspy, or give the file its right ending.",
    )


def _read(api: str, path: Path) -> list[dict[str, Any]]:
    """Call a reader, lazily if it can; its warnings about metadata are not shown."""
    file_reader = importlib.import_module(api).file_reader
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = file_reader(str(path), lazy=True)
        except (NotImplementedError, TypeError, ValueError):
            # Lazy reading fails with TypeError for pictures and ValueError for .dm3 in colour. Both
            # are small files.
            found = file_reader(str(path))
    return [dict(d) for d in found]


def _stack(
    found: list[dict[str, Any]], path: Path, dataset: str | None, order: str | None
) -> Stack:
    subject = str(path)
    images = [d for d in found if dataset is not None or _signal_axes(d) == 2] or found
    candidates = [Candidate(_title(d), _axes(d), d["data"].dtype) for d in images]
    number, layout = choose_image(candidates, dataset, order, subject)
    image, axes = images[number], candidates[number].axes
    data, rows, columns = image["data"], axes[layout.row], axes[layout.column]
    scale = from_axes((rows.scale, columns.scale), (rows.unit, columns.unit), subject)

    def load(i: int) -> NDArray[Any]:
        return array_frame(layout, data, i)

    one = ser_frame_loader(path, data.dtype) if path.suffix.lower() == ".ser" else None
    load = one if one is not None and layout.count > 1 and order is None else load
    scale = scale.with_notes(*layout.notes)
    recorded = recorded_in_vendor_file(image).or_else(recorded_by_axis(axes, layout))
    return Stack(layout.count, layout.shape, load, scale, recorded)


def _title(image: dict[str, Any]) -> str:
    return str(image.get("metadata", {}).get("General", {}).get("title", ""))


def _signal_axes(image: dict[str, Any]) -> int:
    """Number of axes of one measurement: 2 for an image, 1 for a spectrum."""
    navigate = [bool(a.get("navigate")) for a in image["axes"]]
    signal = navigate.count(False)
    # A virtual image (all axes scanned) and a stack with no scanned axis are images too.
    return 2 if signal == 0 or (signal == 3 and len(navigate) == 3) else signal


def _axes(image: dict[str, Any]) -> tuple[Axis, ...]:
    """Axes of an image in the order of its data.

    Scanned axes are frames or channels. An image's own axes are rows and columns by their names:
    NCEM files are stored (y, x) and come out of the reader transposed, with their names.
    """
    scanned = [bool(axis.get("navigate")) for axis in image["axes"]]
    if all(scanned):  # one number for each place of a scan: an image
        scanned = [False] * len(scanned)
    spectra = scanned.count(False) == 1
    out = []
    for size, axis, outer in zip(image["data"].shape, image["axes"], scanned, strict=True):
        plain = Axis(int(size), _name(axis), axis.get("scale"), axis.get("units"))
        kind: Kind = ""
        if outer and plain.role in {"", "row", "column"}:
            kind = "frame"
        elif not outer and spectra and len(scanned) > 1:
            kind = "spectrum"
        out.append(replace(plain, kind=kind))
    return tuple(out)


def _name(axis: dict[str, Any]) -> str:
    name = str(axis.get("name") or "")
    return "" if name in {"<undefined>", "Undefined"} else name


def ser_frame_loader(path: Path, dtype: np.dtype[Any]) -> Any:
    """Make a function that loads one frame of a TIA series; rosettasciio loads all frames.

    Parameters
    ----------
    path
        The .ser file.
    dtype
        Type of its pixels.

    Notes
    -----
    Layout of the file: FEI, "TIA Series Data (ESD) file format", sections Header, Data Offset
    Array and Data Elements; from version 0x220 (TIA 4.7.3) on, offsets have eight bytes.
    """
    with path.open("rb") as file:
        head = file.read(38)
        version, _, _, _, valid = struct.unpack_from("<Hiiii", head, 4)
        wide = version >= 0x220
        (table,) = struct.unpack_from("<q" if wide else "<i", head, 22)
        file.seek(table)
        offsets = np.fromfile(file, "<i8" if wide else "<i4", valid)

    def load(i: int) -> NDArray[Any]:
        with path.open("rb") as file:
            file.seek(int(offsets[i]) + 42)  # after both axes' calibrations and the data type
            columns, rows = np.fromfile(file, "<i4", 2)
            frame = np.fromfile(file, dtype, int(rows) * int(columns))
        return frame.reshape(int(rows), int(columns))[::-1]  # stored from the bottom up

    return load


def tiff_vendor_scale(path: Path, number: int) -> Scale:
    """Pixel size from the private tags of a vendor's TIFF (Gatan, FEI, TVIPS, JEOL, Zeiss ...).

    Parameters
    ----------
    path
        The file.
    number
        Which of its series.
    """
    try:
        with as_bad_input(str(path), "vendor tags", ""):
            axes = _read("rsciio.tiff", path)[number]["axes"]
    except (BadInput, IndexError):
        return Scale()
    rows, columns = axes[-2:]
    if not (rows.get("units") or columns.get("units")):
        return Scale()
    return from_axes(
        (rows.get("scale"), columns.get("scale")),
        (rows.get("units"), columns.get("units")),
        str(path),
    )


VENDOR = VendorReader()
