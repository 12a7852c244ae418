"""The ledger: only what is finished is found, in the order of finishing."""

from __future__ import annotations

import contextlib
import sqlite3
import threading

import pytest

from adatom.core import Record
from adatom.errors import BadInput
from adatom.store import Ledger


def record(key: str, **changes) -> Record:
    values = {
        "key": key,
        "step": "find",
        "item": f"frame {key}",
        "parents": ("p1", "p2"),
        "seed": 3,
        "version": "0.1.0",
        "seconds": 1.5,
        "output": "abc",
    }
    return Record(**(values | changes))


def errors(path) -> dict[str, str]:
    """Error of every step by key, as another program reads it."""
    with contextlib.closing(sqlite3.connect(path)) as plain:
        return dict(plain.execute("SELECT key, error FROM steps"))


def test_only_finished_steps_are_found(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.find("a") is None
        ledger.start("a", "find", "frame a", parents=("p1", "p2"), seed=3, version="0.1.0")
        assert ledger.find("a") is None
        ledger.finish(record("a"))
        assert ledger.find("a") == record("a")
        ledger.start("b", "relax", "draw 0")
        ledger.fail("b", "exploded")
        assert ledger.find("b") is None
        assert ledger.summary().rows() == [("find", 1, 0, 0, 1.5), ("relax", 0, 1, 0, 0.0)]
        assert errors(tmp_path / "ledger.sqlite") == {"a": "", "b": "exploded"}
        with pytest.raises(ValueError, match="not running"):
            ledger.fail("a", "too late")
        assert ledger.find("a") == record("a")
        ledger.start("a", "find", "frame a")  # its output was lost: it is done again
        assert ledger.find("a") is None


def test_records_keep_the_order_of_finishing_over_a_restart(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        for key in "zay":
            ledger.start(key, "find", key)
        for key in "azy":
            ledger.finish(record(key))
    with Ledger(path) as ledger:
        ledger.finish(record("b", step="relax", seconds=0.0))  # without a start
        ledger.start("c", "relax", "c")
        ledger.interrupt()
        assert [r.key for r in ledger.records()] == ["a", "z", "y", "b"]
        assert ledger.summary().rows() == [("find", 3, 0, 0, 4.5), ("relax", 1, 1, 0, 0.0)]
        assert "interrupted" in errors(path)["c"]


def test_the_ledger_is_read_without_adatom(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.start("a", "find", "frame a")
        ledger.finish(record("a"))
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.sqlite"]
    with contextlib.closing(sqlite3.connect(path)) as plain:
        row = plain.execute(
            "SELECT key, step, parents, status, seconds, output, started, finished FROM steps"
        ).fetchone()
    assert row[:6] == ("a", "find", '["p1", "p2"]', "done", 1.5, "abc")
    assert all(moment.endswith("Z") and moment[10] == "T" for moment in row[6:])
    assert row[6] <= row[7]


def test_threads_share_a_ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:

        def work(name: str) -> None:
            for i in range(8):
                ledger.start(f"{name}{i}", "find", str(i))
                ledger.finish(record(f"{name}{i}"))

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({r.key for r in ledger.records()}) == 32


def test_no_ledger_or_a_newer_one_is_refused(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be looked at " * 20)
    with pytest.raises(BadInput, match="ledger"):
        Ledger(tmp_path / "text")
    with pytest.raises(BadInput, match="none"):
        Ledger(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()
    with contextlib.closing(sqlite3.connect(tmp_path / "new")) as plain:
        plain.execute("PRAGMA user_version = 99")
    with pytest.raises(BadInput, match="schema 99"):
        Ledger(tmp_path / "new")
