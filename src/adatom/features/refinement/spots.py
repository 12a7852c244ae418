"""Amplitudes of single spots in what a fit leaves of an image."""

from __future__ import annotations

import numpy as np

from adatom.core.arrays import FloatArray, Image
from adatom.features.refinement.optics import Optics

_REACH = 2.5  # radius of the window in which a spot is weighed, widths (sigma) of the probe


def spot_amplitudes(
    image: Image, rc: FloatArray, background: FloatArray, unsure: FloatArray, optics: Optics
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fit one spot and the level under it at each place, each place for itself.

    Least squares with a normal prior on the level.

    Parameters
    ----------
    image
        Shape (row, col), intensity.
    rc
        Places, shape (site, 2), pixels.
    background, unsure
        Expected level and its standard deviation, shape (site,), intensity; an infinite one leaves
        the level free.
    optics
        Gives the spot and the noise.

    Returns
    -------
    Amplitude, its standard deviation, and the level above the expected one, all (site,).
    """
    half = max(int(np.ceil(_REACH * optics.probe.sigma())), 1)
    k = np.arange(-half, half + 1)
    step = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)
    pixel = np.round(rc).astype(np.int64)[:, None, :] + step
    inside = np.all((pixel >= 0) & (pixel < image.shape), axis=2)
    r, c = np.clip(pixel, 0, np.array(image.shape) - 1).transpose(2, 0, 1)
    spot = np.where(inside, optics.probe.value_at(pixel - rc[:, None, :]), 0.0)
    rest = np.where(inside, image[r, c] - background[:, None], 0.0)
    variance = optics.noise.variance(background.astype(np.float32)).astype(np.float64)
    square, both = (spot**2).sum(axis=1), spot.sum(axis=1)
    count = inside.sum(axis=1) + variance / unsure**2
    determinant = np.maximum(square * count - both**2, 1e-12)
    right, total = (spot * rest).sum(axis=1), rest.sum(axis=1)
    value = (count * right - both * total) / determinant
    level = (square * total - both * right) / determinant
    return value, np.sqrt(variance * count / determinant), level
