"""Compare what may be at a doubtful place by the likelihood of the counts.

Networks see few reconstructions in training and pull their atoms to the perfect sheet. Around each
place where the counts speak for a stored shape, the perfect sheet, the shapes and the atoms that
were found are fitted to the pixels, and Bayes' rule weighs them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from adatom.core.arrays import BoolArray, FloatArray
from adatom.features.defects.screen import Screen
from adatom.features.defects.shapes import Placed
from adatom.features.refinement.local_fit import ChosenAtoms, LocalFit, LocalPixels, pixels_near
from adatom.features.refinement.optics import Optics

FREE_A = 4.6  # Å: atoms of a shape this near to its middle are fitted
_PIXELS_A = 5.2  # Å: radius of the pixels that count
_TAIL_A = 3.0  # Å: atoms this far outside the pixels reach into them
# Å: prior of an atom around its place in a shape, and factors on it among which the pixels choose.
# Two engines differ by 0.02 to 0.05 Å beside a defect; a disordered sheet by more.
_SHAPE_SD_A, _SPREADS = 0.025, (0.5, 1.0, 2.0)
# Engines differ in how far a sheet gives way: a smooth shift, largest in the middle. Its standard
# deviation there, the length over which it is common, and that over which it decays, Å.
_BENT_SD_A, _BENT_LENGTH_A, _BENT_REACH_A = 0.08, 1.8, 3.0
_TOGETHER_A = 0.04  # Å: prior of a shift of the whole shape: error of the lattice there
_AS_FOUND_SD_A = 0.15  # Å: prior of atoms around the places where they were found
_AS_FOUND_LOG_PRIOR = -9.0  # atoms as found, of no known shape: they were placed by these pixels
_NATURAL_SPREAD = 0.12  # of amplitudes, as in the test of empty sites
_HOLDS_A = 0.75  # Å: an atom found this near to one of a shape is that atom
_CORE_A = 3.2  # Å: within, a shape says which atoms there are; beyond, the atoms that were found do


@dataclass(frozen=True, slots=True, eq=False)
class FoundSheet:
    """The likely atoms of a frame, as far as hypotheses need them.

    Parameters
    ----------
    xy, sigma_A, amplitude
        Positions, shape (atom, 2), Å; their standard deviation and amplitude, shape (atom,).
    usual
        Amplitude of the atom's element, shape (atom,), intensity.
    host
        Which belong to the crystal, shape (atom,).
    """

    xy: FloatArray
    sigma_A: FloatArray
    amplitude: FloatArray
    usual: FloatArray
    host: BoolArray


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """A hypothesis with its fit.

    Parameters
    ----------
    placed
        The shape at its place; None for the atoms as they were found.
    p
        Its probability among all that were compared at this place.
    xy
        Fitted positions of its free atoms, shape (atom, 2), Å, measured axes.
    covariance
        Shape (atom, 2, 2), x and y, Å².
    amplitude
        Shape (atom,), intensity.
    core
        Which of them lie in the core of the shape, shape (atom,).
    """

    placed: Placed | None
    p: float
    xy: FloatArray
    covariance: FloatArray
    amplitude: FloatArray
    core: BoolArray

    @property
    def name(self) -> str:
        """Name of its kind; empty for the perfect sheet, ``?`` for atoms as found."""
        if self.placed is None:
            return "?"
        return "" if self.placed.kind is None else str(self.placed.kind)


def weigh(
    screen: Screen,
    optics: Optics,
    excess: float,
    level: float,
    found: FoundSheet,
    centre: FloatArray,
    candidates: list[Placed],
) -> list[Weighed]:
    """Weigh shapes around a place, the perfect sheet, and the atoms as they were found.

    Parameters
    ----------
    screen
        The perfect sheet against the frame.
    optics, excess, level
        Probe and noise, factor on its variance, and background, intensity.
    found
        The atoms.
    centre
        The place, shape (2,), Å, undistorted axes.
    candidates
        Shapes at their places.

    Returns
    -------
    The hypotheses, likeliest first; none where there are too few pixels.
    """
    binned, px = screen.binned, screen.binned.calibration.pixel_size_A
    middle = screen.shifted(centre[None])[0]
    near = pixels_near(binned, binned.rc(middle[None])[0], _PIXELS_A / px)
    if near is None:
        return []
    pixels = LocalPixels(*near, optics, excess, level, screen.unit)
    fits: list[tuple[float, Placed | None, LocalFit, BoolArray]] = []
    for placed in [perfect_sheet(screen, centre), *candidates]:
        atoms, core, rest = _atoms_of(screen, found, middle, placed)
        fit = _without(pixels, rest, found, screen).fit(atoms, _SPREADS)
        fits.append((fit.log_evidence + placed.log_prior, placed, fit, core))
    away = np.hypot(*(found.xy - middle).T)
    own, rest = away < FREE_A, (away >= FREE_A) & (away < _PIXELS_A + _TAIL_A)
    count = int(own.sum())
    as_found = ChosenAtoms(
        binned.rc(found.xy[own]), np.full(count, _AS_FOUND_SD_A / px), found.usual[own],
        _NATURAL_SPREAD * found.usual[own],
    )  # fmt: skip
    fit = _without(pixels, rest, found, screen).fit(as_found)
    fits.append((fit.log_evidence + _AS_FOUND_LOG_PRIOR, None, fit, np.ones(count, dtype=np.bool_)))
    top = max(f[0] for f in fits)
    total = sum(np.exp(f[0] - top) for f in fits)
    out = [
        Weighed(
            placed, float(np.exp(score - top) / total), binned.xy(fit.rc),
            fit.covariance[:, ::-1, ::-1] * px**2, fit.amplitude, core,
        )
        for score, placed, fit, core in fits
    ]  # fmt: skip
    return sorted(out, key=lambda w: -w.p)


def _atoms_of(
    screen: Screen, found: FoundSheet, middle: FloatArray, placed: Placed
) -> tuple[ChosenAtoms, BoolArray, BoolArray]:
    """Free atoms of a hypothesis, which of them are its core, and the found atoms around.

    The shape says which atoms there are in its core; around it, those that were found do.
    """
    px = screen.binned.calibration.pixel_size_A
    xy = screen.shifted(placed.xy)
    away = np.hypot(*(xy - middle).T)
    core = np.hypot(*(placed.xy - placed.centre).T) < _CORE_A
    partner_distance, partner = cKDTree(found.xy).query(xy)
    there = partner_distance < _HOLDS_A
    free = (away < FREE_A) & (core | there)
    usual = np.full(len(xy), screen.unit)
    foreign = there & ~found.host[partner] & ~core
    usual[foreign] = found.usual[partner[foreign]]
    own = xy[free]
    atoms = ChosenAtoms(
        screen.binned.rc(own),
        np.full(len(own), _SHAPE_SD_A / px),
        usual[free],
        _NATURAL_SPREAD * usual[free],
        _TOGETHER_A / px,
        _bent(placed.xy[free] - placed.centre) / px,
    )
    # Found atoms outside of the fit are as they were found.
    outer = np.hypot(*(found.xy - middle).T)
    rest = (outer < _PIXELS_A + _TAIL_A) & (outer > _CORE_A)
    if len(own):
        rest &= cKDTree(own).query(found.xy)[0] > _HOLDS_A
    return atoms, core[free], rest


def _bent(away: FloatArray) -> FloatArray:
    """Root of the covariance of a smooth shift of atoms, shape (atom, atom), Å."""
    apart = ((away[:, None] - away[None]) ** 2).sum(axis=2)
    large = _BENT_SD_A * np.exp(-0.5 * (away**2).sum(axis=1) / _BENT_REACH_A**2)
    common = np.exp(-0.5 * apart / _BENT_LENGTH_A**2) + 1e-6 * np.eye(len(away))
    return np.asarray(large[:, None] * np.linalg.cholesky(common))


def _without(
    pixels: LocalPixels, rest: BoolArray, found: FoundSheet, screen: Screen
) -> LocalPixels:
    """Subtract the atoms around from the pixels; their noise stays."""
    return pixels.beside(screen.binned.rc(found.xy[rest]), found.amplitude[rest])


def perfect_sheet(screen: Screen, centre: FloatArray) -> Placed:
    """Give the perfect sheet around a place, shape (2,), Å, undistorted, as a hypothesis."""
    near = np.hypot(*(screen.sites.xy - centre).T) < _PIXELS_A + _TAIL_A
    sites = screen.sites.xy[near]
    return Placed(None, centre, sites, sites, 0.0)
