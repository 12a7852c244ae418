"""Changes of group along tracks."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import betaincinv

_SHARES = (0.05, 0.95)
_PRIOR = 0.5  # Jeffreys' prior: half a change to each group


def group_changes(table: pl.DataFrame) -> pl.DataFrame:
    """Count how atoms change their group from a frame to the next.

    Steps over missing frames are left out. Shares have the posterior of a multinomial with
    Jeffreys' prior.

    Parameters
    ----------
    table
        Columns ``frame``, ``track`` and ``group``, such as `environments.parquet` has.

    Returns
    -------
    Columns ``from_group``, ``to_group``, ``seen`` (number of such steps), ``share`` (of the steps
    from that group), and ``share_low``, ``share_high``, 5 % and 95 % of its posterior.

    Examples
    --------
    >>> table = pl.DataFrame({"frame": [0, 1, 2], "track": [4, 4, 4], "group": ["C1", "C1", "C2"]})
    >>> group_changes(table).select("from_group", "to_group", "seen").rows()
    [('C1', 'C1', 1), ('C1', 'C2', 1)]
    """
    kept = table.filter((pl.col("track") >= 0) & pl.col("group").is_not_null())
    kept = kept.sort("track", "frame")
    after = kept.with_columns(
        pl.col("group").shift(-1).over("track").alias("to_group"),
        (pl.col("frame").shift(-1).over("track") - pl.col("frame")).alias("gap"),
    ).filter(pl.col("gap") == 1)
    counted = after.group_by(pl.col("group").alias("from_group"), "to_group").agg(
        pl.len().cast(pl.Int64).alias("seen")
    )
    counted = counted.sort("from_group", "to_group")
    total = pl.col("seen").sum().over("from_group")
    groups = max(kept["group"].n_unique(), 1)
    of = counted.select(total).to_series().to_numpy()
    seen = counted["seen"].to_numpy()
    a, b = seen + _PRIOR, of - seen + _PRIOR * (groups - 1)
    # With one group there is nothing to change to.
    low, high = (betaincinv(a, np.maximum(b, 1e-9), share) for share in _SHARES)
    return counted.with_columns(
        (pl.col("seen") / total).alias("share"),
        pl.Series("share_low", low, dtype=pl.Float64),
        pl.Series("share_high", high, dtype=pl.Float64),
    )
