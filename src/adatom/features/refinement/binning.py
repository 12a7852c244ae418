"""Bin a frame to the pixel size that a fit needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.core import Calibration, Frame
from adatom.core.arrays import BoolArray, FloatArray, Image
from adatom.features.refinement.noise import without_hot_pixels

_FIT_PIXEL_A = 0.165  # largest binned pixel, Å: a third of the width of a sharp probe (0.5 Å)


@dataclass(frozen=True, slots=True, eq=False)
class BinnedFrame:
    """A frame after binning.

    Pixels of a third of the probe's width cost about one per cent of the Fisher information.
    Binning whole pixels keeps Poisson counts Poisson and white noise white.

    Parameters
    ----------
    data
        Shape (row, col), intensity; hot pixels are replaced.
    calibration
        Of the binned pixels.
    offset_A
        Centre of the first binned pixel in the axes of the frame, Å, the same along x and y.
    masked
        Which binned pixels have a masked one, shape (row, col); None if none has.
    clipped
        Which have a clipped one: 1 from above, -1 from below, 0 none; None if none has.
    """

    data: Image
    calibration: Calibration
    offset_A: float
    masked: BoolArray | None = None
    clipped: NDArray[np.int8] | None = None

    def rc(self, xy: FloatArray) -> FloatArray:
        """Row and column (N, 2) in binned pixels of positions (N, 2) in the frame, Å."""
        return self.calibration.rc(np.asarray(xy) - self.offset_A)

    def xy(self, rc: FloatArray) -> FloatArray:
        """Positions (N, 2) in the frame, Å, of row and column (N, 2) in binned pixels."""
        return self.calibration.xy(rc) + self.offset_A


def bin_frame(frame: Frame) -> BinnedFrame:
    """Replace hot pixels and bin a frame to pixels of at most 0.165 Å.

    Frames whose pixels are larger than half of that keep their pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import Calibration, Frame
    >>> frame = Frame(np.arange(256.0).reshape(16, 16), Calibration(0.08))
    >>> binned = bin_frame(frame)
    >>> binned.data.shape, binned.calibration.pixel_size_A
    ((8, 8), 0.16)
    >>> binned.rc(frame.calibration.xy(np.array([[0.5, 0.5]]))).tolist()  # centre of four pixels
    [[0.0, 0.0]]
    """
    data = without_hot_pixels(frame.data)
    px = frame.calibration.pixel_size_A
    b = max(int(_FIT_PIXEL_A / px), 1)
    rows, cols = data.shape[0] // b, data.shape[1] // b
    masked, clipped = _binned_pixels(frame, data, b)
    if b == 1:
        return BinnedFrame(data, frame.calibration, 0.0, masked, clipped)
    blocks = data[: rows * b, : cols * b].reshape(rows, b, cols, b)
    calibration = Calibration(px * b)
    return BinnedFrame(blocks.mean(axis=(1, 3)), calibration, px * (b - 1) / 2, masked, clipped)


def restored_frame(frame: Frame, restored: Image) -> Frame:
    """Give a frame with its clipped pixels replaced by what a fit expects beyond their limit.

    Parameters
    ----------
    frame
        The frame as it was fitted.
    restored
        `Refined.restored` of the fit: the mean of the pixels of each binned one.
    """
    assert frame.pixels is not None  # a fit restores only pixels that were examined  # noqa: S101
    b = frame.shape[0] // restored.shape[0]
    rows, cols = restored.shape[0] * b, restored.shape[1] * b
    data, clipped = frame.data.copy(), frame.pixels.clipped[:rows, :cols] != 0
    inner = data[:rows, :cols]
    blocks = (restored.shape[0], b, restored.shape[1], b)
    lacks = (restored - inner.reshape(blocks).mean(axis=(1, 3))) * b**2
    share = lacks / np.maximum(clipped.reshape(blocks).sum(axis=(1, 3)), 1)
    inner[clipped] += share.repeat(b, axis=0).repeat(b, axis=1)[clipped]
    return replace(frame, data=data)


def _binned_pixels(
    frame: Frame, data: Image, b: int
) -> tuple[BoolArray | None, NDArray[np.int8] | None]:
    """Give the masked and the clipped binned pixels.

    A binned pixel with any masked one is masked. The mean of pixels some of which are clipped is a
    limit of the true mean, as a clipped pixel is of its own value. A hot pixel, which has another
    value in `data`, is not clipped.
    """
    if frame.pixels is None:
        return None, None
    rows, cols = frame.shape[0] // b, frame.shape[1] // b

    def blocks(image: NDArray[Any]) -> NDArray[Any]:
        return image[: rows * b, : cols * b].reshape(rows, b, cols, b)

    masked: BoolArray | None = None
    if frame.pixels.any_masked:
        masked = np.asarray(blocks(frame.pixels.masked).any(axis=(1, 3)), dtype=np.bool_)
    if not frame.pixels.any_clipped:
        return masked, None
    clipped = blocks(np.where(data == frame.data, frame.pixels.clipped, np.int8(0)))
    share = clipped.astype(np.float32).mean(axis=(1, 3))
    return masked, np.sign(share).astype(np.int8)
