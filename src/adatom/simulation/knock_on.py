"""Knock-on damage: cross sections for displacing a vibrating atom by an electron.

A backscattered electron transfers up to tens of eV to a light nucleus. A carbon nucleus at rest is
not displaced at 80 kV; a vibrating one can be, because its velocity adds to the transfer. Sources:
McKinley & Feshbach, Phys. Rev. 74, 1759 (1948) for the cross section; Meyer et al., Phys. Rev.
Lett. 108, 196102 (2012) with its erratum 110, 239902 (2013), and Susi et al., Nat. Commun. 7,
13040 (2016), for the moving target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray
from scipy.constants import atomic_mass, c, electron_mass, elementary_charge, fine_structure
from scipy.optimize import brentq
from scipy.special import ndtri

from adatom.errors import BadInput

_ELECTRON_eV = electron_mass * c**2 / elementary_charge  # rest energy of the electron, eV
_UNIT_eV = atomic_mass * c**2 / elementary_charge  # rest energy of the atomic mass unit, eV
_ELECTRON_RADIUS_m = 2.8179403205e-15  # classical electron radius, m: CODATA 2022
_BARN_m2 = 1e-28  # one barn, m²
_BARNS_PER_A2 = 1e8  # barns in one Å²
# Limit of the velocity integral, standard deviations: 1e-15 of the atoms are faster.
_VELOCITY_RANGE_SD = 8.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)  # Gauss-Legendre quadrature on -1 to 1


@dataclass(frozen=True, slots=True)
class CrossSection:
    """A displacement cross section with the uncertainty from its threshold energy.

    Parameters
    ----------
    mean_barn, sd_barn
        Mean and standard deviation over the distribution of the threshold, barn.
    low_barn, median_barn, high_barn
        Quantiles 0.16, 0.5 and 0.84, barn. If the threshold lies above the maximum transfer, the
        distribution is skewed, and the quantiles describe it better than mean and sd.
    """

    mean_barn: float
    sd_barn: float
    low_barn: float
    median_barn: float
    high_barn: float


def maximum_energy_transfer_eV(
    voltage_kV: float, mass_u: float, velocity_m_s: float | NDArray[np.float64] = 0.0
) -> NDArray[np.float64]:
    """Compute the kinetic energy of a nucleus after a head-on collision.

    Parameters
    ----------
    voltage_kV
        Acceleration voltage, kV.
    mass_u
        Mass of the nucleus, u.
    velocity_m_s
        Velocity of the nucleus along the beam before the collision, any shape, m/s; positive is
        away from the source.

    Returns
    -------
    Energy, shape of the velocity, eV.

    Raises
    ------
    BadInput
        If voltage or mass is not a finite positive number.

    Notes
    -----
    Susi et al. (2016), eq. 4-5: ``(r + t)² / 2M`` with the momenta ``r = p(E) + M v`` before and
    ``t = p(E + M v² / 2)`` after, ``p(E) = sqrt(E (E + 2 m c²)) / c``. The loss of the electron is
    neglected (1e-4 for carbon at 100 kV).

    Examples
    --------
    >>> round(float(maximum_energy_transfer_eV(60.0, 12.0)), 2)
    11.62
    """
    electron = 1e3 * _positive("voltage, kV", voltage_kV)
    rest = _UNIT_eV * _positive("mass, u", mass_u)
    beta = np.asarray(velocity_m_s, dtype=np.float64) / c
    before = math.sqrt(electron * (electron + 2.0 * _ELECTRON_eV)) + rest * beta
    energy = electron + 0.5 * rest * beta**2
    after = np.sqrt(energy * (energy + 2.0 * _ELECTRON_eV))
    transfer: NDArray[np.float64] = (before + after) ** 2 / (2.0 * rest)
    return transfer


def displacement_cross_section_barn(
    voltage_kV: float,
    element: str,
    threshold_eV: float,
    mean_square_velocity_m2_s2: float,
    *,
    mass_u: float | None = None,
) -> float:
    """Compute the cross section to displace one atom of a vibrating sheet, at normal incidence.

    Parameters
    ----------
    voltage_kV
        Acceleration voltage, kV.
    element
        Chemical symbol.
    threshold_eV
        Displacement threshold energy T_d, eV.
    mean_square_velocity_m2_s2
        Mean square of the velocity component along the beam, m²/s²; 0 for a nucleus at rest.
        Graphene at 300 K: 2.9e5 to 3.2e5 from phonons.
    mass_u
        Mass of the isotope, u; by default the element's standard atomic weight.

    Returns
    -------
    Cross section, barn (1e-28 m²).

    Raises
    ------
    BadInput
        If the element is unknown, or a number is not finite or has the wrong sign.

    Notes
    -----
    The velocity is Gaussian (harmonic vibrations), and the McKinley-Feshbach cross section is
    averaged over it with the maximum transfer of each velocity (Meyer et al. 2012, eq. 5).
    """
    number, mass = _nucleus(element, mass_u)
    threshold = _positive("displacement threshold, eV", threshold_eV)
    square = _not_negative("mean square velocity, m²/s²", mean_square_velocity_m2_s2)
    if square == 0.0:
        at_rest = maximum_energy_transfer_eV(voltage_kV, mass)
        return float(_mckinley_feshbach_barn(voltage_kV, number, at_rest, threshold))
    spread = math.sqrt(square)
    slowest = _threshold_velocity_m_s(voltage_kV, mass, threshold)
    low = max(slowest, -_VELOCITY_RANGE_SD * spread)
    high = max(slowest, 0.0) + _VELOCITY_RANGE_SD * spread
    velocity = 0.5 * (high - low) * (_NODES + 1.0) + low
    density = np.exp(-0.5 * (velocity / spread) ** 2) / (spread * math.sqrt(2.0 * math.pi))
    transfer = maximum_energy_transfer_eV(voltage_kV, mass, velocity)
    sigma = _mckinley_feshbach_barn(voltage_kV, number, transfer, threshold)
    return float(0.5 * (high - low) * np.sum(_WEIGHTS * density * sigma))


def uncertain_cross_section(
    voltage_kV: float,
    element: str,
    threshold_eV: float,
    mean_square_velocity_m2_s2: float,
    *,
    threshold_sd_eV: float,
    mass_u: float | None = None,
) -> CrossSection:
    """Propagate a normal uncertainty of the threshold through the cross section.

    Parameters
    ----------
    voltage_kV, element, threshold_eV, mean_square_velocity_m2_s2, mass_u
        As for `displacement_cross_section_barn`.
    threshold_sd_eV
        Standard deviation of the threshold, eV.

    Returns
    -------
    Mean, standard deviation and quantiles, barn.

    Raises
    ------
    BadInput
        As `displacement_cross_section_barn`; also if the standard deviation is negative or so
        large that thresholds below zero are within four of it.
    """
    sd = _not_negative("standard deviation of the threshold, eV", threshold_sd_eV)
    if threshold_eV <= 4.0 * sd:
        raise BadInput(
            "standard deviation of the threshold",
            expected=f"less than a quarter of the threshold, {threshold_eV / 4.0:.3g} eV",
            got=f"{sd:.3g} eV",
            todo="Give the standard deviation in eV; a threshold cannot be negative.",
        )

    def sigma(z: float) -> float:
        return displacement_cross_section_barn(
            voltage_kV,
            element,
            threshold_eV + sd * z,
            mean_square_velocity_m2_s2,
            mass_u=mass_u,
        )

    # Equally probable intervals of the normal distribution, each represented by its median.
    slices = 64
    values = np.array([sigma(float(ndtri((i + 0.5) / slices))) for i in range(slices)])
    one = float(ndtri(0.84))
    return CrossSection(
        mean_barn=float(values.mean()),
        sd_barn=float(values.std()),
        low_barn=sigma(one),  # a higher threshold is a smaller cross section
        median_barn=sigma(0.0),
        high_barn=sigma(-one),
    )


def dose_per_event_A2(sigma_barn: float) -> float:
    """Compute the mean dose until one atom is displaced, e⁻/Å²; infinite for a zero cross section.

    Parameters
    ----------
    sigma_barn
        Cross section of one atom, barn.

    Raises
    ------
    BadInput
        If the cross section is negative or not finite.

    Examples
    --------
    >>> dose_per_event_A2(0.25)
    400000000.0
    """
    sigma = _not_negative("cross section, barn", sigma_barn)
    return _BARNS_PER_A2 / sigma if sigma > 0.0 else math.inf


def _mckinley_feshbach_barn(
    voltage_kV: float, number: int, transfer_eV: NDArray[np.float64], threshold_eV: float
) -> NDArray[np.float64]:
    """Cross section for transfers above the threshold, shape of ``transfer_eV``, barn.

    McKinley & Feshbach (1948), eq. 7, integrated over the transfers from T_d to T_max, as
    printed by Meyer et al. (2012), eq. 4.
    """
    gamma = 1.0 + 1e3 * voltage_kV / _ELECTRON_eV
    beta2 = 1.0 - 1.0 / gamma**2
    beta = math.sqrt(beta2)
    ratio = np.maximum(transfer_eV / threshold_eV, 1.0)
    mott = math.pi * number * fine_structure * beta
    bracket = (
        ratio - 1.0 - beta2 * np.log(ratio) + mott * (2.0 * np.sqrt(ratio) - 2.0 - np.log(ratio))
    )
    rutherford = math.pi * (number * _ELECTRON_RADIUS_m) ** 2 * (1.0 - beta2) / beta2**2
    sigma: NDArray[np.float64] = rutherford / _BARN_m2 * bracket
    return sigma


def _threshold_velocity_m_s(voltage_kV: float, mass_u: float, threshold_eV: float) -> float:
    """Lowest velocity at which a head-on collision transfers the threshold energy, m/s."""

    def excess(velocity: float) -> float:
        return float(maximum_energy_transfer_eV(voltage_kV, mass_u, velocity)) - threshold_eV

    # The final momentum r + t grows with the velocity from nothing at about -2 p / M.
    rest = _UNIT_eV * mass_u
    electron = 1e3 * voltage_kV
    still = -2.0 * c * math.sqrt(electron * (electron + 2.0 * _ELECTRON_eV)) / rest
    fast = c * math.sqrt(2.0 * threshold_eV / rest)
    return float(brentq(excess, still, fast, xtol=1e-6))


def _nucleus(element: str, mass_u: float | None) -> tuple[int, float]:
    number = atomic_numbers.get(element, 0)
    if number == 0:
        raise BadInput(
            f"element {element!r}",
            expected="a chemical symbol, such as C or Si",
            got=repr(element),
            todo="Name one element by its symbol.",
        )
    mass = float(atomic_masses[number]) if mass_u is None else mass_u
    return number, _positive("mass, u", mass)


def _positive(label: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0.0):
        raise BadInput(
            label, expected="a finite positive number", got=repr(value), todo="Check its unit."
        )
    return value


def _not_negative(label: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0.0):
        raise BadInput(
            label, expected="a finite number, at least 0", got=repr(value), todo="Check its unit."
        )
    return value
