"""Figures of defects: their kinds over time, and their paths."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from adatom.report.facts import Track
from adatom.report.style import KINDS, LINE, MUTED, colour_of, new_figure, style, whole_numbers

MOST_ROWS = 24  # tracks in the timeline, a count; more would not fit on a screen
_MOST_PATHS = 6  # tracks in the figure of paths, a count; more labels would overlap


def kind_order(tracks: list[Track]) -> list[str]:
    """Sort kinds by their summed probability, largest first."""
    weight: dict[str, float] = {}
    for track in tracks:
        for kind, p in zip(track.kinds, np.nan_to_num(track.p), strict=True):
            weight[kind] = weight.get(kind, 0.0) + float(p)
    return sorted(weight, key=lambda k: -weight[k])


def timeline(tracks: list[Track], frame_count: int) -> Figure:
    """Draw one row per track, one cell per frame: colour is the kind, opacity the probability."""
    rows = tracks[:MOST_ROWS]
    kinds = kind_order(tracks)
    last = max([frame_count - 1, *(int(t.frames.max()) for t in rows)])
    with style():
        figure = new_figure(8.6, 1.15 + 0.3 * len(rows))
        ax = figure.subplots()
        for row, track in enumerate(rows):
            cells = [Rectangle((f - 0.46, row - 0.38), 0.92, 0.76) for f in track.frames]
            colours = [
                to_rgba(colour_of(k, kinds, KINDS), float(np.clip(np.nan_to_num(p), 0.0, 1.0)))
                for k, p in zip(track.kinds, track.p, strict=True)
            ]
            # A white layer below hides the row's line under transparent (improbable) cells.
            for layer in ("white", colours):
                ax.add_collection(PatchCollection(cells, facecolors=layer, linewidths=0))
        ax.set_yticks(range(len(rows)), [t.label for t in rows])
        ax.set_xlim(-0.6, last + 0.6)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.hlines(range(len(rows)), -0.6, last + 0.6, color=LINE, linewidth=0.6, zorder=0)
        ax.set_xlabel("frame")
        ax.set_ylabel("defect")
        whole_numbers(ax.xaxis)
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
        _kind_legend(ax, kinds)
    return figure


def paths(tracks: list[Track]) -> Figure:
    """Draw the paths of the longest tracks in the frame's axes, coloured by frame."""
    chosen = [t for t in tracks if t.number is not None][:_MOST_PATHS]
    xy = np.concatenate([t.xy for t in chosen])
    first = min(int(t.frames.min()) for t in chosen)
    last = max(int(t.frames.max()) for t in chosen)
    centre = (xy.min(axis=0) + xy.max(axis=0)) / 2.0
    half = max(float(np.ptp(xy, axis=0).max()) / 2.0 * 1.15, 2.5)
    with style():
        figure = new_figure(5.2, 4.3)
        ax = figure.subplots()
        for track in chosen:
            ax.plot(*track.xy.T, color=MUTED, linewidth=0.6, alpha=0.7, zorder=1)
            dots = ax.scatter(
                track.xy[:, 0],
                track.xy[:, 1],
                c=track.frames,
                cmap="viridis",
                vmin=first,
                vmax=max(last, first + 1),
                s=26,
                edgecolors="white",
                linewidths=0.5,
                zorder=2,
            )
            ax.annotate(
                f"{track.main_kind} ({track.label})",
                (float(track.xy[0, 0]), float(track.xy[0, 1])),
                xytext=(6, 6),
                textcoords="offset points",
                fontsize=8,
                color=MUTED,
            )
        ax.set_xlim(centre[0] - half, centre[0] + half)
        ax.set_ylim(centre[1] + half, centre[1] - half)
        ax.set_aspect("equal")
        ax.set_xlabel("x (Å)")
        ax.set_ylabel("y (Å), down")
        bar = figure.colorbar(dots, ax=ax, shrink=0.8, pad=0.02)
        bar.set_label("frame")
        whole_numbers(bar.ax.yaxis)
        bar.outline.set_visible(False)
    return figure


def _kind_legend(ax: Axes, kinds: list[str]) -> None:
    named = kinds[: len(KINDS)]
    handles = [Patch(color=colour_of(k, kinds, KINDS), label=k) for k in named]
    if len(kinds) > len(named):
        handles.append(Patch(color=colour_of("", kinds, KINDS), label="other"))
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.005, 1.0),
        ncols=8,
        handlelength=1.0,
        handleheight=1.0,
        borderaxespad=0.1,
        columnspacing=1.3,
    )
