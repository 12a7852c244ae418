"""Prediction: the probability maps of every member, for a frame of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from adatom.core import Calibration, Frame, Prediction
from adatom.learning.device import chosen_device
from adatom.learning.network import FOLD, STRIDE, Network
from adatom.learning.prepare import normalise, resample, resampled_length
from adatom.learning.weights import Ensemble

TILE_PX = 1024  # edge of a tile, working pixels; tiles bound the memory for large frames
OVERLAP_PX = 96  # overlap of tiles, working pixels; larger than half the receptive field
_STRIP_ROWS = 32  # rows of the trunk's map per step of the heads: fits the caches


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
    >>> from adatom.learning.ensemble import predict
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


@torch.inference_mode()
def predict_tiles(
    frame: Frame, ensemble: Ensemble, *, tile_px: int = TILE_PX
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
    device = chosen_device()
    networks = ensemble.fused_networks(device)
    for rows, cols, inner in _tiles(whole, tile_px):
        tile = image[rows, cols]
        padded = tuple(max(-(-n // STRIDE) * STRIDE, 4 * STRIDE) for n in tile.shape)
        pad = [(0, p - n) for p, n in zip(padded, tile.shape, strict=True)]
        x = torch.from_numpy(np.pad(tile, pad, mode="symmetric"))[None, None]
        maps = member_probabilities(networks, x.to(device))
        yield Prediction(
            maps[:, :, : tile.shape[0], : tile.shape[1]].cpu().numpy(),
            ensemble.classes,
            ensemble.working,
            frame.index,
            ensemble.spot_A,
            (rows.start, cols.start),
            whole,
            inner,
        )


def member_probabilities(networks: Sequence[Network], x: torch.Tensor) -> torch.Tensor:
    """Compute the probabilities of every member for one image.

    Parameters
    ----------
    networks
        Networks in evaluation mode, on the device of the image.
    x
        Normalised image, shape (1, 1, row, col); sides are multiples of `STRIDE`.

    Returns
    -------
    Probabilities, shape (member, class, row, col), on the device of the image.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    members = sum(n.heads for n in networks)
    maps = torch.empty((members, networks[0].classes, *x.shape[2:]), device=x.device)
    first = 0
    for network in networks:
        _write_head_probabilities(network, network.trunk(x), maps[first : first + network.heads])
        first += network.heads
    return maps


def _write_head_probabilities(network: Network, trunk: torch.Tensor, out: torch.Tensor) -> None:
    """Write the probabilities of the heads, shape (member, class, row, col), into `out`.

    The result equals that of `Network.forward`. The heads run on strips of rows, because the hidden
    maps of a whole frame exceed the caches and cost as much in page faults as in arithmetic. The
    grouped 1 x 1 convolution is a batched matrix product, because torch's own is slow.
    """
    heads, classes, (rows, cols) = network.heads, network.classes, trunk.shape[2:]
    weight, bias = network.out.weight, network.out.bias
    assert bias is not None  # it is made with one  # noqa: S101
    weight = weight.view(heads, classes * FOLD**2, -1)
    bias = bias.view(heads, -1, 1)
    unfolded = out.view(heads, classes, rows, FOLD, cols, FOLD)
    strip = _STRIP_ROWS if trunk.device.type == "cpu" else rows
    for low in range(0, rows, strip):
        high = min(low + strip, rows)
        top = max(low - 1, 0)  # one row more on each side: the hidden layer has 3 x 3 kernels
        hidden = network.hidden(trunk[:, :, top : high + 1])[0, :, low - top :][:, : high - low]
        # (channel, row, col) in channels-last memory to (member, channel, pixel), without a copy.
        flat = hidden.permute(1, 2, 0).reshape(-1, heads, weight.shape[2]).permute(1, 2, 0)
        maps = torch.baddbmm(bias, weight, flat).sigmoid_()
        maps = maps.view(heads, classes, FOLD, FOLD, high - low, cols)
        unfolded[:, :, low:high] = maps.permute(0, 1, 4, 2, 5, 3)


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
    >>> from adatom.learning.ensemble import map_shape
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
