"""Columns that a fit hides: hollows between the likely columns, tested region by region.

Where dim columns fill the hollows between bright ones and are not in the fit, tails of the probe
and the background take their light, and the residual shows no spot. So the hollows are tested as
sublattices: probe, background, brightness of the columns, and one brightness of all hollows of a
region are fitted together, from where the fit without hollows ended. All of a region's hollows
share one number, so it is known far better than a single column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import ndtri

from adatom.core.arrays import BoolArray, FloatArray, IntArray
from adatom.features.refinement.binning import BinnedFrame
from adatom.features.refinement.image_model import Grid, Probe
from adatom.features.refinement.optics import Optics
from adatom.features.refinement.probe_and_noise import bounded_probe
from adatom.features.residual import hollows, sample_at

_FEWEST = 4  # hollows of a region, at least: fewer are single columns, which show as spots
_INSIDE_BONDS = 1.2  # nearer to the border, what lies outside the frame is guessed
_STEPS, _FIRST = 6, 2  # Gauss-Newton steps; after the first ones a clean frame is left
_LEFT_Z = 2.0  # largest significance of its regions with which it is
_TILE_PX = 320  # longest edge of a part that is fitted at once, binned pixels: bounds the memory
_WAVES = 5  # cosines along an axis of the smooth change of the background
_REACH_PX = 20.0  # columns so far outside a part are in its model; `Grid` has 24 pixels around it
_FEW_OF_KIND = 3  # so few columns of a kind have no scale of their own
_LEAST_SHARE = 0.3  # a scale falls no further in a step
_OF_PROBE, _TAILS = 5, slice(3, 5)  # parameters of the probe, and which of them are its tails
_TAIL_SD, _TAIL_MEAN = 0.3, (0.1, 0.0)  # prior of the probe's tails, as in the fit of the probe
# Expected number of false regions a frame by the noise alone, for the whole and for its regions.
_FALSE_ALARMS = 0.02
# Brightness, in dimmest usual columns, from which hollows are filled: of the whole frame; of a
# region in such a frame; of a region in any frame. What a probe of another shape leaves is below
# 0.16 in 36 clean simulated frames of six crystals at 1 to 20 counts; the least of eight frames
# that lacked more than 5 % of their columns is 0.29 (decision 73).
_WHOLE, _REGION, _ALONE = 0.22, 0.15, 0.35


@dataclass(frozen=True, slots=True, eq=False)
class HiddenColumns:
    """Brightness of the hollows between the likely columns.

    Parameters
    ----------
    missed
        Columns that seem to be missed in each region, shape (region,): the number of hollows times
        their brightness in dimmest usual columns, at most their number. Tails keep a part of the
        light, so it is rather too low.
    brightness, error
        Mean over all hollows of the frame and its standard deviation by the noise, in usual columns
        of the brightest host; 0 and infinity where no region has enough hollows.
    places
        Number of hollows.
    """

    missed: FloatArray
    brightness: float
    error: float
    places: int


def hidden_columns(
    binned: BinnedFrame,
    optics: Optics,
    xy: FloatArray,
    amplitude: FloatArray,
    boxes: FloatArray,
    bond_A: float,
    usual: tuple[float, float],
    dirty: BoolArray | None = None,
) -> HiddenColumns:
    """Test in each region whether the hollows between the likely columns hold columns.

    Parameters
    ----------
    binned
        The image.
    optics
        Probe and noise of the fit.
    xy, amplitude
        The likely columns, shapes (column, 2), Å, and (column,), intensity.
    boxes
        Regions, shape (region, 4): left, top, right, bottom, Å.
    bond_A
        Bond length, Å.
    usual
        Brightness of a usual column of the brightest and of the dimmest host, intensity.
    dirty
        Where contamination lies, shape (row, col); hollows there are not tested.

    Returns
    -------
    What the hollows hold; nothing is missed where they are as dark as the fit says.

    Examples
    --------
    Columns on a square lattice, with dim ones in all hollows, and without:

    >>> from adatom.core import Calibration, Frame
    >>> from adatom.features.refinement.binning import bin_frame
    >>> from adatom.features.refinement.refine import refine
    >>> xy = np.indices((12, 12)).reshape(2, -1).T * 2.0 + 2.0
    >>> rows, cols = np.indices((174, 174)) * 0.15
    >>> def spots(at):
    ...     return sum(np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / 0.32) for x, y in at)
    >>> def missed(share):
    ...     counts = 2.0 + 20.0 * (spots(xy) + share * spots(xy + 1.0))
    ...     frame = Frame(np.random.default_rng(0).poisson(counts), Calibration(0.15))
    ...     fit, box = refine(frame, xy), np.array([[0.0, 0.0, 26.0, 26.0]])
    ...     usual = (20.0, 6.0)
    ...     found = hidden_columns(
    ...         bin_frame(frame), fit.optics, fit.xy, fit.amplitude, box, 1.42, usual
    ...     )
    ...     return bool(found.missed[0] > 20)
    >>> missed(0.3), missed(0.0)
    (True, False)
    """
    places = _tested_places(binned, xy, bond_A, dirty)
    near = _nearest_box(places, boxes)
    number = np.bincount(near, minlength=len(boxes)).astype(np.float64)
    number[number < _FEWEST] = 0.0
    if not number.any():
        return HiddenColumns(np.zeros(len(boxes)), 0.0, np.inf, 0)
    bright, sd, square = np.zeros(len(boxes)), np.full(len(boxes), np.inf), 0.0
    for tile, of_tile in _tiles(binned, boxes):
        regions = of_tile[number[of_tile] > 0]
        if len(regions):
            groups = [places[near == k] for k in regions]
            bright[regions], covariance = _brightness(
                binned, tile, optics, (xy, amplitude), groups, bond_A
            )
            sd[regions] = np.sqrt(np.diag(covariance))
            square += float(number[regions] @ covariance @ number[regions])
    mean = float(number @ bright) / float(number.sum())
    error = float(np.sqrt(square)) / float(number.sum())
    dim = usual[1]
    surely = -float(ndtri(_FALSE_ALARMS / np.count_nonzero(number)))
    filled = (bright > _ALONE * dim) & (bright > surely * sd)
    if mean > _WHOLE * dim and mean > -float(ndtri(_FALSE_ALARMS)) * error:
        filled |= bright > _REGION * dim
    missed = np.where(filled, number * np.clip(bright / dim, 0.0, 1.0), 0.0)
    return HiddenColumns(missed, mean / usual[0], error / usual[0], int(number.sum()))


def _tested_places(
    binned: BinnedFrame, xy: FloatArray, bond_A: float, dirty: BoolArray | None
) -> FloatArray:
    """Hollows inside the frame and outside of contamination, shape (place, 2), Å."""
    places = hollows(binned, xy, bond_A)
    far = np.array(binned.calibration.extent_xy(binned.data.shape))
    border = np.minimum(places, far - places).min(axis=1, initial=np.inf)
    out: FloatArray = places[border > _INSIDE_BONDS * bond_A]
    for covered in (dirty, binned.masked):
        if covered is not None and len(out):
            out = out[sample_at(covered, binned.rc(out)) == 0.0]
    return out


def _nearest_box(places: FloatArray, boxes: FloatArray) -> IntArray:
    middle = 0.5 * (boxes[:, :2] + boxes[:, 2:])
    out: IntArray = cKDTree(middle).query(places)[1]
    return out


def _tiles(binned: BinnedFrame, boxes: FloatArray) -> list[tuple[tuple[slice, slice], IntArray]]:
    """Parts of the image that are fitted one by one, and the regions of each."""
    shape = np.array(binned.data.shape)
    count = np.ceil(shape / _TILE_PX).astype(int)
    edge = np.ceil(shape / count).astype(int)
    middle = binned.rc(0.5 * (boxes[:, :2] + boxes[:, 2:]))
    at = np.clip(middle // edge, 0, count - 1).astype(int)
    out = []
    for row, col in np.ndindex(*count):
        own = np.flatnonzero((at[:, 0] == row) & (at[:, 1] == col))
        rows, cols = (slice(k * e, (k + 1) * e) for k, e in zip((row, col), edge, strict=True))
        out.append(((rows, cols), own))
    return out


def _brightness(
    binned: BinnedFrame,
    tile: tuple[slice, slice],
    optics: Optics,
    columns: tuple[FloatArray, FloatArray],
    groups: list[FloatArray],
    bond_A: float,
) -> tuple[FloatArray, FloatArray]:
    """Brightness of groups of hollows and their covariance, by Gauss-Newton steps.

    Parameters
    ----------
    binned, tile
        The image, and its part that is fitted.
    optics
        Probe and noise to start from.
    columns
        Positions (column, 2), Å, and brightness (column,) of the likely columns.
    groups
        Hollows of each region, each of shape (place, 2), Å.
    bond_A
        Width of the rim that is left out, Å, over the share of it that neighbours reach.
    """
    data, used = binned.data[tile].astype(np.float64), _inside(binned, bond_A)[tile]
    first = np.array([tile[0].start, tile[1].start], dtype=np.float64)
    grid = Grid((data.shape[0], data.shape[1]))
    rc, amplitude = binned.rc(columns[0]) - first, columns[1].copy()
    near = np.all((rc > -_REACH_PX) & (rc < np.array(data.shape) + _REACH_PX), axis=1)
    rc, amplitude = rc[near], amplitude[near]
    bright = amplitude > 0.5 * np.quantile(amplitude, 0.8)
    kinds = [kind for kind in (bright, ~bright) if kind.sum() > _FEW_OF_KIND]
    spots = [grid.spectrum(binned.rc(xy) - first, np.ones(len(xy))) for xy in groups]
    waves, probe = _waves(data.shape), optics.probe
    level, hollow = np.zeros(data.shape), np.zeros(len(groups))
    # Variance grows with the signal. The data stand for it before there is a model.
    model = np.maximum(data, np.quantile(data, 0.02))
    for step in range(_STEPS):
        weight = used / optics.noise.variance(np.maximum(model, 0.0).astype(np.float32))
        points = [grid.spectrum(rc[kind], amplitude[kind]) for kind in kinds]
        rest = ~np.any(kinds, axis=0) if kinds else np.ones(len(rc), dtype=bool)
        whole = sum(points, grid.spectrum(rc[rest], amplitude[rest]))
        whole = whole + sum(h * s for h, s in zip(hollow.astype(np.float32), spots, strict=True))
        kernel = grid.kernel(probe)
        slopes = probe.transfer_derivatives(grid.kr, grid.kc)
        images = [
            *(grid.image(whole, grid.divide_by_spline(slope)) for slope in slopes),
            *(grid.image(each, kernel) for each in (*points, *spots)),
        ]
        model = grid.image(whole, kernel) + level
        j = np.concatenate([np.stack(images).reshape(len(images), -1), waves])
        change, covariance = _step(j, weight.ravel(), (data - model).ravel(), probe)
        probe = _moved(probe, change[:_OF_PROBE], optics.pixel_size_A)
        for kind, share in zip(kinds, change[_OF_PROBE:], strict=False):
            amplitude[kind] *= max(1.0 + share, _LEAST_SHARE)
        own = slice(_OF_PROBE + len(kinds), len(images))
        hollow = hollow + change[own]
        level = level + (change[own.stop :] @ waves).reshape(data.shape)
        z = hollow / np.sqrt(np.diag(covariance)[own])
        if step + 1 == _FIRST and z.max() < _LEFT_Z:
            break  # a clean frame: most are
    return hollow, covariance[own, own]


def _inside(binned: BinnedFrame, bond_A: float) -> BoolArray:
    """Pixels that are fitted, shape (row, col): not masked, and not at the border."""
    out = np.zeros(binned.data.shape, dtype=bool)
    rim = int(1.5 * bond_A / binned.calibration.pixel_size_A)
    out[rim : -rim or None, rim : -rim or None] = True
    return out if binned.masked is None else out & ~binned.masked


def _waves(shape: tuple[int, ...]) -> FloatArray:
    """Products of cosines along both axes, shape (wave, pixel)."""
    rows, cols = (
        np.cos(np.arange(_WAVES)[:, None] * np.pi * (np.arange(n) + 0.5) / n) for n in shape
    )
    out: FloatArray = np.einsum("ir,jc->ijrc", rows, cols).reshape(_WAVES**2, -1)
    return out


def _step(
    j: FloatArray, weight: FloatArray, residual: FloatArray, probe: Probe
) -> tuple[FloatArray, FloatArray]:
    """One Gauss-Newton step, shape (parameter,), and the covariance of the parameters."""
    normal, right = (j * weight) @ j.T, j @ (weight * residual)
    prior = np.zeros(len(j))
    prior[_TAILS] = 1.0 / _TAIL_SD**2
    right[_TAILS] -= prior[_TAILS] * (probe.tails - np.array(_TAIL_MEAN))
    normal += np.diag(prior + 1e-9 * np.diag(normal))
    covariance: FloatArray = np.linalg.inv(normal).astype(np.float64)
    return covariance @ right, covariance


def _moved(probe: Probe, change: FloatArray, px: float) -> Probe:
    """Change a probe by a step of bounded length, within the limits of microscopes."""
    most = 0.25 * probe.sigma() ** 2
    step = np.concatenate([np.clip(change[:3], -most, most), np.clip(change[3:], -0.1, 0.1)])
    return bounded_probe(np.concatenate([probe.covariance, probe.tails]) + step, px)
