"""Knock-on damage of a field: the atoms of every kind of site in it, by voltage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray
from adatom.core.atoms import AtomTable
from adatom.core.composition import count_formula
from adatom.core.material import ANY, SiteThreshold
from adatom.core.units import A2_PER_BARN

# Neighbours are up to this many bond lengths away: foreign atoms have longer bonds, and second
# neighbours are at 1.73.
_BOND = 1.35


@dataclass(frozen=True, slots=True)
class SiteDamage:
    """Cross sections of the atoms at one kind of site.

    Parameters
    ----------
    site
        The kind of site.
    barn
        Cross section of one atom, mean and standard deviation in barn, by voltage in kV.
    """

    site: SiteThreshold
    barn: Mapping[float, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Voltage:
    """A voltage and the knock-on damage of a scan at it.

    Parameters
    ----------
    kV
        Acceleration voltage.
    events, events_sd
        Expected knock-on events in the scan; NaN where the dose is not known.
    dose_limit_per_A2
        Dose at which the allowed number of events is reached, e⁻/Å².
    allowed
        Whether events + sd stay below the limit; False where the dose is not known.
    weakest
        The kind of site that most of the events come from, and how many of its atoms there are;
        empty where that is the crystal.
    """

    kV: float
    events: float
    events_sd: float
    dose_limit_per_A2: float
    allowed: bool
    weakest: str = ""


def atoms_of(atoms: AtomTable, element: str) -> FloatArray:
    """Count the atoms of an element at each place, with the probability that they exist.

    Parameters
    ----------
    atoms
        Atoms, or columns such as S2, which has two atoms.
    element
        Chemical symbol; empty for one atom at every place, whatever it is.

    Returns
    -------
    Shape (atom,).

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones(3)
    >>> table = AtomTable.build(
    ...     frame=0, xy=np.zeros((3, 2)), covariance=np.zeros((3, 2, 2)), p_exists=one,
    ...     element=["Mo", "S2", "S"], p_element=one, votes=one, amplitude=one,
    ... )
    >>> atoms_of(table, "S").tolist()
    [0.0, 2.0, 1.0]
    """
    p: FloatArray = atoms.column("p_exists").astype(np.float64)
    if not element:
        return p
    labels, of = np.unique(atoms.elements, return_inverse=True)
    count = [0 if label == ANY else dict(count_formula(label)).get(element, 0) for label in labels]
    out: FloatArray = p * np.array(count, dtype=np.float64)[of]
    return out


def sites_of(
    atoms: AtomTable, kinds: Sequence[SiteThreshold], bond_length_A: float
) -> list[FloatArray]:
    """Tell how probably each atom of a frame is at each kind of site.

    Parameters
    ----------
    atoms
        Atoms of one frame, Å.
    kinds
        Kinds of site; an atom belongs to the first that fits.
    bond_length_A
        Bond length of the perfect crystal, Å.

    Returns
    -------
    For each kind, shape (atom,): probability that the atom exists and is at such a site.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones(4)
    >>> xy = 1.42 * np.array([[0, 0], [1, 0], [-0.5, 0.866], [-0.5, -0.866]])
    >>> table = AtomTable.build(
    ...     frame=0, xy=xy, covariance=np.zeros((4, 2, 2)), p_exists=one,
    ...     element=["Si", "C", "C", "C"], p_element=one, votes=one, amplitude=one,
    ... )
    >>> kind = SiteThreshold("C", "Si", 0, 13.5, 0.5, 3e5, "moves", "")
    >>> sites_of(table, [kind], 1.42)[0].tolist()
    [0.0, 1.0, 1.0, 1.0]
    """
    left = atoms.column("p_exists").astype(np.float64)
    element, sure = atoms.elements, atoms.column("p_element").astype(np.float64)
    pairs = np.empty((0, 2), dtype=np.int64)
    if len(atoms) > 1:
        pairs = cKDTree(atoms.xy).query_pairs(_BOND * bond_length_A, output_type="ndarray")
    i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
    count = np.bincount(i, minlength=len(atoms))
    out = []
    for kind in kinds:
        p = left * np.where(element == kind.element, sure, 0.0)
        if kind.coordination:
            p = np.where(count == kind.coordination, p, 0.0)
        if kind.beside:
            there = np.where(element == kind.beside, atoms.column("p_exists") * sure, 0.0)
            none = np.ones(len(atoms))
            np.multiply.at(none, i, 1.0 - there[j])
            p = p * (1.0 - none)
        out.append(p)
        left = left - p
    return out


def choose_voltage(
    damage: Mapping[float, tuple[float, float]],
    *,
    atoms: float,
    dose_per_A2: float | None,
    max_events: float,
    sites: Sequence[tuple[SiteDamage, float]] = (),
) -> list[Voltage]:
    """Sort voltages, best first.

    The expected number of events is ``atoms * cross section * dose``, with 1 barn = 10⁻⁸ Å², and
    the same for the atoms at sites of their own. The highest voltage that keeps events plus their
    standard deviation below `max_events` is best, because resolution improves with voltage. If
    there is none, or no dose is given, the voltage with the fewest events is best.

    Parameters
    ----------
    damage
        Cross section per atom, mean and standard deviation in barn, by voltage in kV.
    atoms
        Atoms in the scan that are at no site of their own.
    dose_per_A2
        Electrons per Å², or None where it is not known.
    max_events
        Largest allowed number of events.
    sites
        Kinds of site with cross sections of their own at the same voltages, and the number of
        their atoms in the scan.

    Examples
    --------
    >>> damage = {60.0: (0.0, 0.0), 80.0: (0.002, 0.001), 100.0: (0.3, 0.1)}
    >>> found = choose_voltage(damage, atoms=100, dose_per_A2=1e6, max_events=0.2)
    >>> [(v.kV, round(v.events, 3), v.allowed) for v in found]
    [(80.0, 0.002, True), (60.0, 0.0, True), (100.0, 0.3, False)]
    """
    found = []
    dose = math.nan if dose_per_A2 is None else dose_per_A2
    for kV, (mean, sd) in damage.items():
        own = [(str(d.site), n, n * d.barn[kV][0], n * d.barn[kV][1]) for d, n in sites if n > 0.0]
        per_dose = A2_PER_BARN * (atoms * mean + sum(each[2] for each in own))
        # Thresholds of different kinds of site are not known better or worse together.
        per_dose_sd = A2_PER_BARN * math.hypot(atoms * sd, *(each[3] for each in own))
        high = per_dose + per_dose_sd
        worst = max(own, key=lambda each: each[2], default=None)
        found.append(
            Voltage(
                kV=kV,
                events=per_dose * dose,
                events_sd=per_dose_sd * dose,
                dose_limit_per_A2=max_events / high if high > 0.0 else math.inf,
                allowed=high * dose < max_events,
                weakest=f"{worst[1]:.0f} {worst[0]}"
                if worst is not None and worst[2] > atoms * mean
                else "",
            )
        )
    return sorted(
        found,
        key=lambda v: (not v.allowed, -v.kV if v.allowed else -v.dose_limit_per_A2, -v.kV),
    )
