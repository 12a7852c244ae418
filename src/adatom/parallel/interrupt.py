"""Ctrl-C that is not lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_interrupt() -> Iterator[threading.Event]:
    """Note Ctrl-C besides raising it: a library may swallow the exception, the note stays.

    Yields
    ------
    Set from the first Ctrl-C on. In another thread than the main one, nothing sets it.
    """
    noted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, stack: FrameType | None) -> None:
        noted.set()
        if callable(before):
            before(number, stack)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
