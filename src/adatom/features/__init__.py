"""Features: from probability maps to atoms, bonds, rings, defects and their tracks."""

from adatom.features.defects.base import DefectOptions
from adatom.features.defects.bonds import bond_graph
from adatom.features.defects.rings import rings
from adatom.features.motion import LinkOptions
from adatom.features.rates import Clock, transition_table
from adatom.features.tracking import estimate_drift, link_atoms, link_defects

__all__ = [
    "Clock",
    "DefectOptions",
    "LinkOptions",
    "bond_graph",
    "estimate_drift",
    "link_atoms",
    "link_defects",
    "rings",
    "transition_table",
]
