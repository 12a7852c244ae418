"""Bin a frame further where its pixels are far smaller than the probe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adatom.core import Calibration
from adatom.features.refinement.binning import BinnedFrame
from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.noise import Noise
from adatom.features.refinement.optics import Optics

# Least width of the core, binned pixels. The mean over a pixel then adds 1 / (12 * 1.7²) = 3 % to
# the variance of the probe, so positions have 3 % larger errors.
_LEAST_SIGMA_PX = 1.7


def coarser(binned: BinnedFrame, optics: Optics) -> tuple[BinnedFrame, Optics, float]:
    """Average blocks of pixels, so that the core of the probe is about two pixels wide.

    Parameters
    ----------
    binned
        The frame.
    optics
        Its probe and noise.

    Returns
    -------
    Frame, probe and noise, and the peak of a spot over its peak before. All are as they were where
    blocks of two pixels are too large.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import Calibration, Frame
    >>> from adatom.features.refinement.binning import bin_frame
    >>> from adatom.features.refinement.image_model import Probe
    >>> from adatom.features.refinement.noise import Noise
    >>> from adatom.features.refinement.optics import Optics
    >>> frame = bin_frame(Frame(np.arange(1600.0).reshape(40, 40), Calibration(0.1)))
    >>> probe = Probe(np.array([16.0, 0.0, 16.0]), np.zeros(2))
    >>> coarse, optics, peak = coarser(frame, Optics(probe, Noise(1.0, 0.0, 1.0, 1.0), 0.1))
    >>> coarse.data.shape, optics.noise.constant, round(optics.probe.sigma(), 2), round(peak, 3)
    ((20, 20), 0.25, 2.02, 0.985)
    """
    b = int(optics.probe.sigma() / _LEAST_SIGMA_PX)
    if b < 2:
        return binned, optics, 1.0
    rows, cols = binned.data.shape[0] // b, binned.data.shape[1] // b

    def blocks(image: np.ndarray) -> np.ndarray:
        return image[: rows * b, : cols * b].reshape(rows, b, cols, b)

    masked, clipped = binned.masked, binned.clipped
    px = binned.calibration.pixel_size_A
    coarse = BinnedFrame(
        blocks(binned.data).mean(axis=(1, 3), dtype=np.float32),
        Calibration(px * b),
        binned.offset_A + px * (b - 1) / 2,
        None if masked is None else np.asarray(blocks(masked).any(axis=(1, 3)), dtype=np.bool_),
        None
        if clipped is None
        else np.sign(blocks(clipped).astype(np.float32).mean(axis=(1, 3))).astype(np.int8),
    )
    # The variance of b equally likely places in a row is (b² - 1) / 12.
    wider = optics.probe.covariance + (b**2 - 1) / 12.0 * np.array([1.0, 0.0, 1.0])
    probe = Probe(wider / b**2, optics.probe.tails)
    peak = (optics.probe.sigma() / (probe.sigma() * b)) ** 2
    noise, n = optics.noise, b**2  # a mean of n pixels has an n-th of their variance
    return (
        coarse,
        replace(
            optics,
            probe=probe,
            noise=Noise(noise.constant / n, noise.gain / n, noise.correlation, noise.least / n),
            pixel_size_A=px * b,
        ),
        float(peak),
    )
