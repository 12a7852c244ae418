"""The findings and the warnings of a campaign, in sentences."""

from __future__ import annotations

import math

import numpy as np

from adatom.report.facts import (
    UNCERTAIN_P,
    EnergyGroup,
    draw_label,
    energy_groups,
    median_sigma,
    thermal_runs,
    tracks,
)
from adatom.report.markup import count, listing, number
from adatom.report.view import CampaignView

_MOST_GROUPS = 3  # compositions with a sentence of their own, a count


def sentences(view: CampaignView) -> list[str]:
    """Describe the result of every step of the campaign, missing ones included."""
    return [
        _atoms(view),
        _defects(view),
        *_energies(view),
        _dynamics(view),
        _advice(view),
    ]


def key_numbers(view: CampaignView) -> list[tuple[str, str]]:
    """The key numbers at the top of the page: value and description of each."""
    followed = [t for t in tracks(view.defects) if t.number is not None]
    sigma = median_sigma(view.atoms)
    spreads = [e.std(ddof=1) for e in _converged(view) if len(e) > 1]
    out = [
        (number(view.frame_count, 0), "frame" if view.frame_count == 1 else "frames"),
        (number(len(view.atoms), 0), "atoms"),
        (f"{number(sigma, 3)} Å" if math.isfinite(sigma) else "–", "median σ of a position"),
        (number(len(followed), 0), "defect followed" if len(followed) == 1 else "defects followed"),
    ]
    if spreads:
        out.append((f"{number(max(spreads), 2)} eV", "largest energy spread of one defect"))
    kelvin = sorted({r.result.temperature_K for r in thermal_runs(view)})
    if kelvin:
        out.append((" · ".join(f"{t:g}" for t in kelvin) + " K", "molecular dynamics"))
    return out


def all_warnings(view: CampaignView) -> list[str]:
    """The campaign's own warnings, and those that follow from its numbers."""
    out = list(view.warnings)
    seen = view.atoms.frames
    if 0 < len(seen) < view.frame_count:
        missing = view.frame_count - len(seen)
        out.append(f"No atoms were found in {count(missing, 'frame')} of {view.frame_count}.")
    failed = [r for r in view.results if r.status.startswith("failed")]
    if failed:
        first = failed[0]
        out.append(
            f"{count(len(failed), 'simulation')} of {len(view.results)} failed; the first was "
            f"{first.structure} ({draw_label(first.draw)}, {first.task}): {first.status}."
        )
    open_ended = [r for r in view.results if r.status == "not converged"]
    if open_ended:
        out.append(
            f"{count(len(open_ended), 'relaxation')} did not converge: the energies are upper "
            "bounds, drawn hollow, and count neither in means nor in spreads."
        )
    broken = [r for r in view.results if r.status == "done" and not math.isfinite(r.energy_eV)]
    if broken:
        out.append(f"{count(len(broken), 'simulation')} ended without a finite energy.")
    for run in thermal_runs(view):
        asked, (mean, _) = run.result.temperature_K, run.second_half(run.temperature_K)
        if math.isfinite(mean) and asked > 0 and abs(mean / asked - 1.0) > 0.1:
            out.append(
                f"{run.label}: the dynamics asked for {asked:g} K had a mean of {mean:.0f} K, "
                "more than 10 % off; its averages are not those of equilibrium."
            )
    return out


def _atoms(view: CampaignView) -> str:
    frames = count(view.frame_count, "frame") + f" of {view.material.name}"
    if len(view.atoms) == 0:
        return f"{frames}; no atoms have been found yet."
    uncertain = float(np.mean(view.atoms.column("p_exists") < UNCERTAIN_P))
    names, counts = np.unique(view.atoms.elements, return_counts=True)
    each = [f"{number(n, 0)} {e}" for n, e in sorted(zip(counts, names, strict=True), reverse=True)]
    per_frame = float(np.median(view.atoms.data.group_by("frame").len()["len"].to_numpy()))
    return (
        f"In {frames}, {count(len(view.atoms), 'atom')} were found ({listing(each)}; "
        f"{number(per_frame, 0)} a frame), placed with a median standard deviation of "
        f"{number(median_sigma(view.atoms), 3)} Å per axis; {number(100 * uncertain, 1)} % of "
        f"them exist with a probability below {UNCERTAIN_P}."
    )


def _defects(view: CampaignView) -> str:
    if len(view.defects) == 0:
        return "No defects have been named."
    rows = tracks(view.defects)
    followed = [t for t in rows if t.number is not None]
    if not followed:
        names = [f"{t.main_kind} ({len(t.frames)})" for t in rows]
        return f"Defects were named but not linked from frame to frame: {listing(names[:6])}."
    named = [
        f"{t.main_kind} in {len(np.unique(t.frames))} of {count(view.frame_count, 'frame')}"
        for t in followed[:3]
    ]
    if len(followed) == 1:
        return f"One defect was followed: {named[0]}."
    head = f"{count(len(followed), 'defect')} were followed"
    return f"{head}: {listing(named)}." if len(followed) <= 3 else f"{head}, chiefly {named[0]}."


def _energies(view: CampaignView) -> list[str]:
    groups = energy_groups(view)
    if not groups:
        built = f"{count(len(view.structures), 'supercell')} built, " if view.structures else ""
        return [f"{built}nothing relaxed yet.".capitalize()]
    groups.sort(key=lambda g: -len(g.results))
    out = [_one_group(g) for g in groups[:_MOST_GROUPS]]
    if len(groups) > _MOST_GROUPS:
        out.append(f"{count(len(groups) - _MOST_GROUPS, 'more composition')} follow below.")
    return out


def _one_group(group: EnergyGroup) -> str:
    head = f"{group.composition} ({group.engine})"
    done = [
        (r.energy_eV, row.label, r.draw)
        for row in group.rows
        for r in row.results
        if r.status == "done" and math.isfinite(r.energy_eV)
    ]
    if not done:
        return f"{head}: none of {count(len(group.results), 'relaxation')} converged."
    values = np.array([e for e, _, _ in done])
    text = f"{head}: {len(done)} of {count(len(group.results), 'relaxation')} converged"
    if len(done) == 1:
        return f"{text}, so there is no spread of the energy."
    _, label, draw = min(done)
    lowest = "the most probable structure" if draw < 0 else draw_label(draw)
    if len(group.rows) > 1:
        lowest += f" of {label}"
    reach = f"span {number(float(np.ptp(values)), 2)} eV"
    own = group.rows[0].energies()
    if len(group.rows) == 1:
        sd = number(float(own.std(ddof=1)), 2)
        reach = f"have a standard deviation of {sd} eV and {reach}"
    return f"{text}; their energies {reach}, the lowest is {lowest}."


def _dynamics(view: CampaignView) -> str:
    runs = [r for r in thermal_runs(view) if len(r.time_ps)]
    if not runs:
        return "No molecular dynamics has been run."
    asked = sorted({r.result.temperature_K for r in runs})
    longest = max(float(r.time_ps[-1]) for r in runs)
    means = []
    for kelvin in asked:
        own = [r.second_half(r.temperature_K) for r in runs if r.result.temperature_K == kelvin]
        means.append(
            f"{kelvin:g} K (held {np.mean([m for m, _ in own]):.0f} ± "
            f"{np.mean([s for _, s in own]):.0f} K)"
        )
    return (
        f"Molecular dynamics: {count(len(runs), 'run')} of up to {number(longest, 1)} ps "
        f"at {listing(means)}."
    )


def _advice(view: CampaignView) -> str:
    if not view.advice:
        return "There is no advice yet."
    return f"First advice of {len(view.advice)}: {view.advice[0].reason}"


def _converged(view: CampaignView) -> list[np.ndarray]:
    return [row.energies() for group in energy_groups(view) for row in group.rows]
