"""The table of defects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from adatom.core.arrays import FloatArray
from adatom.core.columns import Column, schema_of
from adatom.core.defect_kind import DefectKind

_I, _F, _S = pl.Int32(), pl.Float64(), pl.String()

# Every column of ``defects.parquet``; the reference pages are made from it.
COLUMNS = {
    "frame": Column(_I, "", "Index of the frame, from 0."),
    "defect": Column(_I, "", "Number of the defect in its frame, from 0."),
    "kind": Column(_S, "", "Name of the kind of defect."),
    "x_A": Column(_F, "Å", "Centre along the columns of the image, from the centre of pixel 0."),
    "y_A": Column(_F, "Å", "Centre down the rows of the image, from the centre of pixel 0."),
    "p": Column(_F, "", "Probability that the defect is there and is of this kind."),
    "atoms": Column(
        pl.List(_I),
        "",
        "Its atoms, as numbers of the atom table of that frame; in the file as text, `12 15 16`.",
    ),
    "track": Column(_I, "", "Number of the same defect over all frames; -1 until linked."),
    "first_frame": Column(_I, "", "Frame in which its track begins."),
    "origin": Column(
        _S,
        "",
        "Where it came from: `first seen` in the first frame; later `came into the field` over the "
        "border with the drift, or `appeared`; `from KIND` since it changed its kind, `from V1 + "
        "V1` since several merged, `split from V2` since one came apart; empty until linked.",
    ),
    "p_beam_induced": Column(_F, "", "Probability that the beam made it; null until known."),
    "hops": Column(
        _I, "", "Hops of its track to other sites, up to this frame; null until linked."
    ),
    "alternatives": Column(
        _S,
        "",
        "What else it may be, with probabilities, `V2 0.12, V2-555-777 0.03`; `none` is the "
        "perfect crystal, `?` no known shape. Empty where nothing else was likely or compared.",
    ),
}
SCHEMA = schema_of(COLUMNS)


@dataclass(frozen=True, slots=True, eq=False)
class DefectTable:
    """Defects of one or more frames, in the schema of ``defects.parquet``.

    ``kind`` is the name of a `DefectKind`, such as ``Si1C3`` or ``V1``. ``atoms`` are numbers from
    the ``atom`` column of the same frame's atom table, impurity or displaced atoms first. ``p`` is
    the probability that the defect is there and is of this kind. ``origin`` is filled when frames
    are linked: ``first seen``, ``came into the field``, ``appeared``, ``from <kind>``, or ``split
    from <kind>``.
    ``p_beam_induced`` and ``hops`` are null until they are known; tables of version 0.1.0 have no
    ``hops`` and no ``alternatives``.

    Parameters
    ----------
    data
        A polars table with exactly the columns of ``SCHEMA``; ``atoms`` may be text, as in files.
    """

    data: pl.DataFrame

    def __post_init__(self) -> None:
        for name, value in (("hops", pl.lit(None, _I)), ("alternatives", pl.lit(""))):
            if name not in self.data.columns:
                object.__setattr__(self, "data", self.data.with_columns(value.alias(name)))
        if self.data.schema["atoms"] == pl.String:  # as files hold it
            object.__setattr__(self, "data", self.data.with_columns(_numbers(pl.col("atoms"))))
        if self.data.schema != SCHEMA:
            object.__setattr__(self, "data", self.data.select(list(SCHEMA)).cast(SCHEMA))

    @classmethod
    def empty(cls) -> DefectTable:
        """Make a table with no defects."""
        return cls(pl.DataFrame(schema=SCHEMA))

    @classmethod
    def build(
        cls,
        *,
        frame: int,
        kinds: Sequence[DefectKind],
        xy: FloatArray,
        p: Sequence[float],
        atoms: Sequence[Sequence[int]],
        alternatives: Sequence[str] | None = None,
    ) -> DefectTable:
        """Make the table of one frame, not linked to others.

        Parameters
        ----------
        frame
            Number of the frame.
        kinds
            What each defect is.
        xy
            Centres, shape (defect, 2), Å, measured axes.
        p
            Probability of each.
        atoms
            Atom numbers of each.
        alternatives
            What else each may be, as in the table; None for nothing.

        Examples
        --------
        >>> import numpy as np
        >>> from adatom.core import Vacancy
        >>> DefectTable.build(
        ...     frame=0, kinds=[Vacancy(1)], xy=np.array([[3.0, 4.0]]), p=[0.9], atoms=[[]]
        ... ).kinds
        ['V1']
        """
        n = len(kinds)
        columns = {
            "frame": [frame] * n,
            "defect": list(range(n)),
            "kind": [str(kind) for kind in kinds],
            "x_A": xy[:, 0].tolist(),
            "y_A": xy[:, 1].tolist(),
            "p": [float(value) for value in p],
            "atoms": [list(numbers) for numbers in atoms],
            "track": [-1] * n,
            "first_frame": [frame] * n,
            "origin": [""] * n,
            "p_beam_induced": [None] * n,
            "hops": [None] * n,
            "alternatives": [""] * n if alternatives is None else list(alternatives),
        }
        return cls(pl.DataFrame(columns, schema=SCHEMA))

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
    def xy(self) -> FloatArray:
        """Centres, shape (defect, 2), Å, in the measured frame."""
        return self.data.select("x_A", "y_A").to_numpy()

    @property
    def kinds(self) -> list[str]:
        """Names of the kinds, one for each defect."""
        return [str(k) for k in self.data["kind"]]

    @property
    def kind_values(self) -> list[DefectKind]:
        """Kinds as values, one for each defect.

        Raises
        ------
        BadInput
            If a name in the table is not that of a kind.
        """
        return [DefectKind.parse(name) for name in self.kinds]


def _numbers(text: pl.Expr) -> pl.Expr:
    """Split a text of numbers, which is empty for none."""
    none = pl.lit([], dtype=pl.List(pl.String))
    return pl.when(text == "").then(none).otherwise(text.str.split(" ")).alias("atoms")
