"""Weigh by its brightness whether a column has been replaced by one of another element.

Networks and calibration tell an element among all columns of a frame. A column that is not what its
sublattice holds is a rare one, so its brightness must speak for that against the prior.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import expit

from adatom.core import Material
from adatom.core.arrays import FloatArray, IntArray

_AROUND = 12  # columns of a sublattice that tell how bright it is at a place
_FEWEST = 5  # with fewer, brightness says nothing
_LEAST_SCATTER = 0.02  # of the brightness of equal columns
_MODEL = 0.1  # error of the ratio of two elements' brightness, from the exponent of the contrast


def p_replaced(
    xy: FloatArray,
    amplitude: FloatArray,
    element: Sequence[str] | NDArray[np.str_],
    due: Sequence[str],
    chosen: IntArray,
    material: Material,
    share: float,
) -> FloatArray:
    """Give the probability that columns are of the element that they were named as.

    A column of the sublattice and one of the other element have normal densities of brightness.
    Their ratio and the prior share of replaced columns give the probability by Bayes' rule.

    Parameters
    ----------
    xy
        Positions of the columns, shape (column, 2), Å.
    amplitude
        Shape (column,), intensity.
    element, due
        Label of each, and of its sublattice; empty where that is not known.
    chosen
        Columns that are asked about, shape (asked,); they are not what they should be.
    material
        The crystal.
    share
        Columns that are replaced, before anything is seen.

    Returns
    -------
    Shape (asked,); 1 where too few columns are around.

    Examples
    --------
    >>> from adatom.materials.library import load_material
    >>> cdte = load_material("CdTe")
    >>> xy = np.stack([np.arange(40.0), np.zeros(40)], axis=1)
    >>> due = ["Te", "Cd"] * 20
    >>> bright = np.where(np.arange(40) % 2, 0.88, 1.0) + np.tile([0.02, 0.01, -0.01, -0.02], 10)
    >>> named = np.array(due, dtype=object)
    >>> bright[[7, 21]], named[[7, 21]] = [1.0, 0.9], "Te"
    >>> p_replaced(xy, bright, named, due, np.array([7, 21]), cdte, 1e-3).round(2).tolist()
    [0.66, 0.0]
    """
    own, label = np.array(due, dtype=np.str_), np.array(element, dtype=np.str_)
    ratio = dict(zip(material.species, material.brightness().tolist(), strict=True))
    usual = {
        site: _Sublattice(xy[which], amplitude[which])
        for site in {str(s) for s in own} - {""}
        if (which := (own == site) & (label == site)).sum() >= _FEWEST
    }
    out = np.ones(len(chosen))
    for k, i in enumerate(chosen):
        site, named = str(own[i]), str(label[i])
        if site not in usual:
            continue
        mean, variance = usual[site].at(xy[i])
        if named in usual:
            other, other_variance = usual[named].at(xy[i])
        else:  # counting noise has a variance that follows the brightness
            other = mean * ratio[named] / ratio[site]
            other_variance = variance * other / mean + (_MODEL * other) ** 2
        out[k] = expit(
            np.log(share) + _log_normal(amplitude[i] - other, other_variance)
            - _log_normal(amplitude[i] - mean, variance)
        )  # fmt: skip
    return out


class _Sublattice:
    """Brightness of the usual columns of a sublattice."""

    def __init__(self, xy: FloatArray, amplitude: FloatArray) -> None:
        self._tree, self._amplitude = cKDTree(xy), amplitude
        self._count = min(_AROUND, len(xy) - 1)
        near = self._tree.query(xy, k=self._count + 1)[1][:, 1:]
        off = amplitude / np.median(amplitude[near], axis=1) - 1.0
        self._scatter = max(1.4826 * float(np.median(np.abs(off))), _LEAST_SCATTER)

    def at(self, xy: FloatArray) -> tuple[float, float]:
        """Mean and variance at a place, shape (2,), Å."""
        mean = float(np.median(self._amplitude[self._tree.query(xy, k=self._count)[1]]))
        return mean, (self._scatter * mean) ** 2


def _log_normal(away: float, variance: float) -> float:
    return float(-0.5 * (away**2 / variance + np.log(variance)))
