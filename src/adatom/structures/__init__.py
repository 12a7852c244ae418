"""Structures: supercells, draws from the uncertainty, and what a structure is made of."""

from adatom.structures.assemble import structure_name
from adatom.structures.sample import draw_structures
from adatom.structures.scene import SupercellOptions
from adatom.structures.supercell import build_supercell, check_room, pristine_supercell
from adatom.structures.verify import (
    CoordinationReport,
    ForeignAtom,
    bonds,
    coordination_report,
    fingerprint,
    same_structure,
)

__all__ = [
    "CoordinationReport",
    "ForeignAtom",
    "SupercellOptions",
    "bonds",
    "build_supercell",
    "check_room",
    "coordination_report",
    "draw_structures",
    "fingerprint",
    "pristine_supercell",
    "same_structure",
    "structure_name",
]
