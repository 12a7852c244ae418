"""Refine a frame that resembles one before: probe and noise are known, one step is enough."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray
from adatom.features.refinement.binning import BinnedFrame
from adatom.features.refinement.fit import Fit
from adatom.features.refinement.optics import Optics, RefineOptions
from adatom.features.refinement.refine import TILE_PX, Refined, one_thread
from adatom.features.refinement.used_pixels import UsedPixels

_STEPS = 1  # a second one moves the calibrated positions by 0.05 σ (median), 0.1 σ (99 %)
_SAME_A = 0.7  # Å: an atom this near to one of the last frame begins with its amplitude


def refine_again(
    binned: BinnedFrame,
    xy: FloatArray,
    last: Refined,
    options: RefineOptions,
    outside_xy: FloatArray,
) -> Refined | None:
    """Refine all atoms of a frame with the probe and the noise of one before.

    Parameters
    ----------
    binned
        The image, of `bin_frame`.
    xy
        Initial positions, shape (atom, 2), Å.
    last
        The fit to a frame before, of the same pixel size.
    options
        See `RefineOptions`.
    outside_xy
        Atoms outside the frame, as of `refine`.

    Returns
    -------
    The fit, or None where the frame is too large for one piece, or pixels are clipped.
    """
    px, n = binned.calibration.pixel_size_A, len(xy)
    too_large = max(binned.data.shape) > TILE_PX
    if not n or too_large or binned.clipped is not None or not len(last.xy):
        return None
    with one_thread():
        everything = np.concatenate([xy, outside_xy])
        start = binned.rc(everything)
        outside = np.arange(len(start)) >= n
        optics = Optics(last.optics.probe, last.optics.noise, px, last.optics.jitter_A)
        fit = Fit(binned.data, start, outside, optics, options, UsedPixels(binned.masked, None))
        fit.set_start(float(np.median(last.amplitude)), float(np.median(last.background)))
        away, nearest = cKDTree(last.xy).query(everything)
        fit.amplitude = np.where(away < _SAME_A, last.amplitude[nearest], fit.amplitude)
        fit.take_steps(_STEPS)
        if fit.jitter > 0:
            fit.fit_line_shifts()
            fit.take_steps(1)
        chi2 = fit.reduced_chi2()
        covariance = fit.covariance(as_stepped=True)[:n]
    variance = np.maximum(np.einsum("nii->ni", covariance), 0.0)
    return Refined(
        binned.xy(fit.rc)[:n], covariance[:, 1::-1, 1::-1] * px**2, fit.amplitude[:n],
        np.sqrt(variance[:, 2]), fit.background.value_at(fit.coefficients, fit.rc)[:n],
        fit.optics(), chi2, options.start_sigma_A,
    )  # fmt: skip
