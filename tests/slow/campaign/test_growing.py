"""A folder that grows, files of several scales, and pages of runs that did not end."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from adatom.campaign import simulate
from adatom.campaign.batch import resume, run
from adatom.campaign.config import parse_config
from adatom.errors import BadInput, StepFailed
from small import PIXEL_A, QUICK, simulated_movie

pytestmark = pytest.mark.slow


def config_of(*paths: Path, **more: object):
    table = {
        "material": "graphene",
        "input": {"paths": [str(p) for p in paths], "pixel_size_A": PIXEL_A},
    }
    return parse_config(table | QUICK | more, "test")


def started(campaign: Path) -> dict[str, str]:
    """When each frame was found."""
    with closing(sqlite3.connect(campaign / "ledger.sqlite")) as base:
        rows = base.execute("SELECT item, started FROM steps WHERE step = 'find'").fetchall()
    return dict(rows)


@pytest.fixture(scope="module")
def movie():
    return simulated_movie(4)


def test_a_growing_folder_is_extended_and_only_new_frames_are_done(tmp_path, movie):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(2):
        np.save(folder / f"f{i}.npy", movie[i])
    out = tmp_path / "out"
    run(config_of(folder), out, only_find=True)
    first = started(out)
    np.save(folder / "f2.npy", movie[2])
    outcome = run(config_of(folder), out, only_find=True)
    assert outcome.summary["frames"] == 3
    after = started(out)
    assert {k: after[k] for k in first} == first
    assert set(after) - set(first) == {"frame 2"}
    np.save(folder / "f0.npy", movie[3])  # an earlier frame changed: another input
    with pytest.raises(BadInput, match="one of other input"):
        run(config_of(folder), out, only_find=True)


def test_files_of_several_sizes_become_a_batch_with_one_table(tmp_path, movie):
    files = [tmp_path / name for name in ("a.npy", "b.npy")]
    np.save(files[0], movie[0])
    np.save(files[1], movie[1][:112])
    out = tmp_path / "out"
    run(config_of(*files), out, only_find=True)
    table = pl.read_parquet(out / "results.parquet")
    assert table["status"].to_list() == ["done", "done"]
    assert all(n > 50 for n in table["atoms"])
    assert (out / "results.csv").read_text().startswith("file,campaign,status")
    page = (out / "report.html").read_text()
    assert 'href="a/report.html"' in page
    assert (out / "b" / "report.html").is_file()
    bad = tmp_path / "c.npy"
    np.save(bad, np.full((40, 40), np.nan))
    outcome = run(config_of(*files, bad), out, only_find=True)
    assert [row["status"][:6] for row in outcome.summary["files"]] == ["done", "done", "failed"]
    assert len(resume(out, only_find=True).summary["files"]) == 3


def test_a_run_that_ends_in_its_simulations_leaves_a_page_of_what_stands(
    tmp_path, movie, monkeypatch
):
    path = tmp_path / "movie.npy"
    np.save(path, movie[:2])
    seen = []

    def broken(*_: object):
        seen.append((tmp_path / "out" / "report.html").read_text())
        raise StepFailed("relax", expected="a worker", got="none", todo="Try again.")

    monkeypatch.setattr(simulate, "simulate_all", broken)
    with pytest.raises(StepFailed):
        run(config_of(path), tmp_path / "out")
    assert "Simulations are not finished" in seen[0]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The run ended before its simulations" in page
    assert "Silicon in place of carbon, three bonds" in page
