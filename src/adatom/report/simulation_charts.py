"""Charts of simulations: convergence, temperature and energy over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adatom.core import SimulationResult
from adatom.report.chart import Line, line_chart
from adatom.report.colours import INK, MUTED, OTHER
from adatom.report.facts import ThermalRun, draw_label, printable
from adatom.report.markup import Html

# Colours of lines: Okabe and Ito, as in `colours`, the darkest first.
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)


def convergence(results: Sequence[SimulationResult], quantity: str, caption: str) -> Html:
    """Draw the convergence of the relaxations over their steps, one line each.

    Parameters
    ----------
    results
        Relaxations with their traces.
    quantity
        ``force``, the largest in eV/Å, or ``energy``, in eV above the relaxation's own last value.
    caption
        Text below.
    """
    names = sorted({r.structure for r in results})
    lines = []
    for result in results:
        one = len(names) == 1
        label = draw_label(result.draw) if one else printable(result.structure, 30)
        place = max(result.draw + 1, 0) if one else names.index(result.structure)
        series = result.trace.get("energy_eV" if quantity == "energy" else "fmax_eV_A", ())
        values = np.asarray(series, dtype=np.float64)
        step = np.asarray(result.trace.get("step", np.arange(len(values))), dtype=np.float64)
        n = min(len(step), len(values))
        if n:
            values = values[:n] - values[n - 1] if quantity == "energy" else values[:n]
            colour = _LINES[place] if place < len(_LINES) else OTHER
            lines.append(Line(label, colour, step[:n], values))
    y_label = "largest force (eV/Å)" if quantity == "force" else "energy − end (eV)"
    return line_chart(lines, "step", y_label, caption, log=quantity == "force")


def traces(runs: Sequence[ThermalRun], quantity: str, caption: str) -> Html:
    """Draw temperature or potential energy against time.

    Parameters
    ----------
    runs
        The runs.
    quantity
        ``temperature`` in K, with the asked one dashed, or ``energy`` in eV above the run's start.
    caption
        Text below.
    """
    asked = sorted({r.result.temperature_K for r in runs})
    lines = []
    for run in (r for r in runs if len(r.time_ps)):
        kelvin = run.result.temperature_K
        values = run.temperature_K
        if quantity == "energy":
            values = run.energy_eV - run.energy_eV[0]
        lines.append(Line(f"{kelvin:g} K", _heat(kelvin, asked), run.time_ps, values))
    if quantity == "temperature" and lines:
        ends = np.array([0.0, max(float(line.x.max()) for line in lines)])
        lines += [Line("asked", MUTED, ends, np.array([t, t]), dashed=True) for t in asked]
    y_label = "temperature (K)" if quantity == "temperature" else "potential energy − start (eV)"
    return line_chart(lines, "time (ps)", y_label, caption, from_zero=quantity == "temperature")


def _heat(kelvin: float, asked: Sequence[float]) -> str:
    """Colour of a temperature: blue for the coldest, vermillion for the hottest of two."""
    place = list(asked).index(kelvin)
    return _LINES[place] if place < len(_LINES) else OTHER
