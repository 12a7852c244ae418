"""Description of a column of a table: type, unit and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl


class Column(NamedTuple):
    """One column of a table.

    Parameters
    ----------
    dtype
        Type as polars and parquet name it.
    unit
        Unit of the values; an empty string for values without a unit.
    meaning
        Meaning of the values, in one or two sentences.
    """

    dtype: pl.DataType
    unit: str
    meaning: str


def schema_of(columns: Mapping[str, Column]) -> pl.Schema:
    """Give names and types of the columns, in their order.

    Parameters
    ----------
    columns
        Name and description of every column.

    Examples
    --------
    >>> dict(schema_of({"x_A": Column(pl.Float64(), "Å", "Position along the columns.")}))
    {'x_A': Float64}
    """
    return pl.Schema({name: column.dtype for name, column in columns.items()})
