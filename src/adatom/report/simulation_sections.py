"""The sections on the simulations: supercells and energies, molecular dynamics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import ase
import numpy as np

from adatom.core import SimulationResult
from adatom.core.energy import spreads_of_defects
from adatom.report import simulation_charts
from adatom.report.drawing import cell_drawing
from adatom.report.facts import (
    ThermalRun,
    draw_label,
    formula,
    guest_elements,
    heights,
    thermal_runs,
)
from adatom.report.fates import RunFate, bond_lengths, events_in_words, held_defects
from adatom.report.markup import (
    Html,
    count,
    duration,
    element,
    folded,
    join,
    listing,
    number,
    section,
    table,
)
from adatom.report.sections import not_done
from adatom.report.stories import Simulated, Story, verdicts
from adatom.report.view import CampaignView
from adatom.report.words import capital, energy_difference, energy_in_words, kind_in_words, measured

_MOST_DEFECTS = 4  # defects whose supercells are drawn, a count; more would make the page large
_MOST_ROWS = 120  # rows of the table of relaxations, a count; the rest is in simulations.parquet


def structures(view: CampaignView, told: Sequence[Story]) -> Html:
    """Supercells before and after the relaxation, with the minima of their draws."""
    title = "What the simulations say: relaxed structures"
    shown = [(s, s.simulated) for s in told if s.simulated is not None]
    if not shown:
        missing = not_simulated("No supercells were built yet.", view)
        return section("structures", title, missing)
    parts = [_one_defect(view, story, own) for story, own in shown[:_MOST_DEFECTS]]
    if len(shown) > _MOST_DEFECTS:
        text = f"{_MOST_DEFECTS} of {len(shown)} defects are drawn; all are in the campaign."
        parts.append(element("p", text, class_="note"))
    relaxations = [r for r in view.results if r.task == "relax"]
    if relaxations:
        parts.append(_all_relaxations(relaxations))
    return section("structures", title, *parts)


def _one_defect(view: CampaignView, story: Story, own: Simulated) -> Html:
    built = own.first.atoms
    after = own.lowest.trajectory[-1] if own.lowest else None
    elements = view.element_order()
    limit = max(float(np.abs(heights(a)).max()) for a in (built, after) if a is not None)
    limit = max(limit, 0.3)
    drawn = [
        _drawn(
            built, elements, limit, f"{capital(story.words)}, as built",
            f"As built from frame {own.first.frame}: the most probable structure, "
            f"{formula(built)}. Dark discs: 2σ of the position in the frame.",
            sigma_A=own.first.sigma_A,
        )
    ]  # fmt: skip
    if after is None:
        drawn.append(not_simulated("Not relaxed yet.", view))
    else:
        formed = [e.bond for e in own.bonds if e.formed]
        broken = [e.bond for e in own.bonds if not e.formed]
        drawn.append(
            _drawn(
                after, elements, limit, f"{capital(story.words)}, relaxed",
                "Relaxed: the draw of lowest energy, from above (y up) and from the side. "
                "Fill: height above the sheet, orange up and violet down.",
                formed=formed, broken=broken,
            )
        )  # fmt: skip
    held = element("p", _holds(view, own), class_="holds")
    energies = _energies(own)
    bonds = folded("Lengths of the bonds", _bond_table(own)) if after is not None else Html("")
    pictures = element("div", *drawn, class_="cells")
    return element("article", element("h3", _title(story)), held, pictures, energies, bonds)


def _title(story: Story) -> str:
    return f"{story.rank}  {capital(story.words)}" if story.rank else capital(story.words)


def _drawn(
    atoms: ase.Atoms,
    elements: tuple[str, ...],
    limit: float,
    label: str,
    caption: str,
    **marks: object,
) -> Html:
    top = cell_drawing(atoms, elements, f"{label}, from above", z_limit_A=limit, **marks)  # type: ignore[arg-type]
    side = cell_drawing(atoms, elements, f"{label}, from the side", z_limit_A=limit, side=True)
    return element("figure", top, side, element("figcaption", caption))


def _holds(view: CampaignView, own: Simulated) -> str:
    """Which defects of the frame are in the supercell."""
    first = own.first
    perfect = first.kind == "pristine"
    own_defect = -1 if perfect else first.defect
    rows = held_defects(view, first.frame, own_defect, first.source_atom.tolist())
    others = [
        kind_in_words(str(r["kind"]), view.material) for r in rows if r["defect"] != own_defect
    ]
    what = (
        "no defect: perfect crystal"
        if first.kind == "pristine"
        else (kind_in_words(first.kind, view.material))
    )
    tail = f", and also {listing(others)}" if others else ", and no other defect"
    if first.kind == "pristine" and not others:
        tail = ""
    name = f"{first.name} in structures/"
    return f"This supercell ({count(len(first.atoms), 'atom')}, {name}) holds {what}{tail}."


def _energies(own: Simulated) -> Html:
    if not own.relaxations:
        return Html("")
    text = next((t for label, t in _verdict_pairs(own) if label == "Relaxed"), "")
    parts = [element("p", f"{capital(text)}.")]
    if own.lowest is not None and own.lowest.reference:
        reference = f"Reference of the formation energy: {own.lowest.reference}."
        parts.append(element("p", reference, class_="note"))
    parts += [element("p", text) for text in _spread(own)]
    if len(own.minima) > 1 or any(r.status == "not converged" for r in own.relaxations):
        parts.append(energy_strip(own))
    return join(parts)


def _spread(own: Simulated) -> list[str]:
    """Say how sure the energy is, and what would narrow it."""
    return [
        f"Over all draws the formation energy is {spread.in_words()}."
        + (f" {capital(spread.narrowed_by)} would narrow it most." if spread.narrowed_by else "")
        for spread in spreads_of_defects(own.relaxations).values()
    ]


def _verdict_pairs(own: Simulated) -> list[tuple[str, str]]:
    return verdicts(Story(0, "", None, None, own))


def energy_strip(own: Simulated) -> Html:
    """Draw every relaxed draw on one axis of energy: filled if converged, hollow if not."""
    finite = [r for r in own.relaxations if math.isfinite(r.energy_eV)]
    if own.lowest is None or not finite:
        return Html("")
    zero = own.lowest.energy_eV
    most = max(*(r.energy_eV - zero for r in finite), 1e-3)
    width, left = 640.0, 30.0
    scale = (width - 2 * left) / most
    placed: dict[int, int] = {}
    dots = []
    for r in sorted(finite, key=lambda r: r.energy_eV):
        x = left + (r.energy_eV - zero) * scale
        level = placed.get(round(x / 14), 0)
        placed[round(x / 14)] = level + 1
        label = f"{draw_label(r.draw)}: {energy_difference(r.energy_eV - zero)}, {r.status}"
        if not math.isnan(r.weight):
            label += f", weight {r.weight:.2g}"
        dots.append(
            element(
                "circle", element("title", label), cx=f"{x:.1f}", cy=f"{58 - 15 * level:.0f}",
                r="6.5", class_="done" if r.status == "done" else "open",
            )
        )  # fmt: skip
    marks = []
    for m in own.minima:
        x = left + m.above_eV * scale
        words = "0" if m.above_eV < 1e-3 else energy_difference(m.above_eV)
        marks.append(element("text", words, x=f"{x:.1f}", y="90"))
    axis = element("path", d=f"M{left - 16} 70H{width - left + 16}")
    tallest = max(placed.values())
    top = min(0, 58 - 15 * tallest)
    drawing = element(
        "svg", axis, *dots, *marks, viewBox=f"0 {top} {width:.0f} {98 - top}", class_="strip",
        role="img", aria_label="Energies of the relaxed draws above the lowest",
    )  # fmt: skip
    caption = (
        "Energy above the lowest draw; one dot a draw, hollow where it did not converge. Groups "
        "are minima of their own: no mean is drawn between them."
    )
    return element("figure", drawing, element("figcaption", caption), class_="wide")


def _bond_table(own: Simulated) -> Html:
    """Bonds of the impurity atoms, or else of atoms with an unusual number of bonds."""
    assert own.lowest is not None  # noqa: S101
    atoms = own.lowest.trajectory[-1]
    symbols, guest = atoms.get_chemical_symbols(), guest_elements(atoms)
    lengths = bond_lengths(atoms)
    degree = np.bincount(np.array(list(lengths), dtype=int).ravel(), minlength=len(atoms))
    usual = int(np.bincount(degree).argmax())
    odd = {n for n, s in enumerate(symbols) if s in guest}
    odd = odd or {n for n in range(len(atoms)) if degree[n] != usual}
    chosen = sorted(b for b in lengths if odd & set(b))[:_MOST_ROWS]
    if not chosen:
        span = f"{min(lengths.values()):.2f} to {max(lengths.values()):.2f} Å" if lengths else "–"
        return element("p", f"All bonds are alike: {span}.")
    draws = [r.trajectory[-1] for r in own.relaxed]
    same = [d for d in draws if d.get_chemical_symbols() == symbols]
    rows = [
        (
            f"{symbols[a]} {a} – {symbols[b]} {b}",
            number(_distance(own.first.atoms, a, b), 2),
            number(lengths[a, b], 3),
            _over_draws(same, a, b),
        )
        for a, b in chosen
    ]
    head = (
        "Bond",
        "As built (Å)",
        "Relaxed, lowest (Å)",
        f"{count(len(same), 'relaxed draw')} (Å)",
    )
    note = element("p", "Atoms are numbered as in the structure file, from 0.", class_="note")
    return join([table(head, rows), note])


def _over_draws(draws: Sequence[ase.Atoms], a: int, b: int) -> str:
    values = np.array([_distance(d, a, b) for d in draws])
    if len(values) < 2:
        return "–"
    sd = float(values.std(ddof=1))
    if sd > 0.05 and len(values) > 2:  # draws of several minima: their mean is no bond
        return f"{values.min():.2f} to {values.max():.2f}"
    return measured(float(values.mean()), max(sd, 5e-4))


def _distance(atoms: ase.Atoms, a: int, b: int) -> float:
    if max(a, b) >= len(atoms):
        return math.nan
    return float(atoms.get_distance(a, b, mic=True))


def _all_relaxations(relaxations: Sequence[SimulationResult]) -> Html:
    parts: list[Html] = []
    traced = [r for r in relaxations if len(r.trace.get("energy_eV", ())) > 1]
    if traced:
        force = simulation_charts.convergence(
            traced, "force", "Convergence: the largest force on a free atom."
        )
        energy = simulation_charts.convergence(
            traced, "energy", "The same relaxations: energy above each one's own last value."
        )
        parts.append(element("div", force, energy, class_="grid"))
    rows = [_relaxation_row(r) for r in relaxations[:_MOST_ROWS]]
    head = (
        "Structure", "Draw", "Engine", "Status", "Formation energy", "Total energy (eV)", "Steps",
        "Force (eV/Å)", "Time",
    )  # fmt: skip
    parts.append(table(head, rows, words=4))
    if len(relaxations) > _MOST_ROWS:
        parts.append(element("p", f"{len(relaxations) - _MOST_ROWS} more are in the campaign."))
    note = (
        "Formation energies are over the perfect crystal in the same cell. Total energies are the "
        "engine's own: those of different composition or engine have no common zero."
    )
    parts.append(element("p", note, class_="note"))
    return folded("All relaxations", *parts)


def _relaxation_row(result: SimulationResult) -> tuple[str, ...]:
    steps = np.asarray(result.trace.get("step", ()))
    force = np.asarray(result.trace.get("fmax_eV_A", ()))
    return (
        result.structure,
        draw_label(result.draw),
        result.engine,
        result.status,
        energy_in_words(result.formation_energy_eV),
        number(result.energy_eV, 3),
        str(int(steps[-1])) if len(steps) else "–",
        number(float(force[-1]), 3) if len(force) else "–",
        duration(result.seconds),
    )


def dynamics(view: CampaignView, told: Sequence[Story]) -> Html:
    """Molecular dynamics: what happened, and then how the thermostat held."""
    title = "What the simulations say: molecular dynamics"
    runs = thermal_runs(view)
    if not runs:
        return section("dynamics", title, not_simulated("No dynamics was run yet.", view))
    parts: list[Html] = []
    limited = [s for s in told if s.simulated is not None and s.simulated.fates]
    parts += [_heated(view, s, s.simulated) for s in limited[:_MOST_DEFECTS] if s.simulated]
    parts.append(_thermostat(runs))
    return section("dynamics", title, *parts)


def _heated(view: CampaignView, story: Story, own: Simulated) -> Html:
    rows = []
    for kelvin, fates in own.fates.items():
        shown = max(fates, key=lambda f: len(f.events))
        time = max(f.snapshots[-1][0] for f in fates)
        said = f"{kelvin:g} K, {count(len(fates), 'run')} of {number(time, 1)} ps: "
        rows.append(element("h4", said, element("span", events_in_words(fates))))
        rows.append(_snapshots(view, shown))
        rows.append(_events(shown))
    return element("article", element("h3", _title(story)), *rows)


def _snapshots(view: CampaignView, fate: RunFate) -> Html:
    elements = view.element_order()
    limit = max(*(float(np.abs(heights(a)).max()) for _, a in fate.snapshots), 0.3)
    out = []
    last = len(fate.snapshots) - 1
    for k, (time, atoms) in enumerate(fate.snapshots):
        done = [e for e in fate.events if e.time_ps <= time]
        formed = [e.bond for e in done if e.formed]
        broken = [e.bond for e in done if not e.formed]
        words = "start" if k == 0 else f"{time:.2g} ps"
        words += ", the end" if k == last else ""
        drawing = cell_drawing(
            atoms, elements, f"Snapshot at {words}", z_limit_A=limit, formed=formed, broken=broken
        )
        out.append(element("figure", drawing, element("figcaption", words)))
    return element("div", *out, class_="snapshots")


def _events(fate: RunFate) -> Html:
    symbols = fate.result.trajectory[0].get_chemical_symbols()
    run = f"Drawn: {draw_label(fate.result.draw)}."
    if not fate.events:
        return element("p", f"{run} No bond formed or broke for good.", class_="note")
    told = [
        f"{e.time_ps:.2g} ps: {symbols[e.bond[0]]} {e.bond[0]} – {symbols[e.bond[1]]} {e.bond[1]} "
        f"{'forms' if e.formed else 'breaks'}"
        for e in fate.events[:8]
    ]
    more = f"; {len(fate.events) - 8} more" if len(fate.events) > 8 else ""
    return element(
        "p", f"{run} {'; '.join(told)}{more}. Green: formed; red: broken.", class_="note"
    )


def _thermostat(runs: list[ThermalRun]) -> Html:
    traced = [r for r in runs if len(r.time_ps)]
    parts: list[Html] = []
    if traced:
        heat = simulation_charts.traces(
            traced, "temperature", "Instantaneous temperature; dashed: that of the thermostat."
        )
        energy = simulation_charts.traces(
            traced, "energy", "Potential energy above that of the run's first sample."
        )
        parts.append(element("div", heat, energy, class_="grid"))
    head = (
        "Defect", "Engine", "Status", "Asked (K)", "Held (K)", "Canonical sd (K)",
        "Potential energy (eV)", "Length (ps)", "Time",
    )  # fmt: skip
    parts.append(table(head, [_thermal_row(r) for r in runs], words=3))
    parts.append(
        element(
            "p",
            "± is the standard deviation in time over the second half, not the error of the mean. "
            "Canonical sd: T √(2/3N), the value of the canonical ensemble.",
            class_="note",
        )
    )
    return folded("Thermostat and energies of every run", *parts)


def _thermal_row(run: ThermalRun) -> tuple[str, ...]:
    mean, sd = run.second_half(run.temperature_K)
    return (
        run.label,
        run.result.engine,
        run.result.status,
        number(run.result.temperature_K, 0),
        f"{number(mean, 0)} ± {number(sd, 0)}",
        number(run.canonical_sd_K, 0),
        measured(run.result.energy_eV, run.result.energy_sd_eV),
        number(float(run.time_ps[-1]), 1) if len(run.time_ps) else "–",
        duration(run.result.seconds),
    )


def not_simulated(text: str, view: CampaignView) -> Html:
    """Paragraph that names a missing result, and the command that makes it if there is one."""
    if not view.material.simulated_by:
        why = f"{text} No engine simulates {view.material.name}."
        return element("p", why, class_="missing")
    return not_done(text, f"adatom simulate {view.directory}")
