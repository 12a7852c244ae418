"""Features: from probability maps to atoms, bonds, rings, defects and their tracks."""

from adatom.features.defects import DefectOptions, find_defects
from adatom.features.graph import bond_graph, rings
from adatom.features.link import LinkOptions, estimate_drift, link_atoms, link_defects

__all__ = [
    "DefectOptions",
    "LinkOptions",
    "bond_graph",
    "estimate_drift",
    "find_defects",
    "link_atoms",
    "link_defects",
    "rings",
]
