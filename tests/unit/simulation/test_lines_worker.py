"""A worker that is asked in lines of JSON: its answers, its time, its end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adatom.errors import StepFailed
from adatom.simulation.engines.lines import LinesWorker, clean_environment

ECHO = """
import json, os, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("sleep"):
        time.sleep(asked["sleep"])
    if asked.get("die"):
        sys.exit("out of memory")
    print(json.dumps({"twice": 2 * asked["number"]}), flush=True)
"""


def worker(seconds=20.0):
    return LinesWorker([sys.executable, "-c", ECHO], "echo", time.perf_counter() + seconds)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers_and_ends_with_the_context():
    with worker() as asked:
        assert asked.ask({"number": 21}) == {"twice": 42}
        assert asked.ask({"number": 4}) == {"twice": 8}
        pid = asked.pid
        assert is_running(pid)
    assert not is_running(pid)


def test_it_is_killed_when_the_time_is_over():
    begin = time.perf_counter()
    with (
        worker(1.0) as asked,
        pytest.raises(StepFailed, match="none when the time was over: it was stopped"),
    ):
        asked.ask({"number": 1, "sleep": 60})
    assert time.perf_counter() - begin < 20.0
    assert not is_running(asked.pid)


def test_one_that_dies_says_its_last_words():
    with worker() as asked, pytest.raises(StepFailed, match="ended with 1: out of memory"):
        asked.ask({"number": 1, "die": True})


def test_one_that_was_killed_from_outside_says_so():
    with worker() as asked:
        os.kill(asked.pid, 9)
        with pytest.raises(StepFailed, match="one that ended with -9"):
            asked.ask({"number": 1, "sleep": 20.0})  # the pipe may still take the request


def test_another_python_does_not_see_the_packages_of_this_one(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert clean_environment(sys.executable)["PYTHONPATH"] == "/somewhere"
    assert "PYTHONPATH" not in clean_environment("/usr/bin/another-python")
    assert clean_environment("/usr/bin/another-python")["OMP_NUM_THREADS"] == "1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does it")
def test_the_worker_of_gpaw_dies_with_a_parent_that_is_killed(tmp_path):
    """Its first act is to ask for that; GPAW itself need not be installed."""
    (tmp_path / "gpaw.py").write_text("__version__ = '0'\nimport time\ntime.sleep(60)\n")
    program = (
        "import subprocess, sys, time\n"
        "from adatom.simulation.engines.gpaw import _WORKER\n"
        f"env = {{'PYTHONPATH': {str(tmp_path)!r}}}\n"
        "child = subprocess.Popen([sys.executable, str(_WORKER)], stdin=subprocess.PIPE, env=env)\n"
        "time.sleep(2)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not is_running(pid) or state.read_text().split(")")[1].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it outlived its parent")
