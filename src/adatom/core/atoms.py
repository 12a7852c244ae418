"""The table of atoms: positions, elements, and their uncertainties."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from adatom.core.arrays import BoolArray
from adatom.core.columns import Column, schema_of

_I, _F, _S = pl.Int32(), pl.Float64(), pl.String()

# Every column of ``atoms.parquet``; the reference pages are made from it.
COLUMNS = {
    "frame": Column(_I, "", "Index of the frame, from 0."),
    "atom": Column(_I, "", "Number of the atom in its frame, from 0."),
    "x_A": Column(_F, "Å", "Position along the columns of the image, from the centre of pixel 0."),
    "y_A": Column(_F, "Å", "Position down the rows of the image, from the centre of pixel 0."),
    "sigma_x_A": Column(_F, "Å", "Standard deviation of `x_A`, calibrated."),
    "sigma_y_A": Column(_F, "Å", "Standard deviation of `y_A`, calibrated."),
    "cov_xy_A2": Column(_F, "Å²", "Covariance of `x_A` and `y_A`."),
    "p_exists": Column(_F, "", "Probability that there is an atom at this place, calibrated."),
    "element": Column(_S, "", "Most probable element; in a crystal seen end on, the column."),
    "p_element": Column(_F, "", "Probability that the atom, if it exists, is of `element`."),
    "votes": Column(_F, "", "Share of the ensemble's members that saw the atom, 0 to 1."),
    "amplitude": Column(_F, "image", "Fitted peak height, in the frame's own intensity."),
    "track": Column(_I, "", "Number of the same atom over all frames; -1 until frames are linked."),
}
SCHEMA = schema_of(COLUMNS)


@dataclass(frozen=True, slots=True, eq=False)
class AtomTable:
    """Atoms of one or more frames, one row each, in the schema of ``atoms.parquet``.

    Positions are in Å in the measured frame (before the affine correction), x right, y down.
    ``votes`` is the share of members that saw the atom; ``track`` is -1 until frames are linked.

    Parameters
    ----------
    data
        A polars table with exactly the columns of ``SCHEMA``.
    empty_sites
        Sites of the same frames that were tested for a missing atom, as `EmptySites.table` gives
        them; None if no site was tested.
    weighed
        Defects of the same frames that the counts were asked about, in the columns of
        `DefectTable`; None if none was.
    """

    data: pl.DataFrame
    empty_sites: pl.DataFrame | None = None
    weighed: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        if self.data.schema != SCHEMA:
            object.__setattr__(self, "data", self.data.select(list(SCHEMA)).cast(SCHEMA))

    @classmethod
    def build(
        cls,
        *,
        frame: int,
        xy: NDArray[np.float64],
        covariance: NDArray[np.float64],
        p_exists: ArrayLike,
        element: Iterable[str],
        p_element: ArrayLike,
        votes: ArrayLike,
        amplitude: ArrayLike,
    ) -> AtomTable:
        """Make the table of one frame.

        Parameters
        ----------
        frame
            Index of the frame.
        xy
            Positions, shape (atom, 2), Å.
        covariance
            Position covariance, shape (atom, 2, 2), Å².
        p_exists, p_element, votes, amplitude
            Shape (atom,); probabilities and shares 0 to 1, amplitude in the frame's intensity.
        element
            Chemical symbols, one per atom.
        """
        n = len(xy)
        columns = {
            "frame": np.full(n, frame, dtype=np.int32),
            "atom": np.arange(n, dtype=np.int32),
            "x_A": xy[:, 0],
            "y_A": xy[:, 1],
            "sigma_x_A": np.sqrt(covariance[:, 0, 0]),
            "sigma_y_A": np.sqrt(covariance[:, 1, 1]),
            "cov_xy_A2": covariance[:, 0, 1],
            "p_exists": np.asarray(p_exists, dtype=np.float64),
            "element": list(element),
            "p_element": np.asarray(p_element, dtype=np.float64),
            "votes": np.asarray(votes, dtype=np.float64),
            "amplitude": np.asarray(amplitude, dtype=np.float64),
            "track": np.full(n, -1, dtype=np.int32),
        }
        return cls(pl.DataFrame(columns, schema=SCHEMA))

    @classmethod
    def empty(cls) -> AtomTable:
        """Make a table with no atoms."""
        return cls(pl.DataFrame(schema=SCHEMA))

    @classmethod
    def concat(cls, tables: Iterable[AtomTable]) -> AtomTable:
        """Join the tables of several frames; tested sites are kept if every table has them."""
        parts = list(tables)
        if not parts:
            return cls.empty()
        sites = [t.empty_sites for t in parts if t.empty_sites is not None]
        whole = pl.concat(sites) if len(sites) == len(parts) else None
        weighed = [t.weighed for t in parts if t.weighed is not None]
        every = pl.concat(weighed) if weighed else None
        return cls(pl.concat([t.data for t in parts]), whole, every)

    def __len__(self) -> int:
        return self.data.height

    def of_frame(self, frame: int) -> AtomTable:
        """Select one frame's atoms and tested sites."""
        this = pl.col("frame") == frame
        sites, weighed = (
            None if table is None else table.filter(this)
            for table in (self.empty_sites, self.weighed)
        )  # fmt: skip
        return AtomTable(self.data.filter(this), sites, weighed)

    @property
    def frames(self) -> list[int]:
        """Indices of the frames that have atoms, ascending."""
        return sorted(int(i) for i in self.data["frame"].unique())

    @property
    def xy(self) -> NDArray[np.float64]:
        """Positions, shape (atom, 2), Å."""
        return self.data.select("x_A", "y_A").to_numpy()

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Position covariances, shape (atom, 2, 2), Å²."""
        c = self.data.select("sigma_x_A", "sigma_y_A", "cov_xy_A2").to_numpy()
        out = np.empty((len(c), 2, 2))
        out[:, 0, 0], out[:, 1, 1] = c[:, 0] ** 2, c[:, 1] ** 2
        out[:, 0, 1] = out[:, 1, 0] = c[:, 2]
        return out

    @property
    def elements(self) -> NDArray[np.str_]:
        """Chemical symbols, shape (atom,)."""
        return np.array(self.data["element"].to_list(), dtype=np.str_)

    @property
    def is_likely(self) -> BoolArray:
        """Atoms whose ``p_exists`` is above one half, shape (atom,)."""
        return self.column("p_exists") > 0.5

    def column(self, name: str) -> NDArray[np.float64]:
        """Give one numeric column as floats, shape (atom,)."""
        return self.data[name].to_numpy().astype(np.float64)

    def with_tracks(self, track: ArrayLike) -> AtomTable:
        """Give the same atoms with their track numbers, shape (atom,)."""
        values = pl.Series("track", np.asarray(track, dtype=np.int32))
        return AtomTable(self.data.with_columns(values), self.empty_sites, self.weighed)
