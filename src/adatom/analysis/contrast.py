"""Contrast of a frame: how much brighter one element is than another, and the exponent of that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from adatom.core import AtomTable, Material
from adatom.core.arrays import FloatArray

_FEWEST = 3  # atoms of an element from which its brightness is compared
_SURE_P = 0.9  # p_exists and p_element of these atoms
# Relative error of a ratio of fitted amplitudes beside counting noise: simulated movies of a
# Si atom with a ratio of 4.01 gave 3.85 to 4.08, and 3.89 in the mean of the longest.
_FIT_ERROR = 0.03
_LEAST_LOG_RATIO = 0.3  # of the atomic numbers: between near elements the exponent is not seen


@dataclass(frozen=True, slots=True)
class Contrast:
    """Brightness of an element over that of the host.

    Parameters
    ----------
    element, host
        Chemical symbols.
    ratio, ratio_sd
        Median amplitude over that of the host, and its standard deviation: the scatter of the
        atoms and what the fit itself may be off.
    exponent, exponent_sd
        Exponent of the atomic numbers that gives this ratio.
    """

    element: str
    host: str
    ratio: float
    ratio_sd: float
    exponent: float
    exponent_sd: float


def contrast_of(atoms: AtomTable, material: Material) -> Contrast | None:
    """Fit the contrast of the most frequent other element.

    Parameters
    ----------
    atoms
        Atoms of one or more frames of one detector.
    material
        Its host and species.

    Returns
    -------
    The contrast; None with fewer than three sure atoms of another element, or where the atomic
    numbers are too near. Columns of several atoms are left out.
    """
    host = material.host
    others = [s for s in material.species if s in atomic_numbers and s != host]
    if host not in atomic_numbers:
        return None
    sure = (atoms.column("p_exists") > _SURE_P) & (atoms.column("p_element") > _SURE_P)
    amplitude = atoms.column("amplitude")
    groups = {s: amplitude[sure & (atoms.elements == s)] for s in (host, *others)}
    far = [
        s for s in others
        if len(groups[s]) >= _FEWEST
        and abs(np.log(atomic_numbers[s] / atomic_numbers[host])) > _LEAST_LOG_RATIO
    ]  # fmt: skip
    if not far or len(groups[host]) < _FEWEST:
        return None
    element = max(far, key=lambda s: len(groups[s]))
    (top, top_sd), (low, low_sd) = _median(groups[element]), _median(groups[host])
    if min(top, low) <= 0:
        return None
    relative = float(np.sqrt((top_sd / top) ** 2 + (low_sd / low) ** 2 + _FIT_ERROR**2))
    log_z = float(np.log(atomic_numbers[element] / atomic_numbers[host]))
    ratio = top / low
    return Contrast(
        element, host, ratio, ratio * relative, float(np.log(ratio)) / log_z,
        relative / abs(log_z),
    )  # fmt: skip


def _median(values: FloatArray) -> tuple[float, float]:
    """Median and its standard error, 1.25 times that of the mean."""
    return float(np.median(values)), 1.25 * float(np.std(values, ddof=1)) / len(values) ** 0.5
