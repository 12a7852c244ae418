"""The table of transitions: how often defects jump to another site, and change their kind."""

from __future__ import annotations

import polars as pl

from adatom.core.columns import Column, schema_of

_I, _F, _S = pl.Int32(), pl.Float64(), pl.String()
_SHARES = "5 % and 95 % of the posterior lie below the low and the high one."

# Every column of ``transitions.parquet``; the reference pages are made from it.
COLUMNS = {
    "from_kind": Column(
        _S, "", "Kind of defect before; `V1 + V1` where several came together to one."
    ),
    "to_kind": Column(
        _S,
        "",
        "Kind after; the same as `from_kind` for a jump to a neighbouring site, `V1 + V1` where "
        "one came apart.",
    ),
    "tracks": Column(_I, "", "Number of tracks with this kind."),
    "exposure_frames": Column(_F, "frame", "Time for which defects of this kind were followed."),
    "seen": Column(
        _F,
        "",
        "Steps from frame to frame with another site or kind; of changes of the kind, the number "
        "expected after misnaming is allowed for.",
    ),
    "jumps": Column(
        _F, "", "Jumps in that time with those that no frame shows: median of the posterior."
    ),
    "rate_per_frame": Column(_F, "1/frame", "Median rate of this transition."),
    "rate_low_per_frame": Column(_F, "1/frame", f"Its lower limit: {_SHARES}"),
    "rate_high_per_frame": Column(_F, "1/frame", "Its upper limit."),
    "rate_per_s": Column(_F, "1/s", "The same rate; null where the time of a frame is not known."),
    "rate_low_per_s": Column(_F, "1/s", "Its lower limit."),
    "rate_high_per_s": Column(_F, "1/s", "Its upper limit."),
    "cross_section_A2": Column(
        _F,
        "Å²",
        "The same rate per electron and Å², if the beam causes all of it; null where the dose is "
        "not known.",
    ),
    "cross_section_low_A2": Column(_F, "Å²", "Its lower limit."),
    "cross_section_high_A2": Column(_F, "Å²", "Its upper limit."),
    "dwell_frames": Column(_F, "frame", "Mean time before this transition: 1 / rate."),
    "diffusion_xx_A2": Column(
        _F, "Å²/frame", "Diffusion along x, from the ways between frames; null for other kinds."
    ),
    "diffusion_xy_A2": Column(_F, "Å²/frame", "Diffusion, mixed component."),
    "diffusion_yy_A2": Column(_F, "Å²/frame", "Diffusion along y."),
}
SCHEMA = schema_of(COLUMNS)
