"""The ledger: every step of a campaign in one SQLite table, readable without adatom.

A step's output is written before its record is committed, so a record with status ``done`` always
has a complete output. ``output`` holds its hash, which shows a file that was changed later.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import polars as pl

from adatom.core import Record
from adatom.errors import AdatomError, BadInput, StepFailed

LEDGER_SCHEMA = 1  # version of the table; raise it when an old adatom cannot read a new ledger
_BUSY_SECONDS = 10.0  # s: wait for another program's transaction, which takes milliseconds
# Every column of the table ``steps`` of ``ledger.sqlite``; the reference page is made from it.
LEDGER_COLUMNS = {
    "key": "Hash of inputs, options and the code of the step; primary key.",
    "step": "Name of the step, such as `find`.",
    "item": "What the step was applied to, such as `frame 12`.",
    "parents": "Keys of the steps whose results it used, a JSON list.",
    "status": "`running`, `done` or `failed`.",
    "seconds": "Wall time, s; null until done.",
    "seed": "Seed of its random generator; -1 for a step without one.",
    "version": "Version of adatom.",
    "output": "Hash of its output; empty until done.",
    "error": "Reason of the failure; empty otherwise.",
    "started": "UTC, ISO 8601.",
    "finished": "UTC, ISO 8601; null until done or failed.",
    "finished_no": "Order of finishing: clocks may go backwards.",
}
_TABLE = """
CREATE TABLE IF NOT EXISTS steps (
    key TEXT PRIMARY KEY,
    step TEXT NOT NULL,
    item TEXT NOT NULL,
    parents TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed')),
    seconds REAL,
    seed INTEGER NOT NULL,
    version TEXT NOT NULL,
    output TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    started TEXT,
    finished TEXT,
    finished_no INTEGER UNIQUE
) WITHOUT ROWID
"""
# SQL of the ledger; `_NEXT` numbers the finished steps.
_NEXT = "(SELECT coalesce(max(finished_no), 0) + 1 FROM steps)"
_START = """
INSERT INTO steps (key, step, item, parents, status, seed, version, started)
VALUES (:key, :step, :item, :parents, 'running', :seed, :version, :started)
ON CONFLICT (key) DO UPDATE SET
    step = excluded.step, item = excluded.item, parents = excluded.parents, status = 'running',
    seconds = NULL, seed = excluded.seed, version = excluded.version, output = '', error = '',
    started = excluded.started, finished = NULL, finished_no = NULL
"""
_FINISH = f"""
INSERT INTO steps (key, step, item, parents, status, seconds, seed, version, output, error,
                   started, finished, finished_no)
VALUES (:key, :step, :item, :parents, 'done', :seconds, :seed, :version, :output, '',
        :started, :finished, {_NEXT})
ON CONFLICT (key) DO UPDATE SET
    step = excluded.step, item = excluded.item, parents = excluded.parents, status = 'done',
    seconds = excluded.seconds, seed = excluded.seed, version = excluded.version,
    output = excluded.output, error = '', started = coalesce(steps.started, excluded.started),
    finished = excluded.finished, finished_no = excluded.finished_no
"""  # noqa: S608 (no user text in it)
_FAIL = f"""
UPDATE steps SET status = 'failed', error = :error, finished = :finished, finished_no = {_NEXT}
WHERE key = :key AND status = 'running'
"""  # noqa: S608
_INTERRUPT = """
UPDATE steps SET status = 'failed', error = 'interrupted: the process ended before the step did'
WHERE status = 'running'
"""
# Columns of a `Record`, in the order of `_record`.
_COLUMNS = "key, step, item, parents, seed, version, seconds, output"
_SUMMARY = """
SELECT step,
       sum(status = 'done') AS done, sum(status = 'failed') AS failed,
       sum(status = 'running') AS running, total(seconds) AS seconds
FROM steps GROUP BY step ORDER BY min(started), step
"""
_SUMMARY_SCHEMA = pl.Schema(
    {
        "step": pl.String(),
        "done": pl.Int64(),
        "failed": pl.Int64(),
        "running": pl.Int64(),
        "seconds": pl.Float64(),
    }
)


class Ledger:
    """Every step of one campaign; safe to share between the threads of one process.

    Write-ahead logging lets other processes read while the campaign runs. ``synchronous=FULL``
    makes each commit wait for the disk. The default of that mode survives a SIGKILL but can lose
    the last steps in a power cut; a step takes far longer than the milliseconds of a sync.

    Parameters
    ----------
    path
        The SQLite file; created if it is missing, unless `read_only`.
    read_only
        Change nothing.

    Raises
    ------
    BadInput
        If the file is not a ledger, is from a newer adatom, or cannot be opened.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self._path = Path(path)
        self._lock = threading.RLock()
        self._read_only = read_only
        with self._explained():
            uri = f"{self._path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
            self._connection = sqlite3.connect(
                uri,
                uri=True,
                timeout=_BUSY_SECONDS,
                isolation_level=None,  # every statement is its own transaction
                check_same_thread=False,
            )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self._explained():
            (schema,) = self._connection.execute("PRAGMA user_version").fetchone()
            if schema > LEDGER_SCHEMA:
                raise BadInput(
                    str(self._path),
                    expected=f"a ledger of schema {LEDGER_SCHEMA} or older",
                    got=f"schema {schema}, from a newer adatom",
                    todo="Install that adatom, or start another directory with -o.",
                )
            if self._read_only:
                self._connection.execute("SELECT count(*) FROM steps").fetchone()
                return
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            if (
                schema < LEDGER_SCHEMA
            ):  # one transaction: after a kill the table exists completely or not at all
                self._connection.executescript(
                    f"BEGIN IMMEDIATE; {_TABLE}; PRAGMA user_version = {LEDGER_SCHEMA}; COMMIT;"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close, and remove SQLite's log files; closing twice is harmless."""
        with self._lock:
            if not self._read_only:
                # This fails while another process reads, or on a full disk; the ledger is complete
                # either way.
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA busy_timeout = 0")
                    self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.close()

    def find(self, key: str) -> Record | None:
        """Find the record of a finished step.

        Parameters
        ----------
        key
            Hash of the step's inputs, options and code.

        Returns
        -------
        The record; None if the step never finished, failed, or was started again since.
        """
        rows = self._query(f"SELECT {_COLUMNS} FROM steps WHERE key = ? AND status = 'done'", key)  # noqa: S608
        return self._record(rows[0]) if rows else None

    def start(
        self,
        key: str,
        step: str,
        item: str,
        *,
        parents: tuple[str, ...] = (),
        seed: int = -1,
        version: str = "",
    ) -> None:
        """Record the start of a step; a finished step of this key becomes unfinished.

        Parameters
        ----------
        key, step, item, parents, seed, version
            As in `adatom.core.Record`.

        Raises
        ------
        StepFailed
            If the disk is full.
        """
        self._query(
            _START,
            {
                "key": key,
                "step": step,
                "item": item,
                "parents": json.dumps(list(parents)),
                "seed": seed,
                "version": version,
                "started": _iso(datetime.now(UTC)),
            },
        )

    def finish(self, record: Record) -> None:
        """Commit a finished step to the disk. Its output must be written before.

        Parameters
        ----------
        record
            The finished step.

        Raises
        ------
        StepFailed
            If the disk is full; the step then counts as not done.
        """
        now = datetime.now(UTC)
        self._query(
            _FINISH,
            {
                "key": record.key,
                "step": record.step,
                "item": record.item,
                "parents": json.dumps(list(record.parents)),
                "seconds": float(record.seconds),
                "seed": int(record.seed),
                "version": record.version,
                "output": record.output,
                "started": _iso(now - timedelta(seconds=float(record.seconds))),
                "finished": _iso(now),
            },
        )

    def fail(self, key: str, message: str) -> None:
        """Record the failure of a running step, which will be tried again.

        Parameters
        ----------
        key
            Key of the step.
        message
            Reason of the failure.

        Raises
        ------
        ValueError
            If no step of this key is running.
        """
        values = {"key": key, "error": message, "finished": _iso(datetime.now(UTC))}
        with self._lock, self._explained():
            if self._connection.execute(_FAIL, values).rowcount == 0:
                raise ValueError(f"expected a running step, got {key!r}, which is not running")

    def interrupt(self) -> None:
        """Mark every step that is ``running`` as failed; call it only while holding the lock."""
        self._query(_INTERRUPT)

    def records(self) -> list[Record]:
        """List the finished steps in the order of finishing."""
        rows = self._query(
            f"SELECT {_COLUMNS} FROM steps WHERE status = 'done' ORDER BY finished_no"  # noqa: S608
        )
        return [self._record(row) for row in rows]

    def summary(self) -> pl.DataFrame:
        """Count the items of each step by status.

        Returns
        -------
        One row per step: ``step, done, failed, running, seconds`` (s, summed over the finished).
        """
        return pl.DataFrame(self._query(_SUMMARY), schema=_SUMMARY_SCHEMA, orient="row")

    def _record(self, row: tuple[Any, ...]) -> Record:
        """Make a record of a row; one that no adatom wrote is refused."""
        key, step, item, parents, seed, version, seconds, output = row
        try:
            return Record(
                key=str(key),
                step=str(step),
                item=str(item),
                parents=_keys(parents),
                seed=int(seed),
                version=str(version),
                seconds=float(seconds),
                output=str(output),
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(
                str(self._path),
                expected="a ledger whose rows adatom wrote",
                got=f"a row of {step}, {item} with {type(error).__name__}: {error}",
                todo="A damaged ledger can be deleted, and the steps are then done again.",
            ) from error

    def _query(self, sql: str, values: Any = None) -> list[Any]:
        arguments = () if values is None else (values,) if isinstance(values, str) else values
        with self._lock, self._explained():
            return self._connection.execute(sql, arguments).fetchall()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (
            sqlite3.ProgrammingError
        ):  # a closed connection is an error of the caller, not of the user
            raise
        except sqlite3.DatabaseError as error:
            raise _explanation(self._path, error) from error


def _explanation(path: Path, error: sqlite3.DatabaseError) -> AdatomError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_LOCKED")):
        return StepFailed(
            str(path),
            expected="a ledger that takes the record (room on the disk, no other program in it)",
            got=f"{error} ({name})",
            todo="Free space or close the other program, then run adatom resume.",
        )
    return BadInput(
        str(path),
        expected="a readable and writable ledger (SQLite with a table of steps)",
        got=f"{error} ({name})",
        todo="Check the path and its permissions; a damaged ledger can be deleted, and the "
        "steps are then done again.",
    )


def _keys(text: str) -> tuple[str, ...]:
    """Read a JSON list of keys."""
    keys = json.loads(text)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise TypeError(f"parents {text!r}")
    return tuple(keys)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
