"""What single frames gave, so that a resumed campaign need not find it again.

Each frame is one small zip file; `FrameParts.pack` joins those of a range of frames into one.
Either kind has a parquet file of every table, and `frames.parquet` with one row a frame: what was
told of it, as JSON, and the hash of its small file. A zip file has checksums, and is replaced as
a whole, so a killed process leaves the small files, or the joined one, or both with the same
content.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from adatom.core.columns import Column
from adatom.errors import StepFailed
from adatom.store.atomic import atomic_file, bytes_hash, explained, reading
from adatom.store.tables import json_text, table_bytes

_FRAMES = "frames"  # name of the table with one row a frame
# Its columns; `hash` is that of the frame's small file.
_FRAMES_SCHEMA = pl.Schema({"frame": pl.Int32(), "hash": pl.String(), "told": pl.String()})


class FrameParts:
    """The parts of a campaign's frames.

    Parameters
    ----------
    folder
        Directory of the zip files.
    tables
        Columns of every table by its name; each has a column ``frame``.
    together
        Number of frames in one joined file.
    """

    def __init__(
        self, folder: Path, tables: Mapping[str, Mapping[str, Column]], together: int
    ) -> None:
        self.folder, self.together = folder, together
        self._tables = tables
        self._known: dict[Path, tuple[tuple[int, int], dict[int, str]]] = {}

    def waiting(self, frame: int) -> Path:
        """Path of the small file of one frame, which exists until the frame is joined."""
        return self.folder / f"frame-{frame:05d}.zip"

    def joined(self, number: int) -> Path:
        """Path of the file of a range of frames, which need not exist."""
        return self.folder / f"frames-{number * self.together:05d}.zip"

    def write(self, frame: int, tables: Mapping[str, pl.DataFrame], told: Any) -> str:
        """Write the small file of one frame.

        Parameters
        ----------
        frame
            Number of the frame.
        tables
            One table for every name.
        told
            What else is to be kept, as `write_json` takes it.

        Returns
        -------
        `hash` of the frame, for the ledger.

        Raises
        ------
        StepFailed
            If the disk is full.
        """
        row = {"frame": [frame], "hash": [""], "told": [json_text(told)]}
        self._write(self.waiting(frame), {**tables, _FRAMES: pl.DataFrame(row, _FRAMES_SCHEMA)})
        return self.hash(frame)

    def hash(self, frame: int) -> str:
        """Hash of what one frame gave; empty if there is nothing, or it is damaged."""
        try:
            return bytes_hash(self.waiting(frame).read_bytes())
        except FileNotFoundError:
            return self._hashes(self.joined(frame // self.together)).get(frame, "")

    def table(self, name: str, count: int) -> list[pl.DataFrame]:
        """Read one table of the first frames, in their order, as tables to be put together.

        Raises
        ------
        StepFailed
            If a file is missing or damaged.
        """
        out = []
        for first in range(0, count, self.together):
            frames = range(first, min(first + self.together, count))
            out.append(self._range(name, frames))
        return out

    def told(self, count: int) -> dict[int, Any]:
        """Read what was told of the first frames, by their number.

        Raises
        ------
        StepFailed
            If a file is missing or damaged.
        """
        rows = pl.concat(self.table(_FRAMES, count)).select("frame", "told").iter_rows()
        out = {frame: json.loads(text) for frame, text in rows}
        if len(out) < count:
            raise StepFailed(
                str(self.folder),
                expected=f"what {count} frames gave",
                got=f"that of {len(out)}",
                todo="Run adatom resume, which makes it again.",
            )
        return out

    def pack(self, number: int | None = None) -> None:
        """Join the small files of a range of frames.

        Parameters
        ----------
        number
            Of the range; None for all.

        Raises
        ------
        StepFailed
            If the disk is full.
        """
        waiting = {int(p.stem.removeprefix("frame-")) for p in self.folder.glob("frame-*.zip")}
        ranges = {frame // self.together for frame in waiting}
        for one in sorted(ranges if number is None else ranges & {number}):
            frames = range(one * self.together, (one + 1) * self.together)
            tables = {name: self._range(name, frames) for name in (*self._tables, _FRAMES)}
            hashes = [self.hash(frame) for frame in tables[_FRAMES]["frame"]]
            tables[_FRAMES] = tables[_FRAMES].with_columns(hash=pl.Series(hashes, dtype=pl.String))
            self._write(self.joined(one), tables)
            with explained(self.folder):
                for frame in waiting & set(frames):
                    self.waiting(frame).unlink()

    def _range(self, name: str, frames: range) -> pl.DataFrame:
        """Read one table of the frames of one range; a small file is newer than the joined one."""
        small = [f for f in frames if self.waiting(f).exists()]
        pieces = [self._read(self.waiting(f), name) for f in small]
        number = frames.start // self.together
        if len(small) < len(frames) and self._hashes(self.joined(number)):
            known = self._read(self.joined(number), name)
            wanted = pl.col("frame").is_between(frames.start, frames.stop - 1)
            pieces.append(known.filter(wanted & ~pl.col("frame").is_in(small)))
        if not pieces:
            return self._empty(name)
        return pl.concat(pieces).sort("frame", maintain_order=True)

    def _empty(self, name: str) -> pl.DataFrame:
        if name == _FRAMES:
            return pl.DataFrame(schema=_FRAMES_SCHEMA)
        return pl.DataFrame(schema={n: c.dtype for n, c in self._tables[name].items()})

    def _hashes(self, path: Path) -> dict[int, str]:
        """Hash of every frame in a joined file; empty where it is missing or damaged."""
        try:
            stat = path.stat()
            state = stat.st_mtime_ns, stat.st_size
            if self._known.get(path, (None,))[0] != state:
                with zipfile.ZipFile(path) as file:
                    whole = file.testzip() is None
                rows = self._read(path, _FRAMES) if whole else pl.DataFrame(schema=_FRAMES_SCHEMA)
                hashes = dict(rows.select("frame", "hash").iter_rows())
                self._known[path] = state, hashes
            return self._known[path][1]
        except (FileNotFoundError, zipfile.BadZipFile, StepFailed):
            return {}

    def _read(self, path: Path, name: str) -> pl.DataFrame:
        with reading(path, "zip file of parquet tables"), zipfile.ZipFile(path) as file:
            return pl.read_parquet(io.BytesIO(file.read(f"{name}.parquet")))

    def _write(self, path: Path, tables: Mapping[str, pl.DataFrame]) -> None:
        with atomic_file(path) as target, zipfile.ZipFile(target, "w") as file:
            for name, table in tables.items():
                # The same tables give the same bytes: such an entry has no time of its own.
                entry = zipfile.ZipInfo(f"{name}.parquet")
                file.writestr(entry, table_bytes(table, self._tables.get(name)))
