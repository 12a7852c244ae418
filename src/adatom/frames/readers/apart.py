"""Read files in a child process with limits of memory and time: some file libraries have none.

A damaged or lying file can hang a library, make it allocate without bound, or end its process. Here
it ends the child process; the error names the file, and the next file gets a new child.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from adatom.errors import AdatomError, BadInput, DamagedFile
from adatom.frames.readers.answers import About, Answer, Pixels, Refused, parse_answer
from adatom.frames.readers.limits import MIB, most_memory, most_seconds
from adatom.frames.readers.pixel_size import Scale
from adatom.frames.readers.stack import Stack

_START_SECONDS = 120.0  # to start Python and import the readers, on a busy machine
_TOO_LONG = -int(getattr(signal, "SIGXCPU", 0)) or None  # ended by the limit of processor time
_KEPT_OPEN = 8  # most files that a child keeps open
_TODO = "The file is damaged, or not what its name says: copy it again."
_LONGEST_LINE = 1 << 20  # bytes of an answer without its pixels
_WORKER = "adatom.frames.readers.worker"
# One thread for linear algebra, which reading does not need: each thread takes address space.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


_Key = tuple[str, str | None, str | None]  # file, data set, order of the axes


class ReadingProcess:
    """A child process that opens files and reads their frames; started when it is first needed.

    Parameters
    ----------
    seconds
        Gives the most processor time in s that a file of so many bytes may take.
    patience
        How much longer an answer may take than that: other programs use the processor too, and a
        disk may be slow. It is the only limit of time on Windows.
    """

    def __init__(
        self, seconds: Callable[[int], float] = most_seconds, patience: float = 6.0
    ) -> None:
        self._seconds, self._patience = seconds, patience
        self._child: subprocess.Popen[bytes] | None = None
        self._search_path: list[str] = []  # where the child finds packages
        self._opened: dict[_Key, int] = {}  # files that are open in the child, and their numbers
        self._last = 0
        self._is_ready = False
        self._lock = threading.RLock()

    def open(self, path: Path, dataset: str | None, axes: str | None) -> Stack:
        """Open a file in the child; frames of the stack are read there too.

        Parameters
        ----------
        path, dataset, axes
            As for `adatom.frames.readers.open_file.open_file`.

        Raises
        ------
        BadInput
            If the file cannot be read, or its reader took too long, too much memory or crashed.
        """
        key = str(path), dataset, axes
        about = self._open(key)
        return Stack(
            count=about.count,
            shape=about.shape,
            load=lambda i: self._frame(key, i),
            scale=Scale(about.pixel_A, about.notes),
            acquisition=about.recorded,
        )

    def close(self) -> None:
        """End the child; the next file starts another one."""
        with self._lock:
            child, self._child = self._child, None
            self._opened.clear()
        if child is not None:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            child.wait()

    def abandon(self) -> None:
        """Forget the child without ending it, in a forked process: it belongs to the other one."""
        self._child, self._lock = None, threading.RLock()
        self._opened.clear()

    def _open(self, key: _Key) -> About:
        path, dataset, axes = key
        with self._lock:
            self._make_ready(path)
            oldest = next(iter(self._opened)) if len(self._opened) >= _KEPT_OPEN else None
            forget = self._opened.pop(oldest, -1) if oldest else self._opened.pop(key, -1)
            self._last += 1
            request = {"open": path, "dataset": dataset, "axes": axes, "number": self._last}
            about, _ = self._ask({**request, "forget": forget}, path, path)
            if not isinstance(about, About):
                raise self._confused(path, path)
            self._opened[key] = self._last
            return about

    def _frame(self, key: _Key, i: int) -> NDArray[Any]:
        subject = f"{key[0]}, frame {i}"
        with self._lock:
            self._make_ready(key[0])
            if key not in self._opened:
                self._open(key)
            request = {"frame": i, "of": self._opened[key], "subject": subject}
            about, content = self._ask(request, key[0], subject)
            if not isinstance(about, Pixels):
                raise self._confused(key[0], subject)
            try:
                return about.array(content)
            except ValueError as error:
                raise self._confused(key[0], subject) from error

    def start(self) -> None:
        """Start the child and do not wait for it: it imports the readers while others work."""
        with self._lock:
            search_path = [entry for entry in sys.path if entry]
            running = self._child is not None and self._child.poll() is None
            if running and search_path == self._search_path:
                return
            self.close()
            self._search_path, self._is_ready = search_path, False
            self._child = subprocess.Popen(  # noqa: S603 (our own module, no text of the user)
                [sys.executable, "-P", "-c", f"from {_WORKER} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(search_path)},
            )

    def _make_ready(self, path: str) -> None:
        """Start the child if it does not run, and wait until it answers."""
        self.start()
        if not self._is_ready:
            self._talk(b"", _START_SECONDS, 0, path, path)
            self._is_ready = True

    def _confused(self, path: str, subject: str) -> DamagedFile:
        """End the child, and give the error of an answer that is none."""
        self.close()
        return DamagedFile(
            subject,
            expected=f"a whole {Path(path).suffix.lower()} file",
            got="a reader that gave a wrong answer",
            todo=_TODO,
        )

    def _ask(self, request: dict[str, Any], path: str, subject: str) -> tuple[Answer, bytes]:
        size = size_of(Path(path))
        seconds, memory = self._seconds(size), most_memory(size)
        line = json.dumps({**request, "memory": memory, "seconds": seconds}).encode() + b"\n"
        about, content = self._talk(line, seconds * self._patience, memory, path, subject)
        if isinstance(about, Refused):
            where, expected, got, todo = about.error
            cause = AdatomError(where, expected=expected, got=about.cause, todo=todo)
            kind = DamagedFile if about.damaged else BadInput
            raise kind(where, expected=expected, got=got, todo=todo) from cause
        return about, content

    def _talk(
        self, request: bytes, seconds: float, most: int, path: str, subject: str
    ) -> tuple[Answer, bytes]:
        """Send a line and receive the answer; a child that is too slow is killed."""
        child = self._child
        assert child is not None and child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 (started before)
        late = threading.Event()

        def end() -> None:
            late.set()
            child.kill()

        watch = threading.Timer(seconds, end)
        watch.daemon = True
        watch.start()
        about, content = None, b""
        try:
            child.stdin.write(request)
            child.stdin.flush()
            line = child.stdout.readline(_LONGEST_LINE)
            about = parse_answer(line) if line.endswith(b"\n") else None
            content = child.stdout.read(min(about.size, most)) if about else b""
        except OSError:  # the child ended before
            pass
        except ValueError as error:
            raise self._confused(path, subject) from error
        finally:
            watch.cancel()
        if about is not None and len(content) == about.size:
            return about, content
        got = "a reader that ended in the middle of it (a crash)"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1.0)  # one that ended on its own says by what
        ended_by = child.returncode
        self.close()
        if ended_by is not None and ended_by == _TOO_LONG:
            got = "no answer of its reader within its processor time"
        elif late.is_set():
            got = f"no answer of its reader in {seconds:.0f} s"
        elif about is not None and about.size > most:
            got = f"{about.size // MIB} MiB, more than its size allows"
        raise DamagedFile(
            subject, expected=f"a whole {Path(path).suffix.lower()} file", got=got, todo=_TODO
        )


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a directory; 0 if it is gone."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        return path.stat().st_size
    return 0


READING = ReadingProcess()
atexit.register(READING.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=READING.abandon)
