"""Which stacking a layered crystal shows, by the brightness of its two bright sublattices.

In one stacking of two layers dim columns stand in the hollows between bright ones, in the other the
hollows are empty. Tails of the probe, which stand in for such columns in a fit, do not change the
bright ones: in WS2 the stacking with S2 in its hollows has columns of W and of W on S2, the other
has two equal ones.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.features.sublattices import sublattices

_BRIGHT = 0.5  # least brightness of a bright column, in the brightest of the stacking
_FEWEST = 20  # columns of a sublattice, at least
_NEAR_BONDS, _AMONG = 1.3, 0.7  # reach of a neighbour, and share of columns that must have one
_ERRORS = 3.0  # standard errors by which the ratio must lie beyond the middle between stackings


def hollows_are_filled(
    xy: FloatArray, amplitude: FloatArray, material: Material, brightness: FloatArray
) -> bool:
    """Tell whether the bright sublattices are as unequal as in a stacking with filled hollows.

    Parameters
    ----------
    xy
        Positions of the bright columns, shape (column, 2), Å.
    amplitude
        Their fitted brightness, shape (column,), intensity.
    material
        A crystal with polytypes, in the unit of `xy`.
    brightness
        Relative brightness of each species of the material, shape (species,).

    Examples
    --------
    >>> from adatom.materials.library import load_material
    >>> from adatom.features.image_check import relative_brightness
    >>> material = load_material("WS2")
    >>> cells = np.indices((12, 12)).reshape(2, -1).T
    >>> xy = np.concatenate([(cells + at) @ material.cell() for at in ((0, 0), (1 / 3, 1 / 3))])
    >>> bright = np.repeat([1.0, 1.17], 144)
    >>> share = relative_brightness(material)
    >>> hollows_are_filled(xy, bright, material, share)
    True
    >>> hollows_are_filled(xy, np.ones(288), material, share)
    False
    """
    filled, empty = _ratios(material, brightness)
    if not filled or len(xy) < 2 * _FEWEST:
        return False
    kind, _ = sublattices(xy, material)
    groups = [np.flatnonzero(kind == k) for k in range(int(kind.max(initial=-1)) + 1)]
    groups = sorted((g for g in groups if len(g) >= _FEWEST), key=len)[-2:]
    if len(groups) < 2 or not _are_of_one_cell(xy[groups[0]], xy[groups[1]], material):
        return False
    low, high = sorted((amplitude[g] for g in groups), key=lambda a: float(np.median(a)))
    ratio = float(np.median(high) / max(float(np.median(low)), 1e-12))
    error = ratio * float(np.hypot(_error(low), _error(high)))
    expected = min(filled, key=lambda r: abs(r - ratio))
    below = max((r for r in empty if r < expected), default=0.0)
    above = min((r for r in empty if r > expected), default=np.inf)
    least, most = 0.5 * (below + expected), 0.5 * (above + expected)
    return bool(ratio - _ERRORS * error > least and ratio + _ERRORS * error < most)


def _are_of_one_cell(one: FloatArray, other: FloatArray, material: Material) -> bool:
    """Whether two sublattices stand among each other, not in two domains side by side."""
    near = _NEAR_BONDS * material.bond_length_A
    shares = [
        float(np.mean(cKDTree(b).query(a)[0] < near)) for a, b in ((one, other), (other, one))
    ]
    return min(shares) > _AMONG


def _ratios(material: Material, brightness: FloatArray) -> tuple[list[float], list[float]]:
    """Ratio of the two bright sublattices, in stackings with dim hollows and in all others."""
    filled: list[float] = []
    empty: list[float] = []
    basis = [(s, 0.0, 0.0) for s in material.site_species]
    for sites in (basis, *material.polytypes):
        share = sorted((float(brightness[material.species.index(s)]) for s, *_ in sites))[::-1]
        if len(share) < 2:
            continue
        dim = len(share) > 2 and share[1] > _BRIGHT * share[0] > share[2]
        (filled if dim else empty).append(share[0] / share[1])
    return filled, empty


def _error(values: FloatArray) -> float:
    """Relative standard error of the median: 1.25 times that of the mean."""
    middle = float(np.median(values))
    spread = 1.48 * float(np.median(np.abs(values - middle)))
    return 1.25 * spread / float(np.sqrt(len(values))) / max(middle, 1e-12)
