"""Figures of simulations: comparable energies, convergence, temperature and energy over time."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from adatom.core import SimulationResult
from adatom.report.facts import EnergyGroup, ThermalRun, draw_label, printable
from adatom.report.style import (
    INK,
    KINDS,
    LINE,
    MUTED,
    OTHER,
    colour_of,
    key,
    new_figure,
    style,
    whole_numbers,
)

_MOST_ROWS = 14  # defects in the figure of energies, a count
_MOST_KEYS = 7  # entries of a legend, a count
# Colours of lines: Okabe and Ito, as in `style`, the darkest first.
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)


def energies(group: EnergyGroup) -> Figure:
    """Draw the energy of every sample above the lowest of the group, with mean and sd."""
    rows = [r for r in group.rows if r.energies().size or r.energies(converged=False).size]
    rows, zero = rows[:_MOST_ROWS], group.lowest_eV
    with style():
        figure = new_figure(8.6, 1.05 + 0.62 * len(rows))
        ax = figure.subplots()
        for place, row in enumerate(rows):
            for result in row.results:
                offset = 0.09 * ((result.draw + 1) % 5 - 2)
                done = result.status == "done"
                ax.plot(
                    result.energy_eV - zero,
                    place + offset,
                    "D" if result.draw < 0 else "o",
                    ms=8 if result.draw < 0 else 6.5,
                    color=KINDS[1],
                    mfc=KINDS[5] if done else "white",
                    mew=1.1,
                    zorder=3,
                )
            values = row.energies() - zero
            if len(values) > 1:
                mean, sd = float(values.mean()), float(values.std(ddof=1))
                ax.errorbar(
                    mean, place + 0.33, xerr=sd, fmt="|", ms=9, color=KINDS[0], capsize=3, zorder=2
                )
        ax.set_yticks(range(len(rows)), [r.label for r in rows])
        ax.set_ylim(len(rows) - 0.4, -0.5)
        ax.grid(axis="x", color=LINE, linewidth=0.6)
        ax.margins(x=0.06)
        if np.ptp(ax.dataLim.intervalx) < 1e-3:
            ax.set_xlim(-0.05, 0.05)
        ax.set_xlabel(f"energy above the lowest {group.composition} (eV)")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        handles = [
            key("most probable", KINDS[1], marker="D", fill=KINDS[5], size=7),
            key("draw", KINDS[1], marker="o", fill=KINDS[5]),
            key("not converged", KINDS[1], marker="o", fill="white"),
            key("mean ± sd of converged", KINDS[0], marker="|", size=9),
        ]
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4)
    return figure


def convergence(results: list[SimulationResult], quantity: str) -> Figure:
    """Draw the convergence of the relaxations over their steps, one line each.

    Parameters
    ----------
    results
        Relaxations with their traces.
    quantity
        ``force``, the largest in eV/Å, or ``energy``, in eV above the relaxation's own last value.
    """
    names = sorted({r.structure for r in results})
    one = len(names) == 1
    seen: dict[str, str] = {}
    with style():
        figure = new_figure(5.2, 3.2)
        ax = figure.subplots()
        for result in results:
            label = draw_label(result.draw) if one else printable(result.structure, 30)
            place = max(result.draw + 1, 0) if one else names.index(result.structure)
            colour = _LINES[place] if place < len(_LINES) else OTHER
            series = result.trace.get("energy_eV" if quantity == "energy" else "fmax_eV_A", ())
            values = np.asarray(series, dtype=np.float64)
            step = np.asarray(result.trace.get("step", np.arange(len(values))), dtype=np.float64)
            n = min(len(step), len(values))
            if n == 0:
                continue
            values = values - values[n - 1] if quantity == "energy" else np.maximum(values, 1e-6)
            ax.plot(step[:n], values[:n], color=colour, alpha=0.8)
            seen[label] = colour
        if quantity == "force":
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_ylabel("largest force (eV/Å)" if quantity == "force" else "energy − end (eV)")
        ax.set_xlabel("step")
        whole_numbers(ax.xaxis)
        ax.grid(axis="y", color=LINE, linewidth=0.6)
        named = list(seen.items())[:_MOST_KEYS]
        handles = [key(label, colour, line="-") for label, colour in named]
        figure.legend(
            handles=handles, loc="outside upper left", ncols=5 if one else 3, columnspacing=1.2
        )
    return figure


def traces(runs: list[ThermalRun], quantity: str) -> Figure:
    """Draw temperature or potential energy against time.

    Parameters
    ----------
    runs
        The runs.
    quantity
        ``temperature`` in K, with the asked one dashed, or ``energy`` in eV above the run's start.
    """
    asked = sorted({r.result.temperature_K for r in runs})
    with style():
        figure = new_figure(4.8, 3.2)
        ax = figure.subplots()
        for run in runs:
            if len(run.time_ps) == 0:
                continue
            colour = _heat(run.result.temperature_K, asked)
            values = run.temperature_K
            if quantity == "energy":
                values = run.energy_eV - run.energy_eV[0]
            ax.plot(run.time_ps, values, color=colour, linewidth=0.8, alpha=0.85)
        if quantity == "temperature":
            for kelvin in asked:
                ax.axhline(kelvin, color=_heat(kelvin, asked), linestyle=(0, (5, 3)), linewidth=1.2)
            ax.set_ylim(bottom=0.0)
        unit = "temperature (K)" if quantity == "temperature" else "potential energy − start (eV)"
        ax.set_ylabel(unit)
        ax.set_xlabel("time (ps)")
        ax.grid(axis="y", color=LINE, linewidth=0.6)
        ax.margins(x=0.01)
        handles = [key(f"{t:g} K", _heat(t, asked), line="-") for t in asked]
        if quantity == "temperature":
            handles.append(key("asked", MUTED, line="--"))
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=6)
    return figure


def thermostat(runs: list[ThermalRun]) -> Figure:
    """Draw mean ± standard deviation of the temperature against the set temperature."""
    asked = sorted({r.result.temperature_K for r in runs})
    with style():
        figure = new_figure(3.4, 3.25)
        ax = figure.subplots()
        top = 1.2 * max([*asked, 1.0])
        ax.plot([0, top], [0, top], color=MUTED, linewidth=0.8, linestyle=(0, (5, 3)))
        for run in runs:
            mean, sd = run.second_half(run.temperature_K)
            colour = _heat(run.result.temperature_K, asked)
            ax.errorbar(
                run.result.temperature_K, mean, yerr=sd, fmt="o", ms=6, color=colour, capsize=4
            )
        ax.set_xlim(0, top)
        ax.set_ylim(0, top * 1.08)
        ax.set_xlabel("asked temperature (K)")
        ax.set_ylabel("mean ± sd (K)")
    return figure


def _heat(kelvin: float, asked: list[float]) -> str:
    """Colour of a temperature: blue for the coldest, vermillion for the hottest."""
    ordered = ("#0072B2", "#E69F00", "#D55E00", "#CC79A7", "#009E73", "#56B4E9")
    if len(asked) == 2 and kelvin == asked[1]:
        return "#D55E00"
    return colour_of(f"{kelvin}", [f"{t}" for t in asked], ordered)
