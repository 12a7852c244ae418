"""Instruments: the simulated microscope."""

from adatom.instrument.protocol import Microscope
from adatom.instrument.twin import Twin, TwinOptions

__all__ = ["Microscope", "Twin", "TwinOptions"]
