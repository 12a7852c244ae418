"""The timeline of the defects as SVG: one row a defect, its kind in every frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adatom.report.markup import Html, element
from adatom.report.viewer import RankedDefect, kind_colours

MOST_ROWS = 24  # defects in the timeline, a count; more would not fit on a screen
_WIDTH, _ROW, _LEFT = 1000.0, 22.0, 34.0  # units of the drawing
# Opacity of a cell by the least probability that it needs.
_OPACITY = ((0.9, 1.0), (0.5, 0.6), (0.0, 0.28))


def timeline(defects: Sequence[RankedDefect], frame_count: int) -> Html:
    """Draw one row a defect: colour is its kind, opacity its probability; a cell leads to a frame.

    Parameters
    ----------
    defects
        The defects, with the numbers that they have on the page.
    frame_count
        Number of frames of the movie.
    """
    rows = defects[:MOST_ROWS]
    colours = kind_colours(defects)
    step = (_WIDTH - _LEFT) / frame_count
    parts = []
    for place, defect in enumerate(rows):
        y = place * _ROW
        parts.append(element("text", str(defect.rank), x="10", y=f"{y + 15:.0f}"))
        line = f"M{_LEFT:.0f} {y + _ROW / 2:.1f}H{_WIDTH:.0f}"
        parts.append(element("path", d=line))
        parts += [_run(defect, run, y, step, colours) for run in _runs(defect)]
    tall = len(rows) * _ROW
    parts += _axis(frame_count, step, tall)
    return element(
        "svg", *parts, viewBox=f"0 0 {_WIDTH:.0f} {tall + 24:.0f}", class_="timeline",
        role="img", aria_label="Defects over the frames, coloured by kind",
    )  # fmt: skip


def kinds_key(defects: Sequence[RankedDefect]) -> Html:
    """Name the colours of the kinds."""
    colours = kind_colours(defects)
    words = {kind: d.words for d in defects for kind in d.track.kinds if kind == d.track.main_kind}
    named = list(colours.items())[:8]
    keys = [
        element("span", element("i", style=f"border-color:{c};background:{c}"),
                f"{kind}: {words[kind]}" if kind in words else kind)
        for kind, c in named
    ]  # fmt: skip
    return element("p", *keys, class_="legend")


def _runs(defect: RankedDefect) -> list[tuple[int, int, str, float]]:
    """Neighbouring frames of one kind and opacity: first, last, kind, opacity."""
    out: list[tuple[int, int, str, float]] = []
    track = defect.track
    for frame, kind, p in zip(
        track.frames.tolist(), track.kinds, np.nan_to_num(track.p), strict=True
    ):
        shade = next(o for least, o in _OPACITY if p >= least)
        if out and out[-1][1] in (frame - 1, frame) and out[-1][2:] == (kind, shade):
            out[-1] = (out[-1][0], frame, kind, shade)
        else:
            out.append((frame, frame, kind, shade))
    return out


def _run(
    defect: RankedDefect,
    run: tuple[int, int, str, float],
    y: float,
    step: float,
    colours: dict[str, str],
) -> Html:
    first, last, kind, shade = run
    gap = min(0.12 * step, 1.5)
    where = f"frame {first}" if first == last else f"frames {first} to {last}"
    return element(
        "rect", element("title", f"{defect.rank}: {kind}, {where}"),
        x=f"{_LEFT + first * step + gap:.1f}", y=f"{y + 3:.0f}",
        width=f"{(last - first + 1) * step - 2 * gap:.1f}", height=f"{_ROW - 6:.0f}",
        fill=colours[kind], opacity=f"{shade:g}", rx="2", data_go=str(first), data_last=str(last),
        tabindex="0",
    )  # fmt: skip


def _axis(frame_count: int, step: float, tall: float) -> list[Html]:
    goal = max(frame_count / 10.0, 1.0)
    tick = next(m * 10**e for e in range(6) for m in (1, 2, 5) if m * 10**e >= goal)
    return [
        element("text", str(n), x=f"{_LEFT + (n + 0.5) * step:.1f}", y=f"{tall + 16:.0f}")
        for n in range(0, frame_count, int(tick))
    ] + [element("text", "frame", x="10", y=f"{tall + 16:.0f}", class_="what")]
