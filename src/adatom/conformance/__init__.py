"""Tests that a package runs on its own engines, instruments, readers and defect namers.

Each ``check_…`` function uses the object as adatom does and raises where the answers are wrong, so
a test of such a package is one call.
"""

from adatom.conformance.defect_namers import check_defect_namer
from adatom.conformance.engines import check_engine, rattled_graphene
from adatom.conformance.instruments import check_instrument
from adatom.conformance.readers import check_reader

__all__ = [
    "check_defect_namer",
    "check_engine",
    "check_instrument",
    "check_reader",
    "rattled_graphene",
]
