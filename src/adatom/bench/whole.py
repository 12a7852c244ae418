"""Benchmarks of whole campaigns against their targets."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import numpy as np
import polars as pl

from adatom.bench.rows import Row, row
from adatom.campaign.config import Config, InputOptions
from adatom.campaign.demo import demo_config, demo_move
from adatom.campaign.pipeline import run_campaign
from adatom.errors import BadInput
from adatom.store import read_table

_MOVIE = "graphene_si_movie/si3c6_trimer_rotating"
_MOVIE_PIXEL_A = 0.078125  # pixel size of the movie, Å, from its publication
_LABEL_A = 0.6  # largest distance between a label and its atom, Å; less than half a bond


def bench_demo(data: Path | None, output: Path) -> list[Row]:
    """Time the demonstration: the move and its campaign."""
    del data
    began, cpu = time.perf_counter(), _cpu_seconds()
    summary = run_campaign(demo_config(7, demo_move(output, 7)), output).summary
    seconds = time.perf_counter() - began
    return [
        row("wall time", f"{seconds:.0f} s", "under 180 s", seconds < 180),
        row("processor time", f"{_cpu_seconds() - cpu:.0f} s", "shown", met=True),
        row("frames, atoms", f"{summary['frames']}, {summary['atoms']}", "shown", met=True),
    ]


def bench_movie(data: Path | None, output: Path) -> list[Row]:
    """Run a campaign on the published movie of a Si trimer and compare with its labels.

    Raises
    ------
    BadInput
        If `data` does not have the movie.
    """
    if data is None or not (data / f"{_MOVIE}.tif").exists():
        raise BadInput(
            "bench movie",
            expected=f"--data DIR with {_MOVIE}.tif in it",
            got=str(data),
            todo="Name the directory of the real micrographs.",
        )
    began, cpu = time.perf_counter(), _cpu_seconds()
    config = Config(
        material="graphene",
        input=InputOptions(
            paths=(str((data / f"{_MOVIE}.tif").absolute()),), pixel_size_A=_MOVIE_PIXEL_A
        ),
    )
    summary = run_campaign(config, output).summary
    seconds = time.perf_counter() - began
    hits, frames, worst = silicon_hits(
        read_table(output / "atoms.parquet"), data / f"{_MOVIE}_labels.csv"
    )
    bond = summary["undistorted_bond_length_A"] or float("nan")
    energies = [r for r in summary["relaxed"] if r["draws"] >= 2]
    draws = sum(r["draws"] for r in summary["relaxed"])
    runs = {row["temperature_K"]: row["runs"] for row in summary["dynamics"]}
    spread = ", ".join(f"{r['formula']} {r['energy_sd_eV']:.3f} eV" for r in energies) or "none"
    return [
        row("wall time", f"{seconds:.0f} s", "under 900 s", seconds < 900),
        row("processor time", f"{_cpu_seconds() - cpu:.0f} s", "shown", met=True),
        row(
            f"frames with three Si within {_LABEL_A} Å of the labels",
            f"{hits} of {frames} (worst Si {worst:.2f} Å)",
            "at least 40 of 44",
            hits >= 40,
        ),
        row("median C-C", f"{bond:.3f} Å", "1.38 to 1.46 Å", 1.38 <= bond <= 1.46),
        row("relaxed draws", str(draws), "at least 4", draws >= 4),
        row("spread of their energy", spread, "reported", bool(energies)),
        row(
            "dynamics runs at 300 and 900 K",
            f"{runs.get(300.0, 0)} and {runs.get(900.0, 0)}",
            "at least 1 each",
            min(runs.get(300.0, 0), runs.get(900.0, 0)) >= 1,
        ),
    ]


def silicon_hits(atoms: pl.DataFrame, labels: Path) -> tuple[int, int, float]:
    """Count the frames in which every labelled Si is found within 0.6 Å.

    Parameters
    ----------
    atoms
        Table of the atoms of all frames.
    labels
        CSV file of the published labels.

    Returns
    -------
    Number of frames that pass, number of frames, and the largest distance of a labelled Si from
    the nearest found one, Å.
    """
    with labels.open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["element"] == "Si"]
    frames = sorted({int(r["stack_index"]) for r in rows})
    hits, worst = 0, 0.0
    found = atoms.filter((pl.col("element") == "Si") & (pl.col("p_exists") > 0.5))
    for frame in frames:
        true = np.array(
            [[float(r["x_px"]), float(r["y_px"])] for r in rows if int(r["stack_index"]) == frame]
        )
        mine = found.filter(pl.col("frame") == frame).select("x_A", "y_A").to_numpy()
        distance = np.full(len(true), np.inf)
        if len(mine):
            gaps = np.linalg.norm(true[:, None] * _MOVIE_PIXEL_A - mine[None], axis=2)
            distance = gaps.min(axis=1)
        worst = max(worst, float(distance.max()))
        hits += bool((distance <= _LABEL_A).all())
    return hits, len(frames), worst


def _cpu_seconds() -> float:
    """Processor time of this process and its finished children, s."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system
