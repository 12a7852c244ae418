"""Test by the intensity whether a site is empty, because networks tend to fill vacancies in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import cKDTree

from adatom.core import AtomTable, Frame
from adatom.core.arrays import FloatArray
from adatom.features.refinement.refine import RefineOptions, refine

# Å: prior width of the positions, so narrow that the fit adjusts amplitudes and not positions.
_STILL = RefineOptions(start_sigma_A=0.03)
_FEWEST_ATOMS = 5  # with fewer atoms the amplitude of a host atom is not known
# Standard deviation of amplitudes relative to the median, without noise: focus and vibration.
_NATURAL_SPREAD = 0.12
_LEAST_DENSITY = 1e-280  # keeps the ratio of two vanishing densities finite


class EvidenceOptions(BaseModel):
    """How lattice sites are tested."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prior: float = Field(0.01, gt=0, lt=1, description="share of sites expected to be empty")
    occupied_A: float = Field(
        0.65, gt=0, description="a site with an atom this near is occupied, Å"
    )


def site_evidence(
    frame: Frame,
    atoms: AtomTable,
    sites_xy: FloatArray,
    labels: NDArray[np.str_],
    options: EvidenceOptions | None = None,
) -> FloatArray:
    """Probability that each lattice site is empty, from the intensity there.

    One fit gives an amplitude to every atom and to every unoccupied site. The amplitude of a site
    is compared with zero and with that of an atom of the site's element by Bayes' rule, with the
    prior share of vacancies and a normal distribution around each value. Where every site has an
    atom, nothing is fitted.

    Parameters
    ----------
    frame
        The image.
    atoms
        Its atoms.
    sites_xy
        Sites of the fitted lattice, shape (site, 2), Å, measured axes.
    labels
        What the crystal has at each site, shape (site,): a chemical symbol, or the formula of a
        column.
    options
        See `EvidenceOptions`.

    Returns
    -------
    Probability, shape (site,).
    """
    options = options or EvidenceOptions()
    if not len(sites_xy) or len(atoms) < _FEWEST_ATOMS:
        return np.full(len(sites_xy), options.prior)
    distance, nearest = cKDTree(atoms.xy).query(sites_xy)
    free = distance > options.occupied_A
    if not free.any():
        return np.zeros(len(sites_xy))
    fit = refine(frame, np.concatenate([atoms.xy, sites_xy[free]]), _STILL)
    n = len(atoms)
    which = np.where(free, n + np.cumsum(free) - 1, nearest)
    typical = typical_amplitudes(fit.amplitude[:n], atoms, labels)
    out = p_empty_of_amplitudes(
        fit.amplitude[which], fit.amplitude_sd[which], typical, options.prior
    )
    return np.where(free, out, np.minimum(out, 0.5))


def p_empty_of_amplitudes(
    value: FloatArray, sd: FloatArray, typical: FloatArray, prior: float
) -> FloatArray:
    """Probability that a site is empty, by Bayes' rule, shape (site,).

    An amplitude is normally distributed around zero or around that of an atom. The width of both
    distributions is that of the measurement and of the natural scatter together.

    Parameters
    ----------
    value, sd
        Amplitude of each site and its standard deviation, shape (site,), intensity.
    typical
        Amplitude of an atom there, shape (site,), intensity.
    prior
        Probability before the measurement.

    Examples
    --------
    >>> one = np.ones(3)
    >>> p_empty_of_amplitudes(np.array([0.0, 0.5, 1.0]), 0.1 * one, one, 0.5).round(3).tolist()
    [1.0, 0.5, 0.0]
    """
    width = np.hypot(sd, _NATURAL_SPREAD * typical)
    empty = prior * _normal(np.maximum(value, 0.0), 0.0, width)
    full = (1 - prior) * _normal(np.minimum(value, typical), typical, width)
    out: FloatArray = empty / np.maximum(empty + full, 1e-300)
    return out


def typical_amplitudes(
    amplitude: FloatArray, atoms: AtomTable, labels: NDArray[np.str_]
) -> FloatArray:
    """Median amplitude of the likely atoms of each site's element, shape (site,)."""
    likely = atoms.is_likely if atoms.is_likely.any() else np.ones(len(atoms), dtype=bool)
    out = np.full(len(labels), float(np.median(amplitude[likely])))
    for label in np.unique(labels):
        own = likely & (atoms.elements == label)
        if own.any():
            out[labels == label] = np.median(amplitude[own])
    return out


def _normal(x: FloatArray, mean: float | FloatArray, sd: FloatArray) -> FloatArray:
    out: FloatArray = np.exp(-0.5 * ((x - mean) / sd) ** 2) / sd
    return np.maximum(out, _LEAST_DENSITY)
