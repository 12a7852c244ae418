"""Simulation results: the table of all, and one set of files each with trajectory and traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from adatom.core import SimulationResult
from adatom.core.columns import Column, schema_of
from adatom.errors import StepFailed
from adatom.store.atomic import file_hash, reading
from adatom.store.structures import read_trajectory, write_trajectory
from adatom.store.tables import read_json, read_table, write_json, write_table

_F, _S = pl.Float64(), pl.String()

# Every column of ``simulations.parquet``; the reference page is made from it.
RESULTS_COLUMNS = {
    "structure": Column(_S, "", "Name of the structure, as in `structures/*.extxyz`."),
    "draw": Column(pl.Int32(), "", "Number of the draw; -1 for the most probable structure."),
    "weight": Column(
        _F,
        "",
        "Importance weight: how well the draw explains the frame, over the sum of the draws of its "
        "defect; NaN where it was not weighted.",
    ),
    "engine": Column(_S, "", "Engine with its version."),
    "task": Column(_S, "", "`relax` or `dynamics`."),
    "temperature_K": Column(_F, "K", "Temperature that was asked for; 0 for a relaxation."),
    "energy_eV": Column(
        _F,
        "eV",
        "Potential energy of the relaxed structure, or its mean over the second half of the "
        "dynamics.",
    ),
    "energy_sd_eV": Column(_F, "eV", "Standard deviation over that half; NaN for a relaxation."),
    "formation_energy_eV": Column(
        _F,
        "eV",
        "Energy of a relaxed structure over that of its atoms in their reservoirs; NaN where there "
        "is none.",
    ),
    "reference": Column(
        _S,
        "",
        "The reservoirs of the formation energy, or why there is none; empty for the dynamics.",
    ),
    "draws_sd_eV": Column(
        _F,
        "eV",
        "Part of the spread of the defect's formation energy that the image leaves open: standard "
        "deviation over its draws, of all compositions.",
    ),
    "engine_sd_eV": Column(
        _F,
        "eV",
        "Part that the engine leaves open: the difference from a second engine over the root of "
        "two; NaN where none was asked.",
    ),
    "size_sd_eV": Column(
        _F, "eV", "Part of the cell's size, by a wider cell; NaN where it is not known."
    ),
    "thermal_sd_eV": Column(
        _F, "eV", "Part of thermal sampling; 0 for a relaxation, which has no temperature."
    ),
    "size_shift_eV": Column(
        _F,
        "eV",
        "What a cell without end would add to the formation energy, by a wider cell; the interval "
        "of the defect's energy has it, `formation_energy_eV` does not. NaN where not known.",
    ),
    "trajectory": Column(_S, "", "File of its geometries, from the campaign's directory."),
    "status": Column(_S, "", "`done`, `not converged`, or `failed: ` and the reason."),
    "seconds": Column(_F, "s", "Wall time."),
    "notes": Column(
        _S, "", "K-points, magnetic moment, fall-backs of a self-consistency; separated by `; `."
    ),
}
RESULTS_SCHEMA = schema_of(RESULTS_COLUMNS)

# Every column that a ``.trace.parquet`` may have, by the task that writes it.
TRACE_COLUMNS = {
    "relax": {
        "step": Column(_F, "", "Number of the step, from 0."),
        "energy_eV": Column(_F, "eV", "Potential energy."),
        "fmax_eV_A": Column(_F, "eV/Å", "Largest force on a free atom."),
    },
    "dynamics": {
        "time_fs": Column(_F, "fs", "Time since the start of the run."),
        "temperature_K": Column(_F, "K", "Temperature of the free atoms."),
        "energy_eV": Column(_F, "eV", "Potential energy."),
        "total_energy_eV": Column(_F, "eV", "Potential and kinetic energy."),
    },
}
# Fields of a result that may be NaN or infinite, and are then text in its JSON file.
_FLOATS = ("temperature_K", "energy_eV", "energy_sd_eV", "seconds", "weight")
# Fields that rest on other results: the table alone has them.
_PARTS = ("draws_sd_eV", "engine_sd_eV", "size_sd_eV", "thermal_sd_eV", "size_shift_eV")
_OF_OTHERS = ("formation_energy_eV", "reference", *_PARTS)


def results_table(results: Sequence[SimulationResult], trajectories: Sequence[str]) -> pl.DataFrame:
    """Make the table ``simulations.parquet``, one row per result.

    Parameters
    ----------
    results
        Results in the order of the rows; energies in eV, temperatures in K, times in s.
    trajectories
        File of each result's geometries.
    """
    rows = [
        {name: getattr(r, name) for name in RESULTS_SCHEMA if name != "trajectory"}
        | {"trajectory": file, "notes": "; ".join(r.notes)}
        for r, file in zip(results, trajectories, strict=True)
    ]
    return pl.DataFrame(rows, schema=RESULTS_SCHEMA)


def result_files(stem: str | Path) -> tuple[Path, Path, Path]:
    """Name the three files of a result: trajectory, traces, and scalars with the hashes of both.

    Parameters
    ----------
    stem
        Path without a suffix; dots in its name are kept.
    """
    stem = Path(stem)
    return (
        stem.with_name(stem.name + ".extxyz"),
        stem.with_name(stem.name + ".trace.parquet"),
        stem.with_name(stem.name + ".json"),
    )


def write_result(stem: str | Path, result: SimulationResult) -> str:
    """Write a result to three files, `stem` with ``.extxyz``, ``.trace.parquet`` and ``.json``.

    The JSON file is written last and holds the hashes of the other two. A result without it, or
    with other hashes, counts as missing.

    Parameters
    ----------
    stem
        Path without a suffix, such as ``trajectories/Si3C6-f012-d02-300K``.
    result
        The result of an engine.

    Returns
    -------
    `file_hash` of the `result_files`, for the ledger.

    Raises
    ------
    BadInput
        If the path cannot be written.
    StepFailed
        If the disk is full.
    """
    motion, traces, seal = result_files(stem)
    content: dict[str, Any] = {
        f.name: getattr(result, f.name)
        for f in fields(result)
        if f.name not in ("trajectory", "trace", *_OF_OTHERS)
    }
    # JSON has no NaN or infinity, and null could not tell them apart.
    content |= {name: _float_word(content[name]) for name in _FLOATS}
    content["trajectory"] = write_trajectory(motion, result.trajectory)
    content["trace"] = write_table(
        traces, _trace_table(result.trace), TRACE_COLUMNS.get(result.task, {})
    )
    write_json(seal, content)
    return file_hash(motion, traces, seal)


def read_result(stem: str | Path) -> SimulationResult:
    """Read a result of `write_result`.

    Parameters
    ----------
    stem
        Path without a suffix.

    Raises
    ------
    BadInput
        If a file is missing.
    StepFailed
        If the files do not belong together: one was changed, or a rewrite was interrupted.
    """
    motion, traces, seal = result_files(stem)
    content = read_json(seal)
    with reading(seal, "result of a simulation"):
        for path, name in ((motion, "trajectory"), (traces, "trace")):
            found = file_hash(path)
            if content[name] != found:
                raise StepFailed(
                    str(path),
                    expected=f"the file that {seal.name} was written for ({content[name]})",
                    got=f"another ({found})",
                    todo="Run adatom resume, which makes it again.",
                )
        # Older results have neither weights nor notes.
        content |= {name: float(content.get(name, "nan")) for name in _FLOATS}
        content["notes"] = tuple(content.get("notes", ()))
        content["trajectory"] = read_trajectory(motion)
        content["trace"] = {
            column.name: column.drop_nulls().to_numpy(writable=True)
            for column in read_table(traces)
        }
        return SimulationResult(**content)


def _trace_table(trace: dict[str, Any]) -> pl.DataFrame:
    """One column per series; shorter ones are padded with nulls (NaN is kept as a value)."""
    series = {k: pl.Series(k, np.asarray(v, dtype=np.float64)) for k, v in trace.items()}
    longest = max((len(s) for s in series.values()), default=0)
    return pl.DataFrame([s.extend_constant(None, longest - len(s)) for s in series.values()])


def _float_word(value: float) -> float | str:
    number = float(value)
    return number if np.isfinite(number) else str(number)
