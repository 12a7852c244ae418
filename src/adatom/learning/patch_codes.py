"""A variational autoencoder of patches that separates what a patch shows from how it lies.

The network gives each patch an angle, a shift and a few latent numbers. A decoder draws the patch
from the latent numbers on a grid that was turned and shifted, so that equal surroundings in other
directions have equal latent numbers (spatial-VAE: Bepler et al., arXiv:1909.11663).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from adatom.core.arrays import FloatArray
from adatom.errors import BadInput
from adatom.learning.device import chosen_gpu, threads

_FEWEST = 16  # patches that a network can be trained on
_WAVES = 3.0  # typical wave number of the decoder's places, rad per half width
_FIRST_LOG_NOISE = -0.7  # of the pixels, in units of the patches' spread
_ENTROPY = 0.5 * math.log(2.0 * math.pi * math.e)  # of a normal distribution of unit width
_ALONE = 1 / 3  # share of the epochs without latent numbers
_ORDERS = (1, 2, 3)  # symmetries whose directions are tried
_CHOOSE_EVERY = 3  # epochs between two choices of them
_SHIFT = 0.1  # prior standard deviation of the shift, in half widths of a patch


class CodeOptions(BaseModel):
    """How patches are encoded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent: int = Field(2, ge=1, description="latent numbers of a patch")
    hidden: int = Field(64, ge=8, description="width of the hidden layers")
    epochs: int = Field(60, ge=1, description="passes over the patches")
    batch: int = Field(64, ge=8, description="patches a step")
    learning_rate: float = Field(3e-3, gt=0, description="learning rate of Adam")
    seed: int = Field(0, ge=0, description="seed of weights, draws and order")


@dataclass(frozen=True, slots=True, eq=False)
class PatchCodes:
    """What the autoencoder says of each patch.

    Parameters
    ----------
    latent
        What the patch shows, shape (patch, latent).
    latent_sd
        Standard deviation of each latent number, the same shape.
    angle
        How the patch is turned, rad, shape (patch,); only differences mean anything.
    shift_xy
        How it is shifted, shape (patch, 2), in widths of the patch.
    drawn
        What the decoder draws of each patch, upright and centred, shape (patch, pixels, pixels).
    loss
        Mean negative evidence bound of a patch in each epoch.
    """

    latent: FloatArray
    latent_sd: FloatArray
    angle: FloatArray
    shift_xy: FloatArray
    drawn: FloatArray
    loss: tuple[float, ...]


class _Coder(nn.Module):
    """Encoder to angle, shift and latent numbers, and decoder from places and latent numbers."""

    def __init__(self, pixels: int, options: CodeOptions) -> None:
        super().__init__()
        self.latent = options.latent
        outputs = 4 + options.latent + 3 + options.latent
        self.encode = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels * pixels, options.hidden), nn.LeakyReLU(),
            nn.Linear(options.hidden, options.hidden), nn.LeakyReLU(),
            nn.Linear(options.hidden, outputs),
        )  # fmt: skip
        # Waves let the decoder draw spots that are smaller than the patch.
        self.register_buffer("waves", _WAVES * torch.randn(2, options.hidden // 2))
        self.place = nn.Linear(2 * (options.hidden // 2), options.hidden)
        self.content = nn.Linear(options.latent, options.hidden, bias=False)
        self.decode = nn.Sequential(
            nn.LeakyReLU(), nn.Linear(options.hidden, options.hidden), nn.LeakyReLU(),
            nn.Linear(options.hidden, 1),
        )  # fmt: skip
        axis = torch.linspace(-1.0, 1.0, pixels)
        down, right = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("grid", torch.stack([right, down], dim=-1).reshape(-1, 2))
        # Beyond the inner circle a turned patch would need pixels that were not seen.
        self.register_buffer("disc", (self.grid.square().sum(dim=1) <= 1.0).float())
        self.waves: torch.Tensor
        self.grid: torch.Tensor
        self.disc: torch.Tensor
        self.log_noise = nn.Parameter(torch.tensor(_FIRST_LOG_NOISE))

    def encoded(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the standard deviation: angle, shift x, y, latent.

        The angle is that of a vector, so that it has no jump from one turn to the next.
        """
        out = self.encode(x)
        angle = torch.atan2(out[:, 1:2], out[:, :1])
        mean = torch.cat([angle, _SHIFT * out[:, 2:4], out[:, 4 : 4 + self.latent]], dim=1)
        return mean, out[:, 4 + self.latent :].clamp(-6.0, 1.0)

    def drawn(self, pose: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """Pixels of each patch, shape (patch, pixel)."""
        cos, sin = torch.cos(pose[:, :1]), torch.sin(pose[:, :1])
        x = self.grid[None, :, 0] - pose[:, 1:2]
        y = self.grid[None, :, 1] - pose[:, 2:3]
        turned = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)
        phase = turned @ self.waves
        places = torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)
        hidden = self.place(places) + self.content(latent)[:, None, :]
        out: torch.Tensor = self.decode(hidden).squeeze(-1)
        return out

    def losses(
        self, x: torch.Tensor, generator: torch.Generator | None, done: float
    ) -> torch.Tensor:
        """Negative evidence lower bound of patches (patch, pixels, pixels), shape (patch,).

        `done` is the share of the epochs that are over. In the first third, patches differ by
        angle and shift alone; else the latent numbers learn the directions, too. The prior acts
        when the decoder has learned to draw.
        """
        seen, warm = float(done >= _ALONE), min(1.0, 2.0 * done)
        mean, log_sd = self.encoded(x)
        z = mean
        if generator is not None:
            noise = torch.randn(mean.shape, generator=generator).to(mean.device)
            z = mean + torch.exp(log_sd) * noise * warm
        error = self.disc * (self.drawn(z[:, :3], seen * z[:, 3:]) - x.flatten(1)) ** 2
        pixels = self.disc.sum()
        fit = 0.5 * error.sum(dim=1) * torch.exp(-2.0 * self.log_noise) + pixels * self.log_noise
        angle = math.log(2.0 * math.pi) - _ENTROPY - log_sd[:, 0]  # any angle is as likely
        prior = torch.ones(mean.shape[1] - 1, device=mean.device)
        prior[:2] = _SHIFT
        spread = torch.exp(2.0 * log_sd[:, 1:])
        gap = (mean[:, 1:] ** 2 + spread) / prior**2 - 1.0
        kl = angle + (0.5 * gap - log_sd[:, 1:] + torch.log(prior)).sum(dim=1)
        out: torch.Tensor = fit + warm * kl
        return out


def encode_patches(patches: FloatArray, options: CodeOptions | None = None) -> PatchCodes:
    """Train an autoencoder on patches, and encode them with it.

    Parameters
    ----------
    patches
        Square patches, shape (patch, pixels, pixels), finite, such as `patches` cuts.
    options
        See `CodeOptions`.

    Returns
    -------
    Latent numbers, angle and shift of every patch.

    Raises
    ------
    BadInput
        If the patches are not square, not finite or fewer than 16.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> codes = encode_patches(rng.normal(size=(20, 8, 8)), CodeOptions(epochs=2, hidden=16))
    >>> codes.latent.shape, codes.angle.shape
    ((20, 2), (20,))
    """
    options = options or CodeOptions()
    values = _checked(patches)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    device = chosen_gpu() or "cpu"
    torch.set_num_threads(threads())
    coder = _Coder(values.shape[1], options).to(device)
    turned, angles = _turned(torch.from_numpy(values).to(device))
    chosen, losses = _train(coder, turned, options, generator)
    row = torch.arange(len(chosen), device=device)
    return _coded(coder, turned[chosen, row], angles[chosen, row], losses)


def _turned(data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each patch turned back by the directions of its own first symmetries, and these angles.

    Shapes (candidate, patch, pixels, pixels) and (candidate, patch). The candidates turn with the
    patch, so one of them makes equal surroundings equal.
    """
    axis = torch.linspace(-1.0, 1.0, data.shape[1], device=data.device)
    down, right = torch.meshgrid(axis, axis, indexing="ij")
    radius, theta = torch.hypot(right, down), torch.atan2(down, right)
    window = torch.where(radius <= 1.0, radius, torch.zeros_like(radius))
    angles = []
    for order in _ORDERS:
        wave = window * torch.exp(1j * order * theta)
        direction = torch.angle((data * wave).sum(dim=(1, 2))) / order
        angles += [direction + 2.0 * math.pi * k / order for k in range(order)]
    angle = torch.stack(angles)
    out = []
    for each in angle:
        cos, sin = torch.cos(each), torch.sin(each)
        turn = torch.stack([cos, -sin, 0 * cos, sin, cos, 0 * cos], dim=1).reshape(-1, 2, 3)
        grid = functional.affine_grid(turn, [len(data), 1, *data.shape[1:]], align_corners=True)
        cut = functional.grid_sample(data[:, None], grid, padding_mode="border", align_corners=True)
        out.append(cut[:, 0])
    return torch.stack(out), angle


def _train(
    coder: _Coder, turned: torch.Tensor, options: CodeOptions, generator: torch.Generator
) -> tuple[torch.Tensor, tuple[float, ...]]:
    """Train on the best candidate of each patch; their numbers, and the loss of each epoch."""
    optimiser = torch.optim.Adam(coder.parameters(), lr=options.learning_rate)
    chosen = torch.zeros(turned.shape[1], dtype=torch.long, device=turned.device)
    row = torch.arange(turned.shape[1], device=turned.device)
    history = []
    for epoch in range(options.epochs):
        done = epoch / options.epochs
        if epoch % _CHOOSE_EVERY == 0 or epoch == options.epochs - 1:
            with torch.no_grad():
                each = [
                    torch.cat([coder.losses(x, None, done) for x in one.split(256)])
                    for one in turned
                ]
                chosen = torch.stack(each).argmin(dim=0)
        data = turned[chosen, row]
        total = 0.0
        for part in torch.randperm(len(data), generator=generator).split(options.batch):
            loss = coder.losses(data[part.to(data.device)], generator, done).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(part)
        history.append(total / len(data))
    return chosen, tuple(history)


def _checked(patches: FloatArray) -> NDArray[np.float32]:
    """Patches in units of their common spread, float32."""
    values = np.asarray(patches, dtype=np.float64)
    square = values.ndim == 3 and values.shape[1] == values.shape[2]
    if not square or len(values) < _FEWEST or not np.isfinite(values).all():
        raise BadInput(
            "patches",
            expected=f"at least {_FEWEST} square patches (patch, pixels, pixels), all finite",
            got=f"shape {values.shape}, {int((~np.isfinite(values)).sum())} pixels not finite",
            todo="Leave out patches that cross the border of the frame.",
        )
    spread = float(values.std()) or 1.0
    out: NDArray[np.float32] = ((values - values.mean()) / spread).astype(np.float32)
    return out


def _coded(
    coder: _Coder, data: torch.Tensor, turned_by: torch.Tensor, losses: tuple[float, ...]
) -> PatchCodes:
    """Codes of all patches; each had been turned back by an angle, shape (patch,)."""
    pixels = data.shape[1]
    with torch.no_grad():
        mean, log_sd = coder.encoded(data)
        latent = mean[:, 3:]
        upright = latent.new_zeros(len(latent), 3)
        pairs = zip(upright.split(256), latent.split(256), strict=True)
        drawn = torch.cat([coder.drawn(pose, z) for pose, z in pairs])
        cos, sin = torch.cos(turned_by), torch.sin(turned_by)
        x, y = mean[:, 1], mean[:, 2]
        shift = 0.5 * torch.stack([cos * x - sin * y, sin * x + cos * y], dim=1)
        angle = torch.remainder(mean[:, 0] + turned_by, 2.0 * math.pi)

    def array(values: torch.Tensor) -> FloatArray:
        return values.cpu().numpy().astype(np.float64)

    return PatchCodes(
        array(latent), array(torch.exp(log_sd[:, 3:])), array(angle), array(shift),
        array(drawn).reshape(-1, pixels, pixels), losses,
    )  # fmt: skip
