"""One wide figure of a campaign, for a README or a slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adatom.report.colours import KINDS, LINE, MUTED
from adatom.report.facts import energy_groups, heights, relaxed_defects, thermal_runs
from adatom.report.figures import draw_atoms, draw_image, draw_std
from adatom.report.images import SMOOTHING_A
from adatom.report.structures_figures import draw_top
from adatom.report.style import new_figure, style, whole_numbers
from adatom.report.view import CampaignView


def campaign_figure(view: CampaignView) -> Figure:
    """Draw one row: frame with atoms, uncertainty, supercell, energies, molecular dynamics.

    The panel of a part that the campaign does not have says that it is missing.
    """
    with style(image__interpolation="bilinear"):
        figure = new_figure(16.0, 4.65)
        figure.set_layout_engine("none")
        side, gap, left, base = 0.2075, 0.0315, 0.034, 0.12
        tall = side * 16.0 / 4.65
        axes = [figure.add_axes((left + n * (side + gap), base, side, tall)) for n in range(3)]
        last = left + 3 * (side + gap) + 0.028
        half = (tall - 0.2) / 2.0
        top = figure.add_axes((last, base + half + 0.2, 0.99 - last, half))
        bottom = figure.add_axes((last, base, 0.99 - last, half))
        _frame_panel(axes[0], view)
        _std_panel(axes[1], view)
        _cell_panel(axes[2], view)
        _energy_panel(top, view)
        _heat_panel(bottom, view)
        heads = ("atoms and 2σ", "where the ensemble disagrees", "the relaxed supercell")
        for ax, text in zip(axes, heads, strict=True):
            _head(ax, text, 1.1)
        _head(top, "draws from the uncertainty", 1.05)
        _head(bottom, "molecular dynamics", 1.05)
    return figure


def write_picture(view: CampaignView, path_png: str | Path) -> None:
    """Write `campaign_figure` as a PNG image, 2400 pixels wide."""
    figure = campaign_figure(view)
    with style():
        figure.savefig(path_png, format="png", dpi=150, metadata={"Software": None})


def _frame_panel(ax: Axes, view: CampaignView) -> None:
    if not view.frames:
        _nothing(ax, "no frame is shown")
        return
    frame = view.frames[view.frame_numbers[0]]
    draw_image(ax, frame, sigma_A=SMOOTHING_A)
    draw_atoms(ax, view.atoms.of_frame(frame.index), view.element_order())
    _label(ax)


def _std_panel(ax: Axes, view: CampaignView) -> None:
    maps = view.maps_of(view.frame_numbers[0]) if view.frames else None
    if maps is None:
        _nothing(ax, "no maps")
        return
    draw_std(ax, maps)
    _label(ax)


def _cell_panel(ax: Axes, view: CampaignView) -> None:
    shown = next(iter(relaxed_defects(view)), None)
    if shown is None:
        _nothing(ax, "no supercell yet")
        return
    atoms = shown.after if shown.after is not None else shown.built.atoms
    limit = max(float(np.abs(heights(atoms)).max()), 0.5)
    draw_top(ax, atoms, view.element_order(), z_limit_A=limit)
    centre = np.array([ax.get_xlim(), ax.get_ylim()]).mean(axis=1)
    half = max(np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())) / 2.0
    ax.set_xlim(centre[0] - half, centre[0] + half)
    ax.set_ylim(centre[1] - half, centre[1] + half)
    _label(ax)
    state = "relaxed" if shown.after is not None else "as built"
    ax.text(0.0, 1.015, f"{shown.label}, {state}; colour: height", transform=ax.transAxes,
            fontsize=8.5, color=MUTED)  # fmt: skip


def _energy_panel(ax: Axes, view: CampaignView) -> None:
    group = max(energy_groups(view), key=lambda g: len(g.results), default=None)
    if group is None or not np.isfinite(group.lowest_eV):
        _nothing(ax, "no energies yet")
        return
    rows = [r for r in group.rows if r.energies().size][:5]
    for place, row in enumerate(rows):
        values = row.energies() - group.lowest_eV
        ax.plot(values, np.full(len(values), place), "o", color=KINDS[1], mfc=KINDS[5], ms=7)
    ax.set_ylim(max(len(rows), 1) - 0.35, -0.5)
    ax.set_yticks([])
    ax.margins(x=0.08)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color=LINE, linewidth=0.6)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(f"energy above the lowest {group.composition} (eV)")


def _heat_panel(ax: Axes, view: CampaignView) -> None:
    runs = [r for r in thermal_runs(view) if len(r.time_ps)]
    if not runs:
        _nothing(ax, "no dynamics yet")
        return
    asked = sorted({r.result.temperature_K for r in runs})
    for run in runs:
        hot = asked.index(run.result.temperature_K) / max(len(asked) - 1, 1)
        colour = KINDS[1] if hot < 0.5 else KINDS[0]
        ax.plot(run.time_ps, run.temperature_K, color=colour, linewidth=0.7, alpha=0.8)
    for kelvin in asked:
        ax.axhline(kelvin, color=MUTED, linestyle=(0, (5, 3)), linewidth=0.9)
    ax.set_ylim(bottom=0.0)
    ax.margins(x=0.01)
    ax.set_xlabel("time (ps)")
    ax.set_ylabel("T (K)")


def _label(ax: Axes) -> None:
    ax.set_xlabel("x (Å)")
    ax.set_ylabel("y (Å)", labelpad=0)
    whole_numbers(ax.xaxis)
    whole_numbers(ax.yaxis)


def _head(ax: Axes, text: str, y: float) -> None:
    ax.text(0.0, y, text, transform=ax.transAxes, fontsize=11.5, fontweight="bold", va="bottom")


def _nothing(ax: Axes, text: str) -> None:
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED)
