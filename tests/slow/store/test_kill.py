"""A killed process loses no finished step, and leaves every file complete."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from adatom.core import Record
from adatom.store import (
    CampaignDirectory,
    FrameParts,
    is_intact,
    open_frames,
    open_maps,
    read_result,
    read_text,
    result_files,
)

LEFTOVERS = (".adatom-tmp-", ".partial")


def leftovers(root: Path) -> list[Path]:
    return [p for p in root.rglob("*") if any(mark in p.name for mark in LEFTOVERS)]


WORKER = """
import os, sys, threading, time
import numpy as np, polars as pl, ase, zarr
from adatom.core import Record, SimulationResult
from adatom.core.columns import Column
from adatom.store import *
from adatom.store.atomic import atomic_file

def outputs(i):
    rng = np.random.default_rng(i)
    image = rng.normal(size=(64, 64)).astype(np.float32)
    maps = {name: rng.integers(0, 65, (2, 64, 64)) / 128 for name in MAPS}
    table = pl.DataFrame({"frame": np.full(20000, i, np.int32), "x_A": rng.normal(size=20000)})
    atoms = ase.Atoms("C40", rng.uniform(0, 10, (40, 3)), cell=[10, 10, 10])
    result = SimulationResult("s", i, "e", "relax", 0.0, float(i), float("nan"), "done", 0.0,
                              (atoms,) * 3, {"step": np.arange(50.0) + i})
    return image, maps, table, result

PARTS = {"all": {"frame": Column(pl.Int32(), "", "Frame."), "x_A": Column(pl.Float64(), "", "")}}

def rewrite(path):
    # One file, slowly replaced over and over: most kills fall into the middle of a write.
    while True:
        for letter in (b"A", b"B"):
            with atomic_file(path) as file:
                for _ in range(100):
                    file.write(letter * 10_000)
                    time.sleep(0.001)

if __name__ == "__main__":
    root, log, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    done = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    print("opening", flush=True)
    with CampaignDirectory.open(root, {"count": count}, "f1") as campaign:
        frames = open_frames(campaign.frames_path, count, (64, 64), 0.1, together=4)
        maps = open_maps(campaign.maps_path, count, ("C", "Si"), (64, 64), 0.1, together=4)
        parts = FrameParts(campaign.parts, PARTS, together=4)
        threading.Thread(target=rewrite, args=(campaign.report_path,), daemon=True).start()
        print("working", flush=True)
        for i in range(count):
            if campaign.ledger.find(f"k{i}"):
                continue
            os.write(done, f"k{i}\\n".encode())
            campaign.ledger.start(f"k{i}", "all", str(i))
            image, arrays, table, result = outputs(i)
            output = "-".join([
                frames.write(i, image),
                maps.write(i, **arrays),
                parts.write(i, {"all": table}, i),
                write_result(campaign.trajectories / f"{i}", result),
            ])
            campaign.ledger.finish(Record(f"k{i}", "all", str(i), (), i, "v", 0.0, output))
            if i % 4 == 2:  # and again in a range that has been packed before
                for store in (frames, maps, parts):
                    store.pack(i // 4)
"""


def run_and_kill(command: list, log: Path, rng: random.Random, stage: str) -> None:
    begun = len(log.read_text().split()) if log.exists() else 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        for line in worker.stdout:
            if line.strip() == stage:
                break
        if stage == "opening":
            time.sleep(rng.uniform(0.0, 0.03))
        else:
            while len(log.read_text().split()) < begun + 2 and worker.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0.0, 0.3))
        assert worker.poll() is None, "it ended before it was killed"
        worker.kill()


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_no_finished_step_and_leaves_no_torn_file(tmp_path):
    script = tmp_path / "kill_worker.py"
    script.write_text(WORKER)
    root, log, count = tmp_path / "c", tmp_path / "log", 2000
    command = [sys.executable, script, root, log, str(count)]
    rng = random.Random()
    finished: dict[str, Record] = {}
    for stage in ("opening", "working", "working", "opening", "working"):
        logged = log.read_text().split() if log.exists() else []
        run_and_kill(command, log, rng, stage)
        begun = log.read_text().split()[len(logged) :]
        assert not set(begun) & set(finished), "finished work was repeated"
        if (root / "report.html").exists():
            text = read_text(root / "report.html")
            assert text in ("A" * 1_000_000, "B" * 1_000_000), "a file was torn"
        if not (root / "ledger.sqlite").exists():
            continue
        with CampaignDirectory.existing(root) as campaign:
            now = {r.key: r for r in campaign.ledger.records()}
            assert now.items() >= finished.items(), "finished work was lost"
            assert set(begun) >= set(now) - set(finished)
            assert not leftovers(root)
        finished = now
    assert len(finished) >= 3
    check_outputs(root, count, finished, script)


def check_outputs(root: Path, count: int, finished: dict[str, Record], script: Path) -> None:
    space: dict = {"__name__": "worker"}
    exec(compile(script.read_text(), script, "exec"), space)  # noqa: S102
    with CampaignDirectory.existing(root) as campaign:
        frames = open_frames(campaign.frames_path, count, (64, 64), 0.1, together=4)
        maps = open_maps(campaign.maps_path, count, ("C", "Si"), (64, 64), 0.1, together=4)
        parts = FrameParts(campaign.parts, space["PARTS"], together=4)
        for key, entry in finished.items():
            i = int(key[1:])
            image, arrays, table, simulated = space["outputs"](i)
            stem = campaign.trajectories / f"{i}"
            hashes = entry.output.split("-")
            assert hashes[0] == frames.hash(i)
            assert hashes[1] == maps.hash(i)
            assert hashes[2] == parts.hash(i)
            assert is_intact(hashes[3], *result_files(stem))
            np.testing.assert_array_equal(frames.read(i), image)
            for name, values in maps.read(i).items():
                np.testing.assert_array_equal(values, arrays[name])
            (read,) = parts.table("all", i + 1)[-1:]
            assert read.filter(pl.col("frame") == i).equals(table)
            back = read_result(stem)
            assert back.energy_eV == simulated.energy_eV
            np.testing.assert_array_equal(back.trace["step"], simulated.trace["step"])
            np.testing.assert_allclose(
                back.trajectory[-1].positions, simulated.trajectory[-1].positions, atol=1e-6
            )
