"""Picture of a band: the energy along the way between two states."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adatom.core.arrays import FloatArray
from adatom.errors import BadInput

_SUFFIXES = {".png", ".svg", ".pdf"}


def draw_band(way_A: FloatArray, energy_eV: FloatArray, barrier_eV: float, path: Path) -> None:
    """Draw the energy along a band, with its barrier.

    Parameters
    ----------
    way_A, energy_eV
        Shape (image,): length of the way, Å, and energy over the first image, eV.
    barrier_eV
        Energy of the refined saddle, eV; a dashed line.
    path
        File with the suffix ``.png``, ``.svg`` or ``.pdf``.

    Raises
    ------
    BadInput
        If the file has another suffix, or cannot be written.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise BadInput(
            str(path),
            expected="a file that ends in " + ", ".join(sorted(_SUFFIXES)),
            got=repr(path.suffix),
            todo="Name the picture so.",
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(way_A, energy_eV, "o-", color="tab:blue", lw=1.5)
    axes.axhline(barrier_eV, color="tab:red", ls="--", lw=1.2)
    axes.annotate(
        f"saddle {barrier_eV:.2f} eV", (float(np.max(way_A)), barrier_eV), ha="right", va="bottom",
        color="tab:red",
    )  # fmt: skip
    axes.set_xlabel("way along the band (Å)")
    axes.set_ylabel("energy over the initial state (eV)")
    axes.set_ylim(top=1.1 * max(barrier_eV, float(np.max(energy_eV)), 0.1))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    try:
        figure.savefig(path.expanduser(), dpi=120)
    except OSError as error:
        raise BadInput(
            str(path), expected="a file that can be written", got=error.strerror or str(error),
            todo="Name another file.",
        ) from error  # fmt: skip
