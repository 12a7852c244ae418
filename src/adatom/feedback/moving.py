"""Decisions on the way of an atom: where to aim, how long to dwell, when to look."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import gammainc

from adatom.core.arrays import FloatArray
from adatom.core.hops import HopModel
from adatom.feedback.hop_rate import RateBelief
from adatom.feedback.sites import Sites

_SHORTEST_DWELL_S = 0.02  # s: shorter ones cost more in placing the beam than they give
_LONGEST_DWELL_S = 10.0  # s: the longest dwell without a look
_HOPELESS = 0.95  # the goal is given up where the rate is too low with this probability


class MoveOptions(BaseModel):
    """Limits and habits of moving an atom. No limit is exceeded, whatever is believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    longest_s: float = Field(600.0, gt=0, description="longest time of a move, s")
    most_electrons: float = Field(
        1e12, gt=0, description="most electrons of parked beams and frames together"
    )
    voltage_kV: tuple[float, float] = Field(
        (55.0, 65.0), description="voltages at which the rates of the prior hold, kV"
    )
    first_field_A: float = Field(24.0, gt=8, description="field of view of the first frame, Å")
    longest_frame_s: float = Field(
        60.0, gt=0, description="a frame that takes longer than this is stalled, s"
    )
    last_frames: int = Field(
        0, ge=0, description="frames of the first one's field that are taken after the move"
    )
    look_field_A: float = Field(14.0, gt=8, description="field of view of later frames, Å")
    pixel_size_A: float = Field(0.125, gt=0.02, lt=0.3, description="pixel size of frames, Å")
    look_dose_per_A2: float = Field(
        1e5, gt=0, description="electrons per Å² of a frame: enough to tell Si from C"
    )
    drift_A2_s: float = Field(
        0.05, gt=0, description="first guess of the drift: growth of its variance per axis, Å²/s"
    )
    chunk_s: float = Field(
        0.005, ge=0.005, description="time on each of the places around the aim, s"
    )
    max_sigma_A: float = Field(
        0.25, gt=0, description="look again where the place of the beam is less certain, Å"
    )
    patience: float = Field(
        3.0, gt=0, description="look again after so many expected hops without one"
    )


@dataclass(frozen=True, slots=True)
class Aim:
    """Where to park the beam for one step.

    Parameters
    ----------
    site, goal
        The atom's site, and the neighbouring site that it should go to.
    xy
        Shape (2,): the place of the fastest exchange, Å, without drift.
    """

    site: int
    goal: int
    xy: FloatArray


def aim_at(sites: Sites, site: int, goal: int, model: HopModel) -> Aim:
    """Aim between an atom and the neighbour that it should change places with."""
    return Aim(site, goal, model.peaks(sites.xy[site], sites.xy[[goal]])[0])


def exposure_of(
    aim: Aim,
    sites: Sites,
    model: HopModel,
    current_pA: float,
    sigma_A: float,
    seconds: float,
    diffusion_A2_s: float = 0.0,
) -> float:
    """Number of hops to the goal that the prior's model expects of a dwell.

    The rate is averaged over the unknown offset of the beam, which is normal with a variance that
    grows: with a peak of variance S and an offset of variance V per axis, the mean of
    ``exp(-d² / 2 S)`` is ``S / (S + V)`` (a Gaussian integral).

    Parameters
    ----------
    aim, sites, model
        The step.
    current_pA
        Probe current, pA.
    sigma_A
        Standard deviation of the offset per axis at the start, Å.
    seconds
        Dwell time, s.
    diffusion_A2_s
        Growth of the variance, Å²/s.
    """
    bond = float(np.linalg.norm(sites.xy[aim.goal] - sites.xy[aim.site]))
    peak = model.variance_bonds2 * bond**2
    rate = model.rate_per_s * current_pA / model.current_pA
    start = peak + sigma_A**2
    if diffusion_A2_s * seconds < 1e-9 * start:
        return rate * seconds * peak / start
    return rate * peak / diffusion_A2_s * math.log1p(diffusion_A2_s * seconds / start)


def knocks_of(
    cross_section_A2: float, probe_sigma_A: float, electrons_per_s: float, sigma_A: float
) -> float:
    """Number of atoms a second that a parked beam knocks out of the site that it is aimed at.

    The flux of a Gaussian probe, averaged over the unknown offset of the beam.

    Parameters
    ----------
    cross_section_A2
        Of the displacement, Å².
    probe_sigma_A, sigma_A
        Gaussian widths of the probe and of the offset, per axis, Å.
    electrons_per_s
        Current, 1/s.

    Examples
    --------
    >>> round(knocks_of(1.8e-9, 0.42, 3.1e8, 0.1), 2)
    0.48
    """
    area = 2.0 * math.pi * (probe_sigma_A**2 + sigma_A**2)
    return electrons_per_s * cross_section_A2 / area


def blind_dwell_s(
    exposure: FloatArray, seconds: FloatArray, look_s: float, belief: RateBelief
) -> float:
    """Choose the dwell time where no trace tells of the jump: it takes the least time per hop.

    Parameters
    ----------
    exposure
        Hops that the model expects of each dwell time, shape (time,).
    seconds
        Dwell times to choose from, shape (time,), s.
    look_s
        Time of the frame after the dwell, s.
    belief
        What is known of the rate.

    Examples
    --------
    >>> import numpy as np
    >>> times = np.linspace(0.1, 10.0, 100)
    >>> round(blind_dwell_s(0.231 * times, times, 2.0, RateBelief(50.0, 50.0)), 1)
    3.6
    """
    chance = np.array([belief.p_hop(float(e)) for e in exposure])
    return float(seconds[np.argmin((seconds + look_s) / np.maximum(chance, 1e-12))])


def dwell_times(left_s: float) -> FloatArray:
    """Dwell times to choose from, shape (time,), s, none longer than the time that is left."""
    longest = max(min(_LONGEST_DWELL_S, left_s), _SHORTEST_DWELL_S)
    out: FloatArray = np.geomspace(_SHORTEST_DWELL_S, longest, 60)
    return out


def why_hopeless(belief: RateBelief, hops_left: int, exposure_per_s: float, left_s: float) -> str:
    """Say why the goal is out of reach; an empty string if it is not.

    Parameters
    ----------
    belief
        What is known of the rate.
    hops_left
        Number of steps to the goal.
    exposure_per_s
        Hops a second that the prior's model expects.
    left_s
        Time that is left, s.
    """
    fastest = belief.quantile(_HOPELESS) * exposure_per_s
    # The chance of so many hops or more: the Poisson distribution's sum is an incomplete gamma
    # function (Abramowitz and Stegun, 26.4.21).
    if hops_left and gammainc(hops_left, fastest * max(left_s, 0.0)) < 1.0 - _HOPELESS:
        return (
            f"{hops_left} hops are left and {left_s:.0f} s, and the rate is below "
            f"{fastest:.3g} per second with a probability of {_HOPELESS:.0%}"
        )
    return ""
