"""How far an atom on an amorphous support stands out of the texture of the support around it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from adatom.core import Frame
from adatom.core.arrays import FloatArray

# Width of the window in which the texture is measured, in widths of a spot: a few dozen spots.
_WINDOW = 10.0
_THICKNESS = 4.0  # width over which thickness varies at least, in widths of a spot
_LARGEST = 12.0  # limit of the contrast: beyond it nothing is a matter of texture
_SMALLEST_PX = 0.8  # a narrower filter is made of less than a pixel


def texture_contrast(frame: Frame, xy: FloatArray, sigma_A: float) -> FloatArray:
    """Contrast of sites to the texture of their surroundings, in its standard deviations.

    The image is filtered by the negative Laplacian of a Gaussian as wide as a spot (Marr and
    Hildreth, Proc. R. Soc. Lond. B 207, 187 (1980)), which is blind to thickness. The deviation of
    the texture is that of the negative values nearby, where no atom stands: atoms are bright.

    Parameters
    ----------
    frame
        The image.
    xy
        Positions, shape (site, 2), in the unit of the frame's pixel size.
    sigma_A
        Standard deviation of a spot, same unit.

    Returns
    -------
    The highest value at each position and the eight pixels around it, shape (site,).

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import Calibration, Frame
    >>> image = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    >>> image[40:43, 60:63] += 5.0
    >>> at = np.array([[61.0, 41.0], [20.0, 20.0]])
    >>> (texture_contrast(Frame(image, Calibration(1.0)), at, 1.5) > 5.0).tolist()
    [True, False]
    """
    width = max(frame.calibration.pixels(sigma_A), _SMALLEST_PX)
    # The filter as a finite sum sees thickness a little, so most of it is taken off before.
    image = frame.data - ndimage.gaussian_filter(frame.data, _THICKNESS * width)
    sharp = -ndimage.gaussian_laplace(image, width)
    dark = ndimage.gaussian_filter(np.minimum(sharp, 0.0) ** 2, _WINDOW * width)
    deviation = np.sqrt(2.0 * dark)  # half of the pixels are dark
    floor = 1e-6 * float(np.abs(sharp).max())
    contrast = ndimage.maximum_filter(sharp, 3) / np.maximum(deviation, max(floor, 1e-30))
    row, col = np.round(frame.calibration.rc(xy)).astype(int).T
    rows, cols = frame.shape
    at = contrast[np.clip(row, 0, rows - 1), np.clip(col, 0, cols - 1)]
    return np.asarray(np.clip(at, -_LARGEST, _LARGEST), dtype=np.float64)
