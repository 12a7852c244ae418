"""The page of kinds says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import adatom.core
from adatom.core import DefectKind

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "defect-kinds.md"
ROW = re.compile(r"^\| `(.+?)` \| `(.+?)` \| (.+?) \| .+ \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text("utf-8"))


@pytest.mark.parametrize(("name", "value", "meaning"), ROWS)
def test_name_value_and_meaning_of_a_row_belong_together(name, value, meaning):
    names = {name: getattr(adatom.core, name) for name in adatom.core.__all__}
    kind = eval(value, names)  # noqa: S307 (our own page)
    assert str(kind) == name
    assert DefectKind.parse(name) == kind
    assert kind.describe() == meaning


def test_every_kind_has_a_row():
    shown = {type(DefectKind.parse(name)).__name__ for name, _, _ in ROWS}
    assert shown == {cls.__name__ for cls in DefectKind.__subclasses__()}
