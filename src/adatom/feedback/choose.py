"""Advise the next action: a scan with its dose and voltage, or moving an atom."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from adatom.core.advice import Advice
from adatom.core.atoms import AtomTable
from adatom.core.calibration import Calibration
from adatom.core.defects import DefectTable
from adatom.core.scan import ScanRequest
from adatom.core.simulation import SimulationResult
from adatom.errors import BadInput
from adatom.feedback.damage import SiteDamage, Voltage, atoms_of, choose_voltage, sites_of
from adatom.feedback.manipulate import PRIOR_VOLTAGE_KV, ManipulateOptions, advise_jumps
from adatom.feedback.score import (
    Score,
    ScoreOptions,
    position_gain,
    score_defects,
    score_disagreement,
)


class AdviceOptions(BaseModel):
    """Size, dose and damage limits of a scan, and the gain below which none is advised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: ScoreOptions = Field(default_factory=ScoreOptions)
    manipulate: ManipulateOptions | None = Field(
        default_factory=ManipulateOptions,
        description="limits for moving atoms; null: never advise it",
    )
    field_of_view_A: float = Field(default=16.0, gt=0.0, description="edge of a scan, Å")
    pixels: int = Field(default=128, ge=16, description="pixels along an edge of a scan")
    min_more: float = Field(
        default=1.0,
        gt=0.0,
        description="smallest dose of a scan, in multiples of the present frame's",
    )
    max_more: float = Field(
        default=20.0, gt=0.0, description="largest dose of a scan, in multiples of the frame's"
    )
    max_damage_events: float = Field(
        default=0.1, gt=0.0, description="largest expected number of knock-on events in one scan"
    )
    min_gain_nats: float = Field(
        default=0.1, ge=0.0, description="a scan with a smaller expected gain is not advised, nats"
    )
    max_scans: int = Field(default=5, ge=1, description="largest number of scans to advise")


def advise(
    atoms: AtomTable,
    defects: DefectTable,
    *,
    species: int,
    frame_dose_per_A2: float | None = None,
    mutual_information: NDArray[np.floating] | None = None,
    calibration: Calibration | None = None,
    results: Sequence[SimulationResult] = (),
    damage: Mapping[float, tuple[float, float]] | None = None,
    element: str = "",
    sites: Sequence[SiteDamage] = (),
    bond_length_A: float = math.nan,
    caveat: str = "",
    latest_frame: int | None = None,
    voltage_kV: float = 60.0,
    options: AdviceOptions | None = None,
) -> list[Advice]:
    """Rank the possible next actions of the experiment.

    Scans come first, by weighted expected gain. Then follow the voltage for the first scan and
    ways to move an atom, all at one voltage: where an atom can be moved, none above that of the
    known rates is advised. If no scan is worth its dose and no atom can be moved, the advice is to
    stop.

    Parameters
    ----------
    atoms, defects
        Of any number of frames, Å, measured axes.
    species
        Number of possible elements.
    frame_dose_per_A2
        Electrons per Å² and frame. If it is not known (normalised frames), doses in the advice
        are NaN, and its reason gives them as multiples of the present frame's dose.
    mutual_information
        Shape (row, col), nats, mean over frames: the networks' disagreement.
    calibration
        Pixel size of that map.
    results
        Simulations of the supercells, for the spread of the samples' energies.
    damage
        Knock-on cross section per atom, mean and standard deviation in barn, by voltage in kV.
    element
        Element of these atoms: a column S2 has two of S. By default each atom of the table counts.
    sites
        The same for kinds of site with a threshold of their own, at the same voltages.
    bond_length_A
        Bond length of the perfect crystal, Å, which tells those sites; needed with `sites`.
    caveat
        What the cross sections leave out; added to the advice of a voltage.
    latest_frame
        The present frame; by default the last frame that has atoms.
    voltage_kV
        Acceleration voltage of the frames, kV; scans use it where no cross section is given.
    options
        Limits.

    Raises
    ------
    BadInput
        If a map comes without its pixel size, a dose is not positive, or a cross section is
        negative or not finite.
    """
    o = options or AdviceOptions()
    damage = damage or {}
    _check(frame_dose_per_A2, damage, mutual_information, calibration)
    scores = score_defects(
        atoms, defects, species=species, results=results, latest_frame=latest_frame, options=o.score
    )
    if mutual_information is not None and calibration is not None:
        scores += score_disagreement(mutual_information, calibration, options=o.score)
    jumps = []
    if o.manipulate is not None:
        jumps = advise_jumps(atoms, defects, latest_frame=latest_frame, options=o.manipulate)
    if jumps:  # one voltage for all actions: the rates of moves are known at theirs
        lower = {kV: cross for kV, cross in damage.items() if kV <= PRIOR_VOLTAGE_KV}
        damage = lower or damage
    chosen = _apart(sorted(scores, key=lambda s: -s.total), o.field_of_view_A / 2.0)
    now = max(atoms.frames, default=0) if latest_frame is None else latest_frame
    scans: list[tuple[float, Advice, list[Voltage]]] = []
    for score in chosen:
        inside = _atoms_inside(atoms, score, now, o.field_of_view_A, element)
        special = _sites_inside(atoms, score, now, o.field_of_view_A, sites, bond_length_A)
        own = sum(n for d, n in special if element in ("", d.site.element))
        rest = max(inside - own, 0.0)
        choose = partial(
            choose_voltage, damage, atoms=rest, sites=special, max_events=o.max_damage_events
        )
        scan, voltages = _scan(score, choose, frame_dose_per_A2, voltage_kV, o)
        if scan.gain >= o.min_gain_nats:
            scans.append((score.weight * scan.gain, scan, voltages))
    scans.sort(key=lambda item: -item[0])
    out = [scan for _, scan, _ in scans[: o.max_scans]]
    if scans and scans[0][2]:
        out.append(_voltage_advice(scans[0][2], caveat, o))
    return [*out, *jumps] or [_stop(chosen, o)]


def advice_to_json(advice: Sequence[Advice]) -> list[dict[str, Any]]:
    """Convert advice to plain dictionaries for ``advice.json``; NaN and infinity become None."""
    plain = [{"rank": i + 1, **asdict(a)} for i, a in enumerate(advice)]
    return [_finite(p) for p in plain]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scan(
    score: Score,
    choose: Callable[..., list[Voltage]],
    frame_dose: float | None,
    voltage_kV: float,
    o: AdviceOptions,
) -> tuple[Advice, list[Voltage]]:
    """Plan one scan: the dose that the least precise position needs, limited by damage."""
    wanted = o.score.wanted_sigma_A
    # Variance is proportional to 1/dose: the total dose must be (sigma / wanted)² times the present
    # one, of which the present frame is one part.
    more = (score.sigma_A / wanted) ** 2 - 1.0
    more = min(max(more, o.min_more), o.max_more)
    dose = None if frame_dose is None else more * frame_dose
    voltages = choose(dose_per_A2=dose)
    limited = bool(voltages) and dose is not None and not voltages[0].allowed
    if limited and dose is not None and frame_dose is not None:
        dose = 0.99 * voltages[0].dose_limit_per_A2
        more = dose / frame_dose
        voltages = choose(dose_per_A2=dose)
    gain, sd = _expected_gain(score, more, wanted)
    kV = voltages[0].kV if voltages else voltage_kV
    advice = Advice(
        action="scan",
        reason=_scan_reason(score, more, dose, gain, wanted, limited=limited),
        gain=gain,
        gain_unit="nats",
        uncertainty=sd,
        dose=math.nan if dose is None else dose * o.field_of_view_A**2,
        scan=ScanRequest(
            center_xy_A=score.xy_A,
            field_of_view_A=o.field_of_view_A,
            pixels=o.pixels,
            dose_per_A2=math.nan if dose is None else dose,
            voltage_kV=kV,
        ),
        voltage_kV=kV,
    )
    return advice, voltages


def _expected_gain(score: Score, more: float, wanted_A: float) -> tuple[float, float]:
    """Mean and standard deviation of the gain of a scan with `more` times the dose, nats.

    Positions gain ``ln(1 + more) / 2`` per axis if counting noise alone limits them, and nothing
    otherwise: the standard deviation is that of a uniform distribution over this range. A new scan
    settles an unknown fraction of the uncertainty of existence, element and disagreement. The
    fraction is taken as uniform between 0 and 1 (mean 1/2), and scaled down if the scan has less
    dose than the first frame.
    """
    position = float(position_gain(score.position_variances_A2, more, wanted_A).sum())
    identity = score.nats - score.position_nats
    settled = 0.5 * min(more, 1.0) * identity
    return position + settled, math.hypot(position, 2.0 * settled) / math.sqrt(12.0)


def _scan_reason(
    score: Score, more: float, dose: float | None, gain: float, wanted: float, *, limited: bool
) -> str:
    x, y = score.xy_A
    at = f"({x:.1f}, {y:.1f}) Å"
    if score.kind is None:
        why = f"the networks disagree most here ({score.disagreement_nats:.2f} nats)"
    else:
        parts = [f"positions known to {score.sigma_A:.2f} Å at worst (wanted {wanted:g} Å)"]
        if score.existence_nats > 0.05:
            parts.append(f"{score.existence_nats:.2f} nats open on whether its atoms exist")
        if score.element_nats > 0.05:
            parts.append(f"{score.element_nats:.2f} nats on their element")
        if not math.isnan(score.energy_sd_eV):
            parts.append(f"energies of its draws spread by {score.energy_sd_eV:.2f} eV")
        if score.energy is not None and score.energy.largest not in ("", "draws"):
            parts.append(
                f"a formation energy with ± {score.energy.sd_eV:.2f} eV that no scan narrows most "
                f"but {score.energy.narrowed_by}"
            )
        why = f"{score.kind} of frame {score.frame} has " + ", ".join(parts)
    if dose is None:
        cost = f"{more:.1f} times the dose of the present frame, whose dose per Å² is not known"
    else:
        cost = f"{dose:.3g} e⁻/Å², {more:.1f} times the present frame's"
    if limited:
        cost += ", the most that knock-on damage allows"
    return f"Scan around {at}: {why}; {gain:.2f} nats are expected from {cost}."


def _voltage_advice(voltages: list[Voltage], caveat: str, o: AdviceOptions) -> Advice:
    """Advise the voltage of the first scan; the gain is the probability of no knock-on event."""
    best = voltages[0]
    limits = ", ".join(
        f"{v.dose_limit_per_A2:.2g} at {v.kV:g} kV" for v in sorted(voltages, key=lambda v: v.kV)
    )
    if math.isnan(best.events):
        reason = (
            f"Use {best.kV:g} kV, where knock-on is rarest: the frames' dose is not known, so "
            f"events cannot be counted, but {o.max_damage_events:g} of them in the first scan's "
            f"field are reached at these doses in e⁻/Å²: {limits}."
        )
    else:
        reason = (
            f"Use {best.kV:g} kV, the highest voltage at which the first scan is expected to cost "
            f"fewer than {o.max_damage_events:g} knock-on events ({best.events:.2g} ± "
            f"{best.events_sd:.2g}); the limits in e⁻/Å² are {limits}."
        )
    # The site that limits the dose is named, at the best voltage and where it is another one above.
    weak = next((v.weakest for v in sorted(voltages, key=lambda v: v.kV) if v.weakest), "")
    if weak:
        reason += f" Most events are expected at {weak}."
    if caveat:
        reason += f" {caveat}"
    safe = math.exp(-best.events)  # Poisson probability of no event
    return Advice(
        action="set_voltage",
        reason=reason,
        gain=safe,
        gain_unit="probability",
        uncertainty=safe * best.events_sd,
        dose=0.0,
        voltage_kV=best.kV,
    )


def _stop(scores: Sequence[Score], o: AdviceOptions) -> Advice:
    left = sum(s.total for s in scores)
    what = "no defect was found" if not scores else f"{left:.2f} nats are left in all"
    return Advice(
        action="stop",
        reason=f"No scan is expected to teach {o.min_gain_nats:g} nats or more at an allowed "
        f"dose: {what}, so further scans only do damage.",
        gain=0.0,
        gain_unit="nats",
        uncertainty=0.0,
        dose=0.0,
    )


def _apart(scores: Sequence[Score], distance_A: float) -> list[Score]:
    """Of scores that fit into one field of view, keep the best."""
    kept: list[Score] = []
    for s in scores:
        if all(math.dist(s.xy_A, k.xy_A) >= distance_A for k in kept):
            kept.append(s)
    return kept


def _atoms_inside(atoms: AtomTable, score: Score, now: int, field_A: float, element: str) -> float:
    """Expected number of atoms of an element in the field of view around a score."""
    here = atoms.of_frame(score.frame if score.frame >= 0 else now)
    near = np.all(np.abs(here.xy - np.asarray(score.xy_A)) <= field_A / 2.0, axis=1)
    p = atoms_of(here, element)
    # A field that extends beyond the frame also has atoms there: assume the frame's density.
    area = float(np.prod(np.ptp(here.xy, axis=0))) if len(here) > 2 else 0.0
    even = float(p.sum()) / area * field_A**2 if area > field_A**2 / 4.0 else 0.0
    return max(float(p[near].sum()), even)


def _sites_inside(
    atoms: AtomTable,
    score: Score,
    now: int,
    field_A: float,
    sites: Sequence[SiteDamage],
    bond_length_A: float,
) -> list[tuple[SiteDamage, float]]:
    """Expected number of atoms at each kind of site in the field of view around a score."""
    if not sites:
        return []
    here = atoms.of_frame(score.frame if score.frame >= 0 else now)
    near = np.all(np.abs(here.xy - np.asarray(score.xy_A)) <= field_A / 2.0, axis=1)
    counted = sites_of(here, [each.site for each in sites], bond_length_A)
    return [(each, float(p[near].sum())) for each, p in zip(sites, counted, strict=True)]


def _check(
    dose: float | None,
    damage: Mapping[float, tuple[float, float]],
    mutual_information: NDArray[np.floating] | None,
    calibration: Calibration | None,
) -> None:
    if dose is not None and not (math.isfinite(dose) and dose > 0.0):
        raise BadInput(
            "frame dose",
            expected="a positive number of e⁻/Å², or none where it is not known",
            got=repr(dose),
            todo="Leave it out if the frames were normalised.",
        )
    for kV, (mean, sd) in damage.items():
        if not (kV > 0.0 and mean >= 0.0 and sd >= 0.0 and math.isfinite(mean + sd)):
            raise BadInput(
                f"cross section at {kV} kV",
                expected="a finite mean and standard deviation of 0 barn or more",
                got=f"{mean} ± {sd}",
                todo="Give barn per atom.",
            )
    if mutual_information is not None and (calibration is None or mutual_information.ndim != 2):
        raise BadInput(
            "mutual information",
            expected="a map of shape (row, col) and its calibration",
            got=f"shape {mutual_information.shape}, calibration {calibration}",
            todo="Take the maximum over classes and the mean over frames first.",
        )
