"""What every instrument can do, real or simulated."""

from __future__ import annotations

from typing import Protocol

from adatom.core import Frame, ScanRequest


class Microscope(Protocol):
    """A scanning microscope: it takes one frame at a time."""

    def scan(self, request: ScanRequest) -> Frame:
        """Take the frame that is asked for; blocks until it is there."""
        ...
