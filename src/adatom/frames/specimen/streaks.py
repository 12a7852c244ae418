"""Corners of a turned frame in which the nearest edge was repeated: streaks along one direction.

A program that turns a frame fills its corners. Where it repeats the edge, every pixel of a corner
has the value of the nearest point of the edge: values do not change along the normal of that edge.
Recorded noise changes alike in all directions. A frame that kept its size is looked at first;
where it was cut or padded afterwards, the edges are searched.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from adatom.core.arrays import BoolArray, FloatArray, Image
from adatom.frames.specimen.turned import OUT, direction, turned_corners

_LEAST_EDGE = 48  # smaller frames have too few pixels in their corners, pixels
_STEP_PX = 2.0  # distance of the pixels that are compared, pixels
_STEP = 0.6  # between the ratios of streaks and of recorded noise
_COARSE_DEG, _FINE_DEG = 3.0, 0.25  # steps in which the angle is searched, degrees
_PATCHES = ((12, 12), (3, 24), (24, 3))  # rows and columns of the parts of a corner that are tried
# Mean squared change along the streaks over that across them: interpolation leaves up to 0.3 in
# the corners, recorded noise has one.
_STREAKED = 0.4
_RECORDED = 0.6  # least of the same ratio in the band inside of the corner
_BAND_PX = 4.0  # width of that band, pixels
_CORNERS = 3  # corners that must agree: a turned frame has four, one may be cut off or dark
_LEAST_PIXELS = 40  # of a corner
_CHANGED = 0.02  # least share of the frame's own change that streaks must have across


def streaked_corners(image: Image, known: BoolArray) -> BoolArray:
    """Find the corners of a turned frame that repeat its edge.

    Parameters
    ----------
    image
        Shape (row, col), intensity.
    known
        Pixels that are known not to be specimen, shape (row, col).

    Returns
    -------
    Shape (row, col).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import ndimage
    >>> image = np.random.default_rng(0).poisson(9.0, (96, 96)).astype(np.float32)
    >>> turned = ndimage.rotate(image, 20.0, reshape=False, order=1, mode="nearest")
    >>> none = np.zeros(image.shape, dtype=bool)
    >>> found = streaked_corners(turned, none)
    >>> found[[0, 0, 48], [0, 95, 48]].tolist(), streaked_corners(image, none).any().tolist()
    ([True, True, False], False)
    """
    none = np.zeros(image.shape, dtype=np.bool_)
    if min(image.shape) < _LEAST_EDGE:
        return none
    turned = turned_corners(image, known)
    if turned.any():
        return turned
    usual = float(np.mean(np.diff(image[::3, ::3], axis=0).astype(np.float64) ** 2))
    angles = np.arange(_COARSE_DEG, 90.0, _COARSE_DEG)
    agreed = np.sort(_patch_ratios(image, angles, usual), axis=1)[:, _CORNERS - 1]
    if not agreed.min() < _STREAKED:
        return none
    best, most = none, 0
    near = float(angles[int(agreed.argmin())])
    for angle in np.arange(near - _COARSE_DEG, near + _COARSE_DEG + _FINE_DEG, _FINE_DEG):
        corners = [_corner(image, float(angle), out, usual) for out in OUT]
        total = sum(int(c.sum()) for c in corners)
        if sum(bool(c.any()) for c in corners) >= _CORNERS and total > most:
            best, most = np.asarray(np.logical_or.reduce(corners)), total
    return best


def _changes(image: Image, rc: FloatArray, along: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Squared change at pixels (pixel, 2) inwards along directions (angle, 2), and across them.

    Both have shape (angle, pixel).
    """
    at = image[tuple(rc.T.astype(np.int64))]
    out = []
    for step in (along, np.stack([-along[:, 1], along[:, 0]], axis=1)):
        there = (rc[None] - _STEP_PX * step[:, None]).reshape(-1, 2)
        moved = ndimage.map_coordinates(image, there.T, order=1, mode="nearest")
        out.append((at - moved.reshape(len(step), -1).astype(np.float64)) ** 2)
    return out[0], out[1]


def _patch_ratios(image: Image, angles: FloatArray, usual: float) -> FloatArray:
    """Least ratio of the changes along and across over the patches of a corner, (angle, corner)."""
    best = np.full((len(angles), len(OUT)), np.inf)
    for k, out in enumerate(OUT):
        for rows, cols in _PATCHES:
            # Patches begin two pixels from the border, so that both neighbours lie in the frame.
            r, c = np.mgrid[2 : rows + 2, 2 : cols + 2]
            r, c = (
                n - 1 - at if o > 0 else at
                for n, at, o in zip(image.shape, (r, c), out, strict=True)
            )
            rc = np.stack([r.ravel(), c.ravel()], axis=1).astype(np.float64)
            along = np.stack([direction(a, out) for a in angles])
            lengthwise, across = (x.mean(axis=1) for x in _changes(image, rc, along))
            ratio = lengthwise / np.maximum(across, 1e-12 * usual)
            best[:, k] = np.minimum(best[:, k], np.where(across > _CHANGED * usual, ratio, np.inf))
    return best


def _corner(image: Image, angle: float, out: tuple[int, int], usual: float) -> BoolArray:
    """Pixels of a corner beyond the edge that is repeated there; none if there is no such edge."""
    along = direction(angle, out)
    middle = (np.array(image.shape) - 1.0) / 2.0
    row, col = np.indices(image.shape)
    height = along[0] * (row - middle[0]) + along[1] * (col - middle[1])
    quarter = (out[0] * (row - middle[0]) > 0) & (out[1] * (col - middle[1]) > 0)
    inner = (slice(2, -2), slice(2, -2))
    rc = np.argwhere(quarter[inner]).astype(np.float64) + 2.0
    lengthwise, across = (x[0] for x in _changes(image, rc, along[None]))
    beyond = height[inner][quarter[inner]]
    order = np.argsort(-beyond)
    beyond, lengthwise, across = (x[order] for x in (beyond, lengthwise, across))
    # The change along is small beyond the edge and usual inside: the sum of what it lacks is
    # largest at the edge.
    lack = np.cumsum(_STEP * across.mean() - lengthwise)
    edge = int(lack.argmax())
    mask = np.zeros(image.shape, dtype=np.bool_)
    if edge < _LEAST_PIXELS:
        return mask
    band = slice(edge + 1, int(np.searchsorted(-beyond, _BAND_PX - beyond[edge])))
    own = float(across[:edge].mean())
    streaked = lengthwise[:edge].mean() < _STREAKED * own and own > _CHANGED * usual
    if streaked and lengthwise[band].sum() > _RECORDED * across[band].sum():
        # The last pixels compare with the recorded edge itself.
        mask[quarter & (height > beyond[edge] - 0.5 * _STEP_PX)] = True
    return mask
