"""Prediction: the probability maps of every member, for a frame of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from adatom.core import Calibration, Frame, Prediction
from adatom.core.arrays import Image
from adatom.learning.device import chosen_gpu, threads
from adatom.learning.ensemble import Ensemble
from adatom.learning.graph import Runner
from adatom.learning.layout import STRIDE
from adatom.learning.prepare import normalise, resample, resampled_length

TILE_PX = 1024  # edge of a tile, working pixels; tiles bound the memory for large frames
OVERLAP_PX = 96  # overlap of tiles, working pixels; larger than half the receptive field


def predict(frame: Frame, ensemble: Ensemble, *, tile_px: int = TILE_PX) -> Prediction:
    """Predict the probability maps of every member for a whole frame.

    Parameters
    ----------
    frame
        Frame of any size; it is resampled to the working pixel size of the ensemble.
    ensemble
        Trained ensemble.
    tile_px
        See `predict_tiles`.

    Returns
    -------
    Maps at the working pixel size, shape (member, class, row, col); the origin is the frame's.

    Raises
    ------
    BadInput
        If ``ADATOM_DEVICE`` names a device that is not there.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import Calibration, Frame
    >>> from adatom.learning.predict import predict
    >>> from adatom.learning.weights import load_shipped
    >>> frame = Frame(np.eye(64, dtype=np.float32), Calibration(0.2))
    >>> predict(frame, load_shipped("graphene")).probabilities.shape
    (10, 3, 64, 64)
    """
    out: Prediction | None = None
    for tile in predict_tiles(frame, ensemble, tile_px=tile_px):
        if tile.whole == tile.probabilities.shape[2:]:
            return tile
        if out is None:
            shape = (*tile.probabilities.shape[:2], *tile.whole)
            out = Prediction(
                np.empty(shape, dtype=np.float32), tile.classes, tile.calibration, tile.frame,
                tile.spot_A,
            )  # fmt: skip
        rows, cols = tile.inner
        r, c = tile.origin
        where = slice(r + rows.start, r + rows.stop), slice(c + cols.start, c + cols.stop)
        out.probabilities[:, :, where[0], where[1]] = tile.probabilities[:, :, rows, cols]
    assert out is not None  # a frame has at least one tile  # noqa: S101
    return out


def predict_tiles(
    frame: Frame,
    ensemble: Ensemble,
    *,
    tile_px: int = TILE_PX,
    run: Callable[[Image], NDArray[np.float32]] | None = None,
) -> Iterator[Prediction]:
    """Predict the probability maps of every member tile by tile, with bounded memory.

    Parameters
    ----------
    frame
        Frame of any size.
    ensemble
        Trained ensemble.
    tile_px
        Edge of a tile, working pixels; more than twice `OVERLAP_PX`.
    run
        Computes the maps of a normalised image; by default the ensemble's own runner.

    Yields
    ------
    Overlapping tiles whose inner parts cover the frame once. A frame of up to `tile_px` working
    pixels is one tile.

    Raises
    ------
    BadInput
        If ``ADATOM_DEVICE`` names a device that is not there.
    ValueError
        If a tile has no inner part.
    """
    if tile_px < 2 * OVERLAP_PX + STRIDE:
        raise ValueError(f"expected tiles of at least {2 * OVERLAP_PX + STRIDE}, got {tile_px}")
    image = resample(frame.data, frame.calibration, ensemble.working)
    image = normalise(image)
    whole = (image.shape[0], image.shape[1])
    run = run or _runner(ensemble)
    for rows, cols, inner in _tiles(whole, tile_px):
        tile = image[rows, cols]
        padded = tuple(max(-(-n // STRIDE) * STRIDE, 4 * STRIDE) for n in tile.shape)
        pad = [(0, p - n) for p, n in zip(padded, tile.shape, strict=True)]
        maps = run(np.pad(tile, pad, mode="symmetric"))
        yield Prediction(
            maps[:, :, : tile.shape[0], : tile.shape[1]],
            ensemble.classes,
            ensemble.working,
            frame.index,
            ensemble.spot_A,
            (rows.start, cols.start),
            whole,
            inner,
        )


def _runner(ensemble: Ensemble) -> Callable[[Image], NDArray[np.float32]]:
    """Networks that are ready to run where and as this process runs them."""
    gpu = chosen_gpu()
    key = f"{threads()} threads" if gpu is None else gpu
    runners = ensemble.runners
    if key not in runners:
        if gpu is None:
            runners[key] = Runner.of(ensemble.networks, threads())
        else:
            from adatom.learning.gpu import GpuRunner  # torch takes seconds to import

            runners[key] = GpuRunner.of(ensemble.networks, gpu)
    return runners[key]


def map_shape(
    shape: tuple[int, int], calibration: Calibration, working: Calibration
) -> tuple[int, int]:
    """Give the numbers of rows and columns of the maps of a frame.

    Parameters
    ----------
    shape
        Rows and columns of the frame.
    calibration, working
        Pixel size of the frame and of the networks.

    Examples
    --------
    >>> from adatom.core import Calibration
    >>> from adatom.learning.predict import map_shape
    >>> map_shape((101, 201), Calibration(0.1), Calibration(0.2))
    (51, 101)
    """
    ratio = working.pixel_size_A / calibration.pixel_size_A
    return resampled_length(shape[0], ratio), resampled_length(shape[1], ratio)


def _tiles(
    shape: tuple[int, int], tile_px: int
) -> Iterator[tuple[slice, slice, tuple[slice, slice]]]:
    """Give the rows and columns of each tile, and of its inner part.

    Tiles start at multiples of the stride, so that pooling uses the same pixels as in the whole
    frame and the maps have no seams.
    """
    along = []
    for n in shape:
        step = n if n <= tile_px else (tile_px - 2 * OVERLAP_PX) // STRIDE * STRIDE
        parts = []
        for first in range(0, n, step):
            low, high = max(first - OVERLAP_PX, 0), min(first + step + OVERLAP_PX, n)
            parts.append((slice(low, high), slice(first - low, min(first + step, n) - low)))
        along.append(parts)
    for rows, inner_rows in along[0]:
        for cols, inner_cols in along[1]:
            yield rows, cols, (inner_rows, inner_cols)
