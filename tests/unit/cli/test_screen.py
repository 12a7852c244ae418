"""Progress on the screen, and Ctrl-C."""

import contextlib
import signal

import pytest

from adatom.cli.screen import Screen
from adatom.parallel.interrupt import noted_interrupt


def test_an_interrupt_that_a_library_swallows_stops_at_the_next_step():
    before = signal.getsignal(signal.SIGINT)
    with noted_interrupt() as stopped:
        screen = Screen(stopped.is_set)
        screen.start("find", 2, 0)
        screen.advance("find")
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            screen.advance("find")
        screen.close()
    assert signal.getsignal(signal.SIGINT) is before
