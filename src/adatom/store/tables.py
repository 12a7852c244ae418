"""Parquet tables, JSON and text files, each written completely or not at all."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from adatom.core.columns import Column
from adatom.store.atomic import atomic_file, file_hash, is_intact, reading

__all__ = [
    "file_hash",
    "is_intact",
    "read_json",
    "read_table",
    "read_text",
    "write_json",
    "write_table",
    "write_text",
]


_COLUMNS_KEY = "adatom.columns"  # key of the columns' units and meanings in a file's metadata


def write_table(
    path: str | Path, table: pl.DataFrame, columns: Mapping[str, Column] | None = None
) -> str:
    """Write a parquet table.

    Lists become text with spaces between the items, since CSV and many programs know no lists.

    Parameters
    ----------
    path
        The file.
    table
        What to write.
    columns
        Description of its columns: the file's metadata hold unit and meaning of each, as JSON
        under ``adatom.columns``.

    Returns
    -------
    `file_hash` of the file, for the ledger.

    Raises
    ------
    BadInput
        If the path cannot be written.
    StepFailed
        If the disk is full.
    """
    # Write to memory first: polars would replace the error of a full disk by its own.
    content = table_bytes(table, columns)
    with atomic_file(Path(path)) as file:
        file.write(content)
    return file_hash(path)


def table_bytes(table: pl.DataFrame, columns: Mapping[str, Column] | None = None) -> bytes:
    """Make the content of a parquet file; see `write_table`."""
    content = io.BytesIO()
    lists = [name for name, kind in table.schema.items() if isinstance(kind, pl.List)]
    flat = table.with_columns(
        pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in lists
    )
    flat.write_parquet(content, compression="zstd", metadata=_metadata(columns or {}))
    return content.getvalue()


def _metadata(columns: Mapping[str, Column]) -> dict[str, str]:
    told = {name: {"unit": c.unit, "meaning": c.meaning} for name, c in columns.items()}
    return {_COLUMNS_KEY: json.dumps(told, ensure_ascii=False)} if told else {}


def read_table(path: str | Path) -> pl.DataFrame:
    """Read a parquet table.

    Raises
    ------
    BadInput
        If the file is missing.
    StepFailed
        If it is damaged.
    """
    path = Path(path)
    with reading(path, "parquet table"):
        # Read to memory first: Windows cannot replace a mapped file, and polars treats a path with
        # [ ] as a pattern.
        return pl.read_parquet(io.BytesIO(path.read_bytes()))


def write_text(path: str | Path, text: str) -> str:
    """Write a text file, UTF-8.

    Returns
    -------
    `file_hash` of the file, for the ledger.

    Raises
    ------
    BadInput
        If the path cannot be written.
    StepFailed
        If the disk is full.
    """
    with atomic_file(Path(path)) as file:
        file.write(text.encode())
    return file_hash(path)


def read_text(path: str | Path) -> str:
    """Read a text file, UTF-8.

    Raises
    ------
    BadInput
        If the file is missing.
    StepFailed
        If it is damaged.
    """
    path = Path(path)
    with reading(path, "UTF-8 text"):
        return path.read_bytes().decode()


def write_json(path: str | Path, value: Any) -> str:
    """Write strictly valid JSON.

    Parameters
    ----------
    path
        The file.
    value
        Nested dictionaries, lists, tuples, dataclasses, NumPy arrays and scalars, paths, strings
        and numbers. NaN and the infinities, which JSON does not have, become null.

    Returns
    -------
    `file_hash` of the file, for the ledger.

    Raises
    ------
    TypeError
        If `value` contains anything else.
    BadInput
        If the path cannot be written.
    StepFailed
        If the disk is full.
    """
    return write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Write a value as `write_json` does, to a text."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises
    ------
    BadInput
        If the file is missing.
    StepFailed
        If it is damaged.
    """
    path = Path(path)
    with reading(path, "JSON file"):
        return json.loads(path.read_bytes())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
