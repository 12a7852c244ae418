"""A worker process that is asked and answers in lines of JSON.

Programs that live in another Python, or that must be killed when their time is over, run so.
Nothing is pickled in either direction.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from adatom.errors import StepFailed

# Variables by which one Python would find the packages of another.
_OWN_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def clean_environment(python: str) -> dict[str, str]:
    """Environment for a Python: one thread, and nothing of this Python where it is another."""
    every = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if python == sys.executable:
        return every
    return {k: v for k, v in every.items() if k not in _OWN_PYTHON}


class LinesWorker:
    """A worker process; a context manager that kills it.

    Parameters
    ----------
    command
        Program and arguments; the first is the Python that runs it.
    name
        What it is, for messages.
    deadline
        Time of `time.perf_counter` after which it is killed.
    """

    def __init__(self, command: Sequence[str], name: str, deadline: float) -> None:
        self._name, self._deadline = name, deadline
        self._process = subprocess.Popen(  # noqa: S603 (a script of this package)
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(command[0]),
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._said: list[str] = []  # last lines of its stderr
        self._readers = [
            threading.Thread(target=target, daemon=True) for target in (self._read, self._listen)
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def kill(self) -> None:
        """End the process, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was not written yet cannot be flushed
                    continue

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request, and wait for its answer.

        Raises
        ------
        StepFailed
            If the time is over, or the process ended; it is killed.
        """
        assert self._process.stdin is not None  # noqa: S101 (it is a pipe)
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for one line of its output; errors as of `ask`."""
        try:
            line = self._lines.get(timeout=max(self._deadline - time.perf_counter(), 0.0))
        except queue.Empty:
            self.kill()
            raise StepFailed(
                self._name,
                expected="an answer within the time of the task",
                got="none when the time was over: it was stopped",
                todo="Allow more seconds (`relax.max_seconds`), or take a smaller structure.",
            ) from None
        if line is None:
            raise self._ended()
        found: dict[str, Any] = json.loads(line)
        return found

    def _ended(self) -> StepFailed:
        code = self._process.wait()
        said = self._said[-1] if self._said else "it said nothing"
        return StepFailed(
            self._name,
            expected="a process that answers",
            got=f"one that ended with {code}: {said}",
            todo="Look whether it has enough memory, or take another engine.",
        )

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    def _listen(self) -> None:
        for line in self._process.stderr or ():
            if line.strip():
                self._said[:] = [*self._said[-9:], line.strip()[:300]]
