"""Link atoms and defects between frames after subtracting the drift of the specimen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import cKDTree

from adatom.core import AtomTable, DefectTable
from adatom.core.arrays import FloatArray, IntArray
from adatom.errors import BadInput
from adatom.features.histories import SearchedField, hops, origins
from adatom.features.linking import link_points

Drift = Mapping[int, tuple[float, float]]  # shift x, y of each frame, Å


class LinkOptions(BaseModel):
    """Limits of the motion of atoms and defects between frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    atom_step_A: float = Field(
        default=1.0, gt=0.0, description="longest step of an atom between two frames, Å"
    )
    defect_step_A: float = Field(
        default=3.0, gt=0.0, description="longest step of a defect between two frames, Å"
    )
    gap_frames: int = Field(
        default=3, ge=0, description="frames in which a tracked atom or defect may be unseen"
    )
    drift_A: float = Field(
        default=4.0, ge=0.0, description="largest drift of the specimen between two frames, Å"
    )
    hop_A: float = Field(
        default=1.0, gt=0.0, description="shortest hop of a tracked defect to another site, Å"
    )
    element_penalty_A: float = Field(
        default=0.5, ge=0.0, description="distance added where the element changes, Å"
    )


def estimate_drift(
    table: AtomTable, options: LinkOptions | None = None
) -> dict[int, tuple[float, float]]:
    """Estimate the drift of the specimen since the first frame.

    A shift by a lattice vector maps a perfect crystal onto itself, so several shifts between two
    frames put atoms on atoms. The one is chosen that also puts impurity atoms (every element but
    the most common) on impurity atoms; without impurities, the smallest one.

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
    o = options or LinkOptions()
    frames = table.frames
    if not frames:
        return {}
    elements = table.elements
    names, counts = np.unique(elements, return_counts=True)
    common = names[np.argmax(counts)]
    at, xy = table.data["frame"].to_numpy(), table.xy
    total = np.zeros(2)
    drift = {frames[0]: (0.0, 0.0)}
    for before, now in pairwise(frames):
        old, new = at == before, at == now
        impurity = elements != common
        total = total + _shift(xy[old], xy[new], xy[old & impurity], xy[new & impurity], o)
        drift[now] = (float(total[0]), float(total[1]))
    return drift


def _shift(
    old: FloatArray,
    new: FloatArray,
    old_impurities: FloatArray,
    new_impurities: FloatArray,
    o: LinkOptions,
) -> FloatArray:
    """Shift x, y in Å that best aligns atoms and impurities of a new frame with the old."""
    has_impurities = bool(len(old_impurities) and len(new_impurities))
    reach = o.drift_A if has_impurities else min(o.drift_A, 1.8)
    steps = np.arange(-np.ceil(reach / 0.3), np.ceil(reach / 0.3) + 1.0) * 0.3
    starts = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    starts = starts[np.hypot(*starts.T) <= reach + 1e-9]
    if has_impurities:  # only shifts that align the impurities are tested with all atoms
        overlap = _overlay(old_impurities, new_impurities, starts)
        starts = starts[overlap >= 0.6 * overlap.max()]
    tree = cKDTree(old)
    # About 120 atoms are enough for a first score.
    sample = new[:: max(1, len(new) // 120)]
    far = tree.query(sample[None] - starts[:, None], distance_upper_bound=1.0)[0]
    fit = np.exp(-((np.minimum(far, 1.0) / 0.45) ** 2)).mean(axis=1)
    fit -= 0.01 * np.hypot(*starts.T)
    if has_impurities:
        fit += 0.5 * _overlay(old_impurities, new_impurities, starts)
    best = None
    for k in np.argsort(-fit)[:12]:
        shift = starts[k]
        for _ in range(4):  # iterative closest point
            d, i = tree.query(new - shift, distance_upper_bound=0.6)
            near = np.isfinite(d)
            if near.sum() < 3:
                break
            shift = np.median(new[near] - old[i[near]], axis=0)
        d = np.minimum(tree.query(new - shift, distance_upper_bound=1.0)[0], 1.0)
        score = float(np.exp(-((d / 0.3) ** 2)).mean()) - 0.02 * float(np.hypot(*shift))
        if has_impurities:
            score += 0.5 * float(_overlay(old_impurities, new_impurities, shift[None])[0])
        if best is None or score > best[0]:
            best = (score, shift)
    out: FloatArray = np.zeros(2) if best is None else best[1]
    return out


def _overlay(old: FloatArray, new: FloatArray, shifts: FloatArray) -> FloatArray:
    """Mean overlap of impurities for every shift, shape (shift,), 0 to 1.

    The kernel is wide (1 Å), because impurities may hop while the specimen drifts.
    """
    d = cKDTree(old).query(new[None] - shifts[:, None])[0]
    out: FloatArray = np.exp(-((d / 1.0) ** 2)).mean(axis=1)
    return out


def link_atoms(
    table: AtomTable, drift_xy_A: Drift | None = None, options: LinkOptions | None = None
) -> AtomTable:
    """Link atoms to tracks over the frames.

    Linear assignment between frames and over gaps (`linking.link_points`), after subtracting the
    drift from the positions.

    Parameters
    ----------
    table
        Atoms of several frames.
    drift_xy_A
        Shift x, y in Å of every frame; default: from `estimate_drift`.
    options
        Longest step, longest gap, and penalty for a change of the element.

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
    symbols = sorted(set(table.elements))
    # The element is a third coordinate: a change adds distance, but is not forbidden.
    code = np.array([symbols.index(e) for e in table.elements]) * o.element_penalty_A
    position = np.column_stack([table.xy - _drift_of(drift, frame), code])
    return table.with_tracks(link_points(frame, position, o.atom_step_A, o.gap_frames))


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
    place over the border, else ``appeared``; and ``from <kind>`` after a track changed its kind.

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
    track = link_points(frame, place, o.defect_step_A, o.gap_frames)
    analysed = np.unique([*([] if frames is None else frames), *frame]).astype(np.int64)
    moved = np.array([drift.get(int(f), (np.nan, np.nan)) for f in analysed])
    searched = SearchedField(analysed, moved, extent_xy_A, border_A)
    kinds = table.kinds
    origin, first, hopped = [""] * len(frame), np.zeros_like(frame), np.zeros_like(frame)
    for number in range(int(track.max()) + 1):
        rows = np.flatnonzero(track == number)
        rows = rows[np.argsort(frame[rows], kind="stable")]
        first[rows] = frame[rows[0]]
        hopped[rows] = hops(place[rows], o.hop_A)
        began = searched.origin(int(frame[rows[0]]), place[rows[0]])
        for row, since in zip(rows, origins([kinds[r] for r in rows], began), strict=True):
            origin[row] = since
    return DefectTable(
        table.data.with_columns(
            pl.Series("track", track, dtype=pl.Int32),
            pl.Series("first_frame", first, dtype=pl.Int32),
            pl.Series("origin", origin, dtype=pl.String),
            pl.Series("hops", hopped, dtype=pl.Int32),
        )
    )


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
