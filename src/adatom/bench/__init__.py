"""Benchmarks anyone can run, each with its baselines, limits and targets in one table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adatom.bench.adapt import bench_adapt
from adatom.bench.alloys import bench_alloys
from adatom.bench.defects import bench_defects
from adatom.bench.files import bench_files
from adatom.bench.find import bench_find
from adatom.bench.live import bench_live
from adatom.bench.manipulate import bench_manipulate
from adatom.bench.monolayers import bench_identify
from adatom.bench.real import bench_real
from adatom.bench.rows import Row
from adatom.bench.simulate import bench_simulate
from adatom.bench.speed import bench_speed
from adatom.bench.versus import bench_versus
from adatom.bench.whole import bench_demo, bench_movie, silicon_hits
from adatom.bench.wrong import bench_wrong
from adatom.errors import BadInput

__all__ = ["BENCHMARKS", "BenchOptions", "run_benchmark", "silicon_hits"]


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of a benchmark.

    Parameters
    ----------
    data
        Directory of the real micrographs, for those that need it.
    output
        Directory for the results; by default a temporary one.
    quick
        Use fewer frames: minutes instead of a quarter of an hour.
    peers
        Python interpreter of an environment with AtomAI, Atomap and trackpy, to compare with them.
    weights
        File of an ensemble to use instead of the shipped one.
    other
        Python interpreter of an environment with another version of adatom, to time both in turns.
    frames
        Frames for each kind of defect and dose, in ``defects``; for each monolayer and dose, in
        ``identify``.
    cases
        Number of simulated frames at each dose, for ``simulate``.
    """

    data: Path | None = None
    output: Path | None = None
    quick: bool = False
    peers: Path | None = None
    weights: Path | None = None
    other: Path | None = None
    frames: int | None = None
    cases: int | None = None


def run_benchmark(name: str, options: BenchOptions) -> list[Row]:
    """Run a benchmark.

    Parameters
    ----------
    name
        One of `BENCHMARKS`.
    options
        See `BenchOptions`; the output directory must not exist, so that nothing is done already.

    Returns
    -------
    Rows with ``quantity``, ``measured``, ``target`` and whether it is ``met``.

    Raises
    ------
    BadInput
        If the output directory exists, or if data that the benchmark needs are not given.
    """
    output = options.output
    if output is not None and output.exists():
        raise BadInput(
            str(output),
            expected="a new directory",
            got="one that exists",
            todo="Name another: what is known already would not be timed.",
        )
    with tempfile.TemporaryDirectory() as scratch:
        return BENCHMARKS[name](options, output or Path(scratch) / "campaign")


BENCHMARKS: dict[str, Callable[[Any, Path], list[Row]]] = {
    "adapt": bench_adapt,
    "alloys": bench_alloys,
    "defects": bench_defects,
    "demo": lambda options, output: bench_demo(options.data, output),
    "movie": lambda options, output: bench_movie(options.data, output),
    "files": bench_files,
    "find": bench_find,
    "identify": bench_identify,
    "live": bench_live,
    "manipulate": bench_manipulate,
    "real": bench_real,
    "simulate": bench_simulate,
    "speed": bench_speed,
    "versus": bench_versus,
    "wrong": bench_wrong,
}
