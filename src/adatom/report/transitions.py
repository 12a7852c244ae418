"""Rates of the defects: a graph of kinds with arrows, and the numbers in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from adatom.report.colours import OTHER
from adatom.report.markup import Html, element, folded, number, table

_MOST_KINDS = 6  # nodes of the graph, a count; the rest is in the table
_MOST_ROWS = 40  # rows of the table
_LEAST_SEEN = 0.5  # changes of kind that are rather none are not drawn
_WIDTH, _BOX, _TALL, _UP = 1000.0, 150.0, 42.0, 52.0  # units of the drawing


def transition_figure(transitions: pl.DataFrame, colours: Mapping[str, str]) -> Html:
    """Draw the transitions, with their rates; empty where nothing was followed.

    Parameters
    ----------
    transitions
        Table with the columns of ``transitions.parquet``.
    colours
        Colour of every kind.
    """
    rows = list(transitions.iter_rows(named=True))
    if not rows:
        return Html("")
    per_s = rows[0]["rate_per_s"] is not None
    caption = (
        f"Jumps of each kind to a neighbouring site, and changes of kind, per "
        f"{'second' if per_s else 'frame'}, with 90 % intervals. Jumps that lead back before the "
        "next frame are counted by a hidden Markov model."
    )
    figure = element("figure", _graph(rows, colours, per_s=per_s), element("figcaption", caption))
    return Html(figure + folded("Rates of all transitions", _numbers(rows, per_s=per_s)))


def _graph(rows: Sequence[dict[str, Any]], colours: Mapping[str, str], *, per_s: bool) -> Html:
    kinds = list(dict.fromkeys(r["from_kind"] for r in rows))[:_MOST_KINDS]
    place = {k: (n + 0.5) * _WIDTH / len(kinds) for n, k in enumerate(kinds)}
    shown = [
        r for r in rows
        if r["from_kind"] in place and r["to_kind"] in place
        and (r["from_kind"] == r["to_kind"] or r["seen"] >= _LEAST_SEEN)
    ]  # fmt: skip
    span = max((abs(kinds.index(r["from_kind"]) - kinds.index(r["to_kind"])) for r in shown),
               default=0)  # fmt: skip
    middle = _UP * max(span, 0.2) + _TALL
    tip = element("path", d="M0 0L8 4L0 8z")
    marker = element("marker", tip, id="tip", viewBox="0 0 8 8", refX="8", refY="4",
                     markerWidth="7", markerHeight="7", orient="auto")  # fmt: skip
    parts = [element("defs", marker)]
    for row in shown:
        ends = (kinds.index(row["from_kind"]), kinds.index(row["to_kind"]))
        if ends[0] != ends[1]:
            parts += _arrow(*ends, list(place.values()), middle, _rate(row, per_s=per_s))
    for kind, x in place.items():
        own = next((r for r in shown if r["from_kind"] == kind == r["to_kind"]), None)
        parts += _box(kind, x, middle, colours.get(kind, OTHER),
                      "" if own is None else f"jumps {_rate(own, per_s=per_s)}")  # fmt: skip
    tall = middle * 2.0
    return element(
        "svg", *parts, viewBox=f"0 0 {_WIDTH:.0f} {tall:.0f}", class_="transitions", role="img",
        aria_label="Transitions between the kinds of defect, with their rates",
    )  # fmt: skip


def _box(kind: str, x: float, middle: float, colour: str, jumps: str) -> list[Html]:
    """A kind with its rate of jumps."""
    y = middle - _TALL / 2
    wide = min(_BOX, 0.9 * _WIDTH)
    box = element("rect", x=f"{x - wide / 2:.0f}", y=f"{y:.0f}", width=f"{wide:.0f}",
                  height=f"{_TALL:.0f}", rx="5", stroke=colour)  # fmt: skip
    name = element("text", kind, x=f"{x:.0f}", y=f"{y + (17 if jumps else 25):.0f}", class_="name")
    return [
        box,
        name,
        *([element("text", jumps, x=f"{x:.0f}", y=f"{y + 33:.0f}")] if jumps else []),
    ]


def _arrow(a: int, b: int, place: Sequence[float], middle: float, text: str) -> list[Html]:
    """Arc from a kind to another: to the right above the kinds, to the left below."""
    side = 1.0 if b > a else -1.0
    start, end = place[a] + side * _BOX / 5, place[b] - side * _BOX / 5
    edge = middle - side * _TALL / 2
    top = edge - side * 2.0 * _UP * 0.75 * abs(b - a)  # the arc reaches half of this
    path = f"M{start:.0f} {edge:.0f}Q{(start + end) / 2:.0f} {top:.0f} {end:.0f} {edge:.0f}"
    label = (edge + top) / 2 + (-5.0 if side > 0 else 14.0)
    return [
        element("path", d=path, marker_end="url(#tip)"),
        element("text", text, x=f"{(start + end) / 2:.0f}", y=f"{label:.0f}"),
    ]


def _rate(row: Mapping[str, Any], *, per_s: bool) -> str:
    """Rate with its interval, or its limit where no transition was seen."""
    unit = "per_s" if per_s else "per_frame"
    low, rate, high = (row[f"rate{part}_{unit}"] for part in ("_low", "", "_high"))
    if row["seen"] < _LEAST_SEEN:
        return f"at most {_short(high)}"
    return f"{_short(rate)} ({_short(low)}–{_short(high)})"


def _short(value: float) -> str:
    """Two significant digits."""
    if not math.isfinite(value) or value <= 0.0:
        return number(value, 0)
    digits = max(1 - math.floor(math.log10(value)), 0)
    return number(round(value, digits), digits) if digits < 5 else f"{value:.1e}"


def _numbers(rows: Sequence[dict[str, Any]], *, per_s: bool) -> Html:
    dose = rows[0]["cross_section_A2"] is not None
    head = ["From", "To", "Followed (frames)", "Seen", "Rate per frame", "90 % interval"]
    head += ["Rate (1/s)"] if per_s else []
    head += ["Cross section (Å²)"] if dose else []
    body = []
    for row in rows[:_MOST_ROWS]:
        same = row["from_kind"] == row["to_kind"]
        cells = [
            row["from_kind"], "another site" if same else row["to_kind"],
            number(row["exposure_frames"], 0), number(row["seen"], 0 if same else 1),
            _short(row["rate_per_frame"]),
            f"{_short(row['rate_low_per_frame'])}–{_short(row['rate_high_per_frame'])}",
        ]  # fmt: skip
        cells += [_short(row["rate_per_s"])] if per_s else []
        cells += [f"{row['cross_section_A2']:.1e}"] if dose else []
        body.append(cells)
    return table(head, body, words=2)
