"""The device and the number of threads of the networks: the processor, or a GPU by choice."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from adatom.errors import BadInput
from adatom.parallel.processes import cores

VARIABLE = "ADATOM_DEVICE"  # environment variable with the name of a torch device
_PROCESSOR = "cpu"

_threads: int | None = None  # of the networks in this process; None for one per core


def chosen_gpu() -> str | None:
    """Give torch's name of the GPU that the environment names; None for the processor.

    The device is a property of the machine and not of the experiment, so it is not in the campaign
    configuration. Worker processes inherit the environment variable.

    Raises
    ------
    BadInput
        If ``ADATOM_DEVICE`` names no device, or one that this machine or this torch lacks.
    """
    name = os.environ.get(VARIABLE, _PROCESSOR)
    if name == _PROCESSOR:
        return None
    import torch  # it takes seconds, and the processor does without

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
    return None if device.type == _PROCESSOR else name


def describe_device() -> str:
    """Describe in one sentence where networks run, and name a GPU that is not used.

    Raises
    ------
    BadInput
        As `chosen_gpu`.
    """
    import torch

    gpu = chosen_gpu()
    text = f"Networks run on {gpu or _PROCESSOR}"
    if gpu is None and torch.cuda.is_available():
        return f"{text}; set {VARIABLE}=cuda to use {torch.cuda.get_device_name(0)}"
    return text


def threads() -> int:
    """Give the number of processor threads of networks in this process.

    It is the one of `use_threads`, or that of ``OMP_NUM_THREADS``, or one per core.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    return _threads or (int(told) if told.isdecimal() and int(told) else cores())


def use_threads(count: int) -> None:
    """Set the number of processor threads of networks and linear algebra in this process.

    A worker process uses one thread. With more, its products of small matrices would wait for the
    threads of the other workers.
    """
    _set_threads(max(count, 1))
    threadpool_limits(limits=max(count, 1), user_api="blas")


@contextmanager
def threads_in_use(count: int) -> Iterator[None]:
    """Within the context, use `count` threads for networks and one for linear algebra."""
    before = _threads
    _set_threads(max(count, 1))
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        _set_threads(before)


def _set_threads(count: int | None) -> None:
    global _threads  # noqa: PLW0603  # a property of the process, as torch's own
    _threads = count
    if "torch" in sys.modules:  # a training that imports it later asks for `threads`
        sys.modules["torch"].set_num_threads(threads())
