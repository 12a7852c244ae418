"""Child process that opens files and reads their frames, so that a library's fault ends only it.

`adatom.frames.readers.apart` starts it and talks to it over its standard input and output: one line
of JSON a request, one line of JSON an answer, which the bytes of a frame follow.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from adatom.errors import AdatomError, DamagedFile
from adatom.frames.readers.open_file import open_file
from adatom.frames.readers.stack import Stack, as_bad_input

_DAMAGED = "The file is damaged or cut off: copy it again."


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the input ends, as it does when the parent process ends.

    Parameters
    ----------
    requests
        Lines of JSON with ``memory`` (bytes) and ``seconds``, and either ``open`` (path),
        ``dataset``, ``axes``, ``number`` and ``forget`` (numbers of this and of an older file), or
        ``frame`` (which), ``of`` (number of the file) and ``subject``.
    answers
        Where the answers go.
    """
    opened: dict[int, Stack] = {}
    _answer(answers, {"ready": True})
    while line := requests.readline():
        request = json.loads(line)
        _limit(int(request["memory"]), float(request["seconds"]))
        try:
            if "open" in request:
                number = int(request["number"])
                opened.pop(int(request["forget"]), None)
                opened[number] = open_file(
                    Path(request["open"]), request["dataset"], request["axes"]
                )
                _answer(answers, _about(opened[number]))
            else:
                stack = opened[int(request["of"])]
                with as_bad_input(request["subject"], "a whole frame", _DAMAGED):
                    frame = np.ascontiguousarray(stack.load(int(request["frame"])))
                    about = {"shape": frame.shape, "dtype": frame.dtype.str}
                    if frame.dtype.kind not in "buif":
                        raise ValueError(f"pixels of type {frame.dtype}")
                _answer(answers, about, frame.tobytes())
        except AdatomError as error:
            told = (error.subject, error.expected, error.got, error.todo)
            damaged = isinstance(error, DamagedFile)
            cause = repr(error.__cause__)
            _answer(answers, {"error": told, "cause": cause, "damaged": damaged})


def _about(stack: Stack) -> dict[str, Any]:
    return {
        "count": int(stack.count),
        "shape": [int(n) for n in stack.shape],
        "pixel_A": None if stack.scale.pixel_A is None else float(stack.scale.pixel_A),
        "notes": list(stack.scale.notes),
        "acquisition": asdict(stack.acquisition),
    }


def _answer(answers: BinaryIO, about: dict[str, Any], content: Any = b"") -> None:
    answers.write(json.dumps({**about, "bytes": len(content)}).encode() + b"\n")
    answers.write(content)
    answers.flush()


def _limit(memory: int, seconds: float) -> None:
    """Allow so many bytes and seconds of processor time more than were used; not on Windows."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _set(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 1)
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        _set(resource.RLIMIT_AS, pages * resource.getpagesize() + memory)


def _set(which: int, most: int) -> None:
    import resource

    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    """Serve on standard input and output; what libraries print there goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and decides
    answers = os.fdopen(os.dup(1), "wb")
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    serve(requests, answers)


if __name__ == "__main__":
    main()
