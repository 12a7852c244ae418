"""Frames in a text file: a line ``framestext FRAMES ROWS COLUMNS PIXEL UNIT``, then the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adatom.frames.readers.pixel_size import from_axes
from adatom.frames.readers.stack import Stack


class FramesText:
    """Reads ``.framestext`` files."""

    name = "framestext"
    summary = "Frames in a text file"

    def suffixes(self) -> tuple[str, ...]:
        """One ending."""
        return (".framestext",)

    def read(self, path: Path, dataset: str | None) -> Stack:
        """Read the first line and count the others; pixels are read when asked for."""
        with path.open(encoding="utf-8") as file:
            word, *numbers, pixel, unit = file.readline().split()
            lines = sum(1 for _ in file)
        count, rows, columns = (int(number) for number in numbers)
        if word != "framestext" or lines != count * rows:
            raise ValueError(f"{lines} rows in place of {count * rows}")

        def load(i: int) -> np.ndarray:
            return np.loadtxt(path, skiprows=1 + i * rows, max_rows=rows, ndmin=2)

        scale = from_axes((pixel, pixel), (unit, unit), str(path))
        return Stack(count, (rows, columns), load, scale)


READER = FramesText()
