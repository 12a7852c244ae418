"""What the sites of a crystal hold, by the counts of a field that was scanned in parts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from adatom.core import Calibration, Lattice, Material
from adatom.core.arrays import BoolArray, FloatArray, IntArray
from adatom.features.exposure import Exposure
from adatom.features.refinement.image_model import Grid, Probe

REACH = 2.6  # radius of the pixels that are asked for one site, widths of the probe
CHUNK = 2048  # sites at once; limits memory
LEAST_LEVEL = 1e-3  # least background over an atom's peak: logarithms need one
_BRIGHTNESS_STEPS = 7  # values of the brightness of a species
_SCATTER = 0.12  # of the amplitudes of equal atoms, as a share, as in the test of empty sites
_SMOOTH_A = 5.0  # Å: the background varies over twice the lattice constant of graphene or more
# Prior standard deviation of the smooth part of the background, over an atom's peak.
_SMOOTH_SD = 0.05
_NEIGHBOURS = 100  # atoms whose median displacement moves a site of the lattice
_BEYOND_A = 2.5  # Å: atoms this far outside a field reach into it
_ROUNDS = 2  # times that the atoms around a site are taken as the last round found them


@dataclass(frozen=True, slots=True, eq=False)
class SiteKinds:
    """What may be on a site.

    Parameters
    ----------
    names
        Shape (kind,): the species of the crystal, ``""`` for nothing, other species, and two atoms
        of the host in one spot.
    log_prior
        Natural logarithm of the probability before any count, shape (kind,).
    amplitude
        Equally likely peaks over that of a host atom, shape (kind, step).
    """

    names: tuple[str, ...]
    log_prior: FloatArray
    amplitude: FloatArray

    @classmethod
    def of(cls, material: Material, own: str, share: float) -> SiteKinds:
        """List what may be on a site of a crystal.

        Parameters
        ----------
        material
            Gives its species and their brightness.
        own
            Species of the site in the perfect crystal.
        share
            Share of the sites that hold each other kind.

        Examples
        --------
        >>> from adatom.core import GRAPHENE
        >>> SiteKinds.of(GRAPHENE, "C", 1e-3).names
        ('C', '', 'Si', 'C2')
        """
        low, middle, high = (
            dict(zip(material.species, material.brightness(e), strict=True))
            for e in (material.exponents[0], None, material.exponents[1])
        )
        double = f"{own}2"
        others = [s for s in material.species if s not in {own, double}]
        names = (own, "", *others, double)
        rows = []
        for name in names:
            if not name:
                rows.append(np.zeros(_BRIGHTNESS_STEPS))
                continue
            one = own if name == double else name
            factor = 2.0 if name == double else 1.0
            a, b = sorted((low[one], high[one]))
            spread = (1.0 - _SCATTER, 1.0 + _SCATTER)
            rows.append(
                factor * np.linspace(min(a, middle[one]) * spread[0],
                                     max(b, middle[one]) * spread[1], _BRIGHTNESS_STEPS)
            )  # fmt: skip
        prior = np.full(len(names), share)
        prior[0] = 1.0 - share * (len(names) - 1)
        return cls(names, np.log(prior), np.array(rows))


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """Sites of a crystal in a field, and how one of its atoms looks.

    Parameters
    ----------
    xy
        Sites, shape (site, 2), Å in the field.
    kinds
        What may be on each kind of site.
    number
        Which of `kinds` each site is of, shape (site,).
    asked
        Which are far enough from the border to be asked, shape (site,).
    probe, probe_pixel_A
        The probe, and the size of its pixels, Å.
    rate
        Counts of a pixel at a host atom's peak, for one electron per Å².
    level
        Background over that peak.
    """

    xy: FloatArray
    kinds: tuple[SiteKinds, ...]
    number: IntArray
    asked: BoolArray
    probe: Probe
    probe_pixel_A: float
    rate: float
    level: float

    def probe_in(self, calibration: Calibration) -> Probe:
        """Give the probe in the pixels of a field."""
        factor = (self.probe_pixel_A / calibration.pixel_size_A) ** 2
        return Probe(self.probe.covariance * factor, self.probe.tails)


def sheet_of(
    lattice: Lattice,
    host_xy: FloatArray,
    extent_xy_A: tuple[float, float],
    margin_A: float,
    share: float,
    probe: Probe,
    probe_pixel_A: float,
) -> Sheet:
    """Place the sites of a lattice where the atoms around them say.

    Parameters
    ----------
    lattice
        Fitted to the field.
    host_xy
        Likely atoms of the crystal, shape (atom, 2), Å.
    extent_xy_A, margin_A
        Far corner of the field, and how near to its border no site is asked, Å.
    share
        As of `SiteKinds.of`.
    probe, probe_pixel_A
        As of `Sheet`.
    """
    index, xy = lattice.sites_within(extent_xy_A, margin_A=-_BEYOND_A)
    own = list(dict.fromkeys(lattice.material.site_species))
    kinds = tuple(SiteKinds.of(lattice.material, s, share) for s in own)
    number = np.array([own.index(s) for s in lattice.material.site_species])[index[:, 2]]
    undistorted = lattice.undistort(host_xy)
    away = lattice.nearest_site(undistorted)[1]
    on_site = np.hypot(*away.T) < 0.5 * lattice.material.bond_length_A
    tree = cKDTree(host_xy[on_site])
    near = tree.query(xy, k=min(_NEIGHBOURS, int(on_site.sum())))[1].reshape(len(xy), -1)
    shift = np.median(away[on_site][near], axis=1)
    xy = xy + shift
    inside = np.minimum(xy, np.asarray(extent_xy_A) - xy).min(axis=1) > margin_A
    return Sheet(xy, kinds, number, inside, probe, probe_pixel_A, 0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What the counts say of every site.

    Parameters
    ----------
    p
        Probability of each kind, shape (site, kind); 0 where a site has fewer kinds.
    amplitude
        Expected peak over that of a host atom, shape (site,).
    sheet
        The sites, with the rate and level that the counts say.
    expected
        Expected counts of a pixel for one electron per Å², shape (row, col).
    """

    p: FloatArray
    amplitude: FloatArray
    sheet: Sheet
    expected: FloatArray

    def names(self) -> list[str]:
        """Likeliest kind of each site."""
        best = self.p.argmax(axis=1)
        return [self.sheet.kinds[n].names[k] for n, k in zip(self.sheet.number, best, strict=True)]


def held_by(
    exposure: Exposure,
    sheet: Sheet,
    before: Held | None = None,
    near: IntArray | None = None,
) -> Held:
    """Weigh what is on each site by Bayes' rule, from the counts of all visits.

    Counts are Poisson with the mean ``dose rate (level + sum_j a_j P(r - r_j))``. Each site is
    asked for itself, over its possible peaks ``a``, with the sites around it as they are expected;
    this is done twice. The rate and the level are those of all pixels; a smooth background is what
    the expected image leaves, smoothed, as far as it exceeds noise.

    Parameters
    ----------
    exposure
        Counts and dose.
    sheet
        Sites and probe.
    before
        What was known; None at the first time, where all sites are taken for their own kind.
    near
        Rows of the sites that are asked, where only these got more dose; all by default.
    """
    grid, rc = Grid(exposure.counts.shape), exposure.calibration.rc(sheet.xy)
    probe = sheet.probe_in(exposure.calibration)
    kernel = grid.kernel(probe)
    width = max(len(k.names) for k in sheet.kinds)
    if before is None:
        p = np.zeros((len(sheet.xy), width))
        p[:, 0] = 1.0
        amplitude = np.array([k.amplitude[0].mean() for k in sheet.kinds])[sheet.number]
    else:
        p, amplitude, sheet = before.p.copy(), before.amplitude.copy(), before.sheet
    for _ in range(_ROUNDS):
        image = np.asarray(grid.image(grid.spectrum(rc, amplitude), kernel), dtype=np.float64)
        if near is None:
            rate, level = _rate_and_level(exposure, image)
            sheet = replace(sheet, rate=rate, level=level)
        smooth = _smooth(exposure, sheet.rate, image + sheet.level)
        shape = np.maximum(image + sheet.level + smooth, LEAST_LEVEL)
        for number, kinds in enumerate(sheet.kinds):
            own = sheet.asked & (sheet.number == number)
            rows = np.flatnonzero(own) if near is None else near[own[near]]
            if not len(rows):
                continue
            value = _log_likelihood(exposure, shape, sheet.rate, probe, rc[rows], amplitude[rows],
                                    kinds.amplitude)  # fmt: skip
            each = logsumexp(value, axis=2) - np.log(value.shape[2]) + kinds.log_prior
            total = logsumexp(each, axis=1, keepdims=True)
            p[rows, : len(kinds.names)] = np.exp(each - total)
            weights = np.exp(value + kinds.log_prior[None, :, None] - np.log(value.shape[2])
                             - total[:, :, None])  # fmt: skip
            amplitude[rows] = np.einsum("nks,ks->n", weights, kinds.amplitude)
    return Held(p, amplitude, sheet, sheet.rate * shape)


def information(held: Held, pixel_size_A: float, one: float, other: float) -> float:
    """Expected log-likelihood that one electron per Å² gives for a peak against another, nats.

    It is the relative entropy of two Poisson processes: ``sum λ1 ln(λ1/λ0) - λ1 + λ0`` (Kullback,
    Information Theory and Statistics (1959), chapter 4), over the pixels of one site.

    Parameters
    ----------
    held
        Gives rate, level and probe.
    pixel_size_A
        Of the field, Å.
    one, other
        The true peak and the other one, over that of a host atom.
    """
    sheet = held.sheet
    reach = REACH * sheet.probe.sigma() * sheet.probe_pixel_A
    k = np.arange(-np.ceil(reach / pixel_size_A), np.ceil(reach / pixel_size_A) + 1)
    step = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1) * pixel_size_A
    spot = sheet.probe.value_at(step / sheet.probe_pixel_A)
    rates = [sheet.rate * (max(sheet.level, LEAST_LEVEL) + a * spot) for a in (one, other)]
    return float((rates[0] * np.log(rates[0] / rates[1]) - rates[0] + rates[1]).sum())


def _rate_and_level(exposure: Exposure, image: FloatArray) -> tuple[float, float]:
    """Counts of an atom's peak for one electron per Å², and background over it: least squares."""
    seen = exposure.dose > 0
    x, y, w = image[seen], exposure.counts[seen] / exposure.dose[seen], exposure.dose[seen]
    mean_x, mean_y = np.average(x, weights=w), np.average(y, weights=w)
    slope = float(np.average((x - mean_x) * (y - mean_y), weights=w)
                  / np.average((x - mean_x) ** 2, weights=w))  # fmt: skip
    slope = max(slope, 1e-12)
    return slope, max(float(mean_y / slope - mean_x), LEAST_LEVEL)


def _smooth(exposure: Exposure, rate: float, image: FloatArray) -> FloatArray:
    """What varies slowly in the counts beside the expected image, over an atom's peak."""
    sigma = _SMOOTH_A / exposure.calibration.pixel_size_A
    electrons = ndimage.gaussian_filter(exposure.dose, sigma, mode="nearest", truncate=3)
    left = exposure.counts - exposure.dose * rate * image
    rest = ndimage.gaussian_filter(left, sigma, mode="nearest", truncate=3)
    value = rest / np.maximum(electrons * rate, 1e-12)
    # Noise of the mean over 4πσ² pixels, against the prior.
    level = float(np.average(image, weights=exposure.dose))
    noise = level / np.maximum(electrons * rate * 4 * np.pi * sigma**2, 1e-12)
    out: FloatArray = value * _SMOOTH_SD**2 / (_SMOOTH_SD**2 + noise)
    return out


def _log_likelihood(
    exposure: Exposure,
    shape: FloatArray,
    rate: float,
    probe: Probe,
    rc: FloatArray,
    own: FloatArray,
    amplitude: FloatArray,
) -> FloatArray:
    """Log-likelihood of each peak at each site, shape (site, kind, step), up to a constant."""
    reach = REACH * probe.sigma()
    half = int(np.ceil(reach))
    k = np.arange(-half, half + 1)
    step = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)
    step = step[np.hypot(*step.T) <= reach + 0.5]
    out = np.empty((len(rc), *amplitude.shape))
    for start in range(0, len(rc), CHUNK):
        part = slice(start, start + CHUNK)
        pixel = np.round(rc[part]).astype(np.int64)[:, None, :] + step
        inside = np.all((pixel >= 0) & (pixel < exposure.counts.shape), axis=2)
        r, c = np.clip(pixel, 0, np.array(exposure.counts.shape) - 1).transpose(2, 0, 1)
        spot = probe.value_at(pixel - rc[part][:, None, :])
        rest = np.maximum(shape[r, c] - own[part][:, None] * spot, LEAST_LEVEL)
        dose = np.where(inside, exposure.dose[r, c] * rate, 0.0)
        counts = np.where(inside & (dose > 0), exposure.counts[r, c], 0.0)
        for i, row in enumerate(amplitude):
            for j, peak in enumerate(row):
                mean = rest + peak * spot
                out[part, i, j] = (counts * np.log(mean) - dose * mean).sum(axis=1)
    return out
