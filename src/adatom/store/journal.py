"""A journal: one JSON object a line, on the disk before the next action."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adatom.errors import BadInput
from adatom.store.atomic import explained


class Journal:
    r"""Append records to a new file; each is on the disk when `write` returns.

    Parameters
    ----------
    path
        File, which must not exist.

    Raises
    ------
    BadInput
        If the file exists, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with Journal(Path(directory) / "decisions.jsonl") as journal:
    ...         journal.write({"action": "look"})
    ...     (Path(directory) / "decisions.jsonl").read_text()
    '{"action": "look"}\n'
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = path.open("x", encoding="utf-8")
            except FileExistsError as error:
                raise BadInput(
                    str(path),
                    expected="a directory without an earlier record",
                    got="a record of another run",
                    todo="Name another directory with -o; nothing is overwritten.",
                ) from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record.

        Raises
        ------
        StepFailed
            If the disk is full or fails.
        """
        with explained(self._path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        """Use as a context."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()
