"""Compare what may be at a doubtful place by the likelihood of the counts.

Networks see few reconstructions in training and pull their atoms to the perfect sheet. Around each
place where the counts speak for a stored shape, the perfect sheet, the shapes and the atoms that
were found are fitted to the pixels, and Bayes' rule weighs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core.arrays import BoolArray, FloatArray
from adatom.features.defects.screen import AROUND, ON_SITE_A, Screen
from adatom.features.defects.shapes import Placed
from adatom.features.refinement.local_fit import Ascent, ChosenAtoms
from adatom.features.refinement.local_pixels import LocalPixels, pixels_near
from adatom.features.refinement.optics import Optics
from adatom.features.refinement.refine import Refined

_AROUND_A = 14.0  # Å: shapes reach 8 Å from their middle, 2 Å from the place, and tails 3 Å
_TAIL_A = 3.0  # Å: atoms this far outside the pixels reach into them
# Å: prior of an atom around its place in a shape, and factors on it, which the pixels weigh. Two
# engines differ by 0.02 to 0.05 Å beside a defect; a disordered sheet by more.
_SHAPE_SD_A, _SPREADS = 0.025, (0.5, 1.0, 2.0)
# Engines differ in how far a sheet gives way: a smooth shift, largest in the middle. Its standard
# deviation there, the length over which it is common, and that over which it decays, Å.
_BENT_SD_A, _BENT_LENGTH_A, _BENT_REACH_A = 0.08, 1.8, 3.0
_ADDED_BENT_SHARE = 0.5  # of it, around an ad-atom or a substitution: there they move less
_TOGETHER_A = 0.04  # Å: prior of a shift of the whole shape: error of the lattice there
_AS_FOUND_SD_A = 0.15  # Å: prior of atoms around the places where they were found
_AS_FOUND_LOG_PRIOR = -9.0  # atoms as found, of no known shape: they were placed by these pixels
_NATURAL_SPREAD = 0.12  # of amplitudes, as in the test of empty sites
_LEAST_SCATTER = 0.03  # of amplitudes, in the best of frames
_HOST_RANGE = 0.4  # amplitudes this near to the median, as a share of it, are of host atoms
_MAD_VARIANCE = 5.4  # relative variance of a squared robust deviation, times the number of values
_VARIES, _LEAST_LEVEL_SD = 2.0, 0.03  # background between atoms; its least deviation, carbon peaks
_BESIDE_A = 1.7  # Å: atoms this near to an empty site are next to it
_FOUND_SHARE = 0.75  # of displacements, which atoms show before shapes are compared; 0.7 to 0.9
_STAYS_A = 0.01  # Å: atoms that move less than this stay on their sites
_HOLDS_A = 0.75  # Å: an atom found this near to one of a shape is that atom
_CORE_A = 3.2  # Å: within, a shape says which atoms there are; beyond, the atoms that were found do
_ADDED_SD_A = 0.1  # Å: prior of an added atom around its place; those of ad-atoms are shallow
# Priors of atoms as found: an impurity, and an atom more than the sheet has sites.
_LOG_FOREIGN, _LOG_MORE = -5.3, -8.5
# An ad-atom or a substitution explains its pixels if the mean squared residual exceeds that of
# noise by at most this share and this many standard deviations.
_MISFIT, _MISFIT_SD = 0.1, 5.0
# Hypotheses this much less likely than the best are given up after one step of the fit, and after
# two, nats. Where one ended within 9 of the best, it was never 18 behind after one step.
_BEHIND = (25.0, 14.0)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far around a place hypotheses are fitted.

    Parameters
    ----------
    free_A
        Atoms of a shape this near to its middle are fitted, Å.
    pixels_A
        Radius of the pixels that count, Å.
    """

    free_A: float
    pixels_A: float


RECONSTRUCTED, ADDED = Reach(4.6, 5.2), Reach(3.2, 3.8)  # an added atom moves few others


@dataclass(frozen=True, eq=False)  # without slots: the tree is made when it is asked for
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
    element
        Chemical symbols, shape (atom,).
    """

    xy: FloatArray
    sigma_A: FloatArray
    amplitude: FloatArray
    usual: FloatArray
    host: BoolArray
    element: NDArray[np.str_]

    @cached_property
    def tree(self) -> cKDTree:
        """The positions, to look for those near a place."""
        return cKDTree(self.xy)

    def near(self, middle: FloatArray) -> FoundSheet:
        """Keep the atoms that hypotheses about a place, shape (2,), Å, can have to do with."""
        own = np.hypot(*(self.xy - middle).T) < _AROUND_A
        return FoundSheet(
            self.xy[own], self.sigma_A[own], self.amplitude[own], self.usual[own], self.host[own],
            self.element[own],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Noise, background and scatter of a frame.

    Parameters
    ----------
    optics, excess
        Probe and noise, and the factor on its variance.
    level, level_sd
        Background and how much it varies, intensity.
    scatter
        Standard deviation of the amplitudes of equal atoms without noise, as a share.
    """

    optics: Optics
    excess: float
    level: float
    level_sd: float
    scatter: float

    @classmethod
    def of(cls, refined: Refined) -> Statistics:
        """Learn them from the fit of a frame with many atoms."""
        amplitude = refined.amplitude
        unit = float(np.median(amplitude))
        host = np.abs(amplitude / unit - 1.0) < _HOST_RANGE
        noise = float(np.median(refined.amplitude_sd[host] ** 2))
        seen = _robust_sd(amplitude[host]) ** 2
        # What exceeds noise, and the error of that difference.
        more = seen * (1.0 - (_MAD_VARIANCE / max(int(host.sum()), 1)) ** 0.5) - noise
        scatter = max(more, 0.0) ** 0.5 / unit
        spread = max(_VARIES * _robust_sd(refined.background), _LEAST_LEVEL_SD * unit)
        return cls(
            refined.optics, max(refined.reduced_chi2, 1.0), float(np.median(refined.background)),
            min(spread, unit), min(max(scatter, _LEAST_SCATTER), _NATURAL_SPREAD),
        )  # fmt: skip


def _robust_sd(values: FloatArray) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


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
    amplitude, amplitude_sd
        Shape (atom,), intensity; and its error, amplitudes of a host atom.
    core
        Which of them lie in the core of the shape, shape (atom,).
    elements
        Shape (atom,).
    chi2
        Mean squared residual over the variance of the noise.
    explains
        Whether that is what noise leaves.
    """

    placed: Placed | None
    p: float
    xy: FloatArray
    covariance: FloatArray
    amplitude: FloatArray
    amplitude_sd: FloatArray
    core: BoolArray
    elements: NDArray[np.str_]
    chi2: float
    explains: bool

    @property
    def name(self) -> str:
        """Name of its kind; empty for the perfect sheet, ``?`` for atoms as found."""
        if self.placed is None:
            return "?"
        return "" if self.placed.kind is None else str(self.placed.kind)


def weigh(
    screen: Screen,
    statistics: Statistics,
    found: FoundSheet,
    centre: FloatArray,
    candidates: list[Placed],
    reach: Reach = RECONSTRUCTED,
    *,
    others: bool = True,
) -> list[Weighed]:
    """Weigh shapes around a place, the perfect sheet, and the atoms as they were found.

    Parameters
    ----------
    screen
        The perfect sheet against the frame.
    statistics
        Noise, background and scatter of the frame.
    found
        The atoms.
    centre
        The place, shape (2,), Å, undistorted axes.
    candidates
        Shapes at their places.
    reach
        How far around it they are fitted.
    others
        Whether the perfect sheet and the atoms as found are among them.

    Returns
    -------
    The hypotheses, likeliest first; none where there are too few pixels.
    """
    binned, px = screen.binned, screen.binned.calibration.pixel_size_A
    middle = screen.shifted(centre[None])[0]
    near = pixels_near(binned, binned.rc(middle[None])[0], reach.pixels_A / px)
    found = found.near(middle)
    if near is None or not len(found.xy):
        return []
    # Around an ad-atom the background is that of the frame; it may not take up the ad-atom.
    level_sd = statistics.level_sd if reach is ADDED else screen.unit
    pixels = LocalPixels(
        *near, statistics.optics, statistics.excess, statistics.level, level_sd
    )  # fmt: skip
    scatter = statistics.scatter if reach is ADDED else _NATURAL_SPREAD
    sheet = [perfect_sheet(screen, centre, reach)] if others else []
    beside: dict[bytes, LocalPixels] = {}
    tried: list[_Tried] = []
    for placed in [*sheet, *candidates]:
        atoms, core, elements, rest = _atoms_of(screen, found, middle, placed, reach, scatter)
        own = _without(pixels, rest, found, screen, beside)
        tried.append(_Tried(placed, Ascent(own, atoms, _SPREADS), placed.log_prior, core, elements))
    if others:
        atoms, near_it, rest, log_prior = _as_found(screen, found, middle, reach, scatter)
        core, elements = np.ones(len(atoms.rc), dtype=np.bool_), found.element[near_it]
        ascent = Ascent(_without(pixels, rest, found, screen, beside), atoms)
        tried.append(_Tried(None, ascent, log_prior, core, elements))
    fits = []
    for one in _likely(tried, screen, reach, scatter):
        fit = one.ascent.finish()
        score = fit.log_evidence + one.log_prior
        if reach is ADDED:
            score += _gain(screen, fit.amplitude, fit.amplitude_sd, one.elements, scatter)
        fits.append((score, one.placed, fit, one.core, one.elements))
    if not fits:
        return []
    top = max(f[0] for f in fits)
    total = sum(np.exp(f[0] - top) for f in fits)
    out = [
        Weighed(
            placed, float(np.exp(score - top) / total), binned.xy(fit.rc),
            fit.covariance[:, ::-1, ::-1] * px**2, fit.amplitude / screen.peak,
            fit.amplitude_sd / screen.unit, core, elements, fit.chi2,
            fit.chi2 < 1.0 + _MISFIT + _MISFIT_SD * fit.chi2_sd,
        )
        for score, placed, fit, core, elements in fits
    ]  # fmt: skip
    return sorted(out, key=lambda w: -w.p)


@dataclass(frozen=True, slots=True, eq=False)
class _Tried:
    """A hypothesis while it is fitted; see `Weighed`."""

    placed: Placed | None
    ascent: Ascent
    log_prior: float
    core: BoolArray
    elements: NDArray[np.str_]


def _likely(tried: list[_Tried], screen: Screen, reach: Reach, scatter: float) -> list[_Tried]:
    """Give up the hypotheses that fall behind in the first steps of their fits."""

    def score(one: _Tried) -> float:
        value = one.ascent.log_evidence + one.log_prior
        if reach is ADDED:
            value += _gain(
                screen, one.ascent.amplitude, one.ascent.amplitude_sd, one.elements, scatter
            )
        return value

    for behind in _BEHIND:
        for one in tried:
            one.ascent.step()
        if len(tried) > 1:
            scores = [score(one) for one in tried]
            least = max(scores) - behind
            tried = [one for one, value in zip(tried, scores, strict=True) if value >= least]
    return tried


def _as_found(
    screen: Screen, found: FoundSheet, middle: FloatArray, reach: Reach, scatter: float
) -> tuple[ChosenAtoms, BoolArray, BoolArray, float]:
    """Atoms as they were found: those to fit, which they are, those around, and their prior."""
    binned, px = screen.binned, screen.binned.calibration.pixel_size_A
    away = np.hypot(*(found.xy - middle).T)
    own = away < reach.free_A
    rest = (away >= reach.free_A) & (away < reach.pixels_A + _TAIL_A)
    usual, sd = found.usual[own], scatter * found.usual[own]
    log_prior = _AS_FOUND_LOG_PRIOR
    if reach is ADDED:
        # Beside shapes that know how bright an impurity is, it may not choose its brightness.
        foreign = ~found.host[own]
        for i in np.flatnonzero(foreign):
            usual[i], sd[i] = _brightness(screen, str(found.element[own][i]), scatter)
        sites = int((np.hypot(*(screen.measured - middle).T) < reach.free_A).sum())
        log_prior += _LOG_FOREIGN * int(foreign.sum())
        log_prior += _LOG_MORE * max(int(own.sum()) - sites, 0)
    count = int(own.sum())
    atoms = ChosenAtoms(binned.rc(found.xy[own]), np.full(count, _AS_FOUND_SD_A / px), usual, sd)
    return atoms, own, rest, log_prior


def _brightness(screen: Screen, element: str, scatter: float) -> tuple[float, float]:
    """Expected amplitude of an added atom and its standard deviation, intensity."""
    relative = screen.relative[element]
    sd = float(np.hypot(relative.sd, scatter * relative.mean))
    return relative.mean * screen.unit, sd * screen.unit


def _gain(
    screen: Screen,
    amplitude: FloatArray,
    amplitude_sd: FloatArray,
    elements: NDArray[np.str_],
    scatter: float,
) -> float:
    """Correction of the evidence where the prior of an impurity is not one normal density."""
    host = screen.lattice.material.host
    return sum(
        screen.relative[str(elements[i])].log_gain(
            float(amplitude[i]) / screen.unit, float(amplitude_sd[i]) / screen.unit, scatter
        )
        for i in np.flatnonzero(elements != host)
    )


def _atoms_of(
    screen: Screen,
    found: FoundSheet,
    middle: FloatArray,
    placed: Placed,
    reach: Reach,
    scatter: float,
) -> tuple[ChosenAtoms, BoolArray, NDArray[np.str_], BoolArray]:
    """Free atoms of a hypothesis, which of them are its core, elements, the found atoms around.

    The shape says which atoms there are in its core; around it, those that were found do.
    """
    px = screen.binned.calibration.pixel_size_A
    xy = screen.shifted(placed.xy)
    if reach is not ADDED:
        xy = xy - _own_misfit(placed)
    away = np.hypot(*(xy - middle).T)
    added = np.arange(len(xy)) >= placed.own
    core = (np.hypot(*(placed.xy - placed.centre).T) < _CORE_A) | added
    partner_distance, partner = found.tree.query(xy)
    there = partner_distance < _HOLDS_A
    free = ((away < reach.free_A) & (core | there)) | added
    usual, position_sd = np.full(len(xy), screen.unit), np.full(len(xy), _SHAPE_SD_A / px)
    elements = np.full(len(xy), screen.lattice.material.host, dtype=object)
    foreign = there & ~found.host[partner] & ~core
    usual[foreign] = found.usual[partner[foreign]]
    elements[foreign] = found.element[partner[foreign]]
    amplitude_sd = scatter * usual
    for i, symbol in zip(np.flatnonzero(added), placed.added, strict=True):
        usual[i], amplitude_sd[i] = _brightness(screen, symbol, scatter)
        elements[i], position_sd[i] = symbol, _ADDED_SD_A / px
    own, breathing = xy[free], _breathing(placed, free)
    atoms = ChosenAtoms(
        screen.binned.rc(own), position_sd[free], usual[free], amplitude_sd[free],
        _TOGETHER_A / px,
        (_ADDED_BENT_SHARE if reach is ADDED else 1.0)
        * _bent(placed.xy[free] - placed.centre) / px,
        None if breathing is None else breathing[:, :, ::-1] / px,
    )  # fmt: skip
    # Found atoms outside of the fit are as they were found.
    outer = np.hypot(*(found.xy - middle).T)
    rest = (outer < reach.pixels_A + _TAIL_A) & (outer > min(_CORE_A, reach.free_A))
    if len(own):
        apart = ((found.xy[rest, None] - own) ** 2).sum(axis=2).min(axis=1)
        rest[rest] = apart > _HOLDS_A**2
    return atoms, core[free], elements[free].astype(np.str_), rest


def _own_misfit(placed: Placed) -> FloatArray:
    """What a shape itself adds to the smooth misfit of the lattice around it, shape (atom, 2), Å.

    The misfit is that of the atoms that were found, which show a part of the shape's displacements.
    """
    tree = cKDTree(placed.sites)
    distance, site = tree.query(placed.xy[: placed.own])
    moved = np.full(placed.sites.shape, np.nan)
    on_site = distance < ON_SITE_A
    moved[site[on_site]] = (placed.xy[: placed.own] - placed.sites[site])[on_site]
    near = tree.query(placed.xy, k=min(AROUND, len(placed.sites)))[1]
    return np.asarray(_FOUND_SHARE * np.nanmean(moved[near], axis=1))


def _breathing(placed: Placed, free: BoolArray) -> FloatArray | None:
    """Shift that the atoms around the middle make together, shape (1, atom, 2), Å, or None.

    It is along the shape's own displacements, or away from the middle where it has none.
    """
    if not placed.breathes_A:
        return None
    own = np.flatnonzero(free) < placed.own
    xy = placed.xy[free]
    moved = xy - placed.sites[cKDTree(placed.sites).query(xy)[1]]
    moved[~own] = 0.0
    largest = float(np.hypot(*moved.T).max())
    if largest < _STAYS_A:
        away = xy - placed.centre
        far = np.hypot(*away.T)
        moved = (own & (far < _BESIDE_A))[:, None] * away / np.maximum(far, 1e-9)[:, None]
        largest = 1.0
    return np.asarray(placed.breathes_A / largest * moved)[None]


def _bent(away: FloatArray) -> FloatArray:
    """Root of the covariance of a smooth shift of atoms, shape (atom, atom), Å."""
    apart = ((away[:, None] - away[None]) ** 2).sum(axis=2)
    large = _BENT_SD_A * np.exp(-0.5 * (away**2).sum(axis=1) / _BENT_REACH_A**2)
    common = np.exp(-0.5 * apart / _BENT_LENGTH_A**2) + 1e-6 * np.eye(len(away))
    return np.asarray(large[:, None] * np.linalg.cholesky(common))


def _without(
    pixels: LocalPixels,
    rest: BoolArray,
    found: FoundSheet,
    screen: Screen,
    known: dict[bytes, LocalPixels],
) -> LocalPixels:
    """Subtract the atoms around from the pixels; their noise stays."""
    key = rest.tobytes()
    if key not in known:
        known[key] = pixels.beside(screen.binned.rc(found.xy[rest]), found.amplitude[rest])
    return known[key]


def perfect_sheet(screen: Screen, centre: FloatArray, reach: Reach) -> Placed:
    """Give the perfect sheet around a place, shape (2,), Å, undistorted, as a hypothesis."""
    near = np.hypot(*(screen.sites.xy - centre).T) < reach.pixels_A + _TAIL_A
    sites = screen.sites.xy[near]
    return Placed(None, centre, sites, sites, 0.0)
