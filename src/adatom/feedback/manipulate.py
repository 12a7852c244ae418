"""Where to place the beam to move an atom, with the probability of a jump and the dose."""

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
from adatom.core.hops import HopModel
from adatom.core.units import ELECTRONS_PER_S_PER_PA

_PRIOR = HopModel()  # the published rates
PRIOR_VOLTAGE_KV = 60.0  # kV: the voltage of these rates
MOVABLE = Cluster.of(["Si"], ["C"] * 3)  # the kind of defect of these rates


class ManipulateOptions(BaseModel):
    """Limits for moving a Si atom; the jump rates are a prior for 60 kV."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_p_atom: float = Field(
        default=0.9, gt=0.0, le=1.0, description="smallest p_exists x p_element of Si and neighbour"
    )
    wanted_p: float = Field(default=0.8, gt=0.0, lt=1.0, description="wanted probability of a jump")
    max_dwell_s: float = Field(default=10.0, gt=0.0, description="longest dwell time, s")
    max_sigma_A: float = Field(
        default=0.4, gt=0.0, description="largest acceptable standard deviation of the target, Å"
    )
    beam_sigma_A: float = Field(
        default=0.2,
        ge=0.0,
        description="error of the beam position, drift included, per axis, Å",
    )
    beam_current_pA: float = Field(default=50.0, gt=0.0, description="probe current, pA")
    rate_relative_sd: float = Field(
        default=0.5, ge=0.0, description="relative standard deviation of the prior's peak rate"
    )
    bond_range_A: tuple[float, float] = Field(
        default=(1.2, 2.2), description="smallest and largest bond length to a neighbour, Å"
    )


@dataclass(frozen=True, slots=True)
class Jump:
    """One way of moving a Si atom.

    Parameters
    ----------
    target_xy_A
        Where to place the beam, Å, measured axes.
    sigma_A
        Standard deviation of that position from the true peak, per axis (root mean square), Å.
    rate_per_s
        Expected rate of the jump, 1/s.
    dwell_s
        Dwell time of the beam, s.
    probability
        Probability of the jump to this neighbour within the dwell time, with the existence and
        element of both atoms.
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
        Index of the neighbour to exchange places with.
    p_atoms
        Probability that both atoms exist and have their named element.
    options
        Limits.

    Examples
    --------
    >>> import numpy as np
    >>> neighbours = 1.42 * np.array([[1.0, 0.0], [-0.5, 0.866], [-0.5, -0.866]])
    >>> covariance = np.eye(2) * 1e-4
    >>> jump = plan_jump(np.zeros(2), covariance, neighbours, np.stack([covariance] * 3), 0)
    >>> round(jump.target_xy_A[0], 3)
    1.207
    """
    o = options or ManipulateOptions()
    bond = neighbours - si
    length = np.linalg.norm(bond, axis=1)
    peaks = _PRIOR.peaks(si, neighbours)
    beam = peaks[which]
    rates, second = np.zeros(len(bond)), 0.0
    max_rate = _PRIOR.rate_per_s * o.beam_current_pA / _PRIOR.current_pA
    for k in range(len(bond)):
        peak = np.eye(2) * _PRIOR.variance_bonds2 * length[k] ** 2
        offset = (
            (1.0 - _PRIOR.peak_bonds) ** 2 * si_covariance
            + _PRIOR.peak_bonds**2 * neighbour_covariance[k]
            + np.eye(2) * o.beam_sigma_A**2
        )
        rates[k] = max_rate * _mean_of_peak(beam - peaks[k], peak, offset)
        if k == which:
            second = max_rate**2 * _mean_of_peak(np.zeros(2), peak / 2.0, offset)
            sigma = math.sqrt(float(np.trace(offset)) / 2.0)
    rate, total = float(rates[which]), float(rates.sum())
    dwell = min(-math.log(1.0 - o.wanted_p) / total, o.max_dwell_s)
    jumped = -math.expm1(-total * dwell)
    p = rate / total * jumped
    # Propagate the rate's error to first order: dP/dr for this rate, the other rates fixed.
    slope = (1.0 - rate / total) * jumped / total + rate / total * dwell * (1.0 - jumped)
    rate_sd = math.sqrt(max(second - rate**2, 0.0) + (o.rate_relative_sd * rate) ** 2)
    # Existence and element of the atoms are one binary variable of probability q = p_atoms, which
    # adds the variance p² q (1 - q).
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
    """Advise where to place the beam to move each three-coordinated Si atom, most probable first.

    Only defects of the kind `MOVABLE` (``Si1C3``) in the latest frame are targets. Targets whose
    atoms or position are too uncertain are left out.

    Parameters
    ----------
    atoms, defects
        Of any number of frames.
    latest_frame
        The present frame; by default the last frame that has atoms.
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
    """Mean of ``exp(-d S⁻¹ d / 2)`` for d normal with mean `shift` and covariance `offset`."""
    wide = peak + offset
    ratio = math.sqrt(float(np.linalg.det(peak) / np.linalg.det(wide)))
    return ratio * math.exp(-0.5 * float(shift @ np.linalg.solve(wide, shift)))
