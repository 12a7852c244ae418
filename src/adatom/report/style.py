"""The style of matplotlib's figures, of which the picture of a campaign is made."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from adatom.report.colours import INK, MUTED

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.formatter.useoffset": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.3,
    "text.color": INK,
    # Names come from files: a dollar sign must not start a formula.
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "adatom",
    # Browsers scale the images of the page; `campaign_figure` sets its own interpolation.
    "image.interpolation": "none",
    "savefig.facecolor": "white",
}


def style(**changes: Any) -> AbstractContextManager[None]:
    """Matplotlib settings of every figure, to be used as ``with style():``.

    Parameters
    ----------
    changes
        Settings to change, a double underscore for a dot.
    """
    own = {name.replace("__", "."): value for name, value in changes.items()}
    return mpl.rc_context(_STYLE | own)


def new_figure(width_in: float, height_in: float) -> Figure:
    """Make an empty figure of a size in inches, without pyplot's global state."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def key(
    label: str,
    colour: str,
    *,
    marker: str = "",
    fill: str | None = None,
    size: float = 6.5,
    line: Literal["", "-", "--"] = "",
) -> Line2D:
    """Make one entry of a legend; `line` is a line style, empty for a marker alone."""
    return Line2D(
        [],
        [],
        color=colour,
        marker=marker,
        markersize=size,
        markerfacecolor=colour if fill is None else fill,
        linestyle=line,
        label=label,
    )


def whole_numbers(axis: Axis) -> None:
    """Put ticks on whole numbers only."""
    axis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))


def scale_bar(ax: Axes, width_A: float, *, dark_image: bool) -> None:
    """Draw a scale bar at the lower left, of a round length near a fifth of the width."""
    goal = width_A / 5.0
    steps = [m * 10.0**e for e in range(-1, 4) for m in (1, 2, 5)]
    length = min(steps, key=lambda s: abs(np.log(s / goal)))
    colour, shade = ("white", "black") if dark_image else (INK, "white")
    box = {"facecolor": shade, "alpha": 0.55, "edgecolor": "none", "boxstyle": "round,pad=0.35"}
    ax.annotate(
        f"{length:g} Å",
        xy=(0.035, 0.075),
        xycoords="axes fraction",
        color=colour,
        fontsize=9,
        fontweight="bold",
        bbox=box,
        zorder=8,
    )
    x0 = 0.035
    ax.plot(
        [x0, x0 + length / width_A],
        [0.04, 0.04],
        transform=ax.transAxes,
        color=colour,
        linewidth=3.5,
        solid_capstyle="butt",
        zorder=9,
    )
