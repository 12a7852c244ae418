"""The Python functions: each step separately, also on NumPy frames and `ase.Atoms`."""

from adatom.api.frames import adapt, example_frames, find, find_defects, identify
from adatom.api.simulations import advise, simulate, supercells
from adatom.api.tasks import adsorb, barrier, displacement_threshold, fate, vibrate
from adatom.campaign.describe import describe_atoms as describe
from adatom.features.descriptors import environments, fit_groups, patches
from adatom.frames.readers.read import read
from adatom.learning.patch_codes import encode_patches

__all__ = [
    "adapt",
    "adsorb",
    "advise",
    "barrier",
    "describe",
    "displacement_threshold",
    "encode_patches",
    "environments",
    "example_frames",
    "fate",
    "find",
    "find_defects",
    "fit_groups",
    "identify",
    "patches",
    "read",
    "simulate",
    "supercells",
    "vibrate",
]
