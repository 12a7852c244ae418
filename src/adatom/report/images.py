"""Pictures of frames and maps as small ``data:`` addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow
from scipy import ndimage

from adatom.core import Frame
from adatom.report.colours import MAGMA, ramp
from adatom.report.view import FrameMaps

SMOOTHING_A = 0.35  # Å: standard deviation of the smoothing, a little below that of an atom's spot
GAMMA = 0.6  # exponent of the grey scale, chosen so that C shows beside Si
_TOP = 1.15  # white of a smoothed frame, so that its brightest atoms stay below the white marks


Box = tuple[float, float, float, float]  # left, top, right, bottom, Å


def smoothed_picture(frame: Frame, largest_px: int, masked: Sequence[Box] = ()) -> str:
    """Smooth a frame and raise its grey values to ``GAMMA``, so that the host shows beside Si.

    Parameters
    ----------
    frame
        The frame.
    largest_px
        Longest edge of the picture, pixels.
    masked
        Areas without specimen, which do not set the grey levels.
    """
    image = smooth(frame.data, frame.calibration.pixels(SMOOTHING_A))
    limits = display_limits(image, frame, masked)
    grey = grey_levels(shrink(image, largest_px), *limits, gamma=GAMMA)
    return _webp(np.asarray(grey / _TOP * 255.0), quality=70)


def recorded_picture(frame: Frame, largest_px: int, masked: Sequence[Box] = ()) -> str:
    """Show a frame as it was recorded; parameters as of `smoothed_picture`."""
    limits = display_limits(frame.data, frame, masked)
    return _webp(grey_levels(shrink(frame.data, largest_px), *limits) * 255.0, quality=45)


def display_limits(
    image: NDArray[np.float32], frame: Frame, masked: Sequence[Box]
) -> tuple[float, float]:
    """Values of black and white: the 0.5th and 99.5th percentiles of the specimen."""
    shown = np.ones(image.shape, dtype=np.bool_)
    for box in masked:
        left, top, right, bottom = (round(frame.calibration.pixels(edge)) for edge in box)
        shown[max(top, 0) : bottom + 1, max(left, 0) : right + 1] = False
    return percentiles(image[shown] if shown.any() else image)


def disagreement_picture(maps: FrameMaps, largest_px: int, top: float) -> str:
    """Colour the standard deviation between the networks, black at 0 and bright at `top`."""
    std = np.sqrt(np.sum(shrink(maps.std, largest_px).astype(np.float64) ** 2, axis=0))
    return _webp(ramp(std / max(top, 1e-6), MAGMA), quality=60)


def largest_disagreement(maps: FrameMaps) -> float:
    """The largest standard deviation of a frame's maps, all classes together."""
    return float(np.sqrt(np.nanmax(np.sum(maps.std.astype(np.float64) ** 2, axis=0))))


def _webp(values: NDArray[np.floating], *, quality: int) -> str:
    image = Pillow.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if image.mode == "L":
        image = image.convert("RGB")
    out = io.BytesIO()
    image.save(out, format="WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def smooth(image: ArrayLike, sigma_px: float) -> NDArray[np.float32]:
    """Gaussian smoothing of an image (row, col); `sigma_px` is the standard deviation, pixels."""
    out: NDArray[np.float32] = ndimage.gaussian_filter(
        np.asarray(image, dtype=np.float32), sigma_px, mode="nearest"
    )
    return out


def percentiles(values: NDArray[np.float32]) -> tuple[float, float]:
    """The 0.5th and 99.5th percentiles, between which images are stretched for display."""
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(high)


def grey_levels(
    image: NDArray[np.float32], low: float, high: float, *, gamma: float = 1.0
) -> NDArray[np.float32]:
    """Stretch an image (row, col) between two of its values to 0..1 in 64 levels, for display.

    The stretched values are raised to the power `gamma`.
    """
    scaled = np.clip((image - low) / max(high - low, 1e-12), 0.0, 1.0) ** gamma
    return np.asarray(np.round(scaled * 63.0) / 63.0, dtype=np.float32)


def shrink(image: NDArray[np.float32], largest: int) -> NDArray[np.float32]:
    """Average blocks of the last two axes so that no edge is longer than `largest` pixels."""
    factor = -(-max(image.shape[-2:]) // largest)
    if factor <= 1:
        return image
    rows, cols = (n // factor * factor for n in image.shape[-2:])
    cut = image[..., :rows, :cols]
    blocks = cut.reshape(*cut.shape[:-2], rows // factor, factor, cols // factor, factor)
    return np.asarray(blocks.mean(axis=(-3, -1)), dtype=np.float32)
