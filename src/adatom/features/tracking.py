"""Link atoms and defects between frames after subtracting the drift of the specimen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from adatom.core import AtomTable, DefectTable
from adatom.core.arrays import FloatArray, IntArray
from adatom.errors import BadInput
from adatom.features.drift import drift_of
from adatom.features.histories import SearchedField, hops, origins
from adatom.features.linking import link_points, nearest
from adatom.features.meetings import Meeting, meetings
from adatom.features.motion import (
    FieldOfView,
    LinkOptions,
    hidden_between,
    hopping,
    wandering,
)

Drift = Mapping[int, tuple[float, float]]  # shift x, y of each frame, Å


def estimate_drift(
    table: AtomTable, options: LinkOptions | None = None
) -> dict[int, tuple[float, float]]:
    """Estimate the drift of the specimen since the first frame.

    All atoms decide: only shifts that lay as many atoms on atoms of their element as any other
    shift are considered, so an impurity that hops is not taken for drift. In a crystal these differ
    by lattice vectors. Among them, impurities, gaps between the atoms and the drift of the
    neighbouring frames decide; `drift.py` has the model.

    Parameters
    ----------
    table
        Atoms of several frames.
    options
        Gives the largest drift between frames.

    Returns
    -------
    Shift x, y in Å of the specimen relative to the first frame, for every frame with atoms.
    Subtract it from the positions to align the frames.

    Examples
    --------
    >>> from adatom.core import AtomTable
    >>> xy, one = np.array([[1.0, 1.0], [2.4, 1.0], [1.2, 2.5], [3.0, 3.1]]), np.ones(4)
    >>> frames = [
    ...     AtomTable.build(
    ...         frame=k, xy=xy + shift, covariance=np.tile(np.eye(2) * 0.01, (4, 1, 1)),
    ...         p_exists=one, element=["C"] * 4, p_element=one, votes=one, amplitude=one,
    ...     )
    ...     for k, shift in enumerate(([0.0, 0.0], [0.3, -0.1]))
    ... ]
    >>> drift = estimate_drift(AtomTable.concat(frames))
    >>> np.round(drift[1], 2).tolist()
    [0.3, -0.1]
    """
    return drift_of(table, (options or LinkOptions()).drift_A)


def link_atoms(
    table: AtomTable, drift_xy_A: Drift | None = None, options: LinkOptions | None = None
) -> AtomTable:
    """Link atoms to tracks over the frames.

    Linear assignment between frames and over gaps (`linking.link_points`), after subtracting the
    drift from the positions. Impurity atoms may hop from site to site; `motion.hopping` has the
    costs.

    Parameters
    ----------
    table
        Atoms of several frames.
    drift_xy_A
        Shift x, y in Å of every frame; default: from `estimate_drift`.
    options
        Longest step, longest hop and longest gap.

    Returns
    -------
    The same atoms with ``track`` filled; tracks are numbered by first appearance.

    Raises
    ------
    BadInput
        If the drift of a frame is missing.
    """
    o = options or LinkOptions()
    if not len(table):
        return table
    drift = estimate_drift(table, o) if drift_xy_A is None else drift_xy_A
    frame = table.data["frame"].to_numpy().astype(np.int64)
    shift = _drift_of(drift, frame)
    position = table.xy - shift
    motion = hopping(table, position, shift, o.atom_step_A, o.hop_reach_A)
    # What is left on one place has changed its element, such as a column that lost an atom.
    changed = nearest(len(frame), o.atom_step_A)
    return table.with_tracks(link_points(frame, position, motion, o.gap_frames, changed))


def _drift_of(drift: Drift, frame: IntArray) -> FloatArray:
    missing = sorted({int(f) for f in frame} - set(drift))
    if missing:
        raise BadInput(
            "drift",
            expected="a shift for every frame",
            got=f"none for frame {missing[0]}",
            todo="Estimate the drift from the same atom table, or leave it out.",
        )
    return np.array([drift[int(f)] for f in frame], dtype=np.float64).reshape(-1, 2)


def link_defects(
    table: DefectTable,
    drift_xy_A: Drift | None = None,
    *,
    frames: Iterable[int] | None = None,
    extent_xy_A: tuple[float, float] | None = None,
    border_A: float = 0.0,
    options: LinkOptions | None = None,
) -> DefectTable:
    """Link defects to tracks over the frames; record the origin of each, and its hops.

    Parameters
    ----------
    table
        Defects of several frames.
    drift_xy_A
        Shift x, y in Å of every frame, from `estimate_drift`. By default, the common shift of the
        defects of two frames is used, if there are at least two; the motion of a single defect
        cannot be separated from drift.
    frames
        All frames that were analysed, including those without defects; defects of the first one
        have the origin ``first seen``. Default: the frames of the table.
    extent_xy_A
        Far corner x, y of the frames, Å. Without it, no defect is known to have come in over the
        border.
    border_A
        Defects nearer to the border were not named, Å.
    options
        Longest step, longest gap and shortest hop.

    Returns
    -------
    The same defects with ``track``, ``first_frame``, ``origin`` and ``hops`` filled. The origin is
    ``first seen`` in the first frame; later ``came into the field`` where the drift carried its
    place over the border, else ``appeared``; ``from <kind>`` after a track changed its kind, ``from
    V1 + V1`` after two merged, and ``split from V2`` after one came apart; see `meetings`.

    Raises
    ------
    BadInput
        If the drift of a frame is missing.
    """
    o = options or LinkOptions()
    if not len(table):
        return table
    frame = table.data["frame"].to_numpy().astype(np.int64)
    drift = _defect_drift(table, frame, o) if drift_xy_A is None else drift_xy_A
    place = table.xy - _drift_of(drift, frame)
    analysed = np.unique([*([] if frames is None else frames), *frame]).astype(np.int64)
    moved = np.array([drift.get(int(f), (np.nan, np.nan)) for f in analysed])
    field = _field_of_view(
        analysed if frames is not None else None, frame, drift, extent_xy_A, border_A
    )
    motion = wandering(
        table.kinds, hidden_between(frame, place, field), o.defect_step_A, o.hop_reach_A
    )
    track = link_points(frame, place, motion, o.gap_frames)
    searched = SearchedField(analysed, moved, extent_xy_A, border_A)
    kinds = table.kinds
    met = meetings(_with_tracks(table, track), place, o.defect_step_A, o.hop_reach_A)
    origin, first, hopped = [""] * len(frame), np.zeros_like(frame), np.zeros_like(frame)
    for number in range(int(track.max()) + 1):
        rows = np.flatnonzero(track == number)
        rows = rows[np.argsort(frame[rows], kind="stable")]
        first[rows] = frame[rows[0]]
        hopped[rows] = hops(place[rows], o.hop_A)
        began = searched.origin(int(frame[rows[0]]), place[rows[0]])
        names = [kinds[r] for r in rows]
        told = origins(names, began, _met_of(met, rows, kinds))
        for row, since in zip(rows, told, strict=True):
            origin[row] = since
    return DefectTable(
        _with_tracks(table, track).data.with_columns(
            pl.Series("first_frame", first, dtype=pl.Int32),
            pl.Series("origin", origin, dtype=pl.String),
            pl.Series("hops", hopped, dtype=pl.Int32),
        )
    )


def _with_tracks(table: DefectTable, track: IntArray) -> DefectTable:
    return DefectTable(table.data.with_columns(pl.Series("track", track, dtype=pl.Int32)))


def _met_of(met: Sequence[Meeting], rows: IntArray, kinds: Sequence[str]) -> dict[int, str]:
    """Origins of a track since it merged or split, by their place in its rows."""
    at = {int(row): k for k, row in enumerate(rows)}
    out: dict[int, str] = {}
    for one in met:
        if one.splits:
            out |= {at[r]: f"split from {kinds[one.whole]}" for r in one.parts if r in at}
        elif one.whole in at:
            out[at[one.whole]] = f"from {one.name(kinds)}"
    return out


def _field_of_view(
    analysed: IntArray | None,
    frame: IntArray,
    drift: Drift,
    extent_xy_A: tuple[float, float] | None,
    border_A: float,
) -> FieldOfView:
    """Where defects were searched; everywhere, and in every frame, where nothing else is known."""
    numbers = np.arange(frame.min(), frame.max() + 1) if analysed is None else analysed
    if extent_xy_A is None:
        everywhere = np.full((len(numbers), 2), np.inf)
        return FieldOfView(numbers, -everywhere, everywhere)
    moved = np.array([drift.get(int(f), (np.nan, np.nan)) for f in numbers])
    return FieldOfView(numbers, border_A - moved, np.asarray(extent_xy_A) - border_A - moved)


def _defect_drift(
    table: DefectTable, frame: IntArray, o: LinkOptions
) -> dict[int, tuple[float, float]]:
    """Drift from the defects alone: the median step if two or more defects agree, else zero."""
    present: Sequence[int] = sorted({int(f) for f in frame})
    xy, total = table.xy, np.zeros(2)
    drift = {present[0]: (0.0, 0.0)}
    for before, now in pairwise(present):
        old, new = xy[frame == before], xy[frame == now]
        steps = (new[:, None] - old[None]).reshape(-1, 2)
        steps = steps[np.hypot(*steps.T) <= o.drift_A]
        if min(len(old), len(new)) >= 2 and len(steps):
            d = cKDTree(old).query(new[None] - steps[:, None])[0]
            hits = (d < 0.7).sum(axis=1) - 0.1 * np.hypot(*steps.T)
            best = steps[np.argmax(hits)]
            agree = np.hypot(*(steps - best).T) < 0.7
            if agree.sum() >= 2:
                total = total + np.median(steps[agree], axis=0)
        drift[now] = (float(total[0]), float(total[1]))
    return drift
