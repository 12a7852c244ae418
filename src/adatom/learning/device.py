"""The device and the number of threads of the networks: the processor, or a GPU by choice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from adatom.errors import BadInput

VARIABLE = "ADATOM_DEVICE"  # environment variable with the name of a torch device


def chosen_device() -> torch.device:
    """Give the device that the environment names, by default the processor.

    The device is a property of the machine and not of the experiment, so it is not in the campaign
    configuration. Worker processes inherit the environment variable.

    Raises
    ------
    BadInput
        If ``ADATOM_DEVICE`` names no device, or one that this machine or this torch lacks.
    """
    name = os.environ.get(VARIABLE, "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # depends on how torch was built
        raise BadInput(
            VARIABLE,
            expected="cpu, or a GPU that torch can use: cuda, cuda:1, xpu, mps",
            got=f"{name} ({str(error).splitlines()[0]})",
            todo="Install torch for that GPU, or leave the variable out.",
        ) from error
    return device


def describe_device() -> str:
    """Describe in one sentence where networks run, and name a GPU that is not used.

    Raises
    ------
    BadInput
        As `chosen_device`.
    """
    device = chosen_device()
    text = f"Networks run on {device}"
    if device.type == "cpu" and torch.cuda.is_available():
        return f"{text}; set {VARIABLE}=cuda to use {torch.cuda.get_device_name(0)}"
    return text


def use_threads(count: int) -> None:
    """Set the number of processor threads of networks and linear algebra in this process.

    A worker process uses one thread. With more, its products of small matrices would wait for the
    threads of the other workers.
    """
    torch.set_num_threads(max(count, 1))
    threadpool_limits(limits=max(count, 1), user_api="blas")


@contextmanager
def threads_in_use(count: int) -> Iterator[None]:
    """Within the context, use `count` threads for networks and one for linear algebra."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(count, 1))
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
