"""Rates of tracked defects: jumps to other sites, and changes of kind, with credible intervals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.linalg import expm
from scipy.special import gammaincinv

from adatom.core import DefectTable, Lattice, Material, Vacancy
from adatom.core.arrays import FloatArray, IntArray
from adatom.core.defect_kind import Antisite, Cluster, DefectKind, Substitution
from adatom.core.transitions import SCHEMA
from adatom.features.meetings import Meeting, meetings
from adatom.features.motion import LinkOptions
from adatom.features.walks import SitePath, jump_rate, site_path

_SHARES = (0.05, 0.5, 0.95)  # quantiles that the table gives
_LEAST_WRONG = 0.02  # a name is wrong with at least this probability
_FIRST_CHANGES = 0.05  # changes a frame to each other kind, from which their number is found
_ROUNDS = 12  # of that search


@dataclass(frozen=True, slots=True)
class Clock:
    """What a frame stands for.

    Parameters
    ----------
    frame_time_s
        Time from frame to frame, s; None if it is not known.
    dose_per_A2
        Electrons per Å² and frame; None if they are not known.
    """

    frame_time_s: float | None = None
    dose_per_A2: float | None = None


def transition_table(
    defects: DefectTable,
    lattices: Mapping[int, Lattice | None],
    drift_xy_A: Mapping[int, tuple[float, float]],
    clock: Clock | None = None,
    options: LinkOptions | None = None,
) -> pl.DataFrame:
    """Estimate how often tracked defects jump to other sites, change their kind, merge and split.

    Jumps come from the hidden Markov model of `walks`, for defects that occupy one site. Changes of
    kind come from one whose hidden state is the kind, since a name may be wrong; their number is
    expected from all frames and their rate has the posterior of a Poisson process with Jeffreys'
    prior. That the kind changes to and fro between two frames is not allowed for. Merges and
    splits, such as ``V1 + V1`` to ``V2``, are no changes of one kind and have rows of their own:
    they count with the probability of all their names, and their exposure is the frames that show
    what may merge, or split.

    Parameters
    ----------
    defects
        Defects of several frames, linked.
    lattices
        Lattice of each frame by its number; None where none was found.
    drift_xy_A
        Shift x, y of every frame, Å.
    clock
        Time and dose of a frame, for rates per second and per dose.
    options
        How far defects go from frame to frame; as they were linked with.

    Returns
    -------
    One row a transition with the columns of ``transitions.parquet``, frequent kinds first.
    """
    clock, options = clock or Clock(), options or LinkOptions()
    frame = defects.data["frame"].to_numpy().astype(np.int64)
    shift = np.array([drift_xy_A[int(f)] for f in frame]).reshape(-1, 2)
    place = defects.xy - shift
    met = meetings(defects, place, options.defect_step_A, options.hop_reach_A)
    tracks = _tracks(defects, {one.step for one in met})
    best = max(
        ((m.matched, -f, m) for f, m in lattices.items() if m is not None and f in drift_xy_A),
        default=None,
        key=lambda found: found[:2],
    )
    rows = []
    if best is not None:
        _, minus, lattice = best
        rows = _jumps(defects, tracks, place + np.asarray(drift_xy_A[-minus]), lattice)
    rows += _changes(defects, tracks) + _meetings(defects, met)
    table = pl.DataFrame([_timed(row, clock) for row in rows], schema=SCHEMA)
    same = pl.col("from_kind") != pl.col("to_kind")
    return table.sort(pl.col("exposure_frames"), "from_kind", same, "to_kind",
                      descending=[True, False, False, False])  # fmt: skip


def _tracks(defects: DefectTable, cuts: set[tuple[int, int]]) -> list[IntArray]:
    """Rows of every track with at least two frames, in the order of its frames.

    Between two rows that are a cut, a track begins anew.
    """
    rows: dict[int, list[list[int]]] = defaultdict(list)
    track, frame = defects.data["track"].to_numpy(), defects.data["frame"].to_numpy()
    for row in np.argsort(frame, kind="stable"):
        if track[row] >= 0:
            own = rows[int(track[row])]
            if not own or (own[-1][-1], int(row)) in cuts:
                own.append([])
            own[-1].append(int(row))
    parts = [part for own in rows.values() for part in own]
    return [np.array(part, dtype=np.int64) for part in parts if len(part) > 1]


def on_one_site(kind: DefectKind | None, material: Material) -> bool:
    """Whether a kind of defect occupies one site of the crystal.

    Parameters
    ----------
    kind
        The kind; None for a name that is not one.
    material
        The crystal.
    """
    if isinstance(kind, Cluster):
        bonds = sum(n for _, n in kind.bonded)
        return sum(n for _, n in kind.atoms) == 1 and bonds <= material.coordination
    return isinstance(kind, (Substitution, Antisite)) or (
        isinstance(kind, Vacancy) and kind.count == 1
    )


def _jumps(
    defects: DefectTable, tracks: Sequence[IntArray], xy: FloatArray, lattice: Lattice
) -> list[dict[str, Any]]:
    """Rows of the jumps of every kind that occupies one site."""
    frame, kinds = defects.data["frame"].to_numpy().astype(np.int64), defects.kinds
    runs: dict[str, list[IntArray]] = defaultdict(list)
    owners: dict[str, set[int]] = defaultdict(set)
    for number, rows in enumerate(tracks):
        for run in _runs(rows, kinds):
            runs[kinds[run[0]]].append(run)
            owners[kinds[run[0]]].add(number)
    out = []
    for kind, parts in runs.items():
        if not on_one_site(DefectKind.parse_or_none(kind), lattice.material):
            continue
        species = _species(lattice, xy[np.concatenate(parts)])
        paths = [
            site_path(lattice, frame[run], xy[run], np.zeros(len(run)), species) for run in parts
        ]
        exposure = sum(float(np.diff(path.frames).sum()) for path in paths if len(path.frames))
        if not exposure:
            continue
        low, middle, high = jump_rate(lattice.material, species, paths).quantile(*_SHARES)
        ways = [_ways(path, lattice) for path in paths]
        moved = np.concatenate(ways)
        spread = moved.T @ moved / (2.0 * exposure)
        out.append(
            {
                "from_kind": kind, "to_kind": kind, "tracks": len(owners[kind]),
                "exposure_frames": exposure,
                "seen": float((np.hypot(*moved.T) > 1e-6).sum()), "jumps": middle * exposure,
                "rate": (low, middle, high), "diffusion": spread,
            }
        )  # fmt: skip
    return out


def _runs(rows: IntArray, kinds: Sequence[str]) -> list[IntArray]:
    """Parts of a track with one kind, each with the frame after it."""
    first = [0] + [k for k in range(1, len(rows)) if kinds[rows[k]] != kinds[rows[k - 1]]]
    ends = [*first[1:], len(rows) - 1]
    return [rows[a : b + 1] for a, b in zip(first, ends, strict=True) if b > a]


def _species(lattice: Lattice, xy: FloatArray) -> str:
    """Species of the sites on which most of the positions lie."""
    index, _ = lattice.nearest_site(lattice.undistort(xy))
    names, count = np.unique(
        [lattice.material.site_species[b] for b in index[:, 2]], return_counts=True
    )
    return str(names[np.argmax(count)])


def _ways(path: SitePath, lattice: Lattice) -> FloatArray:
    """Vectors from site to site between the frames of a path, shape (step, 2), Å."""
    out: FloatArray = np.diff(lattice.site_xy(path.likeliest), axis=0).reshape(-1, 2)
    return out


def _changes(defects: DefectTable, tracks: Sequence[IntArray]) -> list[dict[str, Any]]:
    """Rows of the changes of kind."""
    frame = defects.data["frame"].to_numpy().astype(np.int64)
    p, kinds = defects.data["p"].to_numpy().astype(np.float64), np.array(defects.kinds)
    count: dict[tuple[str, str], float] = defaultdict(float)
    exposure: dict[str, float] = defaultdict(float)
    owners: dict[str, int] = defaultdict(int)
    for rows in tracks:
        names, state = np.unique(kinds[rows], return_inverse=True)
        between, stay = _expected_changes(state, p[rows], np.diff(frame[rows]))
        for a, name in enumerate(names):
            exposure[name] += float(stay[a])
            owners[name] += 1
            for b in range(len(names)):
                if a != b:
                    count[name, str(names[b])] += float(between[a, b])
    return [
        _counted(str(before), after, n, exposure[before], owners[before])
        for (before, after), n in count.items()
    ]


def _counted(before: str, after: str, seen: float, exposure: float, tracks: int) -> dict[str, Any]:
    """Row of a transition that was counted, by Jeffreys' prior of a Poisson rate."""
    # Quantiles of the gamma distribution; `scipy.stats` takes half a second to import.
    quantiles = gammaincinv(seen + 0.5, _SHARES) / max(exposure, 1e-9)
    low, middle, high = (float(q) for q in quantiles)
    return {
        "from_kind": before, "to_kind": after, "tracks": tracks, "exposure_frames": exposure,
        "seen": seen, "jumps": middle * exposure, "rate": (low, middle, high), "diffusion": None,
    }  # fmt: skip


def _meetings(defects: DefectTable, met: Sequence[Meeting]) -> list[dict[str, Any]]:
    """Rows of merges and splits."""
    kinds, p = defects.kinds, defects.data["p"].to_numpy()
    seen: dict[tuple[str, str], float] = defaultdict(float)
    before: dict[str, Counter[str]] = {}
    for one in met:
        apart, together = one.name(kinds), kinds[one.whole]
        ends = (together, apart) if one.splits else (apart, together)
        seen[ends] += float(np.prod(p[[*one.parts, one.whole]]))
        before[ends[0]] = Counter([together] if one.splits else [kinds[r] for r in one.parts])
    shown: dict[int, Counter[str]] = defaultdict(Counter)
    for frame, kind in zip(defects.data["frame"].to_list(), kinds, strict=True):
        shown[frame][kind] += 1
    exposure = {
        name: float(sum(wanted <= there for there in shown.values()))
        for name, wanted in before.items()
    }
    number, track = np.array(kinds), defects.data["track"].to_numpy()
    return [
        _counted(
            start, end, n, exposure[start],
            len(np.unique(track[np.isin(number, list(before[start]))])),
        )
        for (start, end), n in seen.items()
    ]  # fmt: skip


def _expected_changes(
    state: IntArray, p: FloatArray, gap: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Expected changes between kinds, shape (kind, kind), and frames in each kind, shape (kind,).

    Parameters
    ----------
    state
        Number of the kind that each frame names, shape (frame,).
    p
        Probability of that name, shape (frame,).
    gap
        Frames from each to the next, shape (frame - 1,).
    """
    n = int(state.max()) + 1
    if n == 1:
        return np.zeros((1, 1)), np.array([float(gap.sum())])
    right = np.clip(p, 1.0 / n, 1.0 - _LEAST_WRONG)
    named = np.where(np.arange(n) == state[:, None], right[:, None], (1 - right[:, None]) / (n - 1))
    rate = _FIRST_CHANGES
    pairs = np.zeros((len(gap), n, n))
    for _ in range(_ROUNDS):
        step = {g: expm(rate * g * (np.ones((n, n)) - n * np.eye(n))) for g in set(gap.tolist())}
        chance = np.array([step[g] for g in gap.tolist()])
        pairs = _pair_probabilities(named, chance)
        changes = pairs.sum(axis=0)
        np.fill_diagonal(changes, 0.0)
        rate = max(float(changes.sum()) / float(gap.sum()) / (n - 1), 1e-6)
    changes = pairs.sum(axis=0)
    np.fill_diagonal(changes, 0.0)
    stay: FloatArray = (pairs.sum(axis=2) * gap[:, None]).sum(axis=0)
    return changes, stay


def _pair_probabilities(named: FloatArray, chance: FloatArray) -> FloatArray:
    """Posterior of the kinds before and after each step, shape (step, kind, kind)."""
    steps = len(chance)
    forward, backward = [named[0] / named[0].sum()], [np.ones(named.shape[1])]
    for k in range(steps):
        after = forward[-1] @ chance[k] * named[k + 1]
        forward.append(after / after.sum())
        before = chance[steps - 1 - k] @ (named[steps - k] * backward[-1])
        backward.append(before / before.sum())
    backward.reverse()
    pairs = np.array(
        [forward[k][:, None] * chance[k] * (named[k + 1] * backward[k + 1]) for k in range(steps)]
    )
    out: FloatArray = pairs / pairs.sum(axis=(1, 2), keepdims=True)
    return out


def _timed(row: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """A row of the table from the rates of a frame."""
    names = ("{}_low_{}", "{}_{}", "{}_high_{}")
    out = {k: v for k, v in row.items() if k not in ("rate", "diffusion")}
    for unit, per in (("per_s", clock.frame_time_s), ("A2", clock.dose_per_A2), ("per_frame", 1.0)):
        quantity = "cross_section" if unit == "A2" else "rate"
        for name, rate in zip(names, row["rate"], strict=True):
            out[name.format(quantity, unit)] = rate / per if per else None
    out["dwell_frames"] = 1.0 / row["rate"][1]
    tensor = row["diffusion"]
    for name, (i, j) in {"xx": (0, 0), "xy": (0, 1), "yy": (1, 1)}.items():
        out[f"diffusion_{name}_A2"] = None if tensor is None else float(tensor[i, j])
    return out
