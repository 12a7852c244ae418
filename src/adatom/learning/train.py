"""Training: fresh simulated frames at every step, soft sub-pixel targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch.nn import functional

from adatom.core import Calibration, LabelledFrame
from adatom.learning.device import chosen_device
from adatom.learning.network import STRIDE, Network
from adatom.learning.prepare import normalise, resample

Source = Callable[[np.random.Generator], Sequence[LabelledFrame]]
Kind = Literal["shared", "scratch", "baseline", "swag", "snapshot", "dropout"]
# Foreign atoms and vacancies are rare: each class's map has this weight in the loss. A weight on a
# whole class, atoms and emptiness alike, leaves its probabilities where they were.
_RARE_WEIGHT = 3.0
_DOUBT = 3.0  # around a doubtful place less is learned: this far, in widths of a target
_SEEN = 0.75  # share of the frames that each head learns from; heads differ by it


class TrainOptions(BaseModel):
    """How an ensemble is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field("shared", description="how members come to differ, see learning.kinds")
    members: int = Field(10, ge=1, description="members of the ensemble")
    trunks: int = Field(2, ge=1, description="trunks that the members of a shared ensemble have")
    steps: int = Field(8000, ge=1, description="optimiser steps of a network from scratch")
    batch: int = Field(8, ge=1, description="frames a step")
    side_px: int = Field(112, ge=32, description="edge of a training frame, working pixels")
    working_pixel_size_A: float = Field(0.2, gt=0, description="working scale, Å")
    target_sigma_A: float = Field(0.25, gt=0, description="width of the target spots, Å")
    width: int = Field(32, ge=4, description="channels of a trunk's finest level")
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate of AdamW")
    start: str = Field(
        "scratch", description="ensemble whose trunks to start from: a name that ships, or scratch"
    )

    def at_scale(self, scale: float) -> TrainOptions:
        """Give the same options for a material whose pattern is `scale` times graphene's."""
        return self.model_copy(
            update={
                "working_pixel_size_A": self.working_pixel_size_A * scale,
                "target_sigma_A": self.target_sigma_A * scale,
            }
        )

    @property
    def field_A(self) -> float:
        """Edge of the field that a training frame must cover, Å."""
        return self.side_px * self.working_pixel_size_A


def targets(
    labelled: LabelledFrame, shape: tuple[int, int], working: Calibration, sigma_A: float
) -> NDArray[np.float32]:
    """Soft targets: a Gaussian at every atom, peak one, or the probability of its class.

    Parameters
    ----------
    labelled
        A frame and the positions and classes of its atoms.
    shape
        Rows and columns of the targets.
    working
        Their pixel size.
    sigma_A
        Width of the Gaussians, Å.

    Returns
    -------
    Targets, shape (class + 1, row, col), 0 to 1; the last is of empty lattice sites.
    """
    sigma = working.pixels(sigma_A)
    rc, empty = working.rc(labelled.xy), working.rc(labelled.vacancies_xy)
    p = labelled.p_species
    p = np.eye(len(labelled.classes))[labelled.species] if p is None else p
    groups = [(rc[own > 0], own[own > 0]) for own in p.T]
    out = np.zeros((len(groups) + 1, *shape), dtype=np.float32)
    scale = np.float32(-0.5 / sigma**2)
    for k, (own, peak) in enumerate([*groups, (empty, np.ones(len(empty)))]):
        dy = (np.arange(shape[0])[None, :] - own[:, :1]).astype(np.float32)
        dx = (np.arange(shape[1])[None, :] - own[:, 1:]).astype(np.float32)
        rows = np.exp(scale * dy**2) * peak[:, None].astype(np.float32)
        out[k] = np.minimum(rows.T @ np.exp(scale * dx**2), 1.0)
    return out


def prepare(
    labelled: LabelledFrame, options: TrainOptions
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Make the input, the targets and their weights of one labelled frame.

    Parameters
    ----------
    labelled
        Of any size; one smaller than `options.field_A` is mirrored at its far borders, where
        nothing is learned.
    options
        Working scale, size and width of the targets.

    Returns
    -------
    Input, shape (row, col), normalised; targets, shape (class + 1, row, col), 0 to 1; and the
    weight of every pixel in the loss, shape (row, col), 0 to 1.
    """
    working = Calibration(options.working_pixel_size_A)
    side = options.side_px // STRIDE * STRIDE
    image = resample(labelled.frame.data, labelled.frame.calibration, working)[:side, :side]
    image = normalise(image)
    weight = _confidence(labelled, image.shape, working, options.target_sigma_A)
    lacking = [(0, side - n) for n in image.shape]
    if any(after for _, after in lacking):
        image = np.pad(image, lacking, mode="symmetric")
        weight = np.pad(weight, lacking)
    return image, targets(labelled, (side, side), working, options.target_sigma_A), weight


def _confidence(
    labelled: LabelledFrame, shape: tuple[int, ...], working: Calibration, sigma_A: float
) -> NDArray[np.float32]:
    """Weight of every pixel: less around what is doubtful."""
    weight = np.ones(shape, dtype=np.float32)
    reach = int(np.ceil(_DOUBT * working.pixels(sigma_A)))
    for at, doubt in zip(working.rc(labelled.doubtful_xy), labelled.doubt, strict=True):
        row, col = (round(float(v)) for v in at)
        rows = slice(max(row - reach, 0), max(row + reach + 1, 0))
        cols = slice(max(col - reach, 0), max(col + reach + 1, 0))
        y, x = np.mgrid[rows, cols]
        part = weight[rows, cols]
        y, x = y[: part.shape[0], : part.shape[1]], x[: part.shape[0], : part.shape[1]]
        near = (y - row) ** 2 + (x - col) ** 2 <= reach**2
        part[near] = np.minimum(part[near], np.float32(1.0 - doubt))
    return weight


def _batch(
    source: Source,
    rng: np.random.Generator,
    waiting: list[LabelledFrame],
    options: TrainOptions,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw a batch: inputs (frame, 1, row, col), targets (frame, 1, class, row, col), weights.

    Frames that a draw gave beyond the batch stay in `waiting` for the next one.
    """
    while len(waiting) < options.batch:
        waiting.extend(source(rng))
    frames = [prepare(waiting.pop(0), options) for _ in range(options.batch)]
    images, wanted, counted = (torch.from_numpy(np.stack(p)) for p in zip(*frames, strict=True))
    return images[:, None], wanted[:, None], counted


def _one_cycle(
    optimiser: torch.optim.Optimizer, learning_rate: float, steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    rising = min(0.1, 300 / steps)
    if abs(rising * steps - 1.0) < 0.01:  # the schedule divides by the length of its first phase
        rising *= 1.2
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=steps, pct_start=rising
    )


def fit(
    network: Network,
    source: Source,
    seed: int,
    options: TrainOptions,
    *,
    steps: int,
    learning_rate: float,
    progress: Callable[[int, float], None] | None = None,
) -> Network:
    """Train a network, from where it stands, by one cycle of the learning rate.

    Parameters
    ----------
    network
        Changed in place.
    source
        Gives fresh labelled frames, at least `options.field_A` wide, one or a few at a time.
    seed
        Seeds the data and the frames that each head sees.
    options
        See `TrainOptions`.
    steps
        Optimiser steps.
    learning_rate
        Its peak.
    progress
        Called with the step and the running loss.

    Returns
    -------
    The same network, in evaluation mode.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    device = chosen_device()
    network.train().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.4 x faster
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = _one_cycle(optimiser, learning_rate, steps)
    running = float("nan")
    waiting: list[LabelledFrame] = []
    for step in range(steps):
        x, y, counted = (t.to(device) for t in _batch(source, rng, waiting, options))
        loss = _loss(network, x, y, counted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        value = float(loss.detach())
        running = value if np.isnan(running) else 0.98 * running + 0.02 * value
        if progress is not None:
            progress(step, running)
    return network.cpu().eval()


def _loss(
    network: Network, x: torch.Tensor, y: torch.Tensor, counted: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of a batch as `_batch` gives it, over the frames that each head sees."""
    weight = torch.full((network.classes, 1, 1), _RARE_WEIGHT, device=x.device)
    weight[0] = 1.0
    logits = network(x.contiguous(memory_format=torch.channels_last))
    each = functional.binary_cross_entropy_with_logits(
        logits, y.expand_as(logits), reduction="none"
    )
    each = (each * weight * counted[:, None, None]).mean(dim=(2, 3, 4))
    # Drawn on the processor, whose generator is seeded: the same frames on any device.
    seen = (torch.rand(each.shape) < _SEEN) if network.heads > 1 else torch.ones(each.shape)
    seen = seen.to(x.device)
    return (each * seen).sum() / seen.sum().clamp(min=1)
