"""The memory: relaxations of all campaigns of a user, in one SQLite file.

Each row is one minimum: its energy and geometry, with the structure that it was relaxed from. A row
is found by the settings and the formula; the fingerprint of the minimum keeps one row of each.
Values are numbers and JSON text. SQLite's own locks keep two writers apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np

from adatom.errors import BadInput

VARIABLE = "ADATOM_MEMORY"  # environment variable: a directory, auto, or off
OFF, AUTO = "off", "auto"
_FILE = "relaxations-1.sqlite"  # the number is that of the table's form
_BUSY_s = 10.0  # s: wait for another program's transaction, which takes milliseconds
_MOST = 64  # rows of one formula that are compared, latest first
_TABLE = """
CREATE TABLE IF NOT EXISTS relaxations (
    settings TEXT NOT NULL,
    formula TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    name TEXT NOT NULL,
    energy_eV REAL NOT NULL,
    given TEXT NOT NULL,
    relaxed TEXT NOT NULL,
    PRIMARY KEY (settings, formula, fingerprint)
)
"""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A relaxation that is known.

    Parameters
    ----------
    name
        Campaign and structure that it comes from.
    energy_eV
        Energy of the minimum.
    given, relaxed
        The structure as it was given and the minimum, in the same cell and order.
    """

    name: str
    energy_eV: float
    given: ase.Atoms
    relaxed: ase.Atoms


def memory_path(wish: str) -> Path | None:
    """Directory of the memory; None where it is off.

    Parameters
    ----------
    wish
        ``off``, ``auto`` for the user's cache, or a directory. The environment variable
        ``ADATOM_MEMORY`` goes before it.

    Examples
    --------
    >>> memory_path("off") if "ADATOM_MEMORY" not in os.environ else None
    """
    wish = os.environ.get(VARIABLE, "").strip() or wish
    if wish == OFF:
        return None
    if wish != AUTO:
        return Path(wish).expanduser()
    home = Path.home()
    cache = home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    return (Path(base) if base else cache) / "adatom"


class Memory:
    """Relaxations in a directory.

    Parameters
    ----------
    directory
        Made where it does not exist.

    Raises
    ------
    BadInput
        If it cannot be written, or its file is none of adatom's.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with self._open() as table:
                table.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise BadInput(
                f"memory {self._path}",
                expected="a directory that can be written, with adatom's file or none",
                got=str(error),
                todo=f"Name another one by {VARIABLE}, or set it to {OFF}.",
            ) from error

    def find(self, settings: str, formula: str) -> list[Known]:
        """Give the relaxations of a formula with these settings, latest first."""
        with self._open() as table:
            rows = table.execute(
                "SELECT name, energy_eV, given, relaxed FROM relaxations "
                "WHERE settings = ? AND formula = ? ORDER BY rowid DESC LIMIT ?",
                (settings, formula, _MOST),
            ).fetchall()
        return [Known(name, energy, _read(g), _read(r)) for name, energy, g, r in rows]

    def keep(self, settings: str, fingerprint: str, known: Known) -> None:
        """Add a relaxation; of one fingerprint the lowest energy is kept."""
        row = (
            settings,
            known.given.get_chemical_formula(),
            fingerprint,
            known.name,
            known.energy_eV,
            _written(known.given),
            _written(known.relaxed),
        )
        with self._open() as table:
            table.execute(
                "INSERT INTO relaxations VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET name = excluded.name, energy_eV = excluded.energy_eV, "
                "given = excluded.given, relaxed = excluded.relaxed "
                "WHERE excluded.energy_eV < energy_eV",
                row,
            )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        table = sqlite3.connect(self._path, timeout=_BUSY_s)
        try:
            with table:  # one transaction
                yield table
        finally:
            table.close()


def _written(atoms: ase.Atoms) -> str:
    return json.dumps(
        {
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.round(6).tolist(),
            "cell": atoms.cell.array.round(6).tolist(),
        }
    )


def _read(text: str) -> ase.Atoms:
    read: dict[str, Any] = json.loads(text)
    positions = np.array(read["positions"], dtype=np.float64)
    return ase.Atoms(read["numbers"], positions, cell=read["cell"], pbc=True)
