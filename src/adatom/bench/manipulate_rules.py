"""What a move takes at least, and by the published rules: in `adatom bench manipulate`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from adatom.bench.rows import Row, row
from adatom.core import GRAPHENE
from adatom.core.arrays import FloatArray
from adatom.core.hops import HopModel
from adatom.feedback.sites import Sites
from adatom.frames.simulate.specimen import lattice_points

STEPS = 5  # sites of a way
_SEED = 4000
_FRAME_s = 2.0  # s: the published image
_PUBLISHED_DWELL_s = 1.5
_ORACLE_RUNS = 2000


def references() -> list[Row]:
    """Time of the oracle and of the published rules, by the same rates, without drift."""
    rng = np.random.default_rng(_SEED)
    lattice = Sites.of(lattice_points(GRAPHENE, (40.0, 40.0), 0.0, 0.3), GRAPHENE.bond_length_A)
    oracle = STEPS / HopModel().rate_per_s
    out = [
        row(
            "oracle: sees every hop, beam always at the peak",
            f"{np.mean([_rule(lattice, rng, 0.85, None, 0.0) for _ in range(200)]):.1f} s",
            f"{oracle:.1f} s: {STEPS} over the rate",
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
    for _ in range(STEPS):
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
