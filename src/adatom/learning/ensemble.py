"""The ensemble at work: every member's probability maps of a frame of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from adatom.core import Calibration, Frame, Prediction
from adatom.learning.device import chosen_device
from adatom.learning.network import FOLD, STRIDE, Network
from adatom.learning.prepare import normalise, resample, resampled_length
from adatom.learning.weights import Ensemble

_TILE = 1024  # working pixels; larger frames are done in tiles, so that memory stays bounded
_STRIP = 32  # rows of a trunk's map that the heads do at a time on a processor
_OVERLAP = 96  # more than the networks' reach to either side


def predict(frame: Frame, ensemble: Ensemble) -> Prediction:
    """Probability maps of every member, of a whole frame.

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
    out: Prediction | None = None
    for tile in predict_tiles(frame, ensemble):
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
def predict_tiles(frame: Frame, ensemble: Ensemble) -> Iterator[Prediction]:
    """Probability maps of every member, tile by tile, so that any frame fits in memory.

    Parameters
    ----------
    frame
        Any size.
    ensemble
        Trained networks.

    Yields
    ------
    Tiles with overlap; their inner parts cover the frame once. A frame of up to `_TILE` working
    pixels is one tile.
    """
    image = resample(frame.data, frame.calibration, ensemble.working)
    image = normalise(image)
    whole = (image.shape[0], image.shape[1])
    device = chosen_device()
    networks = ensemble.fused_networks(device)
    for rows, cols, inner in _tiles(whole):
        tile = image[rows, cols]
        grown = tuple(max(-(-n // STRIDE) * STRIDE, 4 * STRIDE) for n in tile.shape)
        pad = [(0, g - n) for g, n in zip(grown, tile.shape, strict=True)]
        x = torch.from_numpy(np.pad(tile, pad, mode="symmetric"))[None, None]
        maps = _members(networks, x.to(device))
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


def _members(networks: Sequence[Network], x: torch.Tensor) -> torch.Tensor:
    """Probabilities (member, class, row, col) of one image (1, 1, row, col), on its device."""
    x = x.contiguous(memory_format=torch.channels_last)
    members = sum(n.heads for n in networks)
    maps = torch.empty((members, networks[0].classes, *x.shape[2:]), device=x.device)
    first = 0
    for network in networks:
        _heads(network, network.trunk(x), maps[first : first + network.heads])
        first += network.heads
    return maps


def _heads(network: Network, trunk: torch.Tensor, out: torch.Tensor) -> None:
    """Write the heads' probabilities (member, class, row, col) into `out`, as `forward` has them.

    In strips: the hidden maps of a whole frame are larger than any cache and than what the
    allocator keeps, and would cost as much in page faults as in arithmetic. And member by member:
    a grouped convolution of one pixel is slow.
    """
    heads, classes, (rows, cols) = network.heads, network.classes, trunk.shape[2:]
    weight, bias = network.out.weight, network.out.bias
    assert bias is not None  # it is made with one  # noqa: S101
    weight = weight.view(heads, classes * FOLD**2, -1)
    bias = bias.view(heads, -1, 1)
    unfolded = out.view(heads, classes, rows, FOLD, cols, FOLD)
    strip = _STRIP if trunk.device.type == "cpu" else rows
    for low in range(0, rows, strip):
        high = min(low + strip, rows)
        top = max(low - 1, 0)  # one more row to either side: the hidden layer looks that far
        hidden = network.hidden(trunk[:, :, top : high + 1])[0, :, low - top :][:, : high - low]
        # (channel, row, col) in channels-last memory to (member, channel, pixel), without a copy.
        flat = hidden.permute(1, 2, 0).reshape(-1, heads, weight.shape[2]).permute(1, 2, 0)
        maps = torch.baddbmm(bias, weight, flat).sigmoid_()
        maps = maps.view(heads, classes, FOLD, FOLD, high - low, cols)
        unfolded[:, :, low:high] = maps.permute(0, 1, 4, 2, 5, 3)


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


def _tiles(shape: tuple[int, int]) -> Iterator[tuple[slice, slice, tuple[slice, slice]]]:
    """Tiles as (rows, cols) to run and the inner part (rows, cols) of each to keep.

    Tiles start on multiples of the stride, so that pooling falls as it does in the whole frame
    and no seam shows.
    """
    along = []
    for n in shape:
        step = n if n <= _TILE else (_TILE - 2 * _OVERLAP) // STRIDE * STRIDE
        parts = []
        for first in range(0, n, step):
            low, high = max(first - _OVERLAP, 0), min(first + step + _OVERLAP, n)
            parts.append((slice(low, high), slice(first - low, min(first + step, n) - low)))
        along.append(parts)
    for rows, inner_rows in along[0]:
        for cols, inner_cols in along[1]:
            yield rows, cols, (inner_rows, inner_cols)
