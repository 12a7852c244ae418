"""OME-Zarr 0.5 images on zarr v3: creation, metadata, and reading and writing single frames.

One frame is one chunk. It is written to a small file of its own in a hidden directory beside the
store, and the ledger records its hash. `ImageArray.pack` moves such files, as they are, into a
shard of many frames, where other programs find them; a process that is killed meanwhile leaves
them in both places. Each chunk has a CRC-32C checksum, so other readers notice a damaged one too.
A frame that is in no shard reads as NaN in other programs; here reading one that was never
written is an error.

Specification: https://ngff.openmicroscopy.org/0.5/ (axes, multiscales, omero).
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adatom.errors import BadInput, StepFailed
from adatom.store.atomic import (
    atomic_file,
    explained,
    reading,
    remove_tree,
    sync_directory,
    sync_file,
    temporary_beside,
)
from adatom.store.chunks import codecs, decode, encode, shard_chunk, write_shard

if TYPE_CHECKING:
    import zarr

_SERIES_XML = "METADATA.ome.xml"  # in the group OME of a store of several images
# Most frames in one shard: 5,000 frames of five images are then 50 files.
MOST_TOGETHER = 512
_RESOLUTION = "0"  # name of the only resolution level
# Bytes of a shard before compression: it is read and written in a moment.
_LARGEST_SHARD = 64 * 2**20
# Display colours of the channels in viewers, hexadecimal RGB.
_COLOURS = ("FFFFFF", "FF8800", "00AAFF", "66DD66", "FF66CC", "FFDD33")
# Errors that zarr and the metadata of a file that is not ours can raise.
_BROKEN = (
    AttributeError,
    FileNotFoundError,
    IndexError,
    KeyError,
    NotADirectoryError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, eq=False)
class ImageLayout:
    """The wanted shape and metadata of an image in a store.

    Parameters
    ----------
    shape
        Number of frames, then the shape of one frame (one chunk).
    dtype
        ``float32``.
    axes
        One letter per axis: ``t``, ``c``, ``y``, ``x``.
    pixel_size_A
        Edge of one pixel, Å.
    classes
        Label of every channel.
    maximum
        Upper end of the display range of the channels.
    frame_time_s
        Time from frame to frame, s; None if it is not known.
    together
        Number of frames in one shard.
    """

    shape: tuple[int, ...]
    dtype: str
    axes: str
    pixel_size_A: float
    classes: tuple[str, ...] = ()
    maximum: float = 1.0
    frame_time_s: float | None = None
    together: int = MOST_TOGETHER


@dataclass(frozen=True, slots=True, eq=False)
class ImageArray:
    """One OME-Zarr image on the disk.

    Parameters
    ----------
    path
        Directory of its zarr group.
    hidden
        Directory of the frames that are in no shard yet; it need not exist.
    array
        Its zarr array; the first axis is the frame.
    pixel_size_A
        Edge of one pixel, Å.
    classes
        Label of every channel.
    frame_time_s
        Time from frame to frame, s; None if it is not known.
    """

    path: Path
    hidden: Path
    array: zarr.Array[Any]
    pixel_size_A: float
    classes: tuple[str, ...]
    frame_time_s: float | None = None

    @property
    def together(self) -> int:
        """Number of frames in one shard."""
        return int(self.array.shards[0]) if self.array.shards is not None else 1

    @property
    def sharded(self) -> bool:
        """Whether it has shards; stores of earlier versions have one file a frame, to be read."""
        return self.array.shards is not None

    def shard(self, number: int) -> Path:
        """Path of the file of one shard, which need not exist."""
        zeros = ["0"] * (self.array.ndim - 1)
        return self.path.joinpath(_RESOLUTION, "c", str(number), *zeros)

    def waiting(self, frame: int) -> Path:
        """Path of the small file of one frame, which exists until the frame is in a shard."""
        return self.hidden / str(frame)

    def stored(self, frame: int) -> bytes | None:
        """Bytes of one frame's chunk on the disk; None if there is none."""
        try:
            return self.waiting(frame).read_bytes()  # the newer one, if a shard has the frame too
        except (FileNotFoundError, NotADirectoryError):
            pass
        number, place = divmod(frame, self.together)
        if not self.sharded:
            path = self.shard(number)
            return path.read_bytes() if path.is_file() else None
        return shard_chunk(self.shard(number), place, self.together)

    def write(self, frame: int, data: ArrayLike) -> None:
        """Write one frame to a small file; when this returns, it is on the disk."""
        values = np.asarray(data)
        if values.shape != self.array.shape[1:]:
            raise ValueError(f"expected shape {self.array.shape[1:]}, got {values.shape}")
        self._check(frame)
        with atomic_file(self.waiting(frame)) as file:
            file.write(encode(values.astype(np.float32)))

    def read(self, frame: int) -> NDArray[np.float32]:
        """Read one frame; a missing or damaged one raises StepFailed."""
        self._check(frame)
        data = self.stored(frame)
        if data is None:
            raise StepFailed(
                str(self.path),
                expected=f"frame {frame}",
                got="none written yet",
                todo="Run adatom resume, which makes it.",
            )
        with reading(self.path, f"zarr chunk of frame {frame}"):
            return decode(data, self.array.shape[1:])

    def pack(self, number: int | None = None) -> None:
        """Move the frames that lie in small files into their shards.

        Parameters
        ----------
        number
            Of the shard; None for all.

        Raises
        ------
        BadInput
            If the store cannot be written.
        StepFailed
            If the disk is full.
        """
        if not self.hidden.is_dir():
            return
        names = {int(p.name) for p in self.hidden.iterdir() if p.name.isdecimal()}
        shards = {frame // self.together for frame in names}
        for shard in sorted(shards if number is None else shards & {number}):
            frames = range(shard * self.together, (shard + 1) * self.together)
            small = [self.waiting(f) if f in names else None for f in frames]
            write_shard(self.shard(shard), small)
            with explained(self.hidden):
                for path in filter(None, small):
                    path.unlink()
        if number is None:  # else other threads may be about to write there
            with contextlib.suppress(OSError):  # not empty
                self.hidden.rmdir()

    def _check(self, frame: int) -> None:
        if not 0 <= frame < self.array.shape[0]:
            raise IndexError(f"expected a frame from 0 to {self.array.shape[0] - 1}, got {frame}")


def open_or_build(
    path: Path,
    layouts: Mapping[str, ImageLayout],
    *,
    replace: bool,
) -> dict[str, ImageArray]:
    """Open a store of images for writing, or create it.

    Parameters
    ----------
    path
        The store.
    layouts
        Layout of every image by the name of its group; ``""`` is the root group.
    replace
        Delete an existing store that differs instead of refusing it.

    Raises
    ------
    BadInput
        If the path is not such a store, or a store that differs.
    StepFailed
        If the disk is full.
    """
    with explained(path):
        if path.exists():
            try:
                _check_same(path, layouts)
            except BadInput:
                # Never delete anything that is not a zarr store.
                if not (replace and (path / "zarr.json").is_file()):
                    raise
                for old in filter(Path.exists, (_hidden(path), path)):
                    remove_tree(old)
        if not path.exists():
            _build(path, layouts)
        images = {name: load_image(path, name, writable=True) for name in layouts}
        grown = [n for n, one in layouts.items() if images[n].array.shape[0] < one.shape[0]]
        for name in grown:
            array = images[name].array
            array.resize((layouts[name].shape[0], *array.shape[1:]))
        if grown and "" not in layouts:
            with atomic_file(path / "OME" / _SERIES_XML) as file:
                file.write(_series_xml(layouts))
    return images


def frames_together(*shapes: tuple[int, ...]) -> int:
    """Choose how many frames a shard holds: a power of two, fewer where frames are large.

    Parameters
    ----------
    shapes
        Shape of one frame in each store.

    Examples
    --------
    >>> frames_together((64, 64), (3, 64, 64)), frames_together((2048, 2048))
    (512, 4)
    """
    largest = max(math.prod(shape) for shape in shapes) * np.dtype(np.float32).itemsize
    fits = max(_LARGEST_SHARD // largest, 1)
    return int(min(2 ** int(math.log2(fits)), MOST_TOGETHER))


def load_image(store: Path, name: str = "", *, writable: bool = False) -> ImageArray:
    """Open one image that adatom wrote.

    Parameters
    ----------
    store
        Directory of the store.
    name
        Of the image's group; empty for the root group.
    writable
        Whether its metadata may be changed.

    Raises
    ------
    BadInput
        If there is none.
    """
    import zarr

    path = store / name
    try:
        group = zarr.open_group(_store(path, writable=writable), mode="r+" if writable else "r")
        array = group[_RESOLUTION]
        ome: Any = group.attrs["ome"]
        dataset = ome["multiscales"][0]["datasets"][0]
        scale = dataset["coordinateTransformations"][0]["scale"]
        pixel_size_A = float(scale[-1])
        timed = ome["multiscales"][0]["axes"][0].get("unit") == "second"
        classes = tuple(str(c["label"]) for c in ome.get("omero", {}).get("channels", ()))
    except _BROKEN as error:
        raise _no_image(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(array, zarr.Array) or array.chunks != (1, *array.shape[1:]):
        raise _no_image(path, "no array of one chunk per frame")
    time_s = float(scale[0]) if timed else None
    return ImageArray(path, _hidden(store) / name, array, pixel_size_A, classes, time_s)


def _hidden(store: Path) -> Path:
    """Directory of the frames of a store that are in no shard yet."""
    return store.with_name(f".{store.name}")


def _store(path: Path, *, writable: bool) -> Any:
    """Store of a directory; given as text, a name with "::" in it would be taken for an address."""
    from zarr.storage import LocalStore

    return LocalStore(path, read_only=not writable)


def _no_image(path: Path, got: str) -> BadInput:
    return BadInput(
        str(path),
        expected="an OME-Zarr 0.5 image that adatom wrote",
        got=got,
        todo="Check the path; a damaged store can be deleted, and is then made again.",
    )


def _check_same(path: Path, layouts: Mapping[str, ImageLayout]) -> None:
    for name, layout in layouts.items():
        image = load_image(path, name)
        for what, expected, got in (
            ("frames of shape", layout.shape[1:], image.array.shape[1:]),
            ("numbers as", layout.dtype, str(image.array.dtype)),
            ("classes", layout.classes, image.classes),
            ("pixels (Å) of", float(layout.pixel_size_A), image.pixel_size_A),
            ("shards with frames:", layout.together, image.together if image.sharded else "none"),
        ):
            if expected != got:
                raise BadInput(
                    str(image.path),
                    expected=f"{what} {expected}",
                    got=f"{got} from an earlier run",
                    todo="Name another directory with -o, or delete this store: it is made again.",
                )


def _build(path: Path, layouts: Mapping[str, ImageLayout]) -> None:
    """Create the empty store under a temporary name, then rename it: it appears complete.

    Several images are a series of one group, as the transitional layout of the specification has
    it, so that viewers open all of them from the path of the store.
    """
    import zarr

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary_beside(path)
    try:
        several = {"ome": {"version": "0.5", "bioformats2raw.layout": 3}}
        attributes: dict[str, Any] = {} if "" in layouts else several
        store = _store(draft, writable=True)
        top = zarr.open_group(store, mode="w-", zarr_format=3, attributes=attributes)
        if "" not in layouts:
            series = {"ome": {"version": "0.5", "series": list(layouts)}}
            top.create_group("OME", attributes=series)
            (draft / "OME" / _SERIES_XML).write_bytes(_series_xml(layouts))
        for name, layout in layouts.items():
            group = top.create_group(name) if name else top
            group.attrs.update({"ome": _ome_metadata(name or path.stem, layout)})
            _create_array(group, layout)
        for folder, _, files in os.walk(draft):
            for file in files:
                sync_file(Path(folder) / file)
            sync_directory(Path(folder))
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_directory(path.parent)


def _series_xml(layouts: Mapping[str, ImageLayout]) -> bytes:
    """Describe a series in OME-XML: some viewers read it in the place of the list of names."""
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    root = ET.Element("OME", xmlns=space)
    for name, layout in layouts.items():
        sizes = dict(zip(layout.axes, layout.shape, strict=True))
        image = ET.SubElement(root, "Image", ID=f"Image:{name}", Name=name)
        pixels = ET.SubElement(
            image, "Pixels", ID=f"Pixels:{name}", DimensionOrder="XYCZT", Type="float",
            SizeX=str(sizes["x"]), SizeY=str(sizes["y"]), SizeC=str(sizes.get("c", 1)), SizeZ="1",
            SizeT=str(sizes["t"]),
        )  # fmt: skip
        ET.SubElement(pixels, "MetadataOnly")
    out: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return out


def _create_array(group: zarr.Group, layout: ImageLayout) -> None:
    group.create_array(
        name=_RESOLUTION,
        shape=layout.shape,
        chunks=(1, *layout.shape[1:]),
        shards=(layout.together, *layout.shape[1:]),
        dtype=layout.dtype,
        compressors=codecs(),
        fill_value=math.nan,  # an unwritten frame reads as NaN; zarr does not skip a written chunk
        dimension_names=tuple(layout.axes),
    )


def _ome_metadata(name: str, layout: ImageLayout) -> dict[str, Any]:
    kinds: dict[str, dict[str, str]] = {
        "t": {"name": "t", "type": "time"},  # without a unit it counts frames
        "c": {"name": "c", "type": "channel"},
        "y": {"name": "y", "type": "space", "unit": "angstrom"},
        "x": {"name": "x", "type": "space", "unit": "angstrom"},
    }
    step = 1.0
    if layout.frame_time_s is not None:
        kinds["t"]["unit"], step = "second", float(layout.frame_time_s)
    steps = {"t": step, "c": 1.0, "y": float(layout.pixel_size_A), "x": float(layout.pixel_size_A)}
    scale = [steps[axis] for axis in layout.axes]
    level = {
        "path": _RESOLUTION,
        "coordinateTransformations": [{"type": "scale", "scale": scale}],
    }
    axes = [kinds[axis] for axis in layout.axes]
    image: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": [level]}],
    }
    if layout.classes:
        window = {"min": 0.0, "max": layout.maximum, "start": 0.0, "end": layout.maximum}
        image["omero"] = {
            "channels": [
                {
                    "label": label,
                    "color": _COLOURS[i % len(_COLOURS)],
                    "active": True,
                    "window": window,
                }
                for i, label in enumerate(layout.classes)
            ]
        }
    return image
