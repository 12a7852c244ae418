"""TOML of a user is read, or refused as a mistake in it."""

import pytest

from adatom.core.toml import parse_toml


@pytest.mark.parametrize(
    "text",
    ["x = " + "[" * 3000 + "]" * 3000, ".".join(["a"] * 5000) + " = 1", "x = {", "x = 1\nx = 2"],
    ids=["lists", "keys", "cut off", "twice"],
)
def test_what_is_nested_past_reason_is_a_mistake(text):
    with pytest.raises(ValueError):
        parse_toml(text)


def test_what_people_write_is_read():
    assert parse_toml("a.b.c = [[1, 2], [3]]") == {"a": {"b": {"c": [[1, 2], [3]]}}}
