"""The ensemble at work: every member's probability maps of a frame of any size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from adatom.core import Calibration, Frame, Prediction
from adatom.learning.network import STRIDE, UNet
from adatom.learning.prepare import normalise, resample, resampled_length
from adatom.learning.weights import Ensemble

_TILE = 1024  # working pixels; larger frames are done in tiles, so that memory stays bounded
_OVERLAP = 48  # more than the network's reach to either side


@torch.inference_mode()
def predict(frame: Frame, ensemble: Ensemble) -> Prediction:
    """Probability maps of every member.

    Parameters
    ----------
    frame
        Any size, odd sides too; its pixel size decides how it is brought to the working scale.
    ensemble
        Trained networks.

    Returns
    -------
    Maps at the ensemble's working pixel size; the origin is the frame's.
    """
    image = resample(frame.data, frame.calibration, ensemble.working)
    image = normalise(image, ensemble.working)
    shape = (len(ensemble.members), len(ensemble.classes), *image.shape)
    out = np.empty(shape, dtype=np.float32)
    for rows, cols, keep_rows, keep_cols in _tiles(image.shape):
        tile = image[rows, cols]
        for m, member in enumerate(ensemble.members):
            inner = (
                slice(keep_rows.start - rows.start, keep_rows.stop - rows.start),
                slice(keep_cols.start - cols.start, keep_cols.stop - cols.start),
            )
            out[m, :, keep_rows, keep_cols] = _run(member, tile)[:, inner[0], inner[1]]
    return Prediction(out, ensemble.classes, ensemble.working, frame.index)


def map_shape(
    shape: tuple[int, int], calibration: Calibration, working: Calibration
) -> tuple[int, int]:
    """Rows and columns of the maps of a frame.

    Parameters
    ----------
    shape
        Rows and columns of the frame.
    calibration, working
        Pixel size of the frame and of the networks.
    """
    ratio = working.pixel_size_A / calibration.pixel_size_A
    return resampled_length(shape[0], ratio), resampled_length(shape[1], ratio)


def _run(member: UNet, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (class, row, col) of one image, padded to the stride and cropped again."""
    rows, cols = image.shape
    grown = (
        max(-(-rows // STRIDE) * STRIDE, 4 * STRIDE),
        max(-(-cols // STRIDE) * STRIDE, 4 * STRIDE),
    )
    padded = np.pad(image, ((0, grown[0] - rows), (0, grown[1] - cols)), mode="symmetric")
    logits = member(torch.from_numpy(padded)[None, None])
    out: NDArray[np.float32] = torch.sigmoid(logits)[0, :, :rows, :cols].numpy()
    return out


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Tiles as (rows, cols) to run and the part (rows, cols) of the frame to keep of each.

    Tiles start on multiples of the stride, so that pooling falls as it does in the whole frame
    and no seam shows.
    """
    step = (_TILE - 2 * _OVERLAP) // STRIDE * STRIDE
    for r in range(0, shape[0], step):
        for c in range(0, shape[1], step):
            r0, c0 = max(r - _OVERLAP, 0), max(c - _OVERLAP, 0)
            r1, c1 = min(r + step + _OVERLAP, shape[0]), min(c + step + _OVERLAP, shape[1])
            yield (
                slice(r0, r1),
                slice(c0, c1),
                slice(r, min(r + step, shape[0])),
                slice(c, min(c + step, shape[1])),
            )
