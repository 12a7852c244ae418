"""What the columns of a frame leave of its image: a level between them, and spots of others."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import Voronoi, cKDTree

from adatom.core.arrays import BoolArray, FloatArray, Image
from adatom.features.refinement.binning import BinnedFrame
from adatom.features.refinement.image_model import Grid
from adatom.features.refinement.refine import Refined

LEVEL_A = 2.4  # edge of the square in which the level is averaged: a lattice constant, Å
# Distance of a hollow from the nearest sites, and within which two corners are one, in bonds.
_HOLLOW_BONDS, _SAME_BONDS = (0.75, 1.3), 0.4
_ENOUGH = 8  # fewer sites enclose nothing
_FORGIVEN = 0.2  # share of the spots' own mean that tails of bright ones may add to the level


def unexplained(binned: BinnedFrame, refined: Refined, seen: BoolArray) -> tuple[Image, Image]:
    """What the likely columns leave of the image, without its local mean; and that mean as a level.

    Tails of the spots that the probe does not describe are no contamination: a share of the local
    mean of the spots is taken off the level. Both have shape (row, col).
    """
    grid = Grid((binned.data.shape[0], binned.data.shape[1]))
    points = grid.spectrum(binned.rc(refined.xy[seen]), refined.amplitude[seen])
    spots = grid.image(points, grid.kernel(refined.optics.probe))
    rest = binned.data - spots
    edge = max(round(LEVEL_A / binned.calibration.pixel_size_A), 1)
    level: Image = ndimage.uniform_filter(rest, edge)
    return rest - level, level - np.float32(_FORGIVEN) * ndimage.uniform_filter(spots, edge)


def bright_spots(
    rest: Image, binned: BinnedFrame, refined: Refined, least: float, sigmas: float
) -> FloatArray:
    """Positions of spots that stand out of an image, shape (spot, 2), Å.

    Parameters
    ----------
    rest
        What the columns and the level leave, shape (row, col), intensity.
    binned
        Gives the axes of the image.
    refined
        Gives probe and noise.
    least
        Least amplitude, intensity.
    sigmas
        Least amplitude, standard deviations of it by noise.
    """
    sigma, noise = refined.optics.probe.sigma(), refined.optics.noise
    # Smoothing with the probe's core halves the peak of a spot.
    amplitude = 2.0 * ndimage.gaussian_filter(rest, sigma, mode="constant", truncate=3.0)
    variance = float(noise.variance(np.array([np.median(binned.data)], dtype=np.float32))[0])
    sd = 2.0 * np.sqrt(variance / (4.0 * np.pi)) / sigma
    bright = amplitude > max(least, sigmas * sd)
    label, count = ndimage.label(bright)
    if not count:
        return np.zeros((0, 2))
    rc = np.array(ndimage.maximum_position(amplitude, label, np.arange(1, count + 1)))
    far = np.array(rest.shape) - 1.0
    inner = np.all((rc > sigma) & (rc < far - sigma), axis=1)
    return binned.xy(rc[inner])


def hollows(binned: BinnedFrame, xy: FloatArray, bond_A: float) -> FloatArray:
    """Places about a bond away from all sites around them, shape (place, 2), Å.

    Parameters
    ----------
    binned
        Gives the size of the image.
    xy
        Sites, shape (site, 2), Å.
    bond_A
        Bond length, Å.
    """
    if len(xy) < _ENOUGH:
        return np.zeros((0, 2))
    far = np.array(binned.calibration.extent_xy(binned.data.shape))
    corner: FloatArray = Voronoi(xy).vertices
    away = cKDTree(xy).query(corner)[0] / bond_A
    hollow = (away > _HOLLOW_BONDS[0]) & (away < _HOLLOW_BONDS[1])
    corner = corner[hollow & np.all((corner > 0) & (corner < far), axis=1)]
    if not len(corner):
        return corner
    near = cKDTree(corner).query_ball_point(corner, _SAME_BONDS * bond_A)
    out: FloatArray = corner[np.unique([min(n) for n in near])]
    return out


def sample_at(image: Image | BoolArray, rc: FloatArray) -> FloatArray:
    """Values of an image at the pixels nearest to positions (site, 2), shape (site,)."""
    r, c = np.clip(np.round(rc).astype(np.int64), 0, np.array(image.shape) - 1).T
    out: FloatArray = image[r, c].astype(np.float64)
    return out
