"""The picture of a move: the first frame with the way, the last frame, and the signal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adatom.core import Frame
from adatom.core.arrays import FloatArray
from adatom.report.colours import INK, KINDS, MUTED
from adatom.report.figures import draw_image
from adatom.report.images import SMOOTHING_A
from adatom.report.style import new_figure, style


def move_figure(
    first: Frame,
    last: Frame,
    ways_xy: Sequence[FloatArray],
    trace: FloatArray,
    jumps_s: Sequence[float],
) -> Figure:
    """Draw a move.

    Parameters
    ----------
    first, last
        The first and the last frame.
    ways_xy
        Places of the atom in turn, in the axes of the first and of the last frame, each of shape
        (place, 2), Å.
    trace
        Shape (slice, 2): time, s, and counts of parked beams; NaN where there is no signal.
    jumps_s
        Times of the jumps, s.
    """
    with style():
        figure = new_figure(12.0, 3.9)
        one, two, signal = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 1.6))
        heads = ("first frame and the way", "last frame")
        for ax, frame, way, head in zip((one, two), (first, last), ways_xy, heads, strict=True):
            draw_image(ax, frame, sigma_A=SMOOTHING_A)
            ax.set_axis_off()
            ax.set_title(head)
            _draw_way(ax, way)
        _draw_signal(signal, trace, jumps_s)
    return figure


def write_move_picture(figure: Figure, path_png: Path) -> None:
    """Write the figure as a PNG image."""
    with style():
        figure.savefig(path_png, format="png", dpi=150, metadata={"Software": None})


def _draw_way(ax: Axes, way: FloatArray) -> None:
    colour = KINDS[0]
    for start, end in pairwise(way):
        ax.annotate(
            "", xy=tuple(end), xytext=tuple(start), annotation_clip=True,
            arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.4},
        )  # fmt: skip
    ax.scatter([way[0][0]], [way[0][1]], s=70, facecolors="none", edgecolors=MUTED, linewidths=1.4)
    ax.scatter(
        [way[-1][0]], [way[-1][1]], s=110, facecolors="none", edgecolors=colour, linewidths=1.8
    )


def _draw_signal(ax: Axes, trace: FloatArray, jumps_s: Sequence[float]) -> None:
    ax.set_title("signal of the parked beam, and jumps")
    ax.set_xlabel("time, s")
    if not len(trace) or np.isnan(trace[:, 1]).all():
        ax.text(0.5, 0.5, "this instrument gives no signal", ha="center", transform=ax.transAxes)
        return
    ax.plot(trace[:, 0], trace[:, 1], lw=0.5, color=INK)
    for when in jumps_s:
        ax.axvline(when, color=KINDS[0], lw=1.0, zorder=0)
    ax.set_ylabel("counts in a time slice")
    ax.set_ylim(bottom=0.0)
