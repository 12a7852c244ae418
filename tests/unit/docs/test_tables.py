"""Every column that is written is described, and nothing else is."""

from __future__ import annotations

import sqlite3

import numpy as np
import polars as pl
import pytest

from adatom.core import AtomTable, DefectTable, EmptySites, atoms, defects, empty_sites
from adatom.store.ledger import LEDGER_COLUMNS, Ledger
from adatom.store.results import RESULTS_COLUMNS, results_table

TABLES = {
    "atoms": (AtomTable.empty().data, atoms.COLUMNS),
    "defects": (DefectTable.empty().data, defects.COLUMNS),
    "simulations": (results_table([], []), RESULTS_COLUMNS),
    "empty sites": (EmptySites(np.zeros((1, 2)), np.ones(1)).table(0), empty_sites.COLUMNS),
}
UNITS = {"_A": "Å", "_A2": "Å²", "_eV": "eV", "_K": "K", "_fs": "fs"}


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_described_as_they_are_written(name):
    table, described = TABLES[name]
    assert isinstance(table, pl.DataFrame)
    assert dict(table.schema) == {column: d.dtype for column, d in described.items()}
    for column, d in described.items():
        assert d.meaning.endswith("."), column
        for ending, unit in UNITS.items():
            if column.endswith(ending):
                assert d.unit == unit, column


def test_the_ledger_is_described_as_it_is_made(tmp_path):
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as connection:
        made = [row[1] for row in connection.execute("PRAGMA table_info(steps)")]
    connection.close()
    assert made == list(LEDGER_COLUMNS)
