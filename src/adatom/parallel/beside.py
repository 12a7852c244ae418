"""One worker process beside a loop that never waits for it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from adatom.parallel.processes import Spawned, start_worker

_TRIES = 2  # times that a job is begun; a worker that is killed twice at it would be killed again


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a job.

    Parameters
    ----------
    what
        ``done``; ``failed`` with an error; ``killed``: the worker ended, and another one begins
        the job again; ``given up``: it ended again.
    key
        Of the job.
    result
        What the job gave; the error in words where it failed; else None.
    """

    what: Literal["done", "failed", "killed", "given up"]
    key: str
    result: Any = None


class Beside:
    """Run jobs in turn in a process of their own; nothing here waits for it.

    The process is spawned at the first job. It ends with this one, also where this one is killed.

    Parameters
    ----------
    work
        Function of a job, importable; its result is sent back.

    Examples
    --------
    >>> beside = Beside(abs)
    >>> beside.poll()  # no job yet, and no process
    []
    >>> beside.close()
    """

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work
        self._waiting: deque[tuple[str, Any]] = deque()
        self._now: tuple[str, Any] | None = None
        self._tries = 0
        self._process: Any = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Number of the worker process; None where there is none."""
        return None if self._process is None else int(self._process.pid)

    @property
    def busy(self) -> bool:
        """Whether a job is being worked on or waits."""
        return self._now is not None or bool(self._waiting)

    def offer(self, key: str, job: Any) -> None:
        """Put a job at the end of the queue."""
        self._waiting.append((key, job))
        self._begin_next()

    def poll(self) -> list[Event]:
        """Give what happened since the last call."""
        events: list[Event] = []
        while self._now is not None and self._pipe is not None:
            key, _ = self._now
            answer = self._answer()
            if answer is not None:
                ok, result = answer
                events.append(Event("done" if ok else "failed", key, result))
                self._now, self._tries = None, 0
            elif self._process.is_alive():
                break
            else:
                again = self._tries < _TRIES
                events.append(Event("killed" if again else "given up", key))
                self.close()
                if not again:
                    self._now, self._tries = None, 0
                else:
                    self._send()
            self._begin_next()
        return events

    def close(self) -> None:
        """End the worker at once; what it works on is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _answer(self) -> tuple[bool, Any] | None:
        """Take what the worker sent; None where it sent nothing."""
        assert self._pipe is not None  # noqa: S101  # only called with one
        with contextlib.suppress(EOFError, OSError):
            if self._pipe.poll(0):
                got: tuple[bool, Any] = self._pipe.recv()
                return got
        return None

    def _begin_next(self) -> None:
        if self._now is None and self._waiting:
            self._now, self._tries = self._waiting.popleft(), 0
            self._send()

    def _send(self) -> None:
        """Give the present job to the worker, a new one where there is none."""
        assert self._now is not None  # noqa: S101
        if self._process is None:
            context = Spawned()
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(self._work, theirs), daemon=True)
            self._process.start()
            theirs.close()
        self._tries += 1
        assert self._pipe is not None  # noqa: S101
        # A worker that is gone is found at the next poll.
        with contextlib.suppress(BrokenPipeError, OSError):
            self._pipe.send(self._now[1])


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    """Do what comes, until the other end is closed."""
    start_worker()
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            job = pipe.recv()
            try:
                answer = True, work(job)
            except Exception as error:  # noqa: BLE001  # told to whoever asked
                answer = False, f"{type(error).__name__}: {error}"
            pipe.send(answer)
