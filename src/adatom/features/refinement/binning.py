"""Bin a frame to the pixels that a fit needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.core import Calibration, Frame
from adatom.core.arrays import FloatArray, Image
from adatom.features.refinement.noise import without_hot_pixels

_FIT_PIXEL_A = 0.165  # largest pixel that a fit bins to


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """A frame binned to what its probe needs, for fits.

    A probe three pixels wide loses about one per cent of its information to pixels of a third of
    its width; whole-pixel binning keeps counts Poisson and noise white.

    Parameters
    ----------
    data
        Shape (row, col), intensity, hot pixels limited.
    calibration
        Of the binned pixels.
    offset_A
        Centre of the first binned pixel in the frame's own axes, Å, along x and y alike.
    """

    data: Image
    calibration: Calibration
    offset_A: float

    def rc(self, xy: FloatArray) -> FloatArray:
        """Binned row, column (N, 2) of positions in the frame's axes, Å."""
        return self.calibration.rc(np.asarray(xy) - self.offset_A)

    def xy(self, rc: FloatArray) -> FloatArray:
        """Positions (N, 2) in the frame's axes, Å, of binned row, column."""
        return self.calibration.xy(rc) + self.offset_A


def sample(frame: Frame) -> Sampled:
    """Limit hot pixels and bin a frame to pixels of about a third of a probe."""
    data = without_hot_pixels(frame.data)
    px = frame.calibration.pixel_size_A
    b = max(int(_FIT_PIXEL_A / px), 1)
    rows, cols = data.shape[0] // b, data.shape[1] // b
    if b == 1:
        return Sampled(data, frame.calibration, 0.0)
    blocks = data[: rows * b, : cols * b].reshape(rows, b, cols, b)
    return Sampled(blocks.mean(axis=(1, 3)), Calibration(px * b), px * (b - 1) / 2)
