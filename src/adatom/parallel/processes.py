"""Local processes that never outlive their campaign."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor

# Every worker runs one single-threaded job; numerical libraries read these once, when loaded.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def local_processes(workers: int) -> ProcessPoolExecutor:
    """Open a pool of fresh processes (never forks: OpenMP does not survive one), one thread each.

    A worker whose parent was killed ends within a second, so that an interrupted campaign leaves
    nothing running behind it.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)


def cores() -> int:
    """Count the cores that this process may use."""
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
