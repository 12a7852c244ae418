"""Look at a frame before any atom is found: mask what is no specimen, and take its units off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from adatom.core import Frame, MaskedArea, Pixels
from adatom.core.arrays import BoolArray, Image
from adatom.frames.specimen.annotation import annotation
from adatom.frames.specimen.clipped import clipped_pixels
from adatom.frames.specimen.constant import constant_parts
from adatom.frames.specimen.levels import Levels, grey_levels
from adatom.frames.specimen.lines import fly_back, repeated_lines
from adatom.frames.specimen.streaks import streaked_corners

_RIM_PX = 1  # rim that is masked around a part, pixels: interpolation mixes it with the specimen
_FILL_PX = 8.0  # Gaussian width of the mean that fills masked pixels, pixels
_LEAST_FILL = 1e-3  # weight of the specimen below which its median fills a pixel
_DARKEST = 0.1  # percentile of a continuum that is its zero: hot and dead pixels lie beyond
_MOST_EQUAL = 1e-3  # share of the pixels at the end of a range from which they may be clipped
_RANGE = (1.0, 99.0)  # percentiles between which the contrast of a continuum is measured

KINDS = (
    "constant values at the border",
    "a burnt-in box or bar",
    "burnt-in text",
    "lines that repeat the edge",
    "lines of the fly-back",
    "corners that repeat the edge",
)


def examine(frame: Frame) -> Frame:
    """Find the pixels that do not show the specimen and those that are clipped.

    Masked pixels get the mean of the specimen around them, so that they show no atom and no hole.
    The offset and the scale of the intensity are taken off: levels become whole numbers from zero,
    a continuum gets a contrast of one. So nothing that follows depends on the unit of the file.

    Parameters
    ----------
    frame
        The image; one that was examined is given back as it is.

    Returns
    -------
    The frame with `Frame.pixels`.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import Calibration
    >>> counts = np.random.default_rng(0).poisson(5.0, (64, 64)).astype(np.float64)
    >>> counts[:, :9] = 0.0
    >>> seen = examine(Frame(1e-10 * counts - 3e-7, Calibration(0.1)))
    >>> seen.pixels.areas[0].kind, int(seen.pixels.masked.any(axis=0).sum())
    ('constant values at the border', 10)
    >>> bool((seen.data[:, 12:] == counts[:, 12:]).all())
    True
    """
    if frame.pixels is not None:
        return frame
    levels = grey_levels(frame.data)
    masked, areas = _masked(frame.data, levels)
    clipped = clipped_pixels(frame.data, levels, masked)
    zero, unit = _zero_and_unit(frame.data, levels, masked)
    data = (frame.data.astype(np.float64) - zero) / unit
    if levels.step is not None:
        data = np.round(data)
    image = np.asarray(data, dtype=np.float32)
    if masked.any():
        image = _filled(image, masked)
    return replace(frame, data=image, pixels=Pixels(masked, clipped, areas, unit, zero))


def examine_again(frame: Frame) -> Frame | None:
    """Examine a frame of a series whose frames show the specimen in every pixel.

    Parameters
    ----------
    frame
        The image.

    Returns
    -------
    As of `examine`; None where many pixels have one value, so that `examine` must look.
    """
    image = frame.data
    levels = grey_levels(image)
    nothing = np.zeros(image.shape, dtype=np.bool_)
    low, high = (
        float(np.mean(np.abs(image - v) <= levels.same)) for v in (levels.low, levels.high)
    )
    if high > _MOST_EQUAL or (levels.step is None and low > _MOST_EQUAL):
        return None
    zero, unit = _zero_and_unit(image, levels, nothing)
    data = (image - np.float32(zero)) / np.float32(unit)
    if levels.step is not None:
        data = np.round(data)
    pixels = Pixels(nothing, np.zeros(image.shape, dtype=np.int8), (), unit, zero)
    return replace(frame, data=np.asarray(data, dtype=np.float32), pixels=pixels)


def _masked(image: Image, levels: Levels) -> tuple[BoolArray, tuple[MaskedArea, ...]]:
    """Pixels that are not specimen, and how many of each kind."""
    constant = constant_parts(image, levels)
    parts: list[BoolArray] = [constant.border, constant.inner]
    known = constant.border | constant.inner
    parts.append(annotation(image, levels, known, constant.inner))
    known = known | parts[-1]
    parts.append(repeated_lines(image, levels.same))
    known = known | parts[-1]
    parts.append(fly_back(image, known))
    parts.append(streaked_corners(image, known | parts[-1]))
    total = np.zeros(image.shape, dtype=np.bool_)
    areas = []
    for kind, part in zip(KINDS, parts, strict=True):
        if part.any():
            grown = ndimage.maximum_filter(part, 2 * _RIM_PX + 1) & ~total
            if grown.any():
                areas.append(MaskedArea(kind, int(grown.sum())))
            total |= grown
    if total.mean() > 1.0 - 1.0 / 64.0:  # nothing is left to look at: the frame itself is odd
        return np.zeros_like(total), ()
    return total, tuple(areas)


def _zero_and_unit(image: Image, levels: Levels, masked: BoolArray) -> tuple[float, float]:
    """Intensity that becomes zero, and that which becomes one."""
    seen = image[~masked]
    if levels.step is not None:
        return float(seen.min()), levels.step
    low, high = (float(v) for v in np.percentile(seen, _RANGE))
    contrast = float(np.std(np.clip(seen, low, high), dtype=np.float64))
    return float(np.percentile(seen, _DARKEST)), contrast or float(seen.max() - seen.min()) or 1.0


def _filled(image: Image, masked: BoolArray) -> Image:
    """Replace masked pixels by the mean of the specimen around them."""
    seen = (~masked).astype(np.float32)
    weight = ndimage.gaussian_filter(seen, _FILL_PX, mode="nearest")
    mean = ndimage.gaussian_filter(image * seen, _FILL_PX, mode="nearest")
    usual = np.float32(np.median(image[~masked]))
    mean = np.where(weight > _LEAST_FILL, mean / np.maximum(weight, _LEAST_FILL), usual)
    return np.asarray(np.where(masked, mean, image), dtype=np.float32)
