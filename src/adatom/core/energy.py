"""The distribution of an energy, and what its spread is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from adatom.core.simulation import SimulationResult
from adatom.core.weighted import weighted_mean_sd

# What each part is called on the page, and what would narrow it.
PARTS = {
    "draws": ("draws", "another scan of this defect, at more dose"),
    "engine": ("engine", "a first-principles engine, such as gpaw-pw"),
    "size": ("cell", "a wider cell (`supercell.min_width_A`) or k-points"),
    "thermal": ("thermal", "a longer run of dynamics"),
}
_FINEST_eV = 1e-3  # eV: what a relaxation leaves; no energy is known better


@dataclass(frozen=True, slots=True)
class EnergySpread:
    """An energy of one defect as a distribution, its variance by cause.

    The energies of the draws count by their weights; each is blurred by what is not the image's:
    engine, cell and thermal sampling, as independent normal errors. A part that is not known is
    NaN, and no part of the sum.

    Parameters
    ----------
    energies_eV, weights
        Of the draws; the weights add up to one.
    draws_eV, engine_eV, size_eV, thermal_eV
        Standard deviations.
    shift_eV
        What a cell without end would add to every energy, as far as it is known.

    Examples
    --------
    >>> spread = EnergySpread((7.6, 7.6, 5.0), (0.45, 0.45, 0.1), 0.8, 0.3, 0.01, 0.0)
    >>> round(spread.mean_eV, 2), spread.largest, [round(x, 1) for x in spread.interval_eV(0.9)]
    (7.34, 'draws', [5.0, 8.1])
    """

    energies_eV: tuple[float, ...]
    weights: tuple[float, ...]
    draws_eV: float
    engine_eV: float = float("nan")
    size_eV: float = float("nan")
    thermal_eV: float = 0.0
    shift_eV: float = 0.0

    @property
    def mean_eV(self) -> float:
        """Mean over the draws, in a cell without end."""
        return float(np.dot(self.energies_eV, self.weights)) + self.shift_eV

    @property
    def parts_eV(self) -> dict[str, float]:
        """Standard deviations by cause; NaN where one is not known."""
        own = (f.name for f in fields(self) if f.name.removesuffix("_eV") in PARTS)
        return {name[:-3]: float(getattr(self, name)) for name in own}

    @property
    def sd_eV(self) -> float:
        """Standard deviation of the sum of all known parts."""
        return float(np.sqrt(np.nansum(np.square(list(self.parts_eV.values())))))

    @property
    def largest(self) -> str:
        """The cause of the largest part of the variance; empty where every part is zero."""
        known = {k: v for k, v in self.parts_eV.items() if v > 0.0}
        return max(known, key=lambda k: known[k]) if known else ""

    @property
    def narrowed_by(self) -> str:
        """What would narrow it most, in words; empty where no part is known."""
        return PARTS[self.largest][1] if self.largest else ""

    def in_words(self) -> str:
        """Say energy, 90 % interval and parts in one sentence.

        Examples
        --------
        >>> print(EnergySpread((7.69,), (1.0,), 0.0, 0.04, float("nan")).in_words())
        7.69 eV, 90 % within 7.62 to 7.76 eV (± 0.04 eV: draws 0.00, engine 0.04, cell not known)
        """
        low, high = self.interval_eV(0.9)
        told = [
            f"{PARTS[name][0]} {'not known' if np.isnan(sd) else f'{sd:.2f}'}"
            for name, sd in self.parts_eV.items()
            if name != "thermal" or sd > 0.0
        ]
        return (
            f"{self.mean_eV:.2f} eV, 90 % within {low:.2f} to {high:.2f} eV "
            f"(± {self.sd_eV:.2f} eV: {', '.join(told)})"
        )

    def cumulative(self, energy_eV: float) -> float:
        """Probability that the energy is not above a value."""
        blur = np.array([self.engine_eV, self.size_eV, self.thermal_eV, _FINEST_eV])
        width = float(np.sqrt(np.nansum(blur**2)))
        below = ndtr((energy_eV - self.shift_eV - np.array(self.energies_eV)) / width)
        return float(np.dot(self.weights, below))

    def interval_eV(self, share: float = 0.9) -> tuple[float, float]:
        """Central interval that holds a share of the distribution, eV."""
        far = 10.0 * (self.sd_eV + _FINEST_eV) + abs(self.shift_eV)
        low, high = min(self.energies_eV) - far, max(self.energies_eV) + far
        tail = 0.5 * (1.0 - share)
        ends = [
            float(brentq(lambda e, q=q: self.cumulative(e) - q, low, high, xtol=1e-5))
            for q in (tail, 1.0 - tail)
        ]
        return ends[0], ends[1]


def spread_of(
    energies_eV: Sequence[float],
    weights: Sequence[float],
    *,
    engine_eV: float = float("nan"),
    size_eV: float = float("nan"),
    thermal_eV: float = 0.0,
    shift_eV: float = 0.0,
) -> EnergySpread:
    """Make the distribution of an energy from its draws.

    Parameters
    ----------
    energies_eV, weights
        Of one draw or more; where a weight is NaN, all count the same. Compositions may differ,
        where the energies are over the same reservoirs.
    engine_eV, size_eV, thermal_eV
        Standard deviations; NaN where not known.
    shift_eV
        As of `EnergySpread`.

    Examples
    --------
    >>> spread_of([7.0, 7.4], [1.0, 1.0]).weights
    (0.5, 0.5)
    """
    w = np.asarray(weights, dtype=np.float64)
    if not w.sum() > 0:
        w = np.ones(len(w))
    _, sd = weighted_mean_sd(energies_eV, w.tolist())
    return EnergySpread(
        tuple(float(e) for e in energies_eV),
        tuple((w / w.sum()).tolist()),
        sd,  # NaN for one draw, which says nothing of the others
        engine_eV,
        size_eV,
        thermal_eV,
        shift_eV,
    )


def spreads_of_defects(results: Sequence[SimulationResult]) -> dict[str, EnergySpread]:
    """Distribution of every defect's formation energy, by the name of its structures.

    Parameters
    ----------
    results
        Of a campaign; relaxed draws that have a formation energy and the parts of its spread count.
    """
    groups: dict[str, list[SimulationResult]] = {}
    for r in results:
        draw = r.task == "relax" and r.status == "done" and r.draw >= 0
        parts = (r.draws_sd_eV, r.engine_sd_eV, r.size_sd_eV, r.thermal_sd_eV)
        if draw and np.isfinite(r.formation_energy_eV) and np.isfinite(parts).any():
            groups.setdefault(r.structure.rsplit("-d", 1)[0], []).append(r)
    return {name: spread_of_results(own) for name, own in groups.items()}


def spread_of_results(results: Sequence[SimulationResult]) -> EnergySpread:
    """Make the distribution of a defect's formation energy from its relaxed draws.

    Parameters
    ----------
    results
        One draw or more, each with a formation energy and the parts of the spread.

    Examples
    --------
    >>> one = SimulationResult(
    ...     "V1-f000-d00", 0, "e", "relax", 0.0, -7.0, 0.0, "done", 1.0,
    ...     formation_energy_eV=7.6, engine_sd_eV=0.2, size_sd_eV=0.05, thermal_sd_eV=0.0,
    ... )
    >>> round(spread_of_results([one]).sd_eV, 3)
    0.206
    """
    first = results[0]
    return spread_of(
        [r.formation_energy_eV for r in results],
        [r.weight for r in results],
        engine_eV=first.engine_sd_eV,
        size_eV=first.size_sd_eV,
        thermal_eV=first.thermal_sd_eV,
        shift_eV=float(np.nan_to_num(first.size_shift_eV)),
    )


def sd_of_two(one_eV: float, other_eV: float) -> float:
    """Standard deviation by two values alone: their difference over the root of two.

    Examples
    --------
    >>> round(sd_of_two(7.9, 7.0), 3)
    0.636
    """
    return abs(one_eV - other_eV) / float(np.sqrt(2.0))
