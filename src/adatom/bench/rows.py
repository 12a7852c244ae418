"""One line of a benchmark's table."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def row(quantity: str, measured: str, target: str, met: bool) -> Row:
    """Give a line: what, how much, how much it should be, and whether it is."""
    return {"quantity": quantity, "measured": measured, "target": target, "met": bool(met)}
