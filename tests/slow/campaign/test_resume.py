"""SIGKILL at any step: nothing finished is lost or repeated, and the answer is the same."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from adatom.store import CampaignDirectory, read_structures
from small import PIXEL_A, adatom, make_quick, simulated_movie

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for survivors in /proc"),
]
STEPS = ("find", "link", "supercells", "relax", "dynamics", "advice", "report")
Rows = list[tuple[str, ...]]


def ledger(campaign: Path, status: str = "done") -> Rows:
    """Key, step, times, output of every record of a status; looked at beside the writer."""
    path = campaign / "ledger.sqlite"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as base:
        try:
            return base.execute(
                "SELECT key, step, item, seconds, output, started, finished FROM steps"
                " WHERE status = ? ORDER BY key",
                (status,),
            ).fetchall()
        except sqlite3.OperationalError:  # not made yet
            return []


def count(rows: Rows, step: str) -> int:
    return sum(row[1] == step for row in rows)


def start(*words: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "adatom", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def session_members(session: int) -> list[int]:
    """Processes of a session that still run (zombies do not)."""
    out = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            out.append(int(stat.parent.name))
    return out


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> int:
    """SIGKILL the parent alone; give how many workers it had. They must end by themselves."""
    try:
        limit = time.monotonic() + 120
        while not ready():
            assert process.poll() is None, f"ended before it was killed: {process.returncode}"
            assert time.monotonic() < limit, "never came so far"
            time.sleep(0.002)
        workers = len(session_members(process.pid)) - 1
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        limit = time.monotonic() + 10
        while session_members(process.pid):
            assert time.monotonic() < limit, f"survivors: {session_members(process.pid)}"
            time.sleep(0.1)
    finally:
        for pid in session_members(process.pid):  # only where the test failed
            os.kill(pid, signal.SIGKILL)
    return workers


def tables(campaign: Path) -> dict[str, pl.DataFrame]:
    names = ("atoms", "defects", "simulations")
    out = {name: pl.read_parquet(campaign / f"{name}.parquet") for name in names}
    out["simulations"] = out["simulations"].drop("seconds")
    return out


def structures(campaign: Path) -> list[tuple[Any, ...]]:
    return [
        (s.name, s.kind, s.draw, s.atoms.numbers.tolist(), s.atoms.positions, s.sigma_A)
        for path in sorted((campaign / "structures").iterdir())
        for s in read_structures(path)
    ]


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("movie") / "movie.npy"
    np.save(path, simulated_movie(4))
    return path


@pytest.fixture(scope="module")
def uninterrupted(movie: Path) -> Path:
    campaign = movie.parent / "whole"
    assert (
        adatom("find", movie, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", campaign).returncode
        == 0
    )
    make_quick(campaign)
    done = adatom("simulate", campaign)
    assert done.returncode == 0, done.stderr
    return campaign


def test_killed_at_every_step(movie: Path, uninterrupted: Path) -> None:
    """One campaign, killed in each step in turn, comes to what an unbroken one comes to."""
    campaign = movie.parent / "killed"
    finished: Rows = []

    def survives() -> None:
        now = ledger(campaign)
        assert set(finished) <= set(now), "finished work was lost or repeated"
        finished[:] = now

    # Twice in `find`, on the real `run`: at its very beginning, and between two frames.
    words = ("run", movie, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", campaign)
    kill_when(start(*words), (campaign / "campaign.toml").exists)
    survives()
    kill_when(start(*words), lambda: count(ledger(campaign), "find") == 2)
    survives()
    assert count(finished, "find") >= 2
    make_quick(campaign)

    moments = [
        lambda: bool(count(ledger(campaign, "running"), "link")),
        lambda: bool(count(ledger(campaign, "running"), "supercells")),
        lambda: bool(count(ledger(campaign), "relax")),
        lambda: bool(count(ledger(campaign), "dynamics")),
    ]
    pooled = 0
    for moment in moments:
        pooled += kill_when(start("resume", campaign), moment) > 0
        survives()
    assert pooled >= 1  # there were workers to survive
    assert count(finished, "relax") >= 1

    done = adatom("resume", campaign)
    assert done.returncode == 0, done.stderr
    survives()
    assert {row[1] for row in finished} >= set(STEPS)
    assert not ledger(campaign, "running")
    assert not ledger(campaign, "failed")
    # The other one was made by `find` and `simulate`, which advise and report once each.
    more = {row[:3] for row in ledger(uninterrupted)} - {row[:3] for row in finished}
    assert sorted(row[1] for row in more) == ["advice", "report"]
    assert {row[:3] for row in finished} <= {row[:3] for row in ledger(uninterrupted)}
    assert_same(campaign, uninterrupted)
    assert not [p for p in campaign.rglob("*") if "adatom-tmp" in p.name]


def assert_same(campaign: Path, other: Path) -> None:
    mine, theirs = tables(campaign), tables(other)
    for both in (mine, theirs):  # motion is chaotic: a last bit at the start is another path
        energies = both.pop("simulations")
        moving = pl.col("task") == "dynamics"
        both["dynamics"] = energies.filter(moving).drop("energy_eV", "energy_sd_eV")
        both["relaxed"] = energies.filter(~moving)
    for name in mine:
        assert_frame_equal(
            # Networks in another process differ in the last bit of single precision, and a fit
            # that compares before it steps may step otherwise: a tenth of an error bar at most.
            mine[name],
            theirs[name],
            check_exact=False,
            rel_tol=1e-2,
            abs_tol=0.05 if name == "relaxed" else 5e-3,
        )
    for a, b in zip(structures(campaign), structures(other), strict=True):
        assert a[:4] == b[:4]
        np.testing.assert_allclose(a[4], b[4], atol=5e-3)
        np.testing.assert_allclose(a[5], b[5], atol=5e-3)


def test_killed_in_the_pool_leaves_no_worker(uninterrupted: Path, tmp_path: Path) -> None:
    """Killed while both relaxations run: the workers end, and only these are done again."""
    campaign = tmp_path / "campaign"
    shutil.copytree(uninterrupted, campaign)
    toml = campaign / "campaign.toml"
    toml.write_text(toml.read_text().replace("max_steps = 150", "max_steps = 149"))
    before = ledger(campaign)
    process = start("resume", campaign)
    workers = kill_when(
        process,
        lambda: (
            count(ledger(campaign, "running"), "relax") == 2
            and len(session_members(process.pid)) >= 3
        ),
    )
    assert workers >= 2
    assert set(before) <= set(ledger(campaign))
    done = adatom("resume", campaign)
    assert done.returncode == 0, done.stderr
    assert set(before) <= set(ledger(campaign))
    assert_same(campaign, uninterrupted)


def test_a_torn_or_lost_output_is_made_again(uninterrupted: Path, tmp_path: Path) -> None:
    campaign = tmp_path / "campaign"
    shutil.copytree(uninterrupted, campaign)
    before = {row[:3]: row for row in ledger(campaign)}
    victim = next((campaign / "trajectories").glob("*-300K.extxyz"))
    victim.write_bytes(victim.read_bytes()[:100])
    (campaign / "atoms.parquet").unlink()
    done = adatom("resume", campaign)
    assert done.returncode == 0, done.stderr
    after = {row[:3]: row for row in ledger(campaign)}
    assert before.keys() == after.keys()
    changed = {key[1] for key in before if before[key][5:] != after[key][5:]}
    assert changed == {"dynamics", "link", "report"}, "the page stood for what was unfinished"
    assert_same(campaign, uninterrupted)


def test_stopped_from_the_keyboard(movie: Path) -> None:
    """Ctrl-C says how to carry on, and the exit code is that of a failure."""
    campaign = movie.parent / "stopped"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "adatom",
            "find",
            movie,
            "--pixel-size",
            str(PIXEL_A),
            "-o",
            campaign,
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    limit = time.monotonic() + 60
    while not count(ledger(campaign), "find") and time.monotonic() < limit:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"adatom resume {campaign}" in err
    assert "Traceback" not in err
    with CampaignDirectory.existing(campaign):  # the lock is free
        pass
