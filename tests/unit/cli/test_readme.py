"""What the README promises, done as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text("utf-8")


def block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"README has no block after <!-- {marker} -->"
    return found.group(1)


@pytest.mark.slow
def test_python_example_runs(tmp_path):
    script = tmp_path / "example.py"
    script.write_text(block("example"), "utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=540
    )
    assert done.returncode == 0, done.stderr
    assert "Si1C3" in done.stdout
    assert "V1" in done.stdout
    relaxed = re.findall(r"(\S+) relax (-\d+\.\d+) eV done", done.stdout)
    assert len(relaxed) == 2
    assert len(re.findall(r" dynamics -\d+\.\d+ eV done", done.stdout)) == 2
    assert re.search(r"Scan around|No scan|Place the beam", done.stdout)


def test_commands_are_whole():
    for marker, last in (("run", "adatom demo"), ("test", "-m pytest")):
        command = block(marker).strip()
        assert "\n" not in command, "one command, so that it can be pasted"
        assert command.startswith("python3 -m venv")
        assert "-c constraints.txt" in command
        assert command.endswith(last)


def test_every_command_named_exists():
    from adatom.cli.main import app

    known = {c.callback.__name__ for c in app.registered_commands}
    named = set(re.findall(r"`adatom (\w+)", README))
    assert named
    assert named <= known


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_constraints_pin_every_dependency():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["lint"], *extras["docs"]]
    names = {re.split(r"[\[<>=]", w)[0].lower().replace("_", "-") for w in wanted}
    assert names <= pins, names - pins
