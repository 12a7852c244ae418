"""A live run whose process is killed goes on, and comes out again."""

import os
import signal
import subprocess
import sys
import time

import pytest

from adatom.campaign.live_run import verify_live
from adatom.store.journal import read_journal

pytestmark = pytest.mark.slow


def command(path, *more):
    words = ["live", "--no-page", "-o", str(path), *more]
    code = (
        f"from adatom.cli.main import main; import sys; sys.argv = ['adatom', *{words!r}]; main()"
    )
    return [sys.executable, "-c", code]


def test_a_killed_process_goes_on_within_its_limits(tmp_path):
    record = tmp_path / "decisions.jsonl"
    process = subprocess.Popen(
        command(tmp_path, "--field", "16", "--max-dose", "6e5"), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if record.exists() and record.read_text().count('"action": "seen"') >= 2:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = read_journal(record)
    assert before[-1]["action"] != "end"
    done = subprocess.run(
        command(tmp_path, "--resume"), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    lines = read_journal(record)
    assert lines[: len(before)] == before
    assert lines[-1]["action"] == "end"
    doses = [line["request"]["dose_per_A2"] for line in lines if line["action"] == "scan"]
    assert sum(doses) <= 6e5
    assert verify_live(tmp_path) == len(lines)
