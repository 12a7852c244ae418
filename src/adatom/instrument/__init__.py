"""Instruments: the protocol of microscopes, and the simulated microscope."""

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
