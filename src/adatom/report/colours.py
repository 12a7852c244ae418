"""Colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from adatom.core.arrays import FloatArray

# Colours of text, of secondary text, and of thin lines.
INK, MUTED, LINE = "#1d2530", "#5b6673", "#d5dbe2"
# Okabe and Ito, Color Universal Design (2008), without black and yellow; PALETTE for elements,
# KINDS for kinds of defects and for series.
PALETTE = ("#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#0072B2")
KINDS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
OTHER = "#8c96a3"  # grey, where the palette has no colour left

# Colours at equal steps, between which `ramp` mixes: matplotlib's magma from low to high, and
# ColorBrewer's PuOr from below (violet) to above (orange).
MAGMA = ("#000004", "#1d1147", "#51127c", "#832681", "#b73779", "#e75263", "#fc8961", "#fec488",
         "#fcfdbf")  # fmt: skip
HEIGHT = ("#2d004b", "#8073ac", "#d8daeb", "#f7f7f7", "#fee0b6", "#e08214", "#7f3b08")


def colour_of(name: str, names: Iterable[str], palette: tuple[str, ...] = PALETTE) -> str:
    """Colour of a name by its position in a list; grey beyond the end of the palette."""
    order = list(names)
    place = order.index(name) if name in order else len(palette)
    return palette[place] if place < len(palette) else OTHER


def ramp(shares: ArrayLike, colours: tuple[str, ...]) -> FloatArray:
    """Mix colours by a share.

    Parameters
    ----------
    shares
        Any shape, 0 to 1; values beyond are cut.
    colours
        Hexadecimal colours at equal steps.

    Returns
    -------
    Red, green and blue, 0 to 255, in a new last axis.

    Examples
    --------
    >>> ramp([0.0, 0.5], ("#000000", "#ffffff")).tolist()
    [[0.0, 0.0, 0.0], [127.5, 127.5, 127.5]]
    """
    values = np.asarray(shares, dtype=np.float64)
    stops = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in colours], dtype=float)
    at = np.linspace(0.0, 1.0, len(colours))
    return np.stack([np.interp(values, at, stops[:, k]) for k in range(3)], axis=-1)
