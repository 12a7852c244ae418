"""The protocol of instruments, real or simulated, and their lookup by name.

Instruments are registered as entry points of the group ``adatom.instruments``. A new instrument is
one file with one object that fits `Instrument`, and one line in a ``pyproject.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from pydantic import BaseModel

from adatom.core import Frame, Material, ScanRequest
from adatom.core.plugins import INSTRUMENTS, Plugin, plugin, registered
from adatom.errors import BadInput


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Limits of the requests to an open microscope.

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
    """

    simulated: bool
    center_xy_A: tuple[float, float]
    field_of_view_A: tuple[float, float]
    pixels: tuple[int, int]

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


class Microscope(Protocol):
    """An open scanning microscope; it takes one frame at a time."""

    @property
    def capabilities(self) -> Capabilities:
        """Limits of requests."""
        ...

    def scan(self, request: ScanRequest) -> Frame:
        """Take a frame; blocks until it is complete.

        Raises
        ------
        BadInput
            If the request is outside its capabilities.
        """
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
