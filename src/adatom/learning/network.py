"""The network: a small U-Net that gives, for every pixel and class, the chance of an atom there."""

from __future__ import annotations

import torch
from torch import nn

_DEPTH = 3
STRIDE = 2**_DEPTH  # sides are padded to multiples of this


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, inputs, row, col) to (batch, outputs, row, col)."""
        out: torch.Tensor = self.layers(x)
        return out


class UNet(nn.Module):
    """Encoder and decoder with skips, three levels (Ronneberger et al., arXiv:1505.04597).

    Parameters
    ----------
    classes
        Number of maps to give.
    width
        Channels at full resolution; doubled at every level.
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.classes, self.width = classes, width
        w = [width * 2**i for i in range(_DEPTH + 1)]
        self.down = nn.ModuleList([Block(1 if i == 0 else w[i - 1], w[i]) for i in range(_DEPTH)])
        self.bottom = Block(w[_DEPTH - 1], w[_DEPTH])
        self.up = nn.ModuleList([Block(w[i + 1] + w[i], w[i]) for i in reversed(range(_DEPTH))])
        self.pool = nn.MaxPool2d(2)
        self.grow = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.head = nn.Conv2d(width, classes, 1)
        # Atoms' centres cover a few per cent of the pixels: start from there.
        nn.init.constant_(self.head.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, class, row, col) of images (batch, 1, row, col); sides in `STRIDE`s."""
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([self.grow(x), skip], dim=1))
        out: torch.Tensor = self.head(x)
        return out
