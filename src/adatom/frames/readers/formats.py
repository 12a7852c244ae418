"""Readers of arrays, ``.npy``, ``.npz``, HDF5 and TIFF; each frame is read when it is asked for."""

from __future__ import annotations

import json
import logging
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from adatom.errors import BadInput
from adatom.frames.readers.pixel_size import MAX_A, MIN_A, Scale, from_axes, from_metadata
from adatom.frames.readers.stack import (
    Layout,
    Stack,
    as_bad_input,
    choose,
    colour,
    is_image,
    parse_layout,
)
from adatom.frames.readers.vendor import open_vendor, tiff_vendor_scale, vendor_suffixes

# These complain of damaged files on the error stream; what matters of it is raised instead.
for _name in ("tifffile", "rsciio"):
    logging.getLogger(_name).addHandler(logging.NullHandler())
_OWN = (".npy", ".npz", ".h5", ".hdf5", ".tif", ".tiff")


def readable_suffixes() -> tuple[str, ...]:
    """Every file name ending that `open_file` takes, lower case, with the dot."""
    return tuple(sorted({*_OWN, *vendor_suffixes()}))


def open_file(path: Path, dataset: str | None) -> Stack:
    """Open one file of frames without reading them.

    Parameters
    ----------
    path
        The file; its name's ending says the format.
    dataset
        Which image, where the file holds several.

    Raises
    ------
    BadInput
        If it is missing, empty, damaged, of an unknown kind, or holds no single image or movie.
    """
    subject = str(path)
    if not path.is_file():
        raise BadInput(
            subject,
            expected="a file of frames",
            got="no such file" if not path.exists() else "something that is not a file",
            todo="Check the name.",
        )
    if path.stat().st_size == 0:
        raise BadInput(
            subject,
            expected="a file of frames",
            got="an empty file (0 bytes)",
            todo="Copy it again from the microscope.",
        )
    suffix = path.suffix.lower()
    opener = {
        ".npy": _open_npy,
        ".npz": _open_npz,
        ".h5": _open_hdf5,
        ".hdf5": _open_hdf5,
        ".tif": _open_tiff,
        ".tiff": _open_tiff,
    }.get(suffix, open_vendor)
    kind = f"a {suffix} file of frames" if suffix else "a file of frames"
    with as_bad_input(
        subject, kind, "The file is damaged, cut off, or not what its name says: copy it again."
    ):
        stack = opener(path, dataset)
    return stack if stack.scale.pixel_A is not None else _with_sidecar(stack, path)


def open_array(array: NDArray[Any], subject: str) -> Stack:
    """Take an array in memory, shape (row, col) or (frame, row, col), as a stack of frames."""
    layout = parse_layout(array.shape, array.dtype, subject)
    return Stack(layout.count, layout.shape, lambda i: array[layout.index(i)], Scale())


def _with_sidecar(stack: Stack, path: Path) -> Stack:
    """Take the scale from a JSON file of the same name, as published arrays have it."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return stack
    try:
        tree = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return stack.noting(f"{sidecar.name} could not be read: no scale taken from it")
    found = from_metadata(tree, stack.shape, str(sidecar))
    if found.pixel_A is None:
        return stack.noting(*found.notes)
    note = f"pixel size {found.pixel_A:.4g} Å from {sidecar.name}"
    return Stack(
        stack.count,
        stack.shape,
        stack.load,
        Scale(found.pixel_A, (*stack.scale.notes, note, *found.notes)),
    )


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
    """Shape, Fortran order and dtype of a ``.npy`` stream, left at the first byte of its data."""
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
        names = list(headers)  # so that the message says what is wrong with it
    name = names[choose([(n, f"{headers[n][0]}") for n in names], dataset, str(path))]
    layout = parse_layout(*headers[name], f"{path}, {name}")

    def load(i: int) -> NDArray[Any]:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            return _npy_frame(file, layout, i)

    scale = from_metadata(scalars, layout.shape, str(path))
    return Stack(layout.count, layout.shape, load, scale)


def _npy_frame(file: IO[bytes], layout: Layout, i: int) -> NDArray[Any]:
    """Read one frame from a ``.npy`` stream, passing over those before it."""
    shape, fortran, dtype = _npy_header(file)
    if fortran:  # the frames are interleaved: there is no reading one alone
        everything = np.frombuffer(file.read(), dtype).reshape(shape, order="F")
        return np.array(everything[layout.index(i)])
    size = layout.shape[0] * layout.shape[1] * dtype.itemsize
    # A seek in an archive would unpack 16 MiB at once to pass over them.
    before = i * size
    while before > 0:
        skipped = len(file.read(min(before, 1 << 16)))
        before = before - skipped if skipped else 0
    data = file.read(size)
    if len(data) < size:
        raise EOFError(f"frame {i} has {len(data)} bytes of {size}")
    return np.frombuffer(data, dtype).reshape(layout.shape)


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
            images = arrays  # so that the message says what is wrong with it
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


def _open_tiff(path: Path, dataset: str | None) -> Stack:
    with tifffile.TiffFile(path) as tif:
        every = list(tif.series)
        series = [s for s in every if dataset is not None or is_image(s.shape, s.dtype)] or every
        chosen = series[
            choose([(s.name, f"{s.shape} {s.dtype}") for s in series], dataset, str(path))
        ]
        page = chosen.keyframe
        grey = {tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE}
        if page.samplesperpixel > 1 or page.photometric not in grey:
            kind = getattr(page.photometric, "name", page.photometric)
            raise colour(str(path), f"a colour picture ({kind}), such as a screenshot")
        layout = parse_layout(chosen.shape, chosen.dtype, str(path))
        _check_tiff_whole(tif, chosen, path)
        scale = _tiff_scale(tif, chosen, path, every.index(chosen))
        load = _tiff_loader(path, tif, chosen, layout, every.index(chosen))
    return Stack(layout.count, layout.shape, load, scale)


def _tiff_loader(
    path: Path, tif: tifffile.TiffFile, series: Any, layout: Layout, number: int
) -> Callable[[int], NDArray[Any]]:
    rows, columns = layout.shape
    if series.dataoffset is not None:
        dtype, offset = series.dtype.newbyteorder(tif.byteorder), int(series.dataoffset)
        step = rows * columns * dtype.itemsize

        def load_mapped(i: int) -> NDArray[Any]:
            flat = np.fromfile(path, dtype, rows * columns, offset=offset + i * step)
            return np.reshape(flat, (rows, columns))

        return load_mapped
    pages = [int(page.index) for page in series.pages if page is not None]

    def load_page(i: int) -> NDArray[Any]:
        with tifffile.TiffFile(path) as again:
            if len(pages) == layout.count:
                return np.reshape(again.pages[pages[i]].asarray(), (rows, columns))
            # One compressed page that holds several frames cannot be read in parts.
            return np.asarray(np.reshape(again.series[number].asarray(), (-1, rows, columns))[i])

    return load_page


def _check_tiff_whole(tif: tifffile.TiffFile, series: Any, path: Path) -> None:
    """Refuse a file that was cut off: its tables say where its pixels end."""
    size = path.stat().st_size
    ends = [
        offset + count
        for page in series.pages
        if page is not None
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
    ]
    if series.dataoffset is not None:
        ends.append(int(series.dataoffset) + int(series.nbytes))
    broken = _broken_chain(tif, size)
    announced = int((tif.imagej_metadata or {}).get("images", 1)) if tif.is_imagej else 1
    present = int(np.prod(series.shape[:-2]))
    if max(ends, default=0) > size or announced > present or broken:
        missing = f"{present} of {announced} frames" if announced > present else f"{size} bytes"
        raise BadInput(
            str(path),
            expected="a whole TIFF file"
            + (f" of {max(ends)} bytes or more" if max(ends, default=0) > size else ""),
            got=f"one that was cut off ({missing})",
            todo="Copy it again from the microscope.",
        )


def _broken_chain(tif: tifffile.TiffFile, size: int) -> bool:
    """Whether a page's table points past the end of the file; such pages are dropped silently."""
    kind, file = tif.tiff, tif.filehandle
    file.seek(4 if kind.version == 42 else 8)
    seen: set[int] = set()
    while True:
        pointer = file.read(kind.offsetsize)
        if len(pointer) < kind.offsetsize:
            return True
        (offset,) = struct.unpack(kind.offsetformat, pointer)
        if offset == 0 or offset in seen:
            return False
        if offset + kind.tagnosize > size:
            return True
        seen.add(offset)
        file.seek(offset)
        (tags,) = struct.unpack(kind.tagnoformat, file.read(kind.tagnosize))
        file.seek(offset + kind.tagnosize + tags * kind.tagsize)


def _tiff_scale(tif: tifffile.TiffFile, series: Any, path: Path, number: int) -> Scale:
    """Pixel size from ImageJ, OME, vendor tags or resolution tags, in this order.

    ``XResolution`` counts pixels per unit. Only ImageJ says which unit that is; HyperSpy writes
    pixels per nm under the default unit, and most other programs a resolution for printing.
    """
    page = series.keyframe
    per_x, per_y = (float(r) for r in page.resolution)
    sizes = (1 / per_y, 1 / per_x) if per_x > 0 and per_y > 0 else (0.0, 0.0)
    imagej = tif.imagej_metadata or {}
    if "unit" in imagej:
        return from_axes(sizes, (imagej["unit"],) * 2, str(path))
    if tif.is_ome:
        return _ome_scale(str(tif.ome_metadata), str(path))
    vendor = tiff_vendor_scale(path, number)
    if vendor.pixel_A is not None or vendor.notes or sizes in {(1.0, 1.0), (0.0, 0.0)}:
        return vendor
    return _resolution_scale(page, sizes, str(path))


def _ome_scale(xml: str, subject: str) -> Scale:
    sizes = [re.search(rf'PhysicalSize{axis}="([^"]+)"', xml) for axis in ("Y", "X")]
    units = [re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', xml) for axis in ("Y", "X")]
    # The OME schema's default unit is µm.
    names = [u[1] if u else "µm" for u in units]
    return from_axes([m[1] if m else 0.0 for m in sizes], names, subject)


def _resolution_scale(page: Any, sizes: tuple[float, float], subject: str) -> Scale:
    """Pixel size from resolution tags alone; `sizes` is (row, column), in the tags' unit."""
    if "hyperspy" in str(page.software).lower():
        scale = from_axes(sizes, ("nm", "nm"), subject)
        note = "resolution tags written by HyperSpy, which names no unit: taken as pixels per nm"
        return Scale(scale.pixel_A, (note,))
    to_mm = {2: 25.4, 3: 10.0}.get(int(page.resolutionunit))
    if to_mm is None:
        return from_axes(sizes, ("", ""), subject)
    # A print resolution (72 per inch) is no calibration, and need not be square either.
    if not MIN_A <= sizes[1] * to_mm * 1e7 <= MAX_A:
        return Scale(None, ("the TIFF resolution tags are for printing: no scale taken",))
    return from_axes([s * to_mm for s in sizes], ("mm", "mm"), subject)


def _no_dataset(path: Path, dataset: str | None) -> None:
    if dataset is not None:
        raise BadInput(
            str(path),
            expected="a file with named datasets for `dataset`",
            got=f"a {path.suffix} file, which holds one array",
            todo="Leave `dataset` out.",
        )


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
