"""The table of environments: which atoms have like surroundings, and which have odd ones."""

from __future__ import annotations

import polars as pl

from adatom.core.columns import Column, schema_of

_I, _F, _S = pl.Int32(), pl.Float64(), pl.String()

# Every column of ``environments.parquet``; the reference pages are made from it.
COLUMNS = {
    "frame": Column(_I, "", "Index of the frame, from 0."),
    "atom": Column(_I, "", "Number of the atom in its frame, as in `atoms.parquet`."),
    "track": Column(_I, "", "Track of the atom, as in `atoms.parquet`."),
    "group": Column(
        _S,
        "",
        "Element and number of the group of atoms with like surroundings, largest group first; "
        "null where the surroundings are cut by the border of the frame.",
    ),
    "p_group": Column(_F, "", "Probability of this group among those of the element."),
    "p_odder": Column(
        _F,
        "",
        "Chance that surroundings drawn from the element's groups are as odd as these; small "
        "values are unlike all groups.",
    ),
}
SCHEMA = schema_of(COLUMNS)
