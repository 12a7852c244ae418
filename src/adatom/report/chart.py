"""Line charts as SVG, drawn in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from adatom.core.arrays import FloatArray
from adatom.report.colours import MUTED
from adatom.report.markup import Html, element

_WIDTH, _HEIGHT = 520.0, 250.0  # units of the drawing, about pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 12.0, 12.0, 44.0
_MOST_POINTS = 300  # points of one line, a count: more are not seen at this width


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line of a chart.

    Parameters
    ----------
    label
        Its name in the key; lines of one label and colour share an entry, an empty one has none.
    colour
        Its colour.
    x, y
        Shape (point,); points that are not finite are left out.
    dashed
        Draw it dashed.
    band
        Lower and upper edge of an area round it, each of shape (point,); None for none.
    """

    label: str
    colour: str
    x: FloatArray
    y: FloatArray
    dashed: bool = False
    band: tuple[FloatArray, FloatArray] | None = None


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    caption: str,
    *,
    log: bool = False,
    from_zero: bool = False,
) -> Html:
    """Draw lines with their axes, key and caption.

    Parameters
    ----------
    lines
        The lines; without a finite point, a sentence says so.
    x_label, y_label
        Names of the axes with their units.
    caption
        Text below.
    log
        Draw y on a logarithmic axis; values of zero or below are left out.
    from_zero
        Let the y axis begin at zero.
    """
    drawn = [line for line in (_finite(line, log=log) for line in lines) if len(line.x)]
    if not drawn:
        return element("p", f"{y_label}: nothing to draw.", class_="missing")
    everything = [line.y for line in drawn]
    everything += [edge for line in drawn if line.band for edge in line.band]
    low_y, high_y = _range(everything, from_zero=from_zero and not log)
    low_x, high_x = _range([line.x for line in drawn], room=0.0)

    def at(x: FloatArray, y: FloatArray) -> FloatArray:
        px = _LEFT + (x - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT)
        py = _HEIGHT - _BOTTOM - (y - low_y) / (high_y - low_y) * (_HEIGHT - _TOP - _BOTTOM)
        return np.column_stack([px, py])

    parts = _axes((low_x, high_x), (low_y, high_y), at, log=log)
    for line in drawn:
        if line.band is not None:
            edge = np.vstack([at(line.x, line.band[0]), at(line.x, line.band[1])[::-1]])
            parts.append(element("path", d=_path(edge) + "Z", fill=line.colour, opacity="0.18"))
        kind = "dashed line" if line.dashed else "line"
        trace = _path(at(line.x, line.y))
        parts.append(element("path", d=trace, class_=kind, stroke=line.colour))
    parts.append(element("text", x_label, x=f"{(_LEFT + _WIDTH) / 2:.0f}", y=f"{_HEIGHT - 6:.0f}"))
    middle = (_HEIGHT - _BOTTOM) / 2
    turned = f"rotate(-90 13 {middle:.0f})"
    parts.append(element("text", y_label, x="13", y=f"{middle:.0f}", transform=turned))
    drawing = element(
        "svg", *parts, viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}", class_="chart", role="img",
        aria_label=f"{y_label} against {x_label}",
    )  # fmt: skip
    return element("figure", _key(drawn), drawing, element("figcaption", caption))


def _finite(line: Line, *, log: bool) -> Line:
    """Leave out what cannot be drawn; thin long lines, and take logarithms where asked."""
    x, y = np.asarray(line.x, dtype=np.float64), np.asarray(line.y, dtype=np.float64)
    n = min(len(x), len(y))
    keep = np.isfinite(x[:n]) & np.isfinite(y[:n])
    if log:
        keep &= y[:n] > 0
    index = np.flatnonzero(keep)
    index = index[:: max(len(index) // _MOST_POINTS, 1)]
    y = np.log10(y[index]) if log else y[index]
    band = None if line.band is None else (line.band[0][index], line.band[1][index])
    return Line(line.label, line.colour, x[index], y, line.dashed, band)


def _range(
    series: Sequence[FloatArray], *, from_zero: bool = False, room: float = 0.06
) -> tuple[float, float]:
    low = min(float(np.nanmin(s)) for s in series)
    high = max(float(np.nanmax(s)) for s in series)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    gap = room * (high - low)
    return (0.0 if from_zero and low >= 0 else low - gap), high + gap


def ticks(low: float, high: float, goal: int = 5) -> list[float]:
    """Round numbers between two limits, about as many as wanted.

    Examples
    --------
    >>> ticks(0.0, 1.0), ticks(3.0, 44.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [10.0, 20.0, 30.0, 40.0])
    """
    rough = (high - low) / goal
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(
    x: tuple[float, float],
    y: tuple[float, float],
    at: Callable[[FloatArray, FloatArray], FloatArray],
    *,
    log: bool,
) -> list[Html]:
    floor = _HEIGHT - _BOTTOM
    out = [element("path", d=f"M{_LEFT} {floor}H{_WIDTH - _RIGHT}", stroke=MUTED)]
    for value in ticks(*x, goal=6):
        px = at(np.array([value]), np.array([y[0]]))[0, 0]
        out.append(element("text", f"{value:g}", x=f"{px:.1f}", y=f"{floor + 16:.0f}"))
    steps = (
        ticks(*y) if not log else [float(k) for k in range(math.ceil(y[0]), math.floor(y[1]) + 1)]
    )
    for value in steps:
        py = at(np.array([x[0]]), np.array([value]))[0, 1]
        label = f"{10**value:.1g}" if log else f"{value:g}".replace("-", "−")
        out.append(element("path", d=f"M{_LEFT} {py:.1f}H{_WIDTH - _RIGHT}", class_="rule"))
        out.append(element("text", label, x=f"{_LEFT - 7}", y=f"{py + 4:.1f}", class_="end"))
    return out


def _path(points: FloatArray) -> str:
    if len(points) == 1:  # a point of a round line is a dot
        return f"M{points[0, 0]:.1f} {points[0, 1]:.1f}h0.01"
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _key(lines: Sequence[Line]) -> Html:
    named = list(dict.fromkeys((line.label, line.colour) for line in lines if line.label))[:8]
    if not named:
        return Html("")
    keys = [
        element("span", element("i", style=f"border-color:{colour};background:{colour}"), label)
        for label, colour in named
    ]
    return element("p", *keys, class_="legend")
