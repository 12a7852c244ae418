"""Lattice sites that were tested for a missing atom, and the probability that each is empty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from adatom.core.arrays import FloatArray
from adatom.core.columns import Column, schema_of
from adatom.errors import BadInput

_F = pl.Float64()

# Every column of `EmptySites.table`; the reference pages are made from it.
COLUMNS = {
    "frame": Column(pl.Int32(), "", "Index of the frame, from 0."),
    "x_A": Column(_F, "Å", "Site along the columns of the image, from the centre of pixel 0."),
    "y_A": Column(_F, "Å", "Site down the rows of the image, from the centre of pixel 0."),
    "p": Column(_F, "", "Probability that the site is empty, calibrated."),
}
SCHEMA = schema_of(COLUMNS)


@dataclass(frozen=True, slots=True, eq=False)
class EmptySites:
    """Tested sites of one frame.

    Parameters
    ----------
    xy
        Shape (site, 2), Å, measured axes.
    p
        Probability that each is empty, shape (site,).

    Raises
    ------
    BadInput
        If the shapes do not agree.
    """

    xy: FloatArray
    p: FloatArray

    def __post_init__(self) -> None:
        if self.p.ndim != 1 or self.xy.shape != (len(self.p), 2):
            raise BadInput(
                "empty sites",
                expected="positions (site, 2) and as many probabilities (site,)",
                got=f"shapes {self.xy.shape} and {self.p.shape}",
                todo="Give one probability to be empty for every tested site.",
            )

    @classmethod
    def none(cls) -> EmptySites:
        """Make an instance without sites."""
        return cls(np.zeros((0, 2)), np.zeros(0))

    @classmethod
    def from_table(cls, table: pl.DataFrame) -> EmptySites:
        """Make it from a table that `table` gave."""
        return cls(table.select("x_A", "y_A").to_numpy(), table["p"].to_numpy())

    def table(self, frame: int) -> pl.DataFrame:
        """Make a table in the schema ``SCHEMA``, one row per site, for this frame number."""
        columns = {
            "frame": np.full(len(self.p), frame, dtype=np.int32),
            "x_A": self.xy[:, 0],
            "y_A": self.xy[:, 1],
            "p": self.p,
        }
        return pl.DataFrame(columns, schema=SCHEMA)

    def __len__(self) -> int:
        return len(self.p)
