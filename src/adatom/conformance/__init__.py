"""Tests that a package runs on its own engines, instruments and readers.

Each ``check_…`` function uses the object as adatom does and raises where the answers are wrong, so
a test of such a package is one call.
"""

from adatom.conformance.engines import check_engine, rattled_graphene
from adatom.conformance.instruments import check_instrument
from adatom.conformance.readers import check_reader

__all__ = ["check_engine", "check_instrument", "check_reader", "rattled_graphene"]
