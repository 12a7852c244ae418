"""Supercells, random samples of them, and the bonds in a structure."""

from adatom.structures.assemble import structure_name
from adatom.structures.sample import sample_structures
from adatom.structures.scene import SupercellOptions
from adatom.structures.supercell import build_supercell, check_room, pristine_supercell
from adatom.structures.verify import (
    CoordinationReport,
    ImpurityAtom,
    bonds,
    coordination_report,
    fingerprint,
    same_structure,
)

__all__ = [
    "CoordinationReport",
    "ImpurityAtom",
    "SupercellOptions",
    "bonds",
    "build_supercell",
    "check_room",
    "coordination_report",
    "fingerprint",
    "pristine_supercell",
    "same_structure",
    "sample_structures",
    "structure_name",
]
