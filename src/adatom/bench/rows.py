"""A row of the table of a benchmark."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]  # quantity, measured, target: text; met: bool


def row(quantity: str, measured: str, target: str, met: bool) -> Row:
    """Make a row.

    Parameters
    ----------
    quantity
        What was measured, with its unit.
    measured
        The result.
    target
        The wanted result, or what the row is for.
    met
        Whether the target is met.
    """
    return {"quantity": quantity, "measured": measured, "target": target, "met": bool(met)}
