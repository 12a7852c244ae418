"""Charts over the frames of a movie: atoms and their uncertainty, the lattice."""

from __future__ import annotations

import numpy as np

from adatom.report.chart import Line, line_chart
from adatom.report.colours import KINDS, colour_of
from adatom.report.markup import Html
from adatom.report.view import CampaignView


def atoms_per_frame(view: CampaignView) -> Html:
    """Draw the number of atoms of each element in every frame, on a logarithmic axis."""
    elements, frames = view.element_order(), view.atoms.frames
    index, names = view.atoms.column("frame").astype(int), view.atoms.elements
    lines = []
    for name in (e for e in elements if (names == e).any()):
        counts = np.array([np.sum(index[names == name] == f) for f in frames], dtype=float)
        lines.append(Line(name, colour_of(name, elements), np.asarray(frames, float), counts))
    return line_chart(lines, "frame", "atoms", "Atoms of each element.", log=True)


def sigma_per_frame(view: CampaignView) -> Html:
    """Draw the median standard deviation of the positions in every frame, with its quartiles."""
    frames = view.atoms.frames
    index = view.atoms.column("frame").astype(int)
    sigma = np.hypot(view.atoms.column("sigma_x_A"), view.atoms.column("sigma_y_A")) / np.sqrt(2.0)
    low, middle, high = np.array(
        [np.nanpercentile(sigma[index == f], (25, 50, 75)) for f in frames]
    ).T
    line = Line("", KINDS[1], np.asarray(frames, float), middle, band=(low, high))
    caption = "Standard deviation of a position per axis: median and quartiles over the atoms."
    return line_chart([line], "frame", "σ of position (Å)", caption, from_zero=True)


def stretch_per_frame(view: CampaignView) -> Html:
    """Draw the scan's distortion that was removed in every frame."""
    frames = view.lattice["frame"].to_numpy().astype(float)
    lines = [
        Line(name, colour, frames, _values(view, column) * 100.0)
        for name, column, colour in (
            ("largest principal stretch", "strain_1", KINDS[0]),
            ("smallest", "strain_2", KINDS[1]),
        )
    ]
    caption = "Distortion of the scan that was removed before any supercell was built."
    return line_chart(lines, "frame", "stretch removed (%)", caption)


def scatter_per_frame(view: CampaignView) -> Html:
    """Draw the scatter of the atoms about their lattice sites in every frame."""
    frames = view.lattice["frame"].to_numpy().astype(float)
    line = Line("", KINDS[2], frames, _values(view, "rms_A"))
    caption = "Root-mean-square distance per axis of matched atoms from their lattice sites."
    return line_chart([line], "frame", "rms from sites (Å)", caption, from_zero=True)


def _values(view: CampaignView, column: str) -> np.ndarray:
    return view.lattice[column].cast(float).fill_null(np.nan).to_numpy()
