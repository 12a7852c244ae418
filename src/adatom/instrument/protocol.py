"""The protocol of instruments, real or simulated, and their lookup by name.

Instruments are registered as entry points of the group ``adatom.instruments``. A new instrument is
one file with one object that fits `Instrument`, and one line in a ``pyproject.toml``.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from pydantic import BaseModel

from adatom.core import BeamConditions, BeamRequest, DwellTrace, Frame, Material, ScanRequest
from adatom.core.arrays import FloatArray
from adatom.core.plugins import INSTRUMENTS, Plugin, plugin, registered
from adatom.errors import BadInput

# Function of the counts of all time slices so far, shape (slice,); True ends the dwell.
StopWhen = Callable[[FloatArray], bool]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Abilities of an open microscope, and the limits of requests to it.

    Parameters
    ----------
    simulated
        Whether it is a simulation: the same options and seed give the same frames.
    center_xy_A
        Middle of the area that it can reach, x and y in Å in the frame of the specimen.
    field_of_view_A
        Smallest and largest edge of a frame, Å.
    pixels
        Fewest and most pixels along an edge.
    longest_dwell_s
        Longest time for which it parks the beam, s; 0 where it cannot.
    slice_s
        Time slice of the signal that a parked beam gives while it is on, s, at most 5 ms; 0 where
        it gives none, and cannot be stopped by it.
    blanks
        Whether the beam is off between requests. Where it is not, it rests where it was last.
    parks_aside
        Whether a beam that is on between requests rests in the corner of the largest field.
    notes
        What else it cannot do, in words that go on from "the instrument"; said at the start.
    steers
        Whether it takes the frame that is asked for. Where it does not, `Microscope.acquire` gives
        the next frame that somebody else takes, and its request says nothing about it.
    """

    simulated: bool
    center_xy_A: tuple[float, float]
    field_of_view_A: tuple[float, float]
    pixels: tuple[int, int]
    longest_dwell_s: float = 0.0
    slice_s: float = 0.0
    blanks: bool = False
    steers: bool = True
    parks_aside: bool = False
    notes: tuple[str, ...] = ()

    @property
    def traces(self) -> bool:
        """Whether a parked beam gives a signal while it is on."""
        return self.slice_s > 0

    def check(self, request: ScanRequest) -> None:
        """Refuse a request that is out of range.

        Raises
        ------
        BadInput
            If the field of view or the number of pixels is out of range.

        Examples
        --------
        >>> small = Capabilities(True, (0.0, 0.0), (8.0, 20.0), (32, 512))
        >>> small.check(ScanRequest((0.0, 0.0), 16.0, 160, 1e5))
        """
        for subject, value, (low, high), unit in (
            ("field of view", request.field_of_view_A, self.field_of_view_A, " Å"),
            ("pixels along an edge", request.pixels, self.pixels, ""),
        ):
            if not low <= value <= high:
                raise BadInput(
                    subject,
                    expected=f"{low:g} to {high:g}{unit}",
                    got=f"{value:g}{unit}",
                    todo="Ask for a frame that this instrument can take.",
                )

    def check_beam(self, request: BeamRequest, stop_when: StopWhen | None) -> None:
        """Refuse to park the beam where the instrument cannot.

        Raises
        ------
        BadInput
            If the dwell time is out of range, or the instrument cannot stop by the signal.

        Examples
        --------
        >>> blind = Capabilities(True, (0.0, 0.0), (8.0, 20.0), (32, 512), longest_dwell_s=2.0)
        >>> seen = ScanRequest((0.0, 0.0), 16.0, 160, 1e5)
        >>> blind.check_beam(BeamRequest(seen, (8.0, 8.0), 1.5), None)
        """
        if request.dwell_s > self.longest_dwell_s:
            raise BadInput(
                "dwell time",
                expected=f"at most {self.longest_dwell_s:g} s"
                if self.longest_dwell_s
                else "no parked beam: this instrument only scans",
                got=f"{request.dwell_s:g} s",
                todo="Ask for a dwell that this instrument can make.",
            )
        if stop_when is not None and not self.traces:
            raise BadInput(
                "stop of a dwell by its signal",
                expected="an instrument with a trace",
                got="one without (`Capabilities.slice_s` is 0)",
                todo="Leave `stop_when` out, and look with a frame.",
            )


def what_it_cannot(can: Capabilities) -> list[str]:
    """Say what an instrument cannot do, in words that go on from "the instrument".

    Examples
    --------
    >>> what_it_cannot(Capabilities(True, (0.0, 0.0), (8.0, 20.0), (32, 512)))
    ['does not blank its beam between requests: it rests where it was last']
    """
    if not can.steers:
        return ["takes no orders: its frames are watched, and their dose is its program's"]
    notes = list(can.notes)
    if not can.blanks:
        where = "in the corner of the largest field" if can.parks_aside else "where it was last"
        notes.insert(0, f"does not blank its beam between requests: it rests {where}")
    return notes


class Microscope(Protocol):
    """An open scanning microscope; it does one thing at a time.

    The beam is on during `acquire` and `place_beam`, and off between them where the instrument can
    blank it.
    """

    @property
    def capabilities(self) -> Capabilities:
        """Abilities, and limits of requests."""
        ...

    @property
    def conditions(self) -> BeamConditions:
        """Voltage and current of the beam."""
        ...

    @property
    def time_s(self) -> float:
        """The instrument's clock, s; a simulated microscope has its own."""
        ...

    def acquire(self, request: ScanRequest) -> Frame:
        """Take a frame; blocks until it is complete.

        Raises
        ------
        BadInput
            If the request is outside its capabilities; `DamagedFile` if this frame cannot be read.
        NoFrame
            If no frame came in time; `NoMoreFrames` if none will come.
        InstrumentGone
            If the instrument does not answer any more.
        """
        ...

    def place_beam(self, request: BeamRequest, stop_when: StopWhen | None = None) -> DwellTrace:
        """Park the beam; blocks until the dwell ends.

        Parameters
        ----------
        request
            Place and longest dwell time.
        stop_when
            Called after every time slice, of `Capabilities.slice_s`; True ends the dwell at once.

        Raises
        ------
        BadInput
            If the request is outside its capabilities.
        """
        ...

    def abort(self) -> None:
        """End what runs, from any thread, and turn the beam off; requests work again after it."""
        ...


@runtime_checkable
class Instrument(Protocol):
    """Opens a microscope of one kind.

    `adatom.conformance.instruments.check_instrument` tests one.

    Attributes
    ----------
    name
        Name that the user gives; also the name of its entry point.
    summary
        One line of description.
    options_type
        Its options, a pydantic model whose fields all have a default.
    """

    name: str
    summary: str
    options_type: type[BaseModel]

    def open(self, options: BaseModel, material: Material, *, seed: int = 0) -> Microscope:
        """Connect to the microscope.

        Parameters
        ----------
        options
            Of the type `options_type`.
        material
            Material of the specimen; a simulated microscope makes it.
        seed
            Seed of a simulated microscope: the same seed gives the same specimen and noise.

        Raises
        ------
        BadInput
            If the options are of another type, or the microscope cannot be reached.
        """
        ...


def missing_modules(instrument: object) -> tuple[str, ...]:
    """Python modules that an instrument needs and that are not installed.

    Parameters
    ----------
    instrument
        One that has, beside the parts of `Instrument`, ``modules``: names of Python modules; and
        ``extra``: adatom's extra that brings them.
    """
    out = []
    for name in getattr(instrument, "modules", ()):
        try:
            found = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:  # the package around it
            found = False
        if not found:
            out.append(name)
    return tuple(out)


def missing_extra(instrument: Any) -> None:
    """Refuse to open an instrument whose Python modules are not installed.

    Raises
    ------
    BadInput
        If one is missing; the message names adatom's extra that brings it.
    """
    if missing := missing_modules(instrument):
        raise BadInput(
            f"the instrument {instrument.name}",
            expected=f"the extra {instrument.extra}",
            got=f"no {', '.join(missing)} in {sys.executable}",
            todo=f"pip install 'adatom[{instrument.extra}]'",
        )


def registered_instruments() -> tuple[Plugin, ...]:
    """Every registered instrument, adatom's own first; those that cannot be used have an error."""
    return registered(INSTRUMENTS, Instrument)


def find_instrument(name: str) -> Instrument:
    """Find an instrument by its name.

    Raises
    ------
    BadInput
        If no instrument has this name; the message lists the names.

    Examples
    --------
    >>> find_instrument("twin").options_type.__name__
    'TwinOptions'
    """
    return cast("Instrument", plugin(INSTRUMENTS, name, Instrument))
