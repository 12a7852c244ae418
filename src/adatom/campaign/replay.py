"""A movie as a live instrument: its frames come at their own rate, whatever is asked for."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from adatom.core import BeamConditions, BeamRequest, DwellTrace, Frame, Material, Movie, ScanRequest
from adatom.core.acquisition import UNKNOWN, Acquisition
from adatom.errors import BadInput, NoFrame, NoMoreFrames
from adatom.frames.readers.read import read
from adatom.instrument.protocol import Capabilities, StopWhen

_Options = TypeVar("_Options", bound=BaseModel)
_FRAMES_PER_S = 5.0  # of a movie that does not say its own: usual for fast scans
_USUAL_PA = 50.0  # pA: a usual current of the probe


class GivenFramesOptions(BaseModel):
    """What frames that somebody else takes do not say themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel_size_A: float | None = Field(None, gt=0, description="pixel size; by default the file's")
    dose_per_A2: float | None = Field(
        None, gt=0, description="electrons per Å² and frame; by default the file's, where it has it"
    )
    voltage_kV: float | None = Field(
        None, gt=0, description="acceleration voltage, kV; by default a movie's own, else 60"
    )
    current_pA: float | None = Field(
        None, gt=0, description="probe current, pA; by default a movie's own, else 50"
    )

    def conditions(self, recorded: Acquisition = UNKNOWN) -> BeamConditions:
        """Voltage and current: those of the options, else of the files, else what is usual."""
        known = Acquisition(voltage_kV=self.voltage_kV, current_pA=self.current_pA)
        known = known.or_else(recorded)
        return BeamConditions(known.usual_voltage_kV, known.current_pA or _USUAL_PA)


class ReplayOptions(GivenFramesOptions):
    """A movie that is served as if it were taken now."""

    paths: tuple[str, ...] = Field((), description="the movie's file or files")
    frames: str | None = Field(None, description="START:STOP, the frames to serve")
    dataset: str | None = Field(None, description="which image of files that hold several")
    frames_per_s: float | None = Field(
        None, gt=0, description="rate; by default the movie's own, or 5 where it does not say it"
    )


class Replay:
    """Serve the frames of a movie in turn, each not before its time.

    No frame is skipped: where the reader is slower than the movie, frames wait for it.

    Parameters
    ----------
    movie
        Frames with a pixel size.
    options
        See `ReplayOptions`.
    """

    def __init__(self, movie: Movie, options: ReplayOptions) -> None:
        self._movie, self._options = movie, options
        time_s = movie.acquisition.frame_time_s
        own = None if time_s is None else 1.0 / time_s
        self._rate = options.frames_per_s or own or _FRAMES_PER_S
        self._start, self._next = time.monotonic(), 0
        self._aborted = threading.Event()

    @property
    def capabilities(self) -> Capabilities:
        """Frames of one size; nothing can be asked for, and no beam be parked."""
        size = self._movie[0].calibration
        width, height = size.extent_xy(self._movie.shape)
        edge, pixels = max(width, height), max(self._movie.shape)
        return Capabilities(
            simulated=False,
            center_xy_A=(width / 2, height / 2),
            field_of_view_A=(edge, edge),
            pixels=(pixels, pixels),
            steers=False,
        )

    @property
    def conditions(self) -> BeamConditions:
        """Voltage and current as the options say, or the movie's files."""
        return self._options.conditions(self._movie.acquisition)

    @property
    def time_s(self) -> float:
        """Time since it was opened, s."""
        return time.monotonic() - self._start

    def acquire(self, request: ScanRequest) -> Frame:
        """Give the next frame when its time has come.

        Raises
        ------
        DamagedFile, BlankFrame
            If this frame cannot be read; the next request gives the one after it.
        NoFrame
            If the wait was aborted; `NoMoreFrames` after the last frame.
        """
        del request
        if self._next >= len(self._movie):
            raise NoMoreFrames(
                self._movie.source,
                expected="a further frame",
                got=f"the end of the movie after {len(self._movie)} frames",
                todo="Replay another movie.",
            )
        self._aborted.clear()
        if self._aborted.wait(max(0.0, (self._next + 1) / self._rate - self.time_s)):
            raise aborted(self._movie.source)
        index, self._next = self._next, self._next + 1
        return with_dose(self._movie[index], self._options.dose_per_A2)

    def place_beam(self, request: BeamRequest, stop_when: StopWhen | None = None) -> DwellTrace:
        """Refuse: a movie has no beam."""
        return refuse_beam(self.capabilities, request, stop_when)

    def abort(self) -> None:
        """End the wait for a frame."""
        self._aborted.set()


class ReplayInstrument:
    """Open a movie as an instrument: an `adatom.instrument.protocol.Instrument`."""

    name = "replay"
    summary = "A movie served as a live instrument at its own rate; its beam cannot be placed"
    options_type = ReplayOptions

    def open(self, options: BaseModel, material: Material, *, seed: int = 0) -> Replay:
        """Open the movie.

        Raises
        ------
        BadInput
            If no file is named, or the movie cannot be read or has no pixel size.
        """
        del material, seed
        chosen = options_of(options, ReplayOptions, self.name)
        if not chosen.paths:
            raise BadInput(
                "the instrument replay",
                expected="the option `paths`, a movie",
                got="none",
                todo='Name it in the file of --instrument-options: paths = ["movie.tif"].',
            )
        movie = read(
            [Path(p) for p in chosen.paths],
            pixel_size_A=chosen.pixel_size_A,
            frames=chosen.frames,
            dataset=chosen.dataset,
        )
        _ = movie[0]  # a movie without pixel size is refused before anything begins
        return Replay(movie, chosen)


def with_dose(frame: Frame, dose_per_A2: float | None) -> Frame:
    """Give the frame with the dose that the user says, where one is said."""
    if dose_per_A2 is None:
        return frame
    return Frame(frame.data, frame.calibration, frame.index, frame.source, dose_per_A2)


def aborted(subject: str) -> NoFrame:
    """Make the error of a wait that was aborted."""
    return NoFrame(subject, expected="a frame", got="an abort", todo="Ask again.")


def refuse_beam(
    capabilities: Capabilities, request: BeamRequest, stop_when: StopWhen | None
) -> DwellTrace:
    """Refuse to park the beam on an instrument that cannot.

    Raises
    ------
    BadInput
        Always: the longest dwell of such an instrument is 0 s.
    """
    capabilities.check_beam(request, stop_when)
    return DwellTrace(request, np.zeros(0), 0.0, stopped=True)  # not reached: a dwell is positive


def options_of(options: BaseModel, kind: type[_Options], name: str) -> _Options:
    """Check the type of an instrument's options.

    Raises
    ------
    BadInput
        If they are of another type.
    """
    if not isinstance(options, kind):
        raise BadInput(
            f"options of the instrument {name}",
            expected=kind.__name__,
            got=type(options).__name__,
            todo="Make them with the instrument's `options_type`.",
        )
    return options


REPLAY = ReplayInstrument()
