"""Examples in docstrings do what they say, and every public function has one."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import adatom as ad
from adatom import api

SOURCE = Path(ad.__file__).parent
SLOW = {"adapt", "simulate"}  # start processes, each of which imports networks and engines
MODULES = sorted(
    ".".join(["adatom", *path.relative_to(SOURCE).with_suffix("").parts])
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text("utf-8") and path.name not in ("api.py", "__init__.py")
)


def failures(test: doctest.DocTest) -> int:
    return doctest.DocTestRunner().run(test).failed


def examples_of(where: object, name: str) -> list[doctest.DocTest]:
    return [t for t in doctest.DocTestFinder().find(where, name) if t.examples]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in api.__all__],
)
def test_every_public_function_has_an_example_that_runs(name):
    function = getattr(api, name)
    (test,) = [
        t for t in examples_of(importlib.import_module(function.__module__), function.__module__)
        if t.name == f"{function.__module__}.{function.__name__}"
    ]  # fmt: skip
    assert failures(test) == 0


@pytest.mark.parametrize("name", ["adatom", *MODULES])
def test_examples_of_modules_run(name):
    found = examples_of(importlib.import_module(name), name)
    assert found
    assert sum(failures(test) for test in found) == 0
