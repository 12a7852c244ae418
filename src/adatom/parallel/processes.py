"""Local worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

# Environment variables that limit a worker to one thread, read when a library is loaded.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def local_processes(workers: int) -> ProcessPoolExecutor:
    """Open a pool of spawned processes, each with one thread.

    Processes are spawned and not forked, because OpenMP hangs in a forked process. A worker ends
    within a second after its parent was killed, so an interrupted campaign leaves no process.

    They do not run the user's script again, as spawned processes do by default: a script needs no
    guard by ``__name__``, and may come from standard input. What they are given must not be defined
    in the script; all of adatom's work is not.

    Parameters
    ----------
    workers
        Number of processes.
    """
    return ProcessPoolExecutor(workers, mp_context=Spawned(), initializer=start_worker)


class _Process(SpawnProcess):
    """A spawned process that does not load the script of the one that starts it."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _STARTS:
            main = sys.modules["__main__"]
            # `multiprocessing.spawn` finds the script by these two.
            kept = {name: vars(main)[name] for name in _ORIGIN if name in vars(main)}
            try:
                for name in kept:
                    setattr(main, name, None)
                return SpawnProcess._Popen(process_obj)  # noqa: SLF001
            finally:
                for name, value in kept.items():
                    setattr(main, name, value)


class Spawned(SpawnContext):
    """Context whose processes do not load the script of the one that starts them."""

    Process = _Process


_STARTS = threading.Lock()  # one process starts at a time
_ORIGIN = ("__file__", "__spec__")  # of the script, as attributes of its module


def cores() -> int:
    """Count the CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Windows and macOS
        return os.cpu_count() or 1


def start_worker() -> None:
    """Hold a worker process to one thread, and end it with the process that started it."""
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        time.sleep(0.5)
    os._exit(1)
