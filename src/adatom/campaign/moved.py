"""What came of a move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from adatom.campaign.acting import Dwell, Seen
from adatom.core.arrays import FloatArray

MoveStatus = Literal["done", "given up", "stopped"]


@dataclass(frozen=True, slots=True)
class Moved:
    """Result of a move.

    Parameters
    ----------
    status
        ``done``; ``given up`` (out of reach, or a limit); ``stopped`` by the user.
    reason
        Why, in words.
    paths_xy_A
        Sites of each atom of the element in turn, Å, in the axes of the specimen at the first
        frame; that nearest to the middle of the frame first.
    moves
        Which of them was moved.
    seconds
        Time from the first frame to the last, s.
    electrons
        Electrons of frames and parked beams.
    rate
        Learned rate over that of the prior.
    frames
        Every frame; `MoveOptions.last_frames` of them at the end are of the first one's field.
    dwells
        Every dwell of the parked beam.
    drift_xy_A
        Drift of the specimen at the end, x and y, Å.
    """

    status: MoveStatus
    reason: str
    paths_xy_A: tuple[tuple[tuple[float, float], ...], ...]
    moves: int
    seconds: float
    electrons: float
    rate: float
    frames: tuple[Seen, ...]
    dwells: tuple[Dwell, ...]
    drift_xy_A: tuple[float, float]

    @property
    def path_xy_A(self) -> tuple[tuple[float, float], ...]:
        """Sites of the atom that was moved, in turn, Å."""
        return self.paths_xy_A[self.moves]

    @property
    def looks(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def trace(self) -> FloatArray:
        """Time, s, and counts of each time slice of parked beams, shape (slice, 2)."""
        parts = [
            np.stack([d.start_s + d.trace.slice_s * np.arange(1, len(d.trace.counts) + 1),
                      d.trace.counts], axis=1)
            for d in self.dwells
        ]  # fmt: skip
        return np.concatenate([np.zeros((0, 2)), *parts])
