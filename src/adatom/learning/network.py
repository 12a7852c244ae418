"""The network: one trunk with the heads of several members.

The trunk works at twice the working pixel, which still samples the probe finely and is four times
cheaper. The heads return to the working pixel by a pixel shuffle. Members that share a trunk cost
one head each; an ensemble consists of a few such networks.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adatom.learning.ensemble import NetworkWeights
from adatom.learning.layout import CONTEXT, FOLD, HIDDEN, LEVELS

_START_BIAS = -3.0  # logit of the output before training: atoms cover 5 % of the pixels


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and ReLU; the sides shrink by the factor `stride`."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        pad = (kernel - stride) // 2
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=pad, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Trunk(nn.Module):
    """U-Net with three levels and additive skips (after Ronneberger et al., arXiv:1505.04597).

    Parameters
    ----------
    width
        Channels of the finest level.
    dropout
        Probability that training drops a channel of the finest level.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        w1, w2, w3 = (width * k for k in LEVELS)
        self.down1 = nn.Sequential(ConvNorm(1, w1, 3 * FOLD, stride=FOLD), ConvNorm(w1, w1))
        self.down2 = nn.Sequential(ConvNorm(w1, w2), ConvNorm(w2, w2))
        self.bottom = ConvNorm(w2, w3)
        # The coarsest level sees beyond one lattice constant at a low cost.
        self.context = nn.ModuleList(
            [nn.Sequential(ConvNorm(w3, w3), ConvNorm(w3, w3)) for _ in range(CONTEXT)]
        )
        self.narrow2, self.narrow1 = nn.Conv2d(w3, w2, 1), nn.Conv2d(w2, w1, 1)
        self.up2 = nn.Sequential(ConvNorm(w2, w2), ConvNorm(w2, w2))
        self.up1 = nn.Sequential(ConvNorm(w1, w1), ConvNorm(w1, w1))
        self.pool = nn.MaxPool2d(2)
        self.grow = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.drop = nn.Dropout2d(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, 1, row, col) to features (batch, width, row / FOLD, col / FOLD)."""
        one = self.down1(x)
        two = self.down2(self.pool(one))
        three = self.bottom(self.pool(two))
        for block in self.context:
            three = three + block(three)
        two = self.up2(two + self.grow(self.narrow2(three)))
        one = self.up1(one + self.grow(self.narrow1(two)))
        out: torch.Tensor = self.drop(one)
        return out


class Network(nn.Module):
    """A trunk with one head per member.

    Parameters
    ----------
    classes
        Number of probability maps of each member.
    width
        Channels of the finest level of the trunk.
    heads
        Number of members on this trunk.
    dropout
        See `Trunk`.
    """

    def __init__(self, classes: int, width: int = 32, heads: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.classes, self.width, self.heads, self.dropout = classes, width, heads, dropout
        self.trunk = Trunk(width, dropout)
        self.hidden = ConvNorm(width, HIDDEN * heads)
        self.out = nn.Conv2d(HIDDEN * heads, classes * FOLD**2 * heads, 1, groups=heads)
        self.unfold = nn.PixelShuffle(FOLD)
        nn.init.constant_(self.out.bias, _START_BIAS)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits (batch, member, class, row, col) of images (batch, 1, row, col).

        Sides must be multiples of `STRIDE`.
        """
        maps: torch.Tensor = self.unfold(self.out(self.hidden(self.trunk(x))))
        return maps.view(x.shape[0], self.heads, self.classes, *maps.shape[2:])


def weights_of(network: Network) -> NetworkWeights:
    """Copy the weights of a network."""
    tensors = {
        name: value.detach().cpu().contiguous().numpy().copy()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    return NetworkWeights(tensors, network.classes, network.width, network.heads)


def network_of(weights: NetworkWeights) -> Network:
    """Make a network with given weights, in evaluation mode."""
    with torch.device("meta"):  # weights that are replaced at once need no random numbers
        network = Network(weights.classes, weights.width, weights.heads)
    counts = {
        name: torch.zeros((), dtype=torch.long)
        for name, value in network.state_dict().items()
        if not value.is_floating_point()
    }
    state = {name: torch.from_numpy(value.copy()) for name, value in weights.tensors.items()}
    network.load_state_dict(state | counts, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_()
    return network.eval()


def fused(network: Network) -> Network:
    """Fold batch normalisation into the convolutions: the same result at a lower cost.

    Changes a network in evaluation mode in place; it cannot be trained afterwards.
    """
    for module in list(network.modules()):
        if isinstance(module, ConvNorm) and isinstance(module[1], nn.BatchNorm2d):
            conv = module[0]
            assert isinstance(conv, nn.Conv2d)  # ConvNorm is made so  # noqa: S101
            module[0] = fuse_conv_bn_eval(conv, module[1])
            module[1] = nn.Identity()
    return network
