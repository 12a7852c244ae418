"""The style of all figures: colours that colour-blind readers can tell apart; the SVG writer."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal
from urllib.parse import quote

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

# Colours of text, of secondary text, and of thin lines.
INK, MUTED, LINE = "#1d2530", "#5b6673", "#d5dbe2"
# Okabe and Ito, Color Universal Design (2008), without black and yellow; PALETTE for elements,
# KINDS for kinds of defects and for series.
PALETTE = ("#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#0072B2")
KINDS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
OTHER = "#8c96a3"  # grey, where the palette has no colour left

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


def colour_of(name: str, names: Iterable[str], palette: tuple[str, ...] = PALETTE) -> str:
    """Colour of a name by its position in a list; grey beyond the end of the palette."""
    order = list(names)
    place = order.index(name) if name in order else len(palette)
    return palette[place] if place < len(palette) else OTHER


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


def svg_uri(figure: Figure, *, pixels: bool = False) -> str:
    """Write a figure as a ``data:`` URI of an SVG image, the same bytes for the same figure.

    Images inside are not resampled: the browser shows their pixels as squares with `pixels`, and
    smoothed without. Coordinates are cut to 0.01 point. The document type is removed, since it
    names an external address.
    """
    out = io.StringIO()
    with style():
        figure.savefig(out, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    if not pixels:
        text = text.replace("image-rendering:crisp-edges;image-rendering:pixelated", "")
    text = re.sub(r' d="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m.group()), text)
    text = re.sub(r"\n\s*", "\n", text)
    return "data:image/svg+xml," + quote(text, safe=" =/,;()+-*!.\n")


def smooth(image: ArrayLike, sigma_px: float) -> NDArray[np.float32]:
    """Gaussian smoothing of an image (row, col); `sigma_px` is the standard deviation, pixels."""
    out: NDArray[np.float32] = ndimage.gaussian_filter(
        np.asarray(image, dtype=np.float32), sigma_px, mode="nearest"
    )
    return out


def grey_levels(
    image: NDArray[np.float32], low: float, high: float, *, gamma: float = 1.0
) -> NDArray[np.float32]:
    """Stretch an image (row, col) between two percentiles to 0..1 in 64 levels, for display.

    The stretched values are raised to the power `gamma`.
    """
    a, b = np.percentile(image, (low, high))
    scaled = np.clip((image - a) / max(float(b - a), 1e-12), 0.0, 1.0) ** gamma
    return np.asarray(np.round(scaled * 63.0) / 63.0, dtype=np.float32)


def shrink(image: NDArray[np.float32], largest: int) -> NDArray[np.float32]:
    """Average blocks of the last two axes so that no edge is longer than `largest` pixels."""
    factor = -(-max(image.shape[-2:]) // largest)
    if factor <= 1:
        return image
    rows, cols = (n // factor * factor for n in image.shape[-2:])
    cut = image[..., :rows, :cols]
    blocks = cut.reshape(*cut.shape[:-2], rows // factor, factor, cols // factor, factor)
    return np.asarray(blocks.mean(axis=(-3, -1)), dtype=np.float32)


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
