"""The table of tracks: each defect of a movie once, with what made it."""

from __future__ import annotations

import polars as pl

from adatom.core.columns import Column, schema_of

_I, _F, _S = pl.Int32(), pl.Float64(), pl.String()

# Every column of ``tracks.parquet``; the reference pages are made from it.
COLUMNS = {
    "track": Column(_I, "", "Number of the track, as in `defects.parquet`."),
    "kind": Column(_S, "", "Its likeliest kind over all frames."),
    "first_frame": Column(_I, "", "Frame in which it was first named."),
    "last_frame": Column(_I, "", "Frame in which it was last named."),
    "frames_seen": Column(_I, "", "Number of frames in which it was named."),
    "hops": Column(_I, "", "Hops to other sites that the frames show."),
    "origin": Column(_S, "", "Where it came from, in the words of `defects.parquet`."),
    "p_before": Column(_F, "", "Probability that it was there before the first frame, in view."),
    "p_came_in": Column(_F, "", "Probability that it came into the field with the drift."),
    "p_beam": Column(
        _F, "", "Probability that the beam made it; null where no cross section is known."
    ),
    "p_heat": Column(
        _F,
        "",
        "Probability that heat made it; null where no barrier is known: it is in `p_unknown`.",
    ),
    "p_unknown": Column(_F, "", "Probability that something else made it."),
    "reason": Column(_S, "", "Why, in one sentence."),
}
SCHEMA = schema_of(COLUMNS)
