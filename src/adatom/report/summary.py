"""The warnings of a campaign, in sentences."""

from __future__ import annotations

import math

from adatom.report.facts import draw_label, thermal_runs
from adatom.report.markup import count
from adatom.report.view import CampaignView


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
            "bounds, drawn hollow, and belong to no minimum."
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
