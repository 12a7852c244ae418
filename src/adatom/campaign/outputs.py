"""What a campaign keeps of every frame: its pixels, the maps, tables, and what was told of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from adatom.core import Frame, Movie, content_hash
from adatom.core.atoms import COLUMNS as ATOM_COLUMNS
from adatom.core.defects import COLUMNS as DEFECT_COLUMNS
from adatom.core.empty_sites import COLUMNS as SITE_COLUMNS
from adatom.learning.ensemble import Ensemble
from adatom.learning.predict import map_shape
from adatom.store import (
    CampaignDirectory,
    FrameParts,
    FrameStore,
    MapStore,
    frames_together,
    open_frames,
    open_maps,
)

_TABLES = {"atoms": ATOM_COLUMNS, "sites": SITE_COLUMNS, "defects": DEFECT_COLUMNS}


@dataclass(frozen=True, slots=True, eq=False)
class FrameOutputs:
    """Files of a campaign's frames: small ones while it runs, of many frames each at the end.

    Parameters
    ----------
    frames, maps, parts
        Where pixels, maps, and tables are kept.
    count
        Number of frames.
    """

    frames: FrameStore
    maps: MapStore
    parts: FrameParts
    count: int
    _written: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hash(self, i: int) -> str:
        """Hash of all that is kept of a frame; empty if something is missing or damaged."""
        whole = (self.parts.hash(i), self.frames.hash(i), self.maps.hash(i))
        return content_hash(*whole) if all(whole) else ""

    def write(
        self, frame: Frame, maps: dict[str, Any], tables: dict[str, pl.DataFrame], told: Any
    ) -> str:
        """Write what one frame gave; the last frame of a range joins their files.

        Parameters
        ----------
        frame
            The frame.
        maps
            The ensemble's maps by name.
        tables
            ``atoms``, ``sites`` and ``defects``.
        told
            What else is kept, as JSON takes it.

        Returns
        -------
        `hash` of the frame, for the ledger.
        """
        self.frames.write(frame.index, frame.data)
        self.maps.write(frame.index, **maps)
        self.parts.write(frame.index, tables, told)
        output = self.hash(frame.index)
        with self._lock:
            self._written.add(frame.index)
            number = frame.index // self.parts.together
            first = number * self.parts.together
            if self._written >= set(range(first, min(first + self.parts.together, self.count))):
                self.pack(number)
        return output

    def pack(self, number: int | None = None) -> None:
        """Join the small files of a range of frames, or of all."""
        for store in (self.frames, self.maps, self.parts):
            store.pack(number)


@contextmanager
def frame_outputs(
    movie: Movie, ensemble: Ensemble, directory: CampaignDirectory
) -> Iterator[FrameOutputs]:
    """Open the files of a campaign's frames; small files are joined at the end, also of an error.

    Parameters
    ----------
    movie
        Calibrated frames.
    ensemble
        The networks that make the maps.
    directory
        Open for writing.
    """
    assert movie.calibration is not None  # settled by sources.open_movie  # noqa: S101
    count, time_s = len(movie), movie.acquisition.frame_time_s
    shape = map_shape(movie.shape, movie.calibration, ensemble.working)
    together = frames_together(movie.shape, (len(ensemble.classes), *shape))
    outputs = FrameOutputs(
        open_frames(
            directory.frames_path,
            count,
            movie.shape,
            movie.calibration.pixel_size_A,
            frame_time_s=time_s,
            together=together,
            replace=True,
        ),
        open_maps(
            directory.maps_path,
            count,
            ensemble.classes,
            shape,
            ensemble.working.pixel_size_A,
            frame_time_s=time_s,
            together=together,
            replace=True,
        ),
        frame_parts(directory.parts, together),
        count,
    )
    try:
        yield outputs
    finally:
        outputs.pack()


def frame_parts(folder: Path, together: int) -> FrameParts:
    """Open the parts of a campaign's frames."""
    return FrameParts(folder, _TABLES, together)
