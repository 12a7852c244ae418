"""The sections on the simulations: structures, energies, dynamics."""

from __future__ import annotations

import math

import ase
import numpy as np

from adatom.core import SimulationResult
from adatom.report import simulation_figures
from adatom.report.facts import (
    RelaxedDefect,
    draw_label,
    energy_groups,
    formula,
    relaxed_defects,
    thermal_runs,
)
from adatom.report.markup import Html, count, duration, element, join, number, picture, table
from adatom.report.sections import not_done, section
from adatom.report.structures_figures import bonds, heights, host_element, supercell
from adatom.report.view import CampaignView

_MOST_DEFECTS = 3  # defects whose supercells are drawn, a count; more would make the page large
_MOST_ROWS = 80  # rows of the table of relaxations, a count; the rest is in simulations.parquet


def structures(view: CampaignView) -> Html:
    """Section 4: supercells before and after the relaxation, with bonds of the impurity atoms."""
    title = "Structures"
    if not view.structures:
        missing = _not_simulated("No supercells were built yet.", view)
        return section("structures", 4, title, missing)
    shown = relaxed_defects(view)
    parts: list[str] = []
    if len(shown) > _MOST_DEFECTS:
        text = f"{_MOST_DEFECTS} of {len(shown)} defects are shown; all are in the campaign."
        parts.append(element("p", text))
    parts += [_one_defect(view, d) for d in shown[:_MOST_DEFECTS]]
    return section("structures", 4, title, *parts)


def _one_defect(view: CampaignView, defect: RelaxedDefect) -> Html:
    built, after = defect.built.atoms, defect.after
    elements = view.element_order()
    limit = max(float(np.abs(heights(a)).max()) for a in (built, after) if a is not None)
    limit = max(limit, 0.3)
    which = f"{defect.built.name}, {draw_label(defect.built.draw)}"
    pictures = [
        picture(
            supercell(built, elements, z_limit_A=limit, sigma_A=defect.built.sigma_A),
            f"Supercell of {defect.label} as built, from above and from the side",
            f"As built ({which}): {formula(built)}, {count(len(built), 'atom')}. Dark dots: 2σ "
            "of the position taken from the frame, true to scale. Fill: height above the sheet; "
            "impurity atoms have a rim in the colour of their element.",
        )
    ]
    if after is None:
        state = _not_simulated("Not relaxed yet.", view)
        pictures.append(element("div", state))
    else:
        status = defect.result.status if defect.result else ""
        lowest = "the relaxation of lowest energy" if status == "done" else f"status: {status}"
        pictures.append(
            picture(
                supercell(after, elements, z_limit_A=limit),
                f"Supercell of {defect.label} relaxed, from above and from the side",
                f"Relaxed ({lowest}). Colours as on the left. y points up here, opposite to the "
                "rows of the frames. The spread between the draws stands in the table.",
            )
        )
    tables = _bond_table(defect)
    head = element("h3", defect.label)
    return element("article", head, element("div", *pictures, class_="grid"), tables)


def _bond_table(defect: RelaxedDefect) -> Html:
    atoms = defect.after if defect.after is not None else defect.built.atoms
    symbols, host = atoms.get_chemical_symbols(), host_element(atoms)
    i, j, d, _ = bonds(atoms)
    chosen = [
        n
        for n in range(len(i))
        if symbols[i[n]] != host and not (symbols[j[n]] != host and j[n] < i[n])
    ]
    if not chosen:
        lengths = f"Its bonds are {number(d.min())} to {number(d.max())} Å long." if len(d) else ""
        return element("p", f"This supercell has no impurity atoms with bonds. {lengths}")
    z = heights(atoms)
    rows = []
    for n in chosen:
        a, b = int(i[n]), int(j[n])
        spread = _over_draws(defect.relaxed, a, b, symbols)
        rows.append(
            (
                f"{symbols[a]} {a} – {symbols[b]} {b}",
                number(_distance(defect.built.atoms, a, b), 3),
                number(float(d[n]), 3) if defect.after is not None else "–",
                spread,
                number(float(z[a])),
            )
        )
    draws = len(defect.relaxed)
    head = (
        "Bond of an impurity atom", "As built (Å)", "Relaxed (Å)",
        f"{count(draws, 'relaxed draw')}: mean ± sd (Å)", "Height above the sheet (Å)",
    )  # fmt: skip
    note = element(
        "p",
        "Atoms are numbered as in the structure file. The standard deviation is between the "
        "relaxed draws: the part of the position uncertainty that is left after the relaxation.",
        class_="note",
    )
    return join([table(head, rows), note])


def _over_draws(draws: tuple[ase.Atoms, ...], a: int, b: int, symbols: list[str]) -> str:
    same = [d for d in draws if d.get_chemical_symbols() == symbols]
    values = np.array([_distance(d, a, b) for d in same])
    if len(values) < 2:
        return "–"
    return f"{number(float(values.mean()), 3)} ± {number(float(values.std(ddof=1)), 3)}"


def _distance(atoms: ase.Atoms, a: int, b: int) -> float:
    if max(a, b) >= len(atoms):
        return math.nan
    return float(atoms.get_distance(a, b, mic=True))


def energies(view: CampaignView) -> Html:
    """Section 5: energies with their spread, and the convergence of the relaxations."""
    title = "Energies"
    groups = energy_groups(view)
    if not groups:
        missing = _not_simulated("Nothing was relaxed yet.", view)
        return section("energies", 5, title, missing)
    parts: list[str] = [
        element(
            "p",
            "Every draw is one structure sampled from the uncertainty of the frame and relaxed "
            "independently. Energies are relative to the lowest of one composition and engine: "
            "total energies of different composition have no common zero and are never compared.",
        )
    ]
    for group in groups:
        if not math.isfinite(group.lowest_eV):
            text = f"{group.composition} ({group.engine}): no relaxation gave a finite energy."
            parts.append(element("p", text, class_="missing"))
            continue
        parts.append(
            picture(
                simulation_figures.energies(group),
                f"Energies of {group.composition} above the lowest, by defect and draw",
                f"{group.composition}, {group.engine}. One point a relaxation; bar: mean and "
                "standard deviation over the converged ones. Zero is "
                f"{number(group.lowest_eV, 3)} eV of the engine's own total energy.",
                wide=True,
            )
        )
    relaxations = [r for g in groups for r in g.results]
    traced = [r for r in relaxations if len(r.trace.get("energy_eV", ())) > 1]
    if traced:
        force = picture(
            simulation_figures.convergence(traced, "force"),
            "Largest force against step of every relaxation",
            "Convergence of every relaxation: the largest force on a free atom.",
        )
        energy = picture(
            simulation_figures.convergence(traced, "energy"),
            "Energy against step of every relaxation",
            "The same relaxations: energy above each one's own last value.",
        )
        parts.append(element("div", force, energy, class_="grid"))
    zero = {id(r): g.lowest_eV for g in groups for r in g.results}
    rows = [_relaxation_row(r, zero[id(r)]) for r in relaxations[:_MOST_ROWS]]
    head = ("Structure", "Draw", "Engine", "Status", "Energy (eV)", "Steps", "Force (eV/Å)", "Time")
    parts += [element("h3", "Relaxations"), table(head, rows, words=4)]
    if len(relaxations) > _MOST_ROWS:
        parts.append(element("p", f"{len(relaxations) - _MOST_ROWS} more are in the campaign."))
    return section("energies", 5, title, *parts)


def _relaxation_row(result: SimulationResult, zero: float) -> tuple[str, ...]:
    steps = np.asarray(result.trace.get("step", ()))
    force = np.asarray(result.trace.get("fmax_eV_A", ()))
    return (
        result.structure,
        draw_label(result.draw),
        result.engine,
        result.status,
        number(result.energy_eV - zero, 3),
        str(int(steps[-1])) if len(steps) else "–",
        number(float(force[-1]), 3) if len(force) else "–",
        duration(result.seconds),
    )


def dynamics(view: CampaignView) -> Html:
    """Section 6: molecular dynamics."""
    title = "Molecular dynamics"
    runs = thermal_runs(view)
    if not runs:
        missing = _not_simulated("No dynamics was run yet.", view)
        return section("dynamics", 6, title, missing)
    traced = [r for r in runs if len(r.time_ps)]
    parts: list[str] = []
    if traced:
        parts.append(
            element(
                "div",
                picture(
                    simulation_figures.traces(traced, "temperature"),
                    "Temperature against time for each run, with the set temperature dashed",
                    "Instantaneous temperature; dashed: temperature of the thermostat.",
                ),
                picture(
                    simulation_figures.traces(traced, "energy"),
                    "Potential energy above the start against time for each run",
                    "Potential energy above that of the run's first sample. A run that "
                    "starts in a harmonic minimum levels off near 3/2 N k T.",
                ),
                picture(
                    simulation_figures.thermostat(traced),
                    "Mean temperature with its standard deviation against the set temperature",
                    "Mean ± standard deviation over the second half of each run; dashed: equality.",
                ),
                class_="grid three",
            )
        )
    rows = []
    for run in runs:
        mean, sd = run.second_half(run.temperature_K)
        energy, energy_sd = run.result.energy_eV, run.result.energy_sd_eV
        rows.append(
            (
                run.label,
                run.result.engine,
                run.result.status,
                number(run.result.temperature_K, 0),
                f"{number(mean, 0)} ± {number(sd, 0)}",
                number(run.canonical_sd_K, 0),
                f"{number(energy)} ± {number(energy_sd)}",
                number(float(run.time_ps[-1]), 1) if len(run.time_ps) else "–",
                duration(run.result.seconds),
            )
        )
    head = (
        "Defect", "Engine", "Status", "Asked (K)", "Held (K)", "Canonical sd (K)",
        "Potential energy (eV)", "Length (ps)", "Time",
    )  # fmt: skip
    parts.append(table(head, rows, words=3))
    parts.append(
        element(
            "p",
            "± is the standard deviation in time over the second half, not the error of the mean. "
            "Canonical sd: T √(2/3N), the value of the canonical ensemble.",
            class_="note",
        )
    )
    return section("dynamics", 6, title, *parts)


def _not_simulated(text: str, view: CampaignView) -> Html:
    """Paragraph that names a missing result, and the command that makes it if there is one."""
    if not view.material.simulated_by:
        why = f"{text} No engine simulates {view.material.name}."
        return element("p", why, class_="missing")
    return not_done(text, f"adatom simulate {view.directory}")
