"""The campaign directory: opening, locking, and failures of the disk."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import ase
import numpy as np
import polars as pl
import pytest

from adatom.core import Record
from adatom.errors import BadInput, StepFailed
from adatom.store import (
    CampaignDirectory,
    load_frames,
    open_frames,
    read_text,
    write_table,
    write_text,
    write_trajectory,
)

CONFIG = {"material": "graphene", "seed": 7, "relax": {"draws": 4, "fmax_eV_A": 0.05, "cap": None}}
LEFTOVERS = (".adatom-tmp-", ".partial")


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"")
        for p in sorted(root.rglob("*"))
    }


def leftovers(root: Path) -> list[Path]:
    return [p for p in root.rglob("*") if any(mark in p.name for mark in LEFTOVERS)]


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


def test_a_campaign_is_made_and_opened_again(tmp_path):
    root = tmp_path / "runs" / "one"
    with CampaignDirectory.open(root, CONFIG, "f1", source=["movie.tif"]) as campaign:
        campaign.ledger.finish(record("a"))
        campaign.ledger.start("b", "find", "b")
        names = {p.name for p in root.iterdir()}
        assert {"campaign.toml", "ledger.sqlite", "structures", "trajectories", ".parts"} <= names
    table = tomllib.loads((root / "campaign.toml").read_text("utf-8"))
    assert table["campaign"]["fingerprint"] == "f1"
    assert table["campaign"]["source"] == ["movie.tif"]
    assert table["campaign"]["schema"] == 2
    assert table["campaign"]["version"]
    assert table["relax"] == {"draws": 4, "fmax_eV_A": 0.05}

    before = (root / "campaign.toml").stat().st_mtime_ns
    with CampaignDirectory.open(root, CONFIG, "f1") as campaign:
        assert [r.key for r in campaign.ledger.records()] == ["a"]
        # "a" is done; "b", which was running, counts as failed.
        assert campaign.ledger.summary().rows() == [("find", 1, 1, 0, 1.5)]
        assert campaign.source == ("movie.tif",)
    assert (root / "campaign.toml").stat().st_mtime_ns == before

    with CampaignDirectory.open(root, CONFIG | {"seed": 8}, "f1") as campaign:
        assert campaign.ledger.find("a") == record("a")
    with CampaignDirectory.existing(root) as campaign:
        assert campaign.config == {
            "material": "graphene",
            "seed": 8,
            "relax": {"draws": 4, "fmax_eV_A": 0.05},
        }
        assert campaign.fingerprint == "f1"
        campaign.write_config(campaign.config | {"seed": 9})
    assert CampaignDirectory.existing(root, read_only=True).config["seed"] == 9


def test_input_that_begins_with_the_old_frames_extends_a_campaign(tmp_path):
    root = tmp_path / "c"
    with CampaignDirectory.open(root, CONFIG, "2", count=2):
        pass
    more = {"count": 3, "earlier": str}
    with CampaignDirectory.open(root, CONFIG, "3", **more) as campaign:
        assert campaign.fingerprint == "3"
    for count, earlier in ((4, lambda n: f"other {n}"), (2, str), (3, str)):
        with pytest.raises(BadInput, match="one of other input"):
            CampaignDirectory.open(root, CONFIG, "new", count=count, earlier=earlier)


def test_other_directories_are_refused_and_unchanged(tmp_path):
    with CampaignDirectory.open(tmp_path / "theirs", CONFIG, "f1"):
        pass
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    (tmp_path / "file").write_text("text")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "campaign.toml").write_text("[campaign\nschema")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "campaign.toml").write_text(
        '[campaign]\nschema = 99\nfingerprint = "f2"\nversion = "9.0"\n'
    )
    before = snapshot(tmp_path)
    for name, said in (
        ("theirs", "f1"),
        ("photos", r"cat\.jpg"),
        ("file", "a file"),
        ("file/below", "file/below"),
        ("torn", "no TOML"),
        ("new", r"schema 99, written by adatom 9\.0"),
    ):
        with pytest.raises(BadInput, match=said):
            CampaignDirectory.open(tmp_path / name, CONFIG, "f2")
    for name, said in (
        ("photos", r"without campaign\.toml"),
        ("nowhere", "no such directory"),
        ("file", "a file"),
        ("torn", "no TOML"),
        ("new", "schema 99"),
    ):
        for read_only in (True, False):
            with pytest.raises(BadInput, match=said):
                CampaignDirectory.existing(tmp_path / name, read_only=read_only)
    assert snapshot(tmp_path) == before


def test_what_a_killed_writer_left_is_swept_away(tmp_path):
    # Killed before the configuration was there: still an empty directory to the next one.
    (tmp_path / ".adatom-tmp-0").write_text("[campa")
    (tmp_path / ".adatom-lock").write_text("1 host\n")
    with CampaignDirectory.open(tmp_path, CONFIG, "f1") as campaign:
        frames = open_frames(campaign.frames_path, 2, (8, 8), 0.1)
        frames.write(0, np.ones((8, 8)))
        frames.image.waiting(0).with_name(".adatom-tmp-3").write_bytes(b"half")
        (frames.image.path / "0" / "zarr.json.0123.partial").write_bytes(b"half")
        (campaign.parts / ".adatom-tmp-1").write_text("half")
        (tmp_path / ".adatom-tmp-2" / "deep").mkdir(parents=True)
        (campaign.parts / "notes.partial").write_text("the user's own")
    with CampaignDirectory.existing(tmp_path) as campaign:
        assert leftovers(tmp_path) == [campaign.parts / "notes.partial"]
        assert load_frames(campaign.frames_path).read(0).sum() == 64


def test_one_process_opens_a_campaign_once(tmp_path):
    first = CampaignDirectory.open(tmp_path, CONFIG, "f1")
    with pytest.raises(BadInput, match="this process"):
        CampaignDirectory.existing(tmp_path)
    first.ledger.finish(record("a"))
    with CampaignDirectory.existing(tmp_path, read_only=True) as looker:
        assert looker.ledger.find("a") == record("a")
        with pytest.raises(BadInput, match="readonly"):
            looker.ledger.finish(record("b"))
    first.close()
    first.close()
    dropped = CampaignDirectory.existing(tmp_path)
    del dropped
    CampaignDirectory.existing(tmp_path).close()


HOLDER = """
import os, sys, time
from adatom.store import CampaignDirectory
campaign = CampaignDirectory.open(sys.argv[1], {}, "f1")
worker = os.fork() if hasattr(os, "fork") else 0
if worker or not hasattr(os, "fork"):
    print(os.getpid(), worker, flush=True)
time.sleep(60)
"""


def test_a_second_process_waits_until_the_first_is_gone_even_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "c"], stdout=subprocess.PIPE, text=True
    ) as holder:
        pid, worker = map(int, holder.stdout.readline().split())
        try:
            for open_it in (
                lambda: CampaignDirectory.open(tmp_path / "c", {}, "f1"),
                lambda: CampaignDirectory.existing(tmp_path / "c"),
            ):
                with pytest.raises(BadInput, match=f"pid {pid}.* is working there"):
                    open_it()
            assert CampaignDirectory.existing(tmp_path / "c", read_only=True).fingerprint == "f1"
            holder.kill()
            holder.wait()
            # A worker process that outlived its parent must not keep the next one out.
            with CampaignDirectory.existing(tmp_path / "c") as campaign:
                assert campaign.ledger.records() == []
        finally:
            holder.kill()
            if worker:
                os.kill(worker, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Unix permissions")
def test_a_place_that_may_not_be_written_is_bad_input():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        with CampaignDirectory.open(root / "c", CONFIG, "f1") as campaign:
            campaign.ledger.finish(record("a"))
        before = snapshot(root)
        for place in (root / "c", root):
            place.chmod(0o555)
        superuser = os.geteuid() == 0
        if superuser:
            os.seteuid(65534)  # permissions do not bind the superuser
        try:
            for action in (
                lambda: CampaignDirectory.open(root / "new", CONFIG, "f1"),
                lambda: CampaignDirectory.open(root / "c", CONFIG, "f1"),
                lambda: write_text(root / "report.html", "x"),
                lambda: open_frames(root / "frames.zarr", 1, (8, 8), 0.1),
            ):
                with pytest.raises(BadInput, match=r"[Pp]ermission"):
                    action()
            with CampaignDirectory.existing(root / "c", read_only=True) as campaign:
                assert campaign.ledger.find("a") == record("a")
        finally:
            if superuser:
                os.seteuid(0)
            root.chmod(0o755)
            (root / "c").chmod(0o755)
        assert snapshot(root) == before


@contextlib.contextmanager
def room_for(size: int):
    """Let no file grow beyond a size: a real refusal by the system, in the middle of a write."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_fails_the_step_and_keeps_what_was_there(tmp_path):
    noise = np.random.default_rng(0).normal(size=(128, 128))
    with CampaignDirectory.open(tmp_path / "c", CONFIG, "f1") as campaign:
        frames = open_frames(campaign.frames_path, 2, (128, 128), 0.1)
        output = frames.write(0, noise)
        write_text(campaign.report_path, "old")
        campaign.ledger.finish(record("a"))
        for action in (
            lambda: write_text(campaign.report_path, "new" * 10000),
            lambda: write_table(campaign.atoms_path, pl.DataFrame({"x": noise.ravel()})),
            lambda: write_trajectory(
                campaign.trajectories / "t.extxyz",
                [ase.Atoms("C40", noise[:120, 0].reshape(40, 3))] * 9,
            ),
            lambda: frames.write(0, noise + 1),
            lambda: frames.write(1, noise),
            lambda: campaign.ledger.finish(record("b", item="x" * 20000)),
        ):
            with room_for(4000), pytest.raises(StepFailed, match="room"):
                action()
        assert frames.hash(0) == output
        assert frames.hash(1) == ""
        assert read_text(campaign.report_path) == "old"
        assert [r.key for r in campaign.ledger.records()] == ["a"]
        campaign.ledger.finish(record("b"))
        assert not leftovers(tmp_path / "c")
