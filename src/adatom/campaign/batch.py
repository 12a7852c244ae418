"""Many files of several sizes or scales: one campaign each, and one table of all results."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w

from adatom.campaign.config import Config, material_of, parse_config
from adatom.campaign.pipeline import Outcome, resume_campaign, run_campaign, with_reservoirs
from adatom.core import Calibration, Frame
from adatom.core.columns import Column, schema_of
from adatom.core.toml import parse_toml
from adatom.errors import AdatomError, BadInput, FilesDiffer, NoMaterial
from adatom.frames.readers.read import list_sources
from adatom.materials.library import load_material
from adatom.parallel.progress import Progress, Silent
from adatom.report.batch import BatchRow, write_batch_page
from adatom.store import load_frames, read_text, write_table, write_text

_F, _S, _I = pl.Float64(), pl.String(), pl.Int64()
BATCH_CONFIG = "batch.toml"  # file whose presence makes a directory a batch

# Every column of a batch's ``results.parquet``; the reference page is made from it.
BATCH_COLUMNS = {
    "file": Column(_S, "", "Path of the file."),
    "campaign": Column(_S, "", "Its campaign, a folder beside the table."),
    "status": Column(_S, "", "`done`, or `failed: ` and the reason."),
    "frames": Column(_I, "", "Number of frames."),
    "pixel_size_A": Column(_F, "Å", "Edge of a pixel."),
    "atoms": Column(_I, "", "Number of atoms in all frames."),
    "elements": Column(_S, "", "Number of atoms of each element, such as `C 275, Si 3`."),
    "median_sigma_A": Column(_F, "Å", "Median standard deviation of x."),
    "bond_length_A": Column(_F, "Å", "Median distance of neighbours, undistorted."),
    "defects": Column(_S, "", "How often each kind was seen, such as `Si1C3 3, V1 1`."),
    "warnings": Column(_S, "", "Warnings, separated by semicolons."),
}


def run(
    config: Config, path: Path, *, only_find: bool = False, progress: Progress | None = None
) -> Outcome:
    """Run a campaign; files that differ in size or scale become a batch of campaigns.

    Parameters
    ----------
    config, path, only_find, progress
        As of `run_campaign`.

    Raises
    ------
    BadInput
        If the input cannot be used; nothing is written in this case.
    """
    try:
        return run_campaign(config, path, only_find=only_find, progress=progress)
    except FilesDiffer as differ:
        if config.input.frames is not None:
            raise
        (progress or Silent()).warn(
            f"{differ.subject} has {differ.got}, others {differ.expected}: every file becomes a "
            "campaign of its own"
        )
        return run_batch(config, path, only_find=only_find, progress=progress)


def run_batch(
    config: Config, path: Path, *, only_find: bool = False, progress: Progress | None = None
) -> Outcome:
    """Run one campaign for every file; a file that cannot be used does not stop the others.

    The same command goes on where it stopped, and takes up files that are new.

    Parameters
    ----------
    config
        Options of all; its input lists the files.
    path
        Directory of the batch: a folder a file, ``results.parquet``, ``results.csv`` and
        ``report.html``.
    only_find, progress
        As of `run_campaign`.

    Raises
    ------
    BadInput
        If the directory holds something else, or no file could be used.
    NoMaterial
        If no material is named, and no file clearly shows one.
    """
    material = None if config.material is None else material_of(config)
    sources, _ = list_sources([Path(p) for p in config.input.paths])
    files = [s for s in sources if isinstance(s, Path)]
    root = path.expanduser().absolute()
    _make_root(root, config)
    rows: list[dict[str, Any]] = []
    shown: list[BatchRow] = []
    wrong: list[str] = []  # files that do not show the material
    unknown = True  # whether all files failed because no material is clearly likely
    for file, name in zip(files, _names(files), strict=True):
        one = config.model_copy(
            update={"input": config.input.model_copy(update={"paths": (str(file),)})}
        )
        try:
            outcome = run_campaign(one, root / name, only_find=only_find, progress=progress)
        except AdatomError as error:
            status = f"failed: {error.subject}: expected {error.expected}, got {error.got}"
            if progress is not None:
                progress.warn(status)
            unknown = unknown and isinstance(error, NoMaterial)
            rows.append({"file": str(file), "campaign": "", "status": status})
            shown.append(BatchRow(file.name, "", status))
        else:
            rows.append(_row(file, name, outcome.summary))
            shown.append(_shown(file, name, root / name, outcome.summary))
            material = material or load_material(outcome.summary["material"])
            if outcome.summary["headline"]:
                wrong.append(f"{file.name} is {outcome.summary['headline']}")
        _write(rows, root)  # after every file, so that an interrupted batch has what stands
        if material is not None:
            write_batch_page(shown, material, root / "report.html")
    if not any(row["status"] == "done" for row in rows):
        first = rows[0]["status"].removeprefix("failed: ")
        raise (NoMaterial if unknown else BadInput)(
            f"all {len(rows)} files",
            expected="at least one that can be used",
            got=f"none; the first: {first}",
            todo="Mend the first one; the same command goes on.",
        )
    headline = f"{len(wrong)} of {len(rows)} files: {wrong[0]}" if wrong else None
    summary = {
        "headline": headline,
        "files": rows,
        "directory": str(root),
        "report": str(root / "report.html"),
    }
    return Outcome(summary, None)


def resume(
    path: Path,
    *,
    only_find: bool = False,
    mu: tuple[str, ...] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Resume a campaign or a batch with the options that it was run with.

    Parameters
    ----------
    path, only_find, mu, progress
        As of `adatom.campaign.pipeline.resume_campaign`.

    Raises
    ------
    BadInput
        If there is neither in `path`, or its frames are gone or changed.
    """
    if not is_batch(path):
        return resume_campaign(path, only_find=only_find, mu=mu, progress=progress)
    source = path / BATCH_CONFIG
    try:
        table = parse_toml(read_text(source))
    except ValueError as error:
        raise BadInput(
            str(source),
            expected="the TOML that adatom wrote",
            got=str(error),
            todo="Delete the file, and run the first command again.",
        ) from error
    config = parse_config(table, str(source))
    config = config if mu is None else with_reservoirs(config, mu)
    return run_batch(config, path, only_find=only_find, progress=progress)


def is_batch(path: Path) -> bool:
    """Whether a directory is a batch."""
    return (path / BATCH_CONFIG).is_file()


def _make_root(root: Path, config: Config) -> None:
    others = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    if others and not is_batch(root):
        raise BadInput(
            str(root),
            expected="a new or empty directory, or a batch",
            got=f"{len(others)} entries ({', '.join(others[:3])})",
            todo="Name another directory with -o.",
        )
    root.mkdir(parents=True, exist_ok=True)
    table = config.model_dump(mode="json", exclude_none=True)
    write_text(root / BATCH_CONFIG, tomli_w.dumps(table))


def _names(files: list[Path]) -> list[str]:
    """Name of each file's folder: its stem, with a number where stems are the same."""
    out: list[str] = []
    for file in files:
        name, n = file.stem, 2
        while name in out:
            name, n = f"{file.stem}-{n}", n + 1
        out.append(name)
    return out


def _row(file: Path, name: str, summary: dict[str, Any]) -> dict[str, Any]:
    taken = {k: summary[k] for k in BATCH_COLUMNS if k in summary}
    return taken | {
        "file": str(file),
        "campaign": name,
        "status": "done",
        "elements": ", ".join(f"{e} {n}" for e, n in summary["elements"].items()),
        "defects": ", ".join(f"{k} {n}" for k, n in summary["defect_frames"].items()),
        "warnings": "; ".join(summary["warnings"]),
    }


def _shown(file: Path, name: str, campaign: Path, summary: dict[str, Any]) -> BatchRow:
    frames = load_frames(campaign / "frames.zarr")
    return BatchRow(
        file=file.name,
        folder=name,
        status="done",
        frame=Frame(frames.read(0), Calibration(frames.pixel_size_A)),
        frames=summary["frames"],
        atoms=summary["atoms"],
        defects=summary["defect_frames"],
        warnings=len(summary["warnings"]),
    )


def _write(rows: list[dict[str, Any]], root: Path) -> None:
    table = pl.DataFrame(rows, schema=schema_of(BATCH_COLUMNS))
    write_table(root / "results.parquet", table)
    text = io.StringIO()
    table.write_csv(text)
    write_text(root / "results.csv", text.getvalue())
