"""`adatom bench wrong`: frames, and parts of frames, that are not what adatom is told."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from adatom.analysis.frame import analyse_frame
from adatom.bench.foreign_frames import Given, foreign_frames, graphene_frames
from adatom.bench.masked_parts import masked_rows
from adatom.bench.rows import Row, row
from adatom.campaign.choose import screening_of
from adatom.campaign.sources import settle_scale
from adatom.campaign.verdict import judge
from adatom.core import GRAPHENE
from adatom.errors import AdatomError
from adatom.learning.ensemble import Ensemble
from adatom.learning.weights import load, load_shipped

_SEED = 20  # of the simulated frames
_QUICK = 6  # every sixth frame
_MOST_REFUSED = 2  # graphene frames that may be called something else


def bench_wrong(options: Any, output: Path) -> list[Row]:
    """Give adatom frames that are not graphene as graphene, and real graphene.

    Without ``--data``, the simulated frames only.

    Parameters
    ----------
    options
        See `BenchOptions`.
    output
        Not used.
    """
    del output
    ensemble = load_shipped("graphene") if options.weights is None else load(options.weights)
    foreign = _answers(foreign_frames(options.data, _SEED), ensemble, quick=options.quick)
    missed = [name for name, wrong in foreign if wrong is None]
    rows = [
        row(
            "frames that are not graphene, given as graphene: taken as it",
            f"{len(missed)} of {len(foreign)}" + (f" ({', '.join(missed)})" if missed else ""),
            "none",
            met=not missed,
        )
    ]
    if options.data is not None:
        real = _answers(graphene_frames(options.data), ensemble, quick=options.quick)
        refused = [name for name, wrong in real if wrong is not None]
        rows.append(
            row(
                "real graphene frames: called something else",
                f"{len(refused)} of {len(real)}" + (f" ({', '.join(refused)})" if refused else ""),
                f"at most {_MOST_REFUSED}",
                met=len(refused) <= _MOST_REFUSED,
            )
        )
    return rows + masked_rows(quick=options.quick)


def _answers(
    given: Iterator[Given], ensemble: Ensemble, *, quick: bool
) -> list[tuple[str, str | None]]:
    """Name of every frame, and why adatom says that it is not graphene; None if it does not."""
    return [
        (one.name, _answer(one, ensemble)) for one in islice(given, 0, None, _QUICK if quick else 1)
    ]


def _answer(given: Given, ensemble: Ensemble) -> str | None:
    """The way of `adatom find --material graphene`, without the adaptation."""
    try:
        movie, _ = settle_scale(given.movie, GRAPHENE, fit=False)
    except AdatomError as refused:
        return str(refused)
    result = analyse_frame(movie[0], ensemble, GRAPHENE)
    return judge(
        movie, GRAPHENE, ensemble, screening_of(movie, GRAPHENE), result.atoms,
        {0: result.lattice}, {0: result.flags},
    )  # fmt: skip
