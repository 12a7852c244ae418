"""Bin a frame to the pixel size that a fit needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.core import Calibration, Frame
from adatom.core.arrays import FloatArray, Image
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
    """

    data: Image
    calibration: Calibration
    offset_A: float

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
    if b == 1:
        return BinnedFrame(data, frame.calibration, 0.0)
    blocks = data[: rows * b, : cols * b].reshape(rows, b, cols, b)
    return BinnedFrame(blocks.mean(axis=(1, 3)), Calibration(px * b), px * (b - 1) / 2)
