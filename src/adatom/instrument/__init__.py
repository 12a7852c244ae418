"""Instruments: what a microscope can do, and the simulated one."""

from adatom.instrument.protocol import (
    Capabilities,
    Instrument,
    Microscope,
    find_instrument,
    registered_instruments,
)
from adatom.instrument.twin import Twin, TwinOptions

__all__ = [
    "Capabilities",
    "Instrument",
    "Microscope",
    "Twin",
    "TwinOptions",
    "find_instrument",
    "registered_instruments",
]
