"""`adatom bench versus`: `adatom find` as a process, this adatom and another one in turns."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from adatom.bench.rows import Row, row
from adatom.bench.sets import convolution_set
from adatom.campaign.sources import twin_movie
from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.instrument import FAST_HOPS_A2, TwinOptions

_TURNS = 3  # runs of each, in turns; the median is taken, since machines are shared
_MOVIE = "graphene_si_movie/si3c6_trimer_rotating.tif"
_MOVIE_PIXEL_A = 0.078125  # Å, of that movie
_FRAMES = 44
_LARGE_PX = (512, 1024)
_DOSE = 5.0  # counts at a carbon peak, of the simulated frame
_TARGET = 0.6  # of the other's time a frame
_FIRST_TARGET = 0.5  # of the other's time for the first frame, which is 256²
_NO_HIGHER = 1.03  # within what runs differ by
_MEMORY_TARGETS = {1024: 0.7}  # of the other's peak memory, by edge in pixels; else no higher
_SAME_A = 1e-6  # Å: positions that differ by less are the same


# Runs a command, and prints its exit code, wall time and processor time in s, and peak memory in MB
# (NaN on Windows). It is a small process of its own, because Linux counts the memory of the process
# that starts a command to that command's peak.
_MEASURE = """
import json, subprocess, sys, time
began = time.perf_counter()
with open(sys.argv[1], "wb") as log:
    code = subprocess.run(sys.argv[2:], stdout=log, stderr=subprocess.STDOUT).returncode
wall = time.perf_counter() - began
try:
    import resource
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
except ImportError:
    cpu = peak = float("nan")
print(json.dumps([code, wall, cpu, peak]))
"""


@dataclass(frozen=True, slots=True)
class _Job:
    """One input of `adatom find`."""

    name: str
    path: Path
    pixel_size_A: float
    frames: int
    time_target: float | None = None
    memory_target: float = _NO_HIGHER


@dataclass(frozen=True, slots=True)
class _Run:
    """One run: wall time and processor time, s; peak memory, MB (NaN where it is not told)."""

    wall_s: float
    cpu_s: float
    peak_MB: float


def bench_versus(options: Any, output: Path) -> list[Row]:
    """Time `adatom find` from the shell to its tables; see `BenchOptions`.

    Raises
    ------
    BadInput
        If no other interpreter is given, or its adatom does not run.
    """
    if options.other is None:
        raise BadInput(
            "bench versus",
            expected="--other PYTHON, the interpreter of an environment with another adatom",
            got="none",
            todo="Install the other version in an environment of its own and name its python.",
        )
    output.mkdir(parents=True)
    rows: list[Row] = []
    jobs = _jobs(options.data, output)
    runs = {job.name: _in_turns(job, Path(options.other), output) for job in jobs}
    for job in jobs:
        rows += _rows(job, runs[job.name], output)
    rows.append(_increment(runs))
    return rows


def _jobs(data: Path | None, output: Path) -> list[_Job]:
    """Large frames; a movie, and its first frame alone."""
    large = []
    for side in _LARGE_PX:
        (scene,) = convolution_set(1, pixels=side, pixel_range_A=(0.15, 0.15))
        frame, path = scene.frame(_DOSE, 0).frame, output / f"large{side}.npy"
        np.save(path, frame.data)
        memory = _MEMORY_TARGETS.get(side, _NO_HIGHER)
        px = frame.calibration.pixel_size_A
        large.append(_Job(f"{side}² frame", path, px, 1, memory_target=memory))
    if data is not None and (data / _MOVIE).exists():
        movie, px = (data / _MOVIE).absolute(), _MOVIE_PIXEL_A
    else:
        shown = twin_movie(
            TwinOptions(frames=_FRAMES, hop_cross_section_A2=FAST_HOPS_A2), GRAPHENE, 7
        )
        np.save(output / "movie.npy", np.stack([frame.data for frame in shown]))
        movie, px = output / "movie.npy", shown[0].calibration.pixel_size_A
    return [
        *large,
        _Job("movie", movie, px, _FRAMES, _TARGET),
        _Job("movie's first frame", movie, px, 1, _FIRST_TARGET),
    ]


def _in_turns(job: _Job, other: Path, output: Path) -> tuple[list[_Run], list[_Run]]:
    """Run this adatom and the other one in turns."""
    mine, theirs = [], []
    for turn in range(_TURNS):
        place = output / f"{job.path.stem}-{job.frames}-{turn}"
        mine.append(_run(Path(sys.executable), job, Path(f"{place}-this")))
        theirs.append(_run(other, job, Path(f"{place}-other")))
    return mine, theirs


def _run(python: Path, job: _Job, directory: Path) -> _Run:
    command = [str(python), "-m", "adatom", "find", str(job.path), "-o", str(directory)]
    command += ["--pixel-size", str(job.pixel_size_A), "--frames", f"0:{job.frames}"]
    command += ["--material", "graphene"]
    log = directory.parent / f"{directory.name}.log"
    measured = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _MEASURE, str(log), *command],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    code, wall, cpu, peak = json.loads(measured.stdout)
    if code:
        said = log.read_text("utf-8", "replace").strip()
        raise BadInput(
            str(python),
            expected="an adatom that finds the atoms",
            got=said[-300:] or f"exit code {code}",
            todo="Check that `-m adatom find` runs with this interpreter.",
        )
    return _Run(wall, cpu, peak)


def _rows(job: _Job, runs: tuple[list[_Run], list[_Run]], output: Path) -> list[Row]:
    mine, theirs = (_median(each) for each in runs)
    ratio = mine.wall_s / theirs.wall_s
    movie = job.frames > 1
    told = f"{mine.wall_s:.1f} s against {theirs.wall_s:.1f} s: {ratio:.2f}"
    memory = mine.peak_MB / theirs.peak_MB
    out = [
        row(
            f"{job.name}: wall time of the process"
            + (", each frame's share alike" if movie else ""),
            told,
            "shown" if job.time_target is None else f"at most {job.time_target}",
            met=job.time_target is None or ratio <= job.time_target,
        ),
        row(
            f"{job.name}: processor time",
            f"{mine.cpu_s:.1f} s against {theirs.cpu_s:.1f} s: {mine.cpu_s / theirs.cpu_s:.2f}",
            "shown",
            met=True,
        ),
        row(
            f"{job.name}: peak memory",
            f"{mine.peak_MB:.0f} MB against {theirs.peak_MB:.0f} MB: {memory:.2f}",
            "no higher (within 3 %)" if job.memory_target > 1 else f"at most {job.memory_target}",
            met=not memory > job.memory_target,  # it is NaN where it is not told
        ),
    ]
    stem = f"{job.path.stem}-{job.frames}-0"
    apart = _apart_A(output / f"{stem}-this", output / f"{stem}-other")
    out.append(
        row(
            f"{job.name}: positions apart",
            f"{apart:.1e} Å",
            f"at most {_SAME_A:g} Å",
            apart <= _SAME_A,
        )
    )
    return out


def _increment(runs: dict[str, tuple[list[_Run], list[_Run]]]) -> Row:
    """Time of one more frame of the movie, start-up and page taken off."""
    mine, theirs = (
        (_median(runs["movie"][k]).wall_s - _median(runs["movie's first frame"][k]).wall_s)
        / (_FRAMES - 1)
        for k in (0, 1)
    )
    ratio = mine / theirs
    told = f"{1e3 * mine:.0f} ms against {1e3 * theirs:.0f} ms: {ratio:.2f}"
    return row("movie: one more frame", told, f"at most {_TARGET}", met=ratio <= _TARGET)


def _median(runs: list[_Run]) -> _Run:
    wall, cpu, peak = np.median([(r.wall_s, r.cpu_s, r.peak_MB) for r in runs], axis=0)
    return _Run(float(wall), float(cpu), float(peak))


def _apart_A(one: Path, other: Path) -> float:
    """Largest difference of a position in two campaigns' tables; infinite where rows differ."""
    tables = [
        pl.read_parquet(d / "atoms.parquet").select("frame", "element", "x_A", "y_A")
        for d in (one, other)
    ]
    same = tables[0].select("frame", "element").equals(tables[1].select("frame", "element"))
    if not same:
        return float("inf")
    first, second = (t.select("x_A", "y_A").to_numpy() for t in tables)
    return float(np.abs(first - second).max(initial=0.0))
