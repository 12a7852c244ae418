"""The frames and the ensemble's maps of a campaign, as OME-Zarr 0.5, one chunk for every frame.

Both stores work alike: frames are written to small files, and `pack` moves these into shards.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from adatom.core.arrays import Image
from adatom.store.atomic import bytes_hash
from adatom.store.images import (
    MOST_TOGETHER,
    ImageArray,
    ImageLayout,
    load_image,
    open_or_build,
)

# Largest possible value of each map: a probability (1), the standard deviation of numbers between
# 0 and 1 (0.5), and the entropy of a binary variable (ln 2 nats).
_MAXIMUM = {"mean": 1.0, "std": 0.5, "entropy": math.log(2), "mutual_information": math.log(2)}
# Steps that one unit of each map is rounded to; powers of two, so that float32 holds them exactly.
_STEPS = {"mean": 256, "std": 256, "entropy": 128, "mutual_information": 2048}
MAPS = tuple(_MAXIMUM)


@dataclass(frozen=True, slots=True, eq=False)
class FrameStore:
    """The frames of a campaign, ``frames.zarr``, (frame, row, col) float32; see `open_frames`.

    Parameters
    ----------
    image
        The OME-Zarr image.
    """

    image: ImageArray

    @property
    def pixel_size_A(self) -> float:
        """Edge of one pixel, Å."""
        return self.image.pixel_size_A

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        frames, rows, columns = self.image.array.shape
        return frames, rows, columns

    def write(self, frame: int, image: ArrayLike) -> str:
        """Write one frame; writing it again replaces it.

        Parameters
        ----------
        frame
            Index of the frame.
        image
            Intensities, shape (row, col).

        Returns
        -------
        `hash` of the frame, for the ledger.

        Raises
        ------
        StepFailed
            If the disk is full.
        """
        self.image.write(frame, image)
        return self.hash(frame)

    def read(self, frame: int) -> Image:
        """Read one frame, shape (row, col).

        Raises
        ------
        StepFailed
            If it was not written yet or is damaged.
        """
        return self.image.read(frame)

    def hash(self, frame: int) -> str:
        """Hash of the frame on the disk; empty if there is none."""
        return _hash_or_nothing(self.image.stored(frame))

    def pack(self, number: int | None = None) -> None:
        """Move frames from small files into a shard, or into all; see `ImageArray.pack`."""
        self.image.pack(number)


@dataclass(frozen=True, slots=True, eq=False)
class MapStore:
    """The ensemble's maps, ``maps.zarr``: four images, (frame, class, row, col); see `open_maps`.

    Parameters
    ----------
    images
        The OME-Zarr image of every name in ``MAPS``.
    """

    images: dict[str, ImageArray]

    @property
    def classes(self) -> tuple[str, ...]:
        """Chemical symbol of every class."""
        return self.images[MAPS[0]].classes

    @property
    def pixel_size_A(self) -> float:
        """Edge of one pixel, Å."""
        return self.images[MAPS[0]].pixel_size_A

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Frames, classes, rows, columns."""
        frames, classes, rows, columns = self.images[MAPS[0]].array.shape
        return frames, classes, rows, columns

    def write(
        self,
        frame: int,
        *,
        mean: ArrayLike,
        std: ArrayLike,
        entropy: ArrayLike,
        mutual_information: ArrayLike,
    ) -> str:
        """Write the maps of one frame; writing them again replaces them.

        Values are rounded to multiples of a step: 1/256 for the mean and the standard deviation,
        1/128 nat for the entropy, 1/2048 nat for the mutual information, which is smallest. So a
        value is wrong by at most half of that. They are stored as float32, which every viewer
        reads. That is enough for display and for choosing regions; no step should compute positions
        from them.

        Parameters
        ----------
        frame
            Index of the frame.
        mean, std
            Probabilities, shape (class, row, col).
        entropy, mutual_information
            Nats, shape (class, row, col).

        Returns
        -------
        `hash` of the frame's maps, for the ledger.

        Raises
        ------
        StepFailed
            If the disk is full.
        """
        for name, data in zip(MAPS, (mean, std, entropy, mutual_information), strict=True):
            steps = _STEPS[name]
            self.images[name].write(frame, np.round(np.asarray(data, np.float32) * steps) / steps)
        return self.hash(frame)

    def read(self, frame: int) -> dict[str, Image]:
        """Read the maps of one frame by name, each of shape (class, row, col).

        Raises
        ------
        StepFailed
            If they were not written yet or are damaged.
        """
        return {name: image.read(frame) for name, image in self.images.items()}

    def hash(self, frame: int) -> str:
        """Hash of the frame's maps on the disk; empty if one is missing."""
        return _hash_or_nothing(*(self.images[name].stored(frame) for name in MAPS))

    def pack(self, number: int | None = None) -> None:
        """Move maps from small files into a shard, or into all; see `ImageArray.pack`."""
        for image in self.images.values():
            image.pack(number)
        if number is None:
            with contextlib.suppress(OSError):  # there is none, or it is not empty
                image.hidden.parent.rmdir()


def open_frames(
    path: str | Path,
    count: int,
    shape: tuple[int, int],
    pixel_size_A: float,
    *,
    frame_time_s: float | None = None,
    together: int = MOST_TOGETHER,
    replace: bool = False,
) -> FrameStore:
    """Open ``frames.zarr`` to write, or create it.

    Parameters
    ----------
    path
        The OME-Zarr image.
    count
        Number of frames; a store that has fewer grows, one that has more stays as it is.
    shape
        Rows and columns.
    pixel_size_A
        Edge of one pixel, Å.
    frame_time_s
        Time from frame to frame, s; None if it is not known.
    together
        Number of frames in one shard.
    replace
        Delete an existing store of another shape or pixel size instead of refusing it.

    Raises
    ------
    BadInput
        If the path is not such a store, or a store of another shape or pixel size.
    StepFailed
        If the disk is full.
    """
    layout = ImageLayout(
        (count, *shape), "float32", "tyx", pixel_size_A,
        frame_time_s=frame_time_s, together=together,
    )  # fmt: skip
    return FrameStore(open_or_build(Path(path), {"": layout}, replace=replace)[""])


def open_maps(
    path: str | Path,
    count: int,
    classes: tuple[str, ...],
    shape: tuple[int, int],
    pixel_size_A: float,
    *,
    frame_time_s: float | None = None,
    together: int = MOST_TOGETHER,
    replace: bool = False,
) -> MapStore:
    """Open ``maps.zarr`` to write, or create it.

    Parameters
    ----------
    path
        Group of the four OME-Zarr images ``mean``, ``std``, ``entropy``, ``mutual_information``.
    count
        Number of frames; a store that has fewer grows, one that has more stays as it is.
    classes
        Chemical symbol of every class.
    shape
        Rows and columns of the maps.
    pixel_size_A
        Edge of one of their pixels, Å.
    frame_time_s
        Time from frame to frame, s; None if it is not known.
    together
        Number of frames in one shard.
    replace
        Delete an existing store of another shape, pixel size or classes instead of refusing it.

    Raises
    ------
    BadInput
        If the path is not such a store, or a store of another shape, pixel size or classes.
    StepFailed
        If the disk is full.
    """
    layouts = {
        name: ImageLayout(
            (count, len(classes), *shape),
            "float32",
            "tcyx",
            pixel_size_A,
            tuple(classes),
            maximum,
            frame_time_s,
            together,
        )
        for name, maximum in _MAXIMUM.items()
    }
    return MapStore(open_or_build(Path(path), layouts, replace=replace))


def load_frames(path: str | Path) -> FrameStore:
    """Open ``frames.zarr`` for reading only.

    Raises
    ------
    BadInput
        If there is none.
    """
    return FrameStore(load_image(Path(path)))


def load_maps(path: str | Path) -> MapStore:
    """Open ``maps.zarr`` for reading only.

    Raises
    ------
    BadInput
        If there is none.
    """
    return MapStore({name: load_image(Path(path), name) for name in MAPS})


def _hash_or_nothing(*chunks: bytes | None) -> str:
    whole = [chunk for chunk in chunks if chunk is not None]
    return bytes_hash(*whole) if len(whole) == len(chunks) else ""
