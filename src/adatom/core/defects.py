"""Every defect that was named, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

SCHEMA = pl.Schema(
    {
        "frame": pl.Int32(),
        "defect": pl.Int32(),
        "kind": pl.String(),
        "x_A": pl.Float64(),
        "y_A": pl.Float64(),
        "p": pl.Float64(),
        "atoms": pl.List(pl.Int32()),
        "track": pl.Int32(),
        "first_frame": pl.Int32(),
        "origin": pl.String(),
        "p_beam_induced": pl.Float64(),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class DefectTable:
    """Defects of one or more frames, in the schema of ``defects.parquet``.

    ``kind`` is a name such as ``Si1C3`` (one Si with three C neighbours), ``V1`` (one empty site)
    or ``rings 5-7``; ``atoms`` are the ``atom`` numbers in that frame's atom table; ``p`` is the
    probability that the defect is there and is of this kind. ``origin`` says where it came from
    (``first seen``, ``appeared``, or ``from <kind>``); ``p_beam_induced`` is null until known.

    Parameters
    ----------
    data
        A polars table with exactly the columns of ``SCHEMA``.
    """

    data: pl.DataFrame

    def __post_init__(self) -> None:
        if self.data.schema != SCHEMA:
            object.__setattr__(self, "data", self.data.select(list(SCHEMA)).cast(SCHEMA))

    @classmethod
    def empty(cls) -> DefectTable:
        """Make a table with no defects."""
        return cls(pl.DataFrame(schema=SCHEMA))

    @classmethod
    def concat(cls, tables: Iterable[DefectTable]) -> DefectTable:
        """Join the tables of several frames."""
        parts = [t.data for t in tables]
        return cls(pl.concat(parts)) if parts else cls.empty()

    def __len__(self) -> int:
        return self.data.height

    def of_frame(self, frame: int) -> DefectTable:
        """Select one frame's defects."""
        return DefectTable(self.data.filter(pl.col("frame") == frame))

    @property
    def xy(self) -> NDArray[np.float64]:
        """Centres, shape (defect, 2), Å, in the measured frame."""
        return self.data.select("x_A", "y_A").to_numpy()

    @property
    def kinds(self) -> list[str]:
        """Names, one a defect."""
        return [str(k) for k in self.data["kind"]]
