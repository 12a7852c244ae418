"""A directory as a live instrument: frames are the files that a microscope's program writes."""

from __future__ import annotations

import fnmatch
import os
import re
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, Field

from adatom.campaign.replay import (
    GivenFramesOptions,
    aborted,
    options_of,
    refuse_beam,
    with_dose,
)
from adatom.core import BeamConditions, BeamRequest, DwellTrace, Frame, Material, Movie, ScanRequest
from adatom.errors import BadInput, DamagedFile, InstrumentGone, NoFrame
from adatom.frames.readers.base import readable_suffixes
from adatom.frames.readers.read import natural_key, read
from adatom.instrument.protocol import Capabilities, StopWhen

_FIELD_A = (1e-3, 1e9)  # Å: any; what comes is measured by its own pixel size
_PIXELS = (16, 65536)  # any that adatom reads


class FolderOptions(GivenFramesOptions):
    """A directory in which files appear."""

    path: str = Field("", description="the directory")
    pattern: str = Field("*", description="file names to take, such as scan_*.dm4")
    existing: bool = Field(
        default=False, description="begin with the files that are there at the start"
    )
    dataset: str | None = Field(None, description="which image of files that hold several")
    settle_s: float = Field(
        0.1, ge=0, description="a file is read when it did not change for this time, s"
    )
    grace_s: float = Field(
        5.0, gt=0, description="a file that cannot be read is damaged after this time unchanged, s"
    )
    longest_wait_s: float = Field(30.0, gt=0, description="a frame is missing after this time, s")
    poll_s: float = Field(0.05, gt=0, description="time from look to look, s")


@dataclass(slots=True)
class _File:
    """A file that is not read yet.

    Parameters
    ----------
    signature
        Size in bytes and time of modification, ns.
    since
        When it was first seen so, s.
    tries
        How often a reader refused it so.
    """

    signature: tuple[int, int]
    since: float
    tries: int = 0


class Folder:
    """Serve the files of a directory as frames, in the order of their names as they appear.

    A file is read when it has not changed for `FolderOptions.settle_s` and its reader takes it; a
    file that is still being written is waited for, and others are served meanwhile. A file that is
    written again is a new frame. `Frame.index` is the last number in a file's name, so that a file
    that comes out of order is known by it; files without a number, and files with several frames,
    are counted. Times of files are compared with each other alone: no clock is trusted.

    Parameters
    ----------
    options
        See `FolderOptions`.
    """

    def __init__(self, options: FolderOptions) -> None:
        self._options, self._path = options, Path(options.path).expanduser()
        self._start = time.monotonic()
        self._aborted = threading.Event()
        self._waiting: dict[str, _File] = {}
        self._done: dict[str, tuple[int, int]] = {}
        self._movie: Movie | None = None  # a file of several frames, and how many were served
        self._served = self._count = 0
        listed = self._listed()
        if not options.existing:
            self._done = listed

    @property
    def capabilities(self) -> Capabilities:
        """Frames as they come; nothing can be asked for, and no beam be parked."""
        return Capabilities(
            simulated=False, center_xy_A=(0.0, 0.0), field_of_view_A=_FIELD_A, pixels=_PIXELS,
            steers=False,
        )  # fmt: skip

    @property
    def conditions(self) -> BeamConditions:
        """Voltage and current as the options say."""
        return self._options.conditions()

    @property
    def time_s(self) -> float:
        """Time since it was opened, s."""
        return time.monotonic() - self._start

    def acquire(self, request: ScanRequest) -> Frame:
        """Give the next frame.

        Raises
        ------
        DamagedFile
            If a file stays unreadable; the next request gives another file.
        BlankFrame
            If a frame has no contrast; alike.
        NoFrame
            If none appears in time, or the wait was aborted.
        InstrumentGone
            If the directory is gone.
        """
        del request
        self._aborted.clear()
        deadline = time.monotonic() + self._options.longest_wait_s
        while True:
            if self._movie is not None:
                return self._next_of(self._movie)
            if not self._open_next():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise NoFrame(
                        str(self._path),
                        expected=f"a new file within {self._options.longest_wait_s:g} s",
                        got=f"none ({len(self._waiting)} not complete)",
                        todo="See whether the microscope's program writes; it is waited for.",
                    )
                if self._aborted.wait(min(self._options.poll_s, left)):
                    raise aborted(str(self._path))

    def place_beam(self, request: BeamRequest, stop_when: StopWhen | None = None) -> DwellTrace:
        """Refuse: a directory has no beam."""
        return refuse_beam(self.capabilities, request, stop_when)

    def abort(self) -> None:
        """End the wait for a file."""
        self._aborted.set()

    def _next_of(self, movie: Movie) -> Frame:
        at, self._served = self._served, self._served + 1
        if self._served >= len(movie):
            self._movie = None
        number = _number(movie.source) if len(movie) == 1 else None
        index, self._count = self._count if number is None else number, self._count + 1
        return with_dose(replace(movie[at], index=index), self._options.dose_per_A2)

    def _open_next(self) -> bool:
        """Open the first file that is complete; False if there is none."""
        self._look()
        o, now = self._options, time.monotonic()
        for name in sorted(self._waiting, key=lambda n: natural_key(Path(n))):
            file = self._waiting[name]
            # Each refusal doubles the time until the next try: readers cost a process's attention.
            if now - file.since < min(o.settle_s * 2**file.tries, o.grace_s):
                continue
            try:
                movie = read([self._path / name], pixel_size_A=o.pixel_size_A, dataset=o.dataset)
                _ = movie.load(0)
            except BadInput as error:
                if now - file.since < o.grace_s:
                    file.tries += 1
                    continue
                self._finish(name)
                self._count += 1
                raise DamagedFile(
                    error.subject, expected=error.expected, got=error.got, todo=error.todo
                ) from error
            if self._signature(name) != file.signature:  # it grew while it was read
                continue
            self._finish(name)
            self._movie, self._served = movie, 0
            return True
        return False

    def _finish(self, name: str) -> None:
        self._done[name] = self._waiting.pop(name).signature

    def _look(self) -> None:
        """Note new and changed files, with the time since when they are as they are."""
        now, listed = time.monotonic(), self._listed()
        for name in [n for n in self._waiting if n not in listed]:
            del self._waiting[name]  # renamed when it was complete, or deleted
        for name, signature in listed.items():
            if self._done.get(name) == signature:
                continue
            known = self._waiting.get(name)
            if known is None or known.signature != signature:
                self._waiting[name] = _File(signature, now)

    def _listed(self) -> dict[str, tuple[int, int]]:
        """Names and signatures of the files that can be frames."""
        suffixes, found = readable_suffixes(), {}
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith(".") or Path(name).suffix.lower() not in suffixes:
                        continue
                    if fnmatch.fnmatchcase(name, self._options.pattern):
                        signature = self._signature(name)
                        if signature is not None:
                            found[name] = signature
        except OSError as error:
            raise InstrumentGone(
                str(self._path), expected="the directory of the frames", got=str(error),
                todo="Mount it again, and start again.",
            ) from error  # fmt: skip
        return found

    def _signature(self, name: str) -> tuple[int, int] | None:
        try:
            stat = (self._path / name).stat()
        except OSError:  # deleted meanwhile
            return None
        is_file = (stat.st_mode & 0o170000) == 0o100000
        return (stat.st_size, stat.st_mtime_ns) if is_file and stat.st_size else None


def _number(source: str) -> int | None:
    numbers = re.findall(r"\d+", Path(source).stem)
    return int(numbers[-1]) if numbers else None


class FolderInstrument:
    """Open a directory as an instrument: an `adatom.instrument.protocol.Instrument`."""

    name = "folder"
    summary = "Files that a microscope's program writes into a directory; the beam is the program's"
    options_type = FolderOptions

    def open(self, options: BaseModel, material: Material, *, seed: int = 0) -> Folder:
        """Begin to watch the directory.

        Raises
        ------
        BadInput
            If there is no such directory.
        """
        del material, seed
        chosen = options_of(options, FolderOptions, self.name)
        if not chosen.path or not Path(chosen.path).expanduser().is_dir():
            raise BadInput(
                "the instrument folder",
                expected="the option `path`, a directory",
                got=repr(chosen.path) if chosen.path else "none",
                todo='Name it in the file of --instrument-options: path = "/data/today".',
            )
        return Folder(chosen)


FOLDER = FolderInstrument()
