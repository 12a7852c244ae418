"""A journal: one JSON object a line, on the disk before the next action."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adatom.errors import BadInput
from adatom.store.atomic import explained, reading


class Journal:
    r"""Append records to a file; each is on the disk when `write` returns.

    Parameters
    ----------
    path
        File, which must not exist.
    resume
        Append to an existing file in its place. A last line that was cut off by a kill is removed.

    Raises
    ------
    BadInput
        If the file exists (or, to resume, does not), or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with Journal(Path(directory) / "decisions.jsonl") as journal:
    ...         journal.write({"action": "look"})
    ...     (Path(directory) / "decisions.jsonl").read_text()
    '{"action": "look"}\n'
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self._path = path
        with explained(path):
            if resume:
                _cut_to_whole_lines(path)
                self._file = path.open("a", encoding="utf-8")
                return
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


def read_journal(path: Path) -> list[dict[str, Any]]:
    r"""Read the records of a journal; a last line that was cut off by a kill is left out.

    Raises
    ------
    BadInput
        If the file is missing or may not be read.
    StepFailed
        If another line is no record: the file was changed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory) / "decisions.jsonl"
    ...     _ = path.write_text('{"action": "look"}\n{"acti')
    ...     read_journal(path)
    [{'action': 'look'}]
    """
    with reading(path, "record of decisions"):
        whole = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in whole.split("\n")[:-1]]


def _cut_to_whole_lines(path: Path) -> None:
    with path.open("r+b") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        os.fsync(file.fileno())
