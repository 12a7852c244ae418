"""Local worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor

# Environment variables that limit a worker to one thread, read when a library is loaded.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def local_processes(workers: int) -> ProcessPoolExecutor:
    """Open a pool of spawned processes, each with one thread.

    Processes are spawned and not forked, because OpenMP hangs in a forked process. A worker ends
    within a second after its parent was killed, so an interrupted campaign leaves no process.

    Parameters
    ----------
    workers
        Number of processes.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)


def cores() -> int:
    """Count the CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Windows and macOS
        return os.cpu_count() or 1


def _start_worker() -> None:
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        time.sleep(0.5)
    os._exit(1)
