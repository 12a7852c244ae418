"""`adatom bench manipulate`: move a Si five sites along a way, and count time and losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adatom.analysis.frame import analyse_frame
from adatom.bench.rows import Row, row
from adatom.campaign.move import move_atoms
from adatom.campaign.twin import make_twin
from adatom.core import GRAPHENE
from adatom.core.arrays import FloatArray
from adatom.core.hops import HopModel
from adatom.errors import AdatomError
from adatom.feedback.plans import Along
from adatom.feedback.sites import Sites
from adatom.frames.simulate.specimen import lattice_points
from adatom.instrument.twin import PUBLISHED_HOPS_A2, Twin, TwinOptions
from adatom.learning.weights import load_shipped
from adatom.parallel.processes import cores, local_processes

_STEPS = 5
_SEED = 4000  # of the first specimen
_ROOM_A = 9.0  # Å: the way stays so near to the middle of the field
_OVERHEAD_s = 0.15  # a frame's fly-back and its analysis
_FRAME_s = 2.0  # s: the published image; drift is stated for this time
_PUBLISHED_DWELL_s = 1.5
_ORACLE_RUNS = 2000
_SUCCESS, _TIME, _BLIND_TIME = 0.95, 1.5, 2.5  # targets


@dataclass(frozen=True, slots=True)
class _Case:
    """One row of the table: a twin, and how many runs of it."""

    name: str
    runs: int
    rate: float = 1.0  # true rate over that of the prior
    drift_A: float = 0.25  # in 2 s, 1 sigma an axis
    drift_s: float = _FRAME_s
    options: dict[str, Any] = field(default_factory=dict)
    time_target: float = _TIME


_CASES = (
    _Case("published rate, drift 0.25 Å in 2 s", 60),
    _Case("rate three times lower", 12, rate=1 / 3),
    _Case("rate three times higher", 12, rate=3.0),
    _Case("drift 0.25 Å in 0.26 s", 12, drift_s=0.2563),
    _Case("no signal from a parked beam", 12, options={"traces": False}, time_target=_BLIND_TIME),
)
_QUICK = 6  # every case with so many times fewer runs


def bench_manipulate(options: Any, output: Path) -> list[Row]:
    """Move a Si on the simulated microscope; the oracle and the published rule in the same table.

    Parameters
    ----------
    options
        See `BenchOptions`.
    output
        Not used.
    """
    del output
    rows = _references()
    with local_processes(cores()) as pool:
        for case in _CASES:
            runs = max(2, case.runs // _QUICK) if options.quick else case.runs
            results = list(pool.map(_run, [case] * runs, range(_SEED, _SEED + runs)))
            rows += _rows_of(case, results)
    return rows


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one run; the time is that of the twin."""

    reached: bool
    lost: bool
    said: bool  # the loop says that it is done
    seconds: float
    frames: int


def _run(case: _Case, seed: int) -> _Result:
    shown = TwinOptions()
    per_frame = shown.dose_per_A2 * shown.field_of_view_A**2 / 3.1207e8  # s, at 50 pA
    options = TwinOptions(
        hop_cross_section_A2=case.rate * PUBLISHED_HOPS_A2,
        drift_A=case.drift_A * (per_frame / case.drift_s) ** 0.5,
        overhead_s=_OVERHEAD_s,
        **case.options,
    )
    twin = make_twin(options, GRAPHENE, seed)
    goal, by_A = _way(twin, np.random.default_rng(seed))
    ensemble = load_shipped("graphene")
    try:
        see = partial(analyse_frame, ensemble=ensemble, material=GRAPHENE)
        moved = move_atoms(twin, see, GRAPHENE, Along(by_A))
    except AdatomError:
        return _Result(reached=False, lost=False, said=False, seconds=twin.time_s, frames=0)
    here = np.flatnonzero(twin.species == 1)
    return _Result(
        reached=here.tolist() == [goal],
        lost=len(here) != 1,
        said=moved.status == "done",
        seconds=moved.seconds,
        frames=moved.looks,
    )


def _way(twin: Twin, rng: np.random.Generator) -> tuple[int, list[tuple[float, float]]]:
    """Draw a way along bonds that visits no site twice: its end, and its displacements, Å."""
    start = int(np.flatnonzero(twin.species == 1)[0])
    sites = Sites.of(twin.sites_xy, GRAPHENE.bond_length_A)
    while True:
        way = [start]
        for _ in range(_STEPS):
            open_to = [
                int(s)
                for s in sites.neighbours(way[-1])
                if s not in way
                and twin.occupied[s]
                and np.abs(twin.sites_xy[s] - twin.center_xy_A).max() < _ROOM_A
            ]
            if not open_to:
                break
            way.append(int(rng.choice(open_to)))
        if len(way) == _STEPS + 1:
            break
    shifts = twin.sites_xy[way[1:]] - twin.sites_xy[start]
    return way[-1], [(float(x), float(y)) for x, y in shifts]


def _rows_of(case: _Case, results: list[_Result]) -> list[Row]:
    oracle = _STEPS / (HopModel().rate_per_s * case.rate)
    share = float(np.mean([r.reached and r.said for r in results]))
    wrong = sum(r.said and not r.reached for r in results)
    seconds = [r.seconds for r in results if r.reached]
    ratio = float(np.mean(seconds)) / oracle if seconds else float("inf")
    error = float(np.std(seconds) / max(len(seconds), 1) ** 0.5) / oracle
    frames = float(np.mean([r.frames for r in results]))
    lost = sum(r.lost for r in results)
    return [
        row(
            f"{case.name}: runs that reach the goal",
            f"{share:.1%} of {len(results)} ({wrong} say so and are wrong, {lost} lost the Si)",
            f"at least {_SUCCESS:.0%}",
            met=share >= _SUCCESS,
        ),
        row(
            f"{case.name}: time over the oracle's",
            f"{ratio:.2f} ± {error:.2f} ({frames:.1f} frames a run)",
            f"at most {case.time_target:g}",
            met=ratio <= case.time_target,
        ),
    ]


def _references() -> list[Row]:
    """Time of the oracle and of the published rules, by the same rates, without drift."""
    rng = np.random.default_rng(_SEED)
    lattice = Sites.of(lattice_points(GRAPHENE, (40.0, 40.0), 0.0, 0.3), GRAPHENE.bond_length_A)
    oracle = _STEPS / HopModel().rate_per_s
    out = [
        row(
            "oracle: sees every hop, beam always at the peak",
            f"{np.mean([_rule(lattice, rng, 0.85, None, 0.0) for _ in range(200)]):.1f} s",
            f"{oracle:.1f} s: {_STEPS} over the rate",
            met=True,
        )
    ]
    for name, aim in (("at the neighbour", 1.0), ("at the peak of the rate", 0.85)):
        times = [
            _rule(lattice, rng, aim, _PUBLISHED_DWELL_s, _FRAME_s)
            for _ in range(_ORACLE_RUNS // 10)
        ]
        out.append(
            row(
                f"published rule, {name}: time over the oracle's",
                f"{np.mean(times) / oracle:.2f}",
                "for comparison: no drift, frames read without error",
                met=True,
            )
        )
    return out


def _rule(
    sites: Sites, rng: np.random.Generator, aim: float, dwell_s: float | None, frame_s: float
) -> float:
    """Time of one move by a fixed rule, s; without a dwell time, until the hop."""
    model, seconds = HopModel(), 0.0
    site = int(np.argmin(np.linalg.norm(sites.xy - sites.xy.mean(axis=0), axis=1)))
    for goal in _walk(sites, site, rng):
        while site != goal:
            way = sites.route(site, goal)
            beam = sites.xy[site] + aim * (sites.xy[way[1]] - sites.xy[site])
            site, spent = _dwell(sites, model, site, beam, dwell_s, rng)
            seconds += spent + frame_s
    return seconds


def _walk(sites: Sites, start: int, rng: np.random.Generator) -> Iterator[int]:
    way = [start]
    for _ in range(_STEPS):
        way.append(int(rng.choice([s for s in sites.neighbours(way[-1]) if s not in way])))
        yield way[-1]


def _dwell(
    sites: Sites,
    model: HopModel,
    site: int,
    beam: FloatArray,
    dwell_s: float | None,
    rng: np.random.Generator,
) -> tuple[int, float]:
    """Let the beam dwell: the site after it, and the time."""
    left = np.inf if dwell_s is None else dwell_s
    spent = 0.0
    while True:
        neighbours = sites.neighbours(site)
        rates = model.rates_per_s(beam, sites.xy[site], sites.xy[neighbours], model.current_pA)
        wait = float(rng.exponential() / rates.sum())
        if wait > left:
            return site, spent + left
        site = int(rng.choice(neighbours, p=rates / rates.sum()))
        spent, left = spent + wait, left - wait
        if dwell_s is None:
            return site, spent
