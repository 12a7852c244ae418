"""A step is done again when the code behind it changes, and the table of that code is complete."""

import ast
from pathlib import Path

import pytest

import adatom
from adatom.campaign.steps import STEP_CODE, Job
from adatom.store import code
from adatom.store.code import code_hash

ROOT = Path(adatom.__file__).parent
# What no result depends on: files, processes, errors, the command line and the order of steps.
INFRASTRUCTURE = {
    "store", "parallel", "errors", "version", "campaign.steps", "campaign.config", "campaign.find",
    "campaign.sources", "frames.readers", "campaign.adapt", "campaign.outputs", "campaign.link",
    "campaign.lattices",
}  # fmt: skip


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adatom."):
            yield node.module.removeprefix("adatom.")


def is_in(module, rooms):
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def reached_from(rooms):
    """Rooms and modules of adatom that the code of these rooms imports."""
    found = set()
    for room in rooms:
        place = ROOT.joinpath(*room.split("."))
        files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
        for path in files:
            found |= set(imports_of(path))
    return found


@pytest.mark.parametrize("step", STEP_CODE)
def test_the_code_of_a_step_is_all_that_it_imports(step):
    rooms = STEP_CODE[step]
    own = {room for room in rooms if room.startswith("campaign.")}
    missing = {
        module
        for module in reached_from(rooms)
        if not is_in(module, rooms) and not is_in(module, INFRASTRUCTURE - own)
    }
    assert not missing


def test_every_step_has_its_code():
    named = set()
    for path in (ROOT / "campaign").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if (
                called
                and node.func.id in {"Job", "job_of"}
                and isinstance(node.args[0], ast.Constant)
            ):
                named.add(node.args[0].value)
    assert named == set(STEP_CODE)


def test_the_key_follows_the_code_of_the_step_and_no_other(tmp_path, monkeypatch):
    for room in ("core", "materials", "features", "report", "simulation", "structures"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "one.py").write_text("x = 1\n")
    (tmp_path / "campaign").mkdir()
    for name in ("find", "simulate", "energies", "spread", "pool", "recall"):
        (tmp_path / "campaign" / f"{name}.py").write_text("y = 1\n")
    monkeypatch.setattr(code, "_ROOT", tmp_path)

    def keys():
        code_hash.cache_clear()
        return {s: Job(s, "movie", [], current=str).key for s in ("link", "relax")}

    try:
        first = keys()
        assert keys() == first
        (tmp_path / "report" / "one.py").write_text("x = 2\n")
        assert keys() == first
        (tmp_path / "features" / "one.py").write_text("x = 2\n")
        second = keys()
        assert (second["link"] != first["link"], second["relax"]) == (True, first["relax"])
    finally:
        code_hash.cache_clear()
