"""Contrast of an annular detector: how the brightness of an atom grows with its atomic number."""

from __future__ import annotations

import numpy as np

from adatom.errors import BadInput
from adatom.frames.simulate.probe import wavelength_A

# Exponent of Z against the inner angle, mrad, at 60 kV: multislice with frozen phonons of Si and C
# in graphene. Below 50 mrad Bragg-like terms enter, above 100 mrad scattering is Rutherford's.
_INNER_MRAD = (25.0, 50.0, 80.0, 100.0)
_EXPONENT = (1.3, 1.64, 1.94, 2.0)
_AT_KV = 60.0
_ERROR = 0.07  # of the exponent: outer angle, thickness, thermal motion


def detector_exponents(
    inner_mrad: float, outer_mrad: float, voltage_kV: float = 60.0
) -> tuple[float, float]:
    """Exponents of the contrast that an annular detector may have.

    Parameters
    ----------
    inner_mrad, outer_mrad
        Angles of the detector, mrad.
    voltage_kV
        Acceleration voltage, kV: contrast goes with the angle over the wavelength.

    Returns
    -------
    Smallest and largest exponent of the atomic number, at most 2 (Rutherford).

    Raises
    ------
    BadInput
        If the angles are not those of an annular detector.

    Examples
    --------
    >>> detector_exponents(80.0, 200.0)
    (1.87, 2.0)
    """
    if not 0.0 < inner_mrad < outer_mrad < 1000.0:
        raise BadInput(
            "`detector_mrad`",
            expected="inner and outer angle of an annular detector in mrad, such as 80,200",
            got=f"{inner_mrad:g},{outer_mrad:g}",
            todo="Give the smaller angle first.",
        )
    same_at_60 = inner_mrad * wavelength_A(_AT_KV) / wavelength_A(voltage_kV)
    middle = float(np.interp(same_at_60, _INNER_MRAD, _EXPONENT))
    return round(middle - _ERROR, 3), round(min(middle + _ERROR, 2.0), 3)
