"""Supercells, random samples of them, and the bonds in a structure."""

from adatom.structures.assemble import structure_name
from adatom.structures.flake import build_flake
from adatom.structures.places import perfect_place
from adatom.structures.positions import Compared, relaxed_positions
from adatom.structures.sample import sample_structures
from adatom.structures.scene import SupercellOptions
from adatom.structures.supercell import (
    NoPeriodicCell,
    build_supercell,
    check_room,
    pristine_like,
    pristine_supercell,
)
from adatom.structures.verify import (
    CoordinationReport,
    ImpurityAtom,
    bonds,
    coordination_report,
    fingerprint,
    same_structure,
)
from adatom.structures.weights import EXCLUDED, effective_size
from adatom.structures.wider import widen

__all__ = [
    "EXCLUDED",
    "Compared",
    "CoordinationReport",
    "ImpurityAtom",
    "NoPeriodicCell",
    "SupercellOptions",
    "bonds",
    "build_flake",
    "build_supercell",
    "check_room",
    "coordination_report",
    "effective_size",
    "fingerprint",
    "perfect_place",
    "pristine_like",
    "pristine_supercell",
    "relaxed_positions",
    "same_structure",
    "sample_structures",
    "structure_name",
    "widen",
]
