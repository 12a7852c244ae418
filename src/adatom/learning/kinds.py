"""The ways in which members come to differ; each gives networks whose heads are the members."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch

from adatom.core import LabelledFrame
from adatom.learning.network import ConvNorm, Network, Trunk
from adatom.learning.train import Source, TrainOptions, fit, prepare

Note = Callable[[int, float], None]
_DROPOUT = 0.15
_TUNE = 8  # a member tuned from a common start takes one step in so many
_RANK = 10  # deviations that SWAG keeps
_NORM_BATCHES = 12  # frames that renew a sampled network's normalisation, in batches


def heads_of(options: TrainOptions) -> list[int]:
    """Heads of each network that is trained from scratch.

    ``shared``: a few trunks that share the members out; ``scratch``: a trunk a member; all others:
    one network with one head.
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
    note: Note | None = None,
    trunk: Trunk | None = None,
) -> Network:
    """Train one network, from scratch or on a trunk that has learned to see already.

    Parameters
    ----------
    source
        Gives fresh labelled frames.
    classes
        Maps of each member.
    seed
        Of the weights and the data.
    heads
        Members on its trunk.
    options
        See `TrainOptions`.
    note
        Called with the step and the running loss.
    trunk
        What to start from; left as it is.
    """
    torch.manual_seed(seed)
    dropout = _DROPOUT if options.kind == "dropout" else 0.0
    network = Network(classes, options.width, heads, dropout)
    if trunk is not None:
        network.trunk.load_state_dict(trunk.state_dict())
    rate = options.learning_rate
    return fit(
        network, source, seed, options, steps=options.steps, learning_rate=rate, progress=note
    )


def diversify(
    start: Network, source: Source, seed: int, options: TrainOptions, member: int = 0
) -> list[Network]:
    """Make the members of one trained network, by the kind of the options.

    Parameters
    ----------
    start
        From `train_start`; left as it is.
    source
        Gives fresh labelled frames.
    seed
        Of what makes members differ.
    options
        See `TrainOptions`.
    member
        Which member of a ``baseline`` ensemble to tune; the other kinds make all in one go.

    Returns
    -------
    Networks in evaluation mode.
    """
    if options.kind == "baseline":
        return [_tune(deepcopy(start), source, seed + 1 + member, options)]
    if options.kind == "snapshot":
        return _snapshots(start, source, seed, options)
    if options.kind == "swag":
        return _swag(start, source, seed, options)
    if options.kind == "dropout":
        return [_masked(start, seed, options.members)]
    return [start]


def _tune(network: Network, source: Source, seed: int, options: TrainOptions) -> Network:
    """Train on from a common start with data of its own, at a third of the learning rate."""
    steps, rate = max(options.steps // _TUNE, 1), options.learning_rate / 3
    return fit(network, source, seed, options, steps=steps, learning_rate=rate)


def _snapshots(start: Network, source: Source, seed: int, options: TrainOptions) -> list[Network]:
    """Cycle the learning rate and keep the network at the end of each cycle.

    Huang et al., arXiv:1704.00109.
    """
    network, kept = deepcopy(start), [deepcopy(start)]
    for cycle in range(options.members - 1):
        network = _tune(network, source, seed + 1 + cycle, options)
        kept.append(deepcopy(network))
    return kept


def _swag(start: Network, source: Source, seed: int, options: TrainOptions) -> list[Network]:
    """Sample networks from a Gaussian through the weights that training passes by.

    Maddox et al., arXiv:1902.02476, eq. 1: half of the covariance diagonal, half of low rank.
    """
    network = deepcopy(start)
    passed = [_weights(network)]
    steps = max(options.steps // _TUNE, 1)
    for k in range(_RANK + 1):
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
    # Channels-last weights have no flat view: each is laid out anew.
    return torch.cat([p.detach().contiguous().reshape(-1) for p in network.parameters()])


@torch.no_grad()
def _renew_norms(network: Network, source: Source, seed: int, options: TrainOptions) -> Network:
    """Measure the normalisation of a network whose weights were sampled."""
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
        norm.momentum = 0.1
    return network.eval()


def _masked(start: Network, seed: int, members: int) -> Network:
    """Monte-Carlo dropout with masks that are drawn once: one head a mask, on the same trunk.

    Gal and Ghahramani, arXiv:1506.02142. What a mask drops of the trunk's channels is dropped from
    the head's weights, so that the answer is the same on every run.
    """
    generator = torch.Generator().manual_seed(seed)
    network = Network(start.classes, start.width, members)
    network.trunk.load_state_dict(start.trunk.state_dict())
    old, new = _conv(start.hidden), _conv(network.hidden)
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


def _conv(block: ConvNorm) -> torch.nn.Conv2d:
    first = block[0]
    assert isinstance(first, torch.nn.Conv2d)  # ConvNorm is made so  # noqa: S101
    return first
