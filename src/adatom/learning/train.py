"""Training of a network: new simulated frames at every step, Gaussian targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch.nn import functional

from adatom.core import Calibration, LabelledFrame
from adatom.learning.device import chosen_gpu, threads
from adatom.learning.layout import STRIDE
from adatom.learning.network import Network
from adatom.learning.prepare import normalise, resample

Source = Callable[[np.random.Generator], Sequence[LabelledFrame]]
Kind = Literal["shared", "scratch", "baseline", "swag", "snapshot", "dropout"]
# Weight of the loss of every class but the host, because impurities and vacancies are rare. The
# weight acts on all pixels of a class, so the probabilities remain unbiased.
_RARE_WEIGHT = 3.0
_DOUBT_RADIUS = 3.0  # radius around a doubtful place with less weight, in target widths
_HEAD_SHARE = 0.75  # share of the frames that each head is trained on; makes the heads different
_WEIGHT_DECAY = 1e-4  # of AdamW
_MAX_GRADIENT = 1.0  # norm at which gradients are clipped
_WARM_UP_STEPS = 300  # steps of rising learning rate, at most a tenth of the training


class TrainOptions(BaseModel):
    """How an ensemble is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field("shared", description="how members are made different, see learning.kinds")
    members: int = Field(10, ge=1, description="members of the ensemble")
    trunks: int = Field(2, ge=1, description="trunks of a shared ensemble")
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
        """Give the same options with all lengths multiplied by `scale`, see `Material.scale`.

        Examples
        --------
        >>> from adatom.learning.train import TrainOptions
        >>> TrainOptions().at_scale(2.0).working_pixel_size_A
        0.4
        """
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
    """Make the target maps: a Gaussian at every atom, whose peak is the probability of the class.

    Parameters
    ----------
    labelled
        Frame with the positions and classes of its atoms.
    shape
        Rows and columns of the targets.
    working
        Pixel size of the targets.
    sigma_A
        Width of the Gaussians, Å.

    Returns
    -------
    Targets, shape (class + 1, row, col), 0 to 1; the last map is that of the vacancies.
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
    """Make the input, the targets and the pixel weights of one labelled frame.

    Parameters
    ----------
    labelled
        Frame of any size. One smaller than `options.field_A` is mirrored at its far borders; the
        mirrored pixels have no weight.
    options
        Working pixel size, edge of the frame, width of the targets.

    Returns
    -------
    Input, shape (row, col), normalised; targets, shape (class + 1, row, col), 0 to 1; and the
    weight of every pixel in the loss, shape (row, col), 0 to 1.
    """
    working = Calibration(options.working_pixel_size_A)
    side = options.side_px // STRIDE * STRIDE
    image = resample(labelled.frame.data, labelled.frame.calibration, working)[:side, :side]
    image = normalise(image)
    weight = _pixel_weights(labelled, image.shape, working, options.target_sigma_A)
    lacking = [(0, side - n) for n in image.shape]
    if any(after for _, after in lacking):
        image = np.pad(image, lacking, mode="symmetric")
        weight = np.pad(weight, lacking)
    return image, targets(labelled, (side, side), working, options.target_sigma_A), weight


def _pixel_weights(
    labelled: LabelledFrame, shape: tuple[int, ...], working: Calibration, sigma_A: float
) -> NDArray[np.float32]:
    """Give the weight of every pixel in the loss: one, less around doubtful places."""
    weight = np.ones(shape, dtype=np.float32)
    reach = int(np.ceil(_DOUBT_RADIUS * working.pixels(sigma_A)))
    for place, doubt in zip(working.rc(labelled.doubtful_xy), labelled.doubt, strict=True):
        row, col = (round(float(v)) for v in place)
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
    queue: list[LabelledFrame],
    options: TrainOptions,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make a batch: inputs, targets and pixel weights in the shapes that `batch_loss` takes.

    `queue` keeps the frames that the source gave beyond this batch.
    """
    while len(queue) < options.batch:
        queue.extend(source(rng))
    frames = [prepare(queue.pop(0), options) for _ in range(options.batch)]
    images, target, pixel_weight = (
        torch.from_numpy(np.stack(p)) for p in zip(*frames, strict=True)
    )
    return images[:, None], target[:, None], pixel_weight


def _one_cycle(
    optimiser: torch.optim.Optimizer, learning_rate: float, steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    rising = min(0.1, _WARM_UP_STEPS / steps)
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
    """Train a network further, by one cycle of the learning rate (Smith, arXiv:1708.07120).

    Parameters
    ----------
    network
        Changed in place.
    source
        Source of labelled frames at least `options.field_A` wide, one or a few per call.
    seed
        Seed of the data and of the choice of frames for each head.
    options
        See `TrainOptions`.
    steps
        Optimiser steps.
    learning_rate
        Peak learning rate.
    progress
        Called with the step and the running loss.

    Returns
    -------
    The same network, in evaluation mode.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    torch.set_num_threads(threads())
    device = torch.device(chosen_gpu() or "cpu")
    network.train().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.4 x faster
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=learning_rate, weight_decay=_WEIGHT_DECAY
    )
    schedule = _one_cycle(optimiser, learning_rate, steps)
    running = float("nan")
    queue: list[LabelledFrame] = []
    for step in range(steps):
        x, y, pixel_weight = (t.to(device) for t in _batch(source, rng, queue, options))
        loss = batch_loss(network, x, y, pixel_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _MAX_GRADIENT)
        optimiser.step()
        schedule.step()
        value = float(loss.detach())
        running = value if np.isnan(running) else 0.98 * running + 0.02 * value
        if progress is not None:
            progress(step, running)
    return network.cpu().eval()


def batch_loss(
    network: Network, x: torch.Tensor, y: torch.Tensor, pixel_weight: torch.Tensor
) -> torch.Tensor:
    """Compute the cross-entropy of a batch; each head is trained on a random share of the frames.

    Parameters
    ----------
    network
        Network in training mode, on the device of the batch.
    x
        Inputs, shape (frame, 1, row, col).
    y
        Targets, shape (frame, 1, class, row, col), 0 to 1.
    pixel_weight
        Weights of the pixels, shape (frame, row, col), 0 to 1.

    Returns
    -------
    The mean over heads, frames, classes and pixels, a scalar.
    """
    weight = torch.full((network.classes, 1, 1), _RARE_WEIGHT, device=x.device)
    weight[0] = 1.0
    logits = network(x.contiguous(memory_format=torch.channels_last))
    each = functional.binary_cross_entropy_with_logits(
        logits, y.expand_as(logits), reduction="none"
    )
    each = (each * weight * pixel_weight[:, None, None]).mean(dim=(2, 3, 4))
    # Drawn on the processor, whose generator is seeded, so that every device uses the same frames.
    used = (torch.rand(each.shape) < _HEAD_SHARE) if network.heads > 1 else torch.ones(each.shape)
    used = used.to(x.device)
    return (each * used).sum() / used.sum().clamp(min=1)
