"""Kinds of ensembles: how members are made different. The heads of the networks are the members."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch

from adatom.core import LabelledFrame
from adatom.learning.network import ConvNorm, Network, Trunk
from adatom.learning.train import Source, TrainOptions, fit, prepare

Progress = Callable[[int, float], None]  # called with the step and the running loss
_DROPOUT = 0.15  # probability that a channel is dropped
_TUNE_DIVISOR = 8  # a member tuned from a common start takes this fraction of the steps, 1 / 8
_SWAG_RANK = 10  # rank of SWAG's covariance (Maddox et al. use 20)
_NORM_BATCHES = 12  # batches that measure the normalisation of a sampled network: about 100 frames
_NORM_MOMENTUM = 0.1  # torch's default momentum of batch normalisation


def heads_of(options: TrainOptions) -> list[int]:
    """Give the number of heads of each network that is trained before `diversify`.

    ``shared``: a few trunks, each with an equal share of the members. ``scratch``: one trunk per
    member. All other kinds: one network with one head.

    Examples
    --------
    >>> from adatom.learning.kinds import heads_of
    >>> from adatom.learning.train import TrainOptions
    >>> heads_of(TrainOptions(kind="shared", members=7, trunks=3))
    [3, 2, 2]
    """
    if options.kind == "scratch":
        return [1] * options.members
    if options.kind == "shared":
        trunks = min(options.trunks, options.members)
        return [len(part) for part in np.array_split(np.arange(options.members), trunks)]
    return [1]


def train_start(
    source: Source,
    classes: int,
    seed: int,
    heads: int,
    options: TrainOptions,
    progress: Progress | None = None,
    trunk: Trunk | None = None,
) -> Network:
    """Train one network, from scratch or from a trained trunk.

    Parameters
    ----------
    source
        Source of labelled frames.
    classes
        Number of probability maps of each member.
    seed
        Seed of the weights and of the data.
    heads
        Number of members on the trunk.
    options
        See `TrainOptions`.
    progress
        Called with the step and the running loss.
    trunk
        Trained trunk to start from, left unchanged; None for random weights.
    """
    torch.manual_seed(seed)
    dropout = _DROPOUT if options.kind == "dropout" else 0.0
    network = Network(classes, options.width, heads, dropout)
    if trunk is not None:
        network.trunk.load_state_dict(trunk.state_dict())
    rate = options.learning_rate
    return fit(
        network, source, seed, options, steps=options.steps, learning_rate=rate, progress=progress
    )


def diversify(
    start: Network, source: Source, seed: int, options: TrainOptions, member: int = 0
) -> list[Network]:
    """Make different members from one trained network, by `options.kind`.

    Parameters
    ----------
    start
        Network from `train_start`; left unchanged.
    source
        Source of labelled frames.
    seed
        Seed of the differences between members.
    options
        See `TrainOptions`.
    member
        Number of the member of a ``baseline`` ensemble; the other kinds make all members at once.

    Returns
    -------
    Networks in evaluation mode.
    """
    if options.kind == "baseline":
        return [_tune(deepcopy(start), source, seed + 1 + member, options)]
    if options.kind == "snapshot":
        return _snapshots(start, source, seed, options)
    if options.kind == "swag":
        return _swag_members(start, source, seed, options)
    if options.kind == "dropout":
        return [_dropout_members(start, seed, options.members)]
    return [start]


def _tune(network: Network, source: Source, seed: int, options: TrainOptions) -> Network:
    """Continue the training with other data, at a third of the learning rate."""
    steps, rate = max(options.steps // _TUNE_DIVISOR, 1), options.learning_rate / 3
    return fit(network, source, seed, options, steps=steps, learning_rate=rate)


def _snapshots(start: Network, source: Source, seed: int, options: TrainOptions) -> list[Network]:
    """Snapshot ensemble: cycle the learning rate and keep the network at the end of each cycle.

    Huang et al., arXiv:1704.00109.
    """
    network, kept = deepcopy(start), [deepcopy(start)]
    for cycle in range(options.members - 1):
        network = _tune(network, source, seed + 1 + cycle, options)
        kept.append(deepcopy(network))
    return kept


def _swag_members(
    start: Network, source: Source, seed: int, options: TrainOptions
) -> list[Network]:
    """Sample networks from a Gaussian fitted to the weights along the training (SWAG).

    Maddox et al., arXiv:1902.02476, eq. 1: the covariance is half diagonal, half of low rank.
    """
    network = deepcopy(start)
    passed = [_weights(network)]
    steps = max(options.steps // _TUNE_DIVISOR, 1)
    for k in range(_SWAG_RANK + 1):
        fit(
            network, source, seed + 1 + k, options, steps=max(steps // 4, 1),
            learning_rate=options.learning_rate / 6,
        )  # fmt: skip
        passed.append(_weights(network))
    rows = torch.stack(passed)
    mean, deviation = rows.mean(dim=0), rows - rows.mean(dim=0)
    spread = deviation.square().mean(dim=0).sqrt()
    generator = torch.Generator().manual_seed(seed)
    out = []
    for k in range(options.members):
        sample = mean + spread / 2**0.5 * torch.randn(mean.shape, generator=generator)
        share = torch.randn(len(rows), generator=generator) / (2 * (len(rows) - 1)) ** 0.5
        member = deepcopy(network)
        _set_weights(member, sample + share @ deviation)
        out.append(_renew_norms(member, source, seed + 1000 + k, options))
    return out


@torch.no_grad()
def _set_weights(network: Network, flat: torch.Tensor) -> None:
    for p in network.parameters():
        own, flat = flat[: p.numel()], flat[p.numel() :]
        p.copy_(own.reshape(p.shape))


def _weights(network: Network) -> torch.Tensor:
    # Weights in channels-last layout have no flat view, so each is copied first.
    return torch.cat([p.detach().contiguous().reshape(-1) for p in network.parameters()])


@torch.no_grad()
def _renew_norms(network: Network, source: Source, seed: int, options: TrainOptions) -> Network:
    """Measure the batch normalisation of a network whose weights were sampled."""
    rng = np.random.default_rng(seed)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    network.train()
    for _ in range(_NORM_BATCHES):
        frames: list[LabelledFrame] = []
        while len(frames) < options.batch:
            frames.extend(source(rng))
        images = [prepare(f, options)[0] for f in frames]
        network(torch.from_numpy(np.stack(images)[:, None]))
    for norm in norms:
        norm.momentum = _NORM_MOMENTUM
    return network.eval()


def _dropout_members(start: Network, seed: int, members: int) -> Network:
    """Monte-Carlo dropout with fixed masks: one head per mask, on the same trunk.

    Gal and Ghahramani, arXiv:1506.02142. The dropped channels are set to zero in the weights of the
    head, so that every run gives the same result.
    """
    generator = torch.Generator().manual_seed(seed)
    network = Network(start.classes, start.width, members)
    network.trunk.load_state_dict(start.trunk.state_dict())
    old, new = _convolution(start.hidden), _convolution(network.hidden)
    with torch.no_grad():
        for k in range(members):
            keep = torch.rand(start.width, generator=generator) >= _DROPOUT
            part = slice(k * old.out_channels, (k + 1) * old.out_channels)
            new.weight[part] = old.weight * (keep / (1 - _DROPOUT))[None, :, None, None]
            for name, value in start.hidden[1].state_dict().items():
                if value.ndim:
                    network.hidden[1].state_dict()[name][part] = value
            out = slice(k * start.out.out_channels, (k + 1) * start.out.out_channels)
            network.out.weight[out] = start.out.weight
            if network.out.bias is not None and start.out.bias is not None:
                network.out.bias[out] = start.out.bias
    return network.eval()


def _convolution(block: ConvNorm) -> torch.nn.Conv2d:
    first = block[0]
    assert isinstance(first, torch.nn.Conv2d)  # ConvNorm is made so  # noqa: S101
    return first
