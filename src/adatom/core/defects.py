"""Every defect that was named, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adatom.core.columns import Column, schema_of

_I, _F, _S = pl.Int32(), pl.Float64(), pl.String()

# Every column of ``defects.parquet``; the reference pages are made from it.
COLUMNS = {
    "frame": Column(_I, "", "Index of the frame, from 0."),
    "defect": Column(_I, "", "Number of the defect in its frame, from 0."),
    "kind": Column(_S, "", "Name of the kind of defect."),
    "x_A": Column(_F, "Å", "Centre along the columns of the image, from the centre of pixel 0."),
    "y_A": Column(_F, "Å", "Centre down the rows of the image, from the centre of pixel 0."),
    "p": Column(_F, "", "Probability that the defect is there and is of this kind."),
    "atoms": Column(pl.List(_I), "", "Its atoms, as numbers of the atom table of that frame."),
    "track": Column(_I, "", "Number of the same defect over all frames; -1 until linked."),
    "first_frame": Column(_I, "", "Frame in which its track begins."),
    "origin": Column(
        _S,
        "",
        "Where it came from: `first seen` in the first frame, `appeared` later, `from KIND` since "
        "it changed its kind; empty until linked.",
    ),
    "p_beam_induced": Column(_F, "", "Probability that the beam made it; null until known."),
}
SCHEMA = schema_of(COLUMNS)


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
