"""Keep the frames of a microscope on the disk as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from adatom.core import Frame
from adatom.store.atomic import atomic_file

FRAMES = "frames"  # folder of the frames of a run


def keeper(directory: Path) -> Callable[[int, Frame], str]:
    """Give a function that stores frames in a directory, each whole or not at all."""

    def keep(n: int, frame: Frame) -> str:
        name = f"{FRAMES}/{n:06d}.npz"
        with atomic_file(directory / name) as file:
            np.savez(file, frame=frame.data, pixel_size_A=frame.calibration.pixel_size_A)
        return name

    return keep


def keep_movie(path: Path, frames: Sequence[Frame]) -> None:
    """Write frames of one size into one ``.npz`` file, completely or not at all."""
    with atomic_file(path) as file:
        np.savez(
            file,
            frames=np.stack([frame.data for frame in frames]),
            pixel_size_A=frames[0].calibration.pixel_size_A,
        )
