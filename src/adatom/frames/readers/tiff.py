"""Reader of TIFF files; each frame is read when it is accessed."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from adatom.errors import BadInput
from adatom.frames.readers.pixel_size import MAX_A, MIN_A, Scale, from_axes
from adatom.frames.readers.stack import Layout, Stack, choose, colour, is_image, parse_layout
from adatom.frames.readers.vendor import tiff_vendor_scale

# tifffile logs damaged files to stderr; adatom raises an error instead.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffReader:
    """TIFF files of any program: ImageJ, OME, Gatan, FEI and more."""

    name = "tiff"
    summary = "TIFF of any program: ImageJ, OME, Gatan, FEI and more"

    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that it reads."""
        return (".tif", ".tiff")

    def read(self, path: Path, dataset: str | None) -> Stack:
        """Open a file; see `adatom.frames.readers.base.Reader`."""
        return _open_tiff(path, dataset)


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
    """Refuse a truncated file: its tables have the position of the last pixel."""
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
    """Whether a page's table points past the end of the file; tifffile drops such pages."""
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

    ``XResolution`` is the number of pixels per unit. Only ImageJ writes this unit. HyperSpy writes
    pixels per nm with the default unit; most other programs write a resolution for printing.
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
    # A print resolution (72 per inch) is not a calibration, and its pixels may not be square.
    if not MIN_A <= sizes[1] * to_mm * 1e7 <= MAX_A:
        return Scale(None, ("the TIFF resolution tags are for printing: no scale taken",))
    return from_axes([s * to_mm for s in sizes], ("mm", "mm"), subject)


TIFF = TiffReader()
