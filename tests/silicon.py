"""A graphene sheet with one Si atom, and tables of defects."""

from __future__ import annotations

import numpy as np
import polars as pl

from adatom.core import AtomTable, DefectTable
from adatom.core.defects import SCHEMA


def sheet(frame=0, *, sigma=0.05, si=(20.0, 20.0), p=1.0, p_element=1.0, si_sigma=None):
    """A patch of graphene with a Si on the atom nearest to `si`; gives the table and the Si."""
    a1, a2 = np.array([2.46, 0.0]), np.array([1.23, 2.46 * 3**0.5 / 2])
    ij = np.array([(i, j) for i in range(-20, 30) for j in range(-5, 30)])
    base = ij @ np.array([a1, a2])
    xy = np.vstack([base + (a1 + a2) / 3, base + 2 * (a1 + a2) / 3])
    xy = xy[np.all((xy > 0) & (xy < 40), axis=1)]
    k = int(np.argmin(np.linalg.norm(xy - np.asarray(si), axis=1)))
    n = len(xy)
    cov = np.tile(np.eye(2) * sigma**2, (n, 1, 1))
    if si_sigma is not None:
        cov[k] = np.eye(2) * si_sigma**2
    exists, named = np.ones(n), np.ones(n)
    exists[k], named[k] = p, p_element
    table = AtomTable.build(
        frame=frame, xy=xy, covariance=cov, p_exists=exists,
        element=["Si" if i == k else "C" for i in range(n)], p_element=named,
        votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip
    return table, xy[k]


def defect_table(*rows):
    """Each row: frame, kind, position (Å), probability, track."""
    columns = []
    for number, row in enumerate(rows):
        frame, kind, (x, y), p, track = row
        columns.append(
            {
                "frame": frame, "defect": number, "kind": kind, "x_A": float(x), "y_A": float(y),
                "p": p, "atoms": [], "track": track, "first_frame": 0, "origin": "first seen",
                "p_beam_induced": None, "hops": None,
            }
        )  # fmt: skip
    return DefectTable(pl.DataFrame(columns, schema=SCHEMA))
