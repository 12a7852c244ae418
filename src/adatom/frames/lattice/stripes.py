"""Interference of the scan: stripes of one direction, told from a lattice in the power spectrum.

The reflections of a lattice close under addition: with two of different directions there is a third
at their sum or difference. A sine across the frame stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray

_STRONG = 40.0  # least power of a stripe over the median at its frequency; noise reaches 20
_VISIBLE = 15.0  # the same for a reflection that speaks for a lattice
_RELATIVE = 0.03  # nor may it be weaker than this share of the stripe: side lobes are
_MOST = 8  # most stripes that are looked for
_MOST_PEAKS = 60  # most peaks that are compared
_LEAST_PERIODS = 3.0  # slower variations across a frame are shading
_OTHER_WAY = np.sin(np.radians(15.0))  # least sine between two independent directions
_LONGEST = 2.5  # most that the lengths of three such reflections differ, as a ratio
_SAME_PLACE = 0.05  # peaks nearer than this share of their frequency are one: distorted scans
_NARROW = 4  # half width of what is removed around a stripe, frequency steps of the padded frame


@dataclass(frozen=True, slots=True)
class Stripes:
    """Stripes of one period.

    Parameters
    ----------
    period_px
        Distance of the stripes, pixels.
    angle_deg
        Direction in which they follow each other: 0 along the rows, 90 along the columns.
    """

    period_px: float
    angle_deg: float

    def __str__(self) -> str:
        return f"a period of {self.period_px:.3g} pixels at {self.angle_deg:.0f}° to the rows"


def without_stripes(power: FloatArray) -> tuple[FloatArray, tuple[Stripes, ...]]:
    """Remove stripes from a power spectrum.

    Parameters
    ----------
    power
        Power spectrum of frames padded to twice their side, centred, shape (k, k).

    Returns
    -------
    The spectrum with the usual power in the place of stripes, and these, the strongest first.
    """
    usual = _usual_power(power)
    peaks, strength = _peaks(power / usual)
    found: list[Stripes] = []
    out = power
    for number in np.argsort(-strength)[:_MOST]:
        if strength[number] < _STRONG or _in_lattice(int(number), peaks, strength):
            continue
        if not found:
            out = power.copy()
        k = _centre(power, peaks[number]) / len(power)
        _remove(out, usual, peaks[number])
        angle = float(np.degrees(np.arctan2(k[0], k[1]))) % 180.0
        found.append(Stripes(float(1.0 / np.hypot(*k)), angle))
    return out, tuple(found)


def _usual_power(power: FloatArray) -> FloatArray:
    """Median power at the distance of each frequency from the centre, shape (k, k)."""
    middle = len(power) // 2
    ring = _rings(len(power))
    half = ring[middle:].ravel()  # the other half is the same
    order = np.argsort(half, kind="stable")
    edges = np.searchsorted(half[order], np.arange(int(half.max()) + 2))
    values = power[middle:].ravel()[order]
    medians = [np.median(values[a:b]) for a, b in pairwise(edges)]
    return np.maximum(np.array(medians)[ring], 1e-30)


def _rings(side: int) -> NDArray[np.int16]:
    """Number of the ring of two steps that a frequency lies on; the corners are one ring."""
    middle = side // 2
    away = np.arange(side, dtype=np.float32) - middle
    radius = np.sqrt(away[:, None] ** 2 + away**2)
    out: NDArray[np.int16] = np.minimum(radius / 2, middle / 2).astype(np.int16)
    return out


def _peaks(relative: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns from the centre (peak, 2) of one half, and their strength (peak,)."""
    middle = len(relative) // 2
    half = relative[middle:]
    highest = ndimage.maximum_filter(half, 5, mode="nearest")
    rows, cols = np.nonzero((half == highest) & (half > _VISIBLE))
    radius = np.hypot(rows, cols - middle)
    # The padding halves the step of the frequency: two steps are one period in a frame.
    kept = (radius > 2 * _LEAST_PERIODS) & ((rows > 0) | (cols > middle)) & (radius < middle - 3)
    at = np.stack([rows, cols - middle], axis=1)[kept].astype(np.float64)
    strength = half[rows, cols][kept]
    first = np.argsort(-strength)[:_MOST_PEAKS]
    return at[first], strength[first]


def _in_lattice(number: int, peaks: FloatArray, strength: FloatArray) -> bool:
    """Whether two other peaks of other directions differ by this one, or add to it."""
    own = peaks[number]
    size = float(np.hypot(*own))
    others = strength > max(_VISIBLE, _RELATIVE * strength[number])
    others[number] = False
    other = peaks[others]
    if len(other) < 2:
        return False
    length = np.hypot(*other.T)
    across = np.abs(own[0] * other[:, 1] - own[1] * other[:, 0]) / (size * length)
    other = other[(across > _OTHER_WAY) & (length < _LONGEST * size) & (size < _LONGEST * length)]
    if len(other) < 2:
        return False
    both = cKDTree(np.concatenate([other, -other]))
    reach = _SAME_PLACE * max(size, 1.0) + 1.5
    for sign in (1, -1):
        distance, _ = both.query(other + sign * own)
        if bool((distance < reach).any()):
            return True
    return False


def _centre(power: FloatArray, peak: FloatArray) -> FloatArray:
    """Centre of mass of a peak, row and column from the middle, frequency steps."""
    r, c = (peak + len(power) // 2).astype(int)
    part = power[r - 2 : r + 3, c - 2 : c + 3]
    step = np.arange(-2, 3)
    rows, cols = (float(part.sum(axis=1 - k) @ step / part.sum()) for k in (0, 1))
    out: FloatArray = peak + np.array([rows, cols])
    return out


def _remove(power: FloatArray, usual: FloatArray, peak: FloatArray) -> None:
    """Write the usual power around a peak and its counterpart."""
    middle = len(power) // 2
    for sign in (1, -1):
        r, c = (round(middle + sign * float(v)) for v in peak)
        near = (
            slice(max(r - _NARROW, 0), r + _NARROW + 1),
            slice(max(c - _NARROW, 0), c + _NARROW + 1),
        )
        power[near] = np.minimum(power[near], usual[near])
