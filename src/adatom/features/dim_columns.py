"""Columns that the networks doubt because they are dim, and that the counts support.

Networks and their calibration take a column far dimmer than its kind for a tail of the probe. In an
alloy or a stacking that training lacked it may be a lighter element. The joint fit measures the
brightness of each such site beside its neighbours: where it is many times its error, and more than
tails can hide, a column is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from adatom.core.arrays import BoolArray, FloatArray
from adatom.features.calibration.calibrator import LIKELY_P
from adatom.features.calibration.occupancy import log_odds, sigmoid
from adatom.features.refinement.binning import BinnedFrame
from adatom.features.refinement.image_model import Grid, Probe
from adatom.features.refinement.refine import Refined

# Share of the light of the neighbours' tails that the fitted probe may have wrong.
_TAIL_ERROR = 1.0 / 3.0
# Brightness in usual columns: below the least the background is not known well enough, and a spot
# above the most is no dim column but a hot pixel.
_BRIGHTNESS = (0.06, 1.2)
_LEAST_SIGMA = 1.5  # brightness over its error below which nothing is said
# Error of a brightness, in usual columns, above which it tells no dim column from none: there the
# networks saw the same noise as the fit.
_TOLD = 0.1
_INSIDE_BONDS = 1.2  # nearer to the border, a spot is cut and what lies outside is guessed
_APART_BONDS = 0.75  # nearer to a brighter site, light belongs to that
# Logarithm of the odds of a column: constant, and weights of the calibrated log-odds, of the
# logarithm of brightness over error, and of that of brightness over the usual one. Fitted on 1,354
# sites of 100 simulated frames of ten crystals, three quarters of them alloys, 286 sites false.
# The constant is 0.35 lower than fitted: probes of microscopes vary more than simulated ones.
_WEIGHTS = (1.62, 0.48, 2.73, 1.86)
_LOG_ODDS, _SIGMA, _SHARE = (-4.0, 0.0), (1.5, 8.0), (0.06, 0.3)  # ranges of these in the fit
# A fit whose residuals are far smaller than its noise took hot pixels for the noise.
_LEAST_CHI2 = 0.5
# Sites between these probabilities are doubtful. So many of them, and such a share of the likely
# ones, may be columns of another brightness than in training.
_DOUBTFUL, _MANY, _MANY_SHARE = (0.02, LIKELY_P), 8, 0.15


@dataclass(frozen=True, slots=True, eq=False)
class Neighbourhood:
    """What a site must be told from.

    Parameters
    ----------
    tails
        Light of the likely columns' tails at each site, without its own, shape (site,), intensity.
    apart
        Distance of each site from the nearest likely or brighter one, shape (site,), Å.
    """

    tails: FloatArray
    apart: FloatArray


def p_by_brightness(
    binned: BinnedFrame,
    refined: Refined,
    p_exists: FloatArray,
    border_A: FloatArray,
    typical: float,
    bond_A: float,
) -> FloatArray:
    """Probability by its own brightness that a site is a column, shape (site,); 0 where none.

    Parameters
    ----------
    binned
        The image.
    refined
        The fit of all sites; amplitudes and their errors hold what neighbours and the background
        leave open.
    p_exists
        Calibrated probability, shape (site,).
    border_A
        Distance from the border of the frame, shape (site,), Å.
    typical
        Amplitude of a bright column of the host, intensity.
    bond_A
        Bond length, Å.
    """
    share = refined.amplitude / typical
    near = (share > _BRIGHTNESS[0]) & (share < _BRIGHTNESS[1])
    near &= refined.amplitude > _LEAST_SIGMA * refined.amplitude_sd
    near &= (refined.amplitude_sd < _TOLD * typical) & (border_A > _INSIDE_BONDS * bond_A)
    out = np.zeros(len(p_exists))
    if refined.reduced_chi2 < _LEAST_CHI2 or not near.any() or near.all():
        return out
    around = _neighbourhood(binned, refined, p_exists)
    error = np.hypot(refined.amplitude_sd, _TAIL_ERROR * around.tails)
    told = near & (refined.amplitude > _LEAST_SIGMA * error)
    told &= around.apart > _APART_BONDS * bond_A
    features = (
        np.clip(log_odds(p_exists[told]), *_LOG_ODDS),
        np.log(np.clip(refined.amplitude[told] / error[told], *_SIGMA)),
        np.log(np.clip(share[told], *_SHARE)),
    )
    out[told] = sigmoid(_WEIGHTS[0] + np.array(_WEIGHTS[1:]) @ np.stack(features))
    return out


def is_doubtful(p_exists: FloatArray) -> BoolArray:
    """Tell which sites are neither likely nor out of the question, shape (site,).

    Parameters
    ----------
    p_exists
        Calibrated probability, shape (site,).
    """
    out: BoolArray = (p_exists > _DOUBTFUL[0]) & (p_exists <= _DOUBTFUL[1])
    return out


def many_doubtful(p_exists: FloatArray) -> bool:
    """Tell whether so many sites of a frame are doubtful that its probe must be looked at again.

    Parameters
    ----------
    p_exists
        Calibrated probability, shape (site,).
    """
    doubtful = is_doubtful(p_exists)
    return bool(doubtful.sum() >= max(_MANY, _MANY_SHARE * (p_exists > LIKELY_P).sum()))


def _neighbourhood(binned: BinnedFrame, refined: Refined, p_exists: FloatArray) -> Neighbourhood:
    likely, probe = p_exists > LIKELY_P, refined.optics.probe
    grid = Grid((binned.data.shape[0], binned.data.shape[1]))
    rc, core = binned.rc(refined.xy), Probe(probe.covariance, np.zeros(2))
    points = grid.spectrum(rc[likely], refined.amplitude[likely])
    wide = grid.image(points, grid.kernel(probe))
    wide = wide - np.float32(probe.weights[0]) * grid.image(points, grid.kernel(core))
    r, c = np.clip(np.round(rc).astype(np.int64), 0, np.array(binned.data.shape) - 1).T
    own = np.where(likely, refined.amplitude * probe.tails.sum(), 0.0)
    return Neighbourhood(wide[r, c] - own, _apart(refined.xy, refined.amplitude, likely))


def _apart(xy: FloatArray, amplitude: FloatArray, likely: BoolArray) -> FloatArray:
    """Distance from the nearest site that is likely or brighter, shape (site,), Å."""
    distance, index = cKDTree(xy).query(xy, k=min(8, len(xy)))
    stronger = likely[index] | (amplitude[index] > amplitude[:, None])
    stronger[:, 0] = False
    out: FloatArray = np.where(stronger, distance, np.inf).min(axis=1)
    return out
