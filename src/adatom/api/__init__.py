"""The Python functions: each step separately, also on NumPy frames and `ase.Atoms`."""

from adatom.api.frames import adapt, example_frames, find, find_defects
from adatom.api.simulations import advise, simulate, supercells
from adatom.frames.readers.read import read

__all__ = [
    "adapt",
    "advise",
    "example_frames",
    "find",
    "find_defects",
    "read",
    "simulate",
    "supercells",
]
