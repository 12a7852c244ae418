"""Where to put the beam to move an atom, with its odds and its price."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from adatom.core.advice import Advice
from adatom.core.arrays import FloatArray
from adatom.core.atoms import AtomTable
from adatom.core.defect_kind import Cluster
from adatom.core.defects import DefectTable

ELECTRONS_PER_S_PER_PA = 1e-12 / 1.602176634e-19  # elementary charge, C: SI definition

# Prior of Schwarzer et al. (Putting Dune), arXiv:2311.17894, for Si with three C neighbours at
# 60 kV: a normal peak 0.85 bond lengths from the Si towards the neighbour, variance 0.1 squared
# bond lengths per axis, at most ln 2 / 3 jumps a second.
PEAK_BONDS = 0.85
PEAK_VARIANCE_BONDS2 = 0.1
MAX_RATE_PER_S = math.log(2.0) / 3.0
PRIOR_VOLTAGE_KV = 60.0
MOVABLE = Cluster.of(["Si"], ["C"] * 3)  # the defect that this prior is for


class ManipulateOptions(BaseModel):
    """When and how to move a Si atom; the rates are a prior for 60 kV."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_p_atom: float = Field(
        default=0.9, gt=0.0, le=1.0, description="least p_exists x p_element of Si and neighbour"
    )
    wanted_p: float = Field(default=0.8, gt=0.0, lt=1.0, description="odds of a jump to aim at")
    max_dwell_s: float = Field(default=10.0, gt=0.0, description="longest stay of the beam, s")
    max_sigma_A: float = Field(
        default=0.4, gt=0.0, description="largest uncertainty of the target that is acceptable, Å"
    )
    beam_sigma_A: float = Field(
        default=0.2, ge=0.0, description="error of placing the beam, drift included, per axis, Å"
    )
    beam_current_pA: float = Field(default=50.0, gt=0.0, description="probe current, pA")
    rate_relative_sd: float = Field(
        default=0.5, ge=0.0, description="how uncertain the prior's greatest rate is, relative"
    )
    bond_range_A: tuple[float, float] = Field(
        default=(1.2, 2.2), description="nearest and farthest that a bonded neighbour may lie, Å"
    )


@dataclass(frozen=True, slots=True)
class Jump:
    """One way of moving a Si atom.

    Parameters
    ----------
    target_xy_A
        Where to put the beam, Å, measured axes.
    sigma_A
        Uncertainty of that place against the true one, per axis (root mean square), Å.
    rate_per_s
        Expected rate of the jump.
    dwell_s
        How long to stay.
    probability
        Of the jump to this neighbour within the dwell, existence and element of both included.
    probability_sd
        Its standard deviation.
    """

    target_xy_A: tuple[float, float]
    sigma_A: float
    rate_per_s: float
    dwell_s: float
    probability: float
    probability_sd: float


def plan_jump(
    si: FloatArray,
    si_covariance: FloatArray,
    neighbours: FloatArray,
    neighbour_covariance: FloatArray,
    which: int,
    *,
    p_atoms: float = 1.0,
    options: ManipulateOptions | None = None,
) -> Jump:
    """Plan the exchange of a Si atom with one of its neighbours.

    The rate is averaged over the unknown offset ``d`` of the beam from the true peak: with a
    peak of covariance S and an offset of covariance C, ``E[exp(-d S⁻¹ d / 2)] =
    sqrt(|S| / |S + C|)`` (a Gaussian integral). Jumps to the other neighbours compete:
    ``P = r / R (1 - exp(-R t))`` with R the sum of the rates.

    Parameters
    ----------
    si
        Shape (2,), Å.
    si_covariance
        Shape (2, 2), Å².
    neighbours
        Shape (neighbour, 2), Å.
    neighbour_covariance
        Shape (neighbour, 2, 2), Å².
    which
        Index of the neighbour to change places with.
    p_atoms
        Probability that both atoms are there and are what they are called.
    options
        Limits.
    """
    o = options or ManipulateOptions()
    bond = neighbours - si
    length = np.linalg.norm(bond, axis=1)
    peaks = si + PEAK_BONDS * bond
    beam = peaks[which]
    rates, second = np.zeros(len(bond)), 0.0
    for k in range(len(bond)):
        peak = np.eye(2) * PEAK_VARIANCE_BONDS2 * length[k] ** 2
        offset = (
            (1.0 - PEAK_BONDS) ** 2 * si_covariance
            + PEAK_BONDS**2 * neighbour_covariance[k]
            + np.eye(2) * o.beam_sigma_A**2
        )
        rates[k] = MAX_RATE_PER_S * _mean_of_peak(beam - peaks[k], peak, offset)
        if k == which:
            second = MAX_RATE_PER_S**2 * _mean_of_peak(np.zeros(2), peak / 2.0, offset)
            sigma = math.sqrt(float(np.trace(offset)) / 2.0)
    rate, total = float(rates[which]), float(rates.sum())
    dwell = min(-math.log(1.0 - o.wanted_p) / total, o.max_dwell_s)
    jumped = -math.expm1(-total * dwell)
    p = rate / total * jumped
    # First order: dP/dr for this rate, the others held.
    slope = (1.0 - rate / total) * jumped / total + rate / total * dwell * (1.0 - jumped)
    rate_sd = math.sqrt(max(second - rate**2, 0.0) + (o.rate_relative_sd * rate) ** 2)
    # Whether the atoms are what they seem is a yes or no: its variance is p² q (1 - q).
    sd = math.sqrt((p_atoms * slope * rate_sd) ** 2 + p**2 * p_atoms * (1.0 - p_atoms))
    return Jump(
        target_xy_A=(float(beam[0]), float(beam[1])),
        sigma_A=sigma,
        rate_per_s=rate,
        dwell_s=dwell,
        probability=p_atoms * p,
        probability_sd=sd,
    )


def advise_jumps(
    atoms: AtomTable,
    defects: DefectTable,
    *,
    latest_frame: int | None = None,
    options: ManipulateOptions | None = None,
) -> list[Advice]:
    """Say where to put the beam to move each three-coordinated Si atom, best odds first.

    Only defects of the kind `MOVABLE` (``Si1C3``) in the latest frame are targets. Nothing is
    suggested where the atoms or the position of the target are too uncertain.

    Parameters
    ----------
    atoms, defects
        Of any number of frames.
    latest_frame
        The present; by default the last frame that has atoms.
    options
        Limits.

    Raises
    ------
    BadInput
        If a name in the table is not that of a kind of defect.
    """
    o = options or ManipulateOptions()
    now = max(atoms.frames, default=-1) if latest_frame is None else latest_frame
    here = atoms.of_frame(now)
    present = defects.of_frame(now)
    out: list[Advice] = []
    for kind, xy in zip(present.kind_values, present.xy, strict=True):
        if kind == MOVABLE:
            out += _advise_one(here, xy, now, o)
    return sorted(out, key=lambda a: -a.gain)


def _advise_one(
    atoms: AtomTable, center: FloatArray, frame: int, o: ManipulateOptions
) -> list[Advice]:
    xy, covariance = atoms.xy, atoms.covariance
    p = atoms.column("p_exists") * atoms.column("p_element")
    si = np.flatnonzero(atoms.elements == "Si")
    if not len(si):
        return []
    si_i = int(si[np.argmin(np.linalg.norm(xy[si] - center, axis=1))])
    distance = np.linalg.norm(xy - xy[si_i], axis=1)
    low, high = o.bond_range_A
    near = np.flatnonzero((atoms.elements == "C") & (distance >= low) & (distance <= high))
    near = near[np.argsort(distance[near])][:3]
    if np.linalg.norm(xy[si_i] - center) > low or len(near) < 3 or p[si_i] < o.min_p_atom:
        return []
    out = []
    for k, i in enumerate(near):
        jump = plan_jump(xy[si_i], covariance[si_i], xy[near], covariance[near], k,
                         p_atoms=float(p[si_i] * p[i]), options=o)  # fmt: skip
        if p[i] < o.min_p_atom or jump.sigma_A > o.max_sigma_A:
            continue
        electrons = o.beam_current_pA * ELECTRONS_PER_S_PER_PA * jump.dwell_s
        x, y = jump.target_xy_A
        reason = (
            f"Place the beam at ({x:.2f}, {y:.2f}) Å of frame {frame} for {jump.dwell_s:.1f} s: by "
            f"the published prior for 60 kV the Si then changes places with its neighbour at "
            f"({xy[i, 0]:.2f}, {xy[i, 1]:.2f}) Å with probability {jump.probability:.2f} ± "
            f"{jump.probability_sd:.2f} (not measured here; dose for {o.beam_current_pA:g} pA)."
        )
        out.append(
            Advice(
                action="place_beam",
                reason=reason,
                gain=jump.probability,
                gain_unit="probability",
                uncertainty=jump.probability_sd,
                dose=electrons,
                target_xy_A=jump.target_xy_A,
                dwell_s=jump.dwell_s,
                voltage_kV=PRIOR_VOLTAGE_KV,
            )
        )
    return out


def _mean_of_peak(shift: FloatArray, peak: FloatArray, offset: FloatArray) -> float:
    """Mean of ``exp(-d S⁻¹ d / 2)`` over d normal around `shift` with covariance `offset`."""
    wide = peak + offset
    ratio = math.sqrt(float(np.linalg.det(peak) / np.linalg.det(wide)))
    return ratio * math.exp(-0.5 * float(shift @ np.linalg.solve(wide, shift)))
