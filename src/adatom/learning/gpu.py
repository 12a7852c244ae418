"""The networks on a GPU, by torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adatom.core.arrays import Image
from adatom.learning.ensemble import NetworkWeights
from adatom.learning.layout import FOLD
from adatom.learning.network import Network, fused, network_of


@dataclass(frozen=True, slots=True, eq=False)
class GpuRunner:
    """Compute the members' probabilities on a GPU.

    Parameters
    ----------
    networks
        Networks for fast prediction: batch normalisation folded in, channels last.
    device
        Where they are.
    """

    networks: tuple[Network, ...]
    device: torch.device

    @classmethod
    def of(cls, networks: Sequence[NetworkWeights], device: str) -> GpuRunner:
        """Copy networks to a GPU."""
        copies = [fused(network_of(weights)).to(device) for weights in networks]
        for copy in copies:
            copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(tuple(copies), torch.device(device))

    @torch.inference_mode()
    def __call__(self, image: Image) -> NDArray[np.float32]:
        """Compute probabilities, shape (member, class, row, col), of a normalised image."""
        x = torch.from_numpy(image)[None, None].to(self.device)
        return member_probabilities(self.networks, x).cpu().numpy()


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
    shape = members, networks[0].classes, *x.shape[2:]
    maps = torch.empty(shape, device=x.device, dtype=x.dtype)
    first = 0
    for network in networks:
        _write_head_probabilities(network, network.trunk(x), maps[first : first + network.heads])
        first += network.heads
    return maps


def _write_head_probabilities(network: Network, trunk: torch.Tensor, out: torch.Tensor) -> None:
    """Write the probabilities of the heads, shape (member, class, row, col), into `out`.

    The result equals that of `Network.forward`. The grouped 1 x 1 convolution is a batched matrix
    product, because torch's own is slow.
    """
    heads, classes, (rows, cols) = network.heads, network.classes, trunk.shape[2:]
    weight, bias = network.out.weight, network.out.bias
    assert bias is not None  # it is made with one  # noqa: S101
    weight = weight.view(heads, classes * FOLD**2, -1)
    bias = bias.view(heads, -1, 1)
    unfolded = out.view(heads, classes, rows, FOLD, cols, FOLD)
    hidden = network.hidden(trunk)[0]
    # (channel, row, col) in channels-last memory to (member, channel, pixel), without a copy.
    flat = hidden.permute(1, 2, 0).reshape(-1, heads, weight.shape[2]).permute(1, 2, 0)
    maps = torch.baddbmm(bias, weight, flat).sigmoid_()
    maps = maps.view(heads, classes, FOLD, FOLD, rows, cols)
    unfolded[:] = maps.permute(0, 1, 4, 2, 5, 3)
