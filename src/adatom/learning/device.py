"""Where networks run, and on how many threads: the processor, or a GPU that the user names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from adatom.errors import BadInput

VARIABLE = "ADATOM_DEVICE"


def chosen_device() -> torch.device:
    """Give the device that the environment names, by default the processor.

    It belongs to the machine and not to the experiment, so that a campaign's configuration does
    not say it; processes that are started inherit it.

    Raises
    ------
    BadInput
        If ``ADATOM_DEVICE`` names no device, or one that this machine or this torch lacks.
    """
    name = os.environ.get(VARIABLE, "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as torch was built
        raise BadInput(
            VARIABLE,
            expected="cpu, or a GPU that torch can use: cuda, cuda:1, xpu, mps",
            got=f"{name} ({str(error).splitlines()[0]})",
            todo="Install torch for that GPU, or leave the variable out.",
        ) from error
    return device


def describe_device() -> str:
    """Tell in a sentence where networks will run, and of a GPU that would be left idle.

    Raises
    ------
    BadInput
        As `chosen_device`.
    """
    device = chosen_device()
    told = f"Networks run on {device}"
    if device.type == "cpu" and torch.cuda.is_available():
        return f"{told}; set {VARIABLE}=cuda to use {torch.cuda.get_device_name(0)}"
    return told


def use_threads(count: int) -> None:
    """Set the number of processor threads of networks and linear algebra in this process.

    A worker process uses one: its products of small matrices would otherwise wait for threads of
    the other workers.
    """
    torch.set_num_threads(max(count, 1))
    threadpool_limits(limits=max(count, 1), user_api="blas")


@contextmanager
def threads_in_use(count: int) -> Iterator[None]:
    """Use so many threads for the networks of each caller inside, and one for linear algebra."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(count, 1))
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
