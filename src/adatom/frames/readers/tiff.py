"""Reader of TIFF files; each frame is read when it is accessed."""

from __future__ import annotations

import logging
import re
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adatom.core import Acquisition
from adatom.errors import DamagedFile
from adatom.frames.readers.axes import Axis, Kind, Layout, colour
from adatom.frames.readers.pixel_size import MAX_A, MIN_A, Scale, from_axes
from adatom.frames.readers.recorded import recorded_in_ome, recorded_in_tree
from adatom.frames.readers.stack import Candidate, Stack, choose_image
from adatom.frames.readers.vendor import tiff_vendor_scale

if TYPE_CHECKING:
    import tifffile

# More channels than ImageJ can show together are frames, which some programs save as channels.
_MOST_CHANNELS = 7
# tifffile logs damaged files to stderr; adatom raises an error instead.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
# Letters of tifffile's axes. I and Q are pages of which the file says nothing.
_LETTERS: dict[str, Kind] = {
    "Y": "row", "X": "column", "T": "frame", "I": "frame", "Q": "frame", "Z": "depth",
    "C": "channel", "S": "sample",
}  # fmt: skip


class TiffReader:
    """TIFF files of any program: ImageJ, OME, Gatan, FEI and more."""

    name = "tiff"
    summary = "TIFF of any program: ImageJ, OME, Gatan, FEI and more"

    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that it reads."""
        return (".tif", ".tiff")

    def read(self, path: Path, dataset: str | None, axes: str | None = None) -> Stack:
        """Open a file; see `adatom.frames.readers.base.Reader`."""
        return _open_tiff(path, dataset, axes)


def _open_tiff(path: Path, dataset: str | None, order: str | None) -> Stack:
    import tifffile

    with tifffile.TiffFile(path) as tif:
        every = list(tif.series)
        if dataset is None and _are_frames(every):
            return _joined(tif, every, path)
        found = [Candidate(_series_name(s, every), _axes(tif, s), s.dtype) for s in every]
        number, layout = choose_image(found, dataset, order, str(path))
        chosen = every[number]
        notes = [] if order else _colour_notes(chosen, path)
        _check_tiff_whole(tif, chosen, path)
        scale = _tiff_scale(tif, chosen, path, number).with_notes(*notes, *layout.notes)
        load = _tiff_loader(path, tif, chosen, layout, number)
        recorded = _recorded(tif)
    return Stack(layout.count, layout.shape, load, scale, recorded)


def _series_name(series: Any, every: Sequence[Any]) -> str:
    return str(series.name or "") if len(every) > 1 else ""


def _axes(tif: tifffile.TiffFile, series: Any) -> tuple[Axis, ...]:
    """Axes of a series by tifffile's letters; the planes of a picture count as frames."""
    kinds = [_LETTERS.get(letter, "") for letter in series.axes]
    if _has_planes(series):
        kinds = ["frame" if kind == "sample" else kind for kind in kinds]
    labels = _channel_names(tif)
    unnamed = [not labels and n > _MOST_CHANNELS for n in series.shape]
    kinds = ["depth" if k == "channel" and u else k for k, u in zip(kinds, unnamed, strict=True)]
    return tuple(
        Axis(int(n), letter, kind=kind, labels=labels if kind == "channel" else ())
        for n, letter, kind in zip(series.shape, series.axes, kinds, strict=True)
    )


def _has_planes(series: Any) -> bool:
    """Whether the colours are stored one after the other, which pictures hardly ever are."""
    import tifffile

    separate = series.keyframe.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    return bool(separate) and "S" in series.axes


def _colour_notes(series: Any, path: Path) -> list[str]:
    """Refuse a colour picture; say where its planes are taken as frames."""
    import tifffile

    page = series.keyframe
    if _has_planes(series):
        # tifffile writes three or four frames so if it is not told what they are.
        note = (
            f"the {page.samplesperpixel} planes of what the file calls a colour picture are taken "
            "as frames"
        )
        return [note]
    grey = {tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE}
    if page.samplesperpixel > 1 or page.photometric not in grey:
        kind = getattr(page.photometric, "name", page.photometric)
        raise colour(str(path), f"a colour picture ({kind}), such as a screenshot")
    return []


def _channel_names(tif: tifffile.TiffFile) -> tuple[str, ...]:
    """Names of the channels that OME's metadata or ImageJ's labels give."""
    if tif.is_ome:
        return tuple(re.findall(r'<Channel\b[^>]*\bName="([^"]+)"', str(tif.ome_metadata)))
    imagej = tif.imagej_metadata or {}
    labels, count = imagej.get("Labels", ()), int(imagej.get("channels", 0) or 0)
    return tuple(str(label) for label in labels[:count])


def _are_frames(every: Sequence[Any]) -> bool:
    """Whether several series are the pages of a movie, some of another size than the others."""
    images = [s for s in every if s.axes == "YX" and s.keyframe.samplesperpixel == 1]
    unnamed = all(re.fullmatch(r"(series|generic)?\s*\d*", str(s.name).lower()) for s in every)
    shapes = Counter(s.shape for s in images)
    return (
        len(images) == len(every) > 2
        and unnamed
        and 1 < len(shapes) < len(every)
        and max(shapes.values()) > len(every) / 2
    )


def _joined(tif: tifffile.TiffFile, every: Sequence[Any], path: Path) -> Stack:
    """Join the pages of the commonest size to a movie; the others are named and left out."""
    common = Counter(s.shape for s in every).most_common(1)[0][0]
    kept = [i for i, s in enumerate(every) if s.shape == common]
    for i in kept:
        _check_tiff_whole(tif, every[i], path)
    odd = [f"{i} ({s.shape[0]} x {s.shape[1]})" for i, s in enumerate(every) if i not in kept]
    note = (
        f"frames of {common[0]} x {common[1]} are read; of another size, and left out: frame "
        + ", ".join(odd[:8])
    )
    layout = Layout(1, (int(common[0]), int(common[1])), 2, 0, 1)
    loads = [_tiff_loader(path, tif, every[i], layout, i) for i in kept]
    scale = _tiff_scale(tif, every[kept[0]], path, kept[0]).with_notes(note)
    return Stack(len(kept), layout.shape, lambda i: loads[i](0), scale, _recorded(tif))


def _tiff_loader(
    path: Path, tif: tifffile.TiffFile, series: Any, layout: Layout, number: int
) -> Callable[[int], NDArray[Any]]:
    import tifffile

    if series.dataoffset is not None:
        dtype, offset = series.dtype.newbyteorder(tif.byteorder), int(series.dataoffset)
        shape = tuple(series.shape)

        def load_mapped(i: int) -> NDArray[Any]:
            return np.array(layout.take(np.memmap(path, dtype, "r", offset, shape), i))

        return load_mapped
    pages = [int(page.index) for page in series.pages if page is not None]
    outer = tuple(int(n) for n in series.shape[:-2])
    whole_pages = len(pages) == int(np.prod(outer)) and (layout.row, layout.column) == (
        layout.ndim - 2,
        layout.ndim - 1,
    )

    def load_page(i: int) -> NDArray[Any]:
        with tifffile.TiffFile(path) as again:
            if whole_pages:
                page = int(np.arange(len(pages)).reshape(outer)[layout.index(i)[:-2]])
                return np.reshape(again.pages[pages[page]].asarray(), layout.shape)
            # One compressed page that holds several frames cannot be read in parts.
            every = again.series[number].asarray()
            return np.array(layout.take(every.reshape(series.shape), i))

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
        raise DamagedFile(
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


def _recorded(tif: tifffile.TiffFile) -> Acquisition:
    """Time from frame to frame, of OME or ImageJ (s unless its ``tunit`` says otherwise)."""
    if tif.is_ome:
        return recorded_in_ome(str(tif.ome_metadata))
    imagej = tif.imagej_metadata or {}
    unit = str(imagej.get("tunit") or "s")
    return recorded_in_tree({"frame interval": f"{imagej.get('finterval', '')} {unit}"})


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
