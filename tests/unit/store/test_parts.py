"""Small files of single frames are joined, and nothing that they hold is lost."""

from __future__ import annotations

import shutil

import polars as pl
import pytest

from adatom.core.columns import Column
from adatom.errors import StepFailed
from adatom.store import FrameParts
from adatom.store import parts as parts_module

COLUMNS = {
    "a": {"frame": Column(pl.Int32(), "", "Frame."), "x_A": Column(pl.Float64(), "Å", "Place.")},
    "b": {"frame": Column(pl.Int32(), "", "Frame."), "of": Column(pl.List(pl.Int32), "", "Some.")},
}


def tables(i: int, shift: float = 0.0) -> dict[str, pl.DataFrame]:
    """Frame i has i rows, so the first has none."""
    a = {"frame": [i] * i, "x_A": [shift + i + n / 10 for n in range(i)]}
    b = {"frame": [i], "of": [list(range(i))]}
    return {
        "a": pl.DataFrame(a, schema={"frame": pl.Int32, "x_A": pl.Float64}),
        "b": pl.DataFrame(b, schema={"frame": pl.Int32, "of": pl.List(pl.Int32)}),
    }


def places(parts: FrameParts, count: int) -> list[float]:
    return pl.concat(parts.table("a", count))["x_A"].to_list()


def wanted(count: int) -> list[float]:
    return [x for i in range(count) for x in tables(i)["a"]["x_A"]]


@pytest.fixture
def parts(tmp_path):
    out = FrameParts(tmp_path, COLUMNS, together=4)
    for i in range(6):
        out.write(i, tables(i), {"told": i})
    return out


def test_joined_files_hold_what_the_small_ones_held(parts, tmp_path):
    hashes = [parts.hash(i) for i in range(6)]
    assert len(set(hashes)) == 6
    assert places(parts, 6) == wanted(6)
    parts.pack(0)
    assert parts.joined(0).exists()
    assert [parts.waiting(i).exists() for i in range(6)] == [False] * 4 + [True] * 2
    parts.pack()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frames-00000.zip", "frames-00004.zip"]
    for again in (parts, FrameParts(tmp_path, COLUMNS, together=4)):
        assert [again.hash(i) for i in range(7)] == [*hashes, ""]
        assert places(again, 6) == wanted(6)
        assert places(again, 3) == wanted(3)
        assert pl.concat(again.table("b", 6))["of"].to_list()[3] == "0 1 2"
        assert again.told(6) == {i: {"told": i} for i in range(6)}
        with pytest.raises(StepFailed, match="that of 6"):
            again.told(7)


def test_more_frames_join_those_that_are_there(parts):
    parts.pack()
    before = parts.hash(4)
    parts.write(6, tables(6), {"told": 6})
    parts.write(5, tables(5, 100.0), {"told": "new"})
    anew = parts.hash(5)
    for _ in range(2):
        assert places(parts, 7)[-11:] == [*tables(5, 100.0)["a"]["x_A"], *tables(6)["a"]["x_A"]]
        assert (parts.hash(4), parts.hash(5)) == (before, anew)
        parts.pack()
    assert parts.told(7)[5] == {"told": "new"}


def test_a_kill_between_joining_and_removing_changes_nothing(parts, tmp_path, monkeypatch):
    hashes = [parts.hash(i) for i in range(6)]
    shutil.copytree(tmp_path, tmp_path / "copy")
    parts.pack()
    for path in (tmp_path / "copy").iterdir():
        shutil.copy(path, tmp_path)  # the small files are still there
    assert [parts.hash(i) for i in range(6)] == hashes
    assert places(parts, 6) == wanted(6)

    def stop(*_, **__):
        raise KeyboardInterrupt

    parts.pack()
    parts.write(5, tables(5), {"told": 5})
    monkeypatch.setattr(parts_module, "atomic_file", stop)
    with pytest.raises(KeyboardInterrupt):
        parts.pack()
    assert [parts.hash(i) for i in range(6)] == hashes
    assert places(parts, 6) == wanted(6)


def test_a_damaged_file_holds_nothing(parts):
    parts.pack()
    path = parts.joined(0)
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"", whole[:60] + bytes([whole[60] ^ 1]) + whole[61:]):
        path.write_bytes(damaged)
        assert [parts.hash(i) for i in range(4)] == [""] * 4
        assert parts.hash(4) != ""
    path.write_bytes(whole)
    assert parts.hash(3) != ""
