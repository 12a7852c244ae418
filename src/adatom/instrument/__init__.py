"""Instruments: the protocol of microscopes, and the simulated microscope."""

from adatom.instrument.protocol import (
    Capabilities,
    Instrument,
    Microscope,
    StopWhen,
    find_instrument,
    registered_instruments,
)
from adatom.instrument.specimen import Loss
from adatom.instrument.twin import Twin
from adatom.instrument.twin_options import FAST_HOPS_A2, TwinOptions

__all__ = [
    "FAST_HOPS_A2",
    "Capabilities",
    "Instrument",
    "Loss",
    "Microscope",
    "StopWhen",
    "Twin",
    "TwinOptions",
    "find_instrument",
    "registered_instruments",
]
