"""Patches of a frame around its atoms."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from adatom.core import Frame
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput

_LEAST_PIXELS = 4
_ORDERS = np.arange(1, 7)  # symmetries by which a patch may be turned


def patches(
    frame: Frame, xy: FloatArray, *, width_A: float, pixels: int = 24, align: bool = False
) -> FloatArray:
    """Cut a square patch around each position, without rounding it to a pixel.

    Parameters
    ----------
    frame
        Calibrated frame.
    xy
        Centres, shape (atom, 2), Å.
    width_A
        Edge of a patch, Å.
    pixels
        Pixels along an edge.
    align
        Turn each patch by its own strongest symmetry, so that equal surroundings in different
        directions give equal patches: the phase of ``Σ I r exp(i m θ)``, for the order m of one
        to six that is strongest in the mean of all patches; of its m directions, the one along
        which the weaker orders below point.

    Returns
    -------
    Shape (atom, pixels, pixels), in the frame's intensity; beyond the border the frame is NaN.

    Raises
    ------
    BadInput
        If width or pixels make no patch.

    Examples
    --------
    >>> from adatom.core import Calibration
    >>> data = np.zeros((32, 32), dtype=np.float32)
    >>> data[10, 20] = 1.0
    >>> frame = Frame(data, Calibration(0.1), 0)
    >>> cut = patches(frame, np.array([[2.0, 1.0]]), width_A=0.5, pixels=5)
    >>> cut.shape, float(cut[0, 2, 2])
    ((1, 5, 5), 1.0)
    """
    if pixels < _LEAST_PIXELS or not width_A > 0:
        raise BadInput(
            "patches",
            expected=f"a width above 0 Å and at least {_LEAST_PIXELS} pixels",
            got=f"{width_A} Å and {pixels} pixels",
            todo="Give the width in Å.",
        )
    axis = (np.arange(pixels) + 0.5) / pixels * width_A - width_A / 2.0
    x, y = np.meshgrid(axis, axis)
    upright = _cut(frame, xy, x[None], y[None])
    if not align or not len(xy):
        return upright
    angle = _directions(np.nan_to_num(upright), x, y)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return _cut(frame, xy, cos * x - sin * y, sin * x + cos * y)


def _cut(frame: Frame, xy: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Intensity at offsets x, y, shape (atom or 1, pixels, pixels), Å, from each centre."""
    places = np.stack([x + xy[:, 0, None, None], y + xy[:, 1, None, None]], axis=-1)
    rc = frame.calibration.rc(places.reshape(-1, 2))
    values = map_coordinates(
        frame.data.astype(np.float64), rc.T, order=1, mode="constant", cval=np.nan
    )
    out: FloatArray = values.reshape(places.shape[:-1])
    return out


def _directions(cut: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Angle, rad, of the strongest symmetry of each patch, shape (atom,)."""
    radius, theta = np.hypot(x, y), np.arctan2(y, x)
    window = np.where(radius <= radius[0].min(), radius, 0.0)  # a disc looks the same when turned
    level = (cut * (window > 0)).sum(axis=(1, 2)) / (window > 0).sum()
    waves = window * np.exp(1j * _ORDERS[:, None, None] * theta)
    moments = np.einsum("aij,mij->am", cut - level[:, None, None], waves)
    best = int(np.argmax(np.abs(moments).mean(axis=0)))
    order = _ORDERS[best]
    # The symmetry leaves `order` directions: that along which the lower moments point is taken.
    turns = np.angle(moments[:, best, None]) / order + 2.0 * np.pi * np.arange(order) / order
    lower = _ORDERS[:best]
    waves = np.exp(-1j * lower * turns[..., None])
    along = (moments[:, None, :best] * waves).real.sum(axis=-1)
    out: FloatArray = turns[np.arange(len(turns)), along.argmax(axis=1)]
    return out
