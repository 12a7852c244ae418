"""Run a campaign: from frames to advice, in one directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adatom.analysis.card import calibration_warning, check_card
from adatom.campaign.adapt import choose_ensemble
from adatom.campaign.advise import advise_campaign
from adatom.campaign.build import make_structures
from adatom.campaign.choose import Opened, open_input
from adatom.campaign.config import Config, material_of, parse_config
from adatom.campaign.find import MovieResult, find_in_movie
from adatom.campaign.report import page_so_far, report_campaign
from adatom.campaign.steps import Steps
from adatom.campaign.summary import summarise
from adatom.campaign.verdict import judge
from adatom.campaign.warn import frame_warnings
from adatom.core import Material, SimulationResult, Structure, content_hash
from adatom.frames.readers.read import prepare_to_read
from adatom.parallel.progress import Progress, Silent
from adatom.report import CampaignView
from adatom.store import CampaignDirectory


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Result of a run.

    Parameters
    ----------
    summary
        Numbers that can be written as JSON.
    view
        Content of the report; None if the report existed already.
    """

    summary: dict[str, Any]
    view: CampaignView | None


def run_campaign(
    config: Config,
    path: Path,
    *,
    only_find: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Run a campaign, or resume one: steps that the ledger has are not repeated.

    Parameters
    ----------
    config
        All options that determine the results.
    path
        Directory of the campaign; created if it does not exist.
    only_find
        Stop after atoms and defects.
    progress
        Receives the progress of every step.

    Raises
    ------
    BadInput
        If the input cannot be used; nothing is written in this case.
    """
    progress = progress or Silent()
    prepare_to_read(config.input.paths)  # its start takes as long as that of the networks
    opened = _open(config, progress, simulates=not only_find)
    config, movie, material = opened.config, opened.movie, opened.material
    warnings = _Warnings(progress)
    warnings.add(*opened.notes)
    with _directory(path, opened) as directory:
        steps = Steps(directory, progress)
        found, headline = _find(opened, steps, warnings)
        movie = movie.released()  # the page shows a few frames: memory is for simulations now
        structures: list[Structure] = []
        results: list[SimulationResult] = []
        parents = [found.key]
        if not only_find and headline is None:  # no simulation of what is not there
            if material.simulated_by:
                structures, results, keys = _simulate(opened, found, steps, warnings)
                parents += keys
            warnings.add(*_simulation_warnings(material, structures, results, config))
        advice = advise_campaign(
            movie, material, found, results, config, steps, parents, shown=headline is None
        )
        told = tuple(warnings.texts)
        view = report_campaign(
            movie, material, found, structures, results, advice, told, config, steps, parents,
            headline=headline,
        )  # fmt: skip
        summary = summarise(
            movie, found, results, advice, told, directory, material, headline=headline
        )
    return Outcome(summary, view)


def frames_fingerprint(frame_hashes: Sequence[str]) -> str:
    """Hash of a movie's frames in their order."""
    return content_hash("frames", list(frame_hashes))


def _open(config: Config, progress: Progress, *, simulates: bool) -> Opened:
    """Open the input; what a simulation lacks is said before anything is computed."""

    def check(config: Config) -> None:
        if simulates and config.material is not None and material_of(config).simulated_by:
            from adatom.campaign.simulate import check_simulation  # finding atoms needs no engine

            check_simulation(config, material_of(config))

    check(config)
    opened = open_input(config, progress)
    check_card(opened.ensemble.card)
    if config.material is None:
        check(opened.config)
    return opened


def _directory(path: Path, opened: Opened) -> CampaignDirectory:
    movie, config = opened.movie, opened.config
    hashes = [movie.frame_hash(i) for i in range(len(movie))]
    return CampaignDirectory.open(
        path,
        config.table(),
        frames_fingerprint(hashes),
        source=config.input.paths or (movie.source,),
        count=len(hashes),
        earlier=lambda n: frames_fingerprint(hashes[:n]),
    )


def _find(opened: Opened, steps: Steps, warnings: _Warnings) -> tuple[MovieResult, str | None]:
    """Find atoms and defects; the headline says why the frames do not show the material."""
    config, movie, material = opened.config, opened.movie, opened.material
    if config.adapt == "auto" and opened.screening.excludes(material.name):
        config = config.model_copy(update={"adapt": "never"})
    chosen = choose_ensemble(movie, material, config, opened.ensemble, steps)
    warnings.add(*chosen.warnings, calibration_warning(chosen.ensemble.card, config.find))
    found = find_in_movie(movie, material, config, chosen.ensemble, steps, chosen.analysed)
    headline = judge(
        movie, material, chosen.ensemble, opened.screening, found.atoms, found.lattices,
        found.flags, config.find,
    )  # fmt: skip
    warnings.add(headline)
    warnings.add(
        *frame_warnings(
            found.flags, found.lattices, movie, material, told=opened.notes, wrong=headline
        )
    )
    return found, headline


def _simulate(
    opened: Opened, found: MovieResult, steps: Steps, warnings: _Warnings
) -> tuple[list[Structure], list[SimulationResult], list[str]]:
    """Build supercells and simulate them; a page of what stands is kept if the run ends here.

    Returns
    -------
    Structures, results, and the ledger keys of both.
    """
    config, movie, material = opened.config, opened.movie, opened.material
    page = partial(page_so_far, movie, material, found, config, steps, warnings.texts)
    page("Simulations are not finished: this page shows what was found.")
    structures, keys, refused = make_structures(movie, found, config, steps)
    warnings.add(*refused)
    try:
        from adatom.campaign.simulate import simulate_all

        results, done = simulate_all(structures, keys, material, config, steps)
    except BaseException:
        page("The run ended before its simulations: this page shows what was finished.")
        raise
    return structures, results, [*keys, *done]


class _Warnings:
    """Warnings of a run: each is shown when it is added, and kept for page and summary."""

    def __init__(self, progress: Progress) -> None:
        self.texts: list[str] = []
        self._progress = progress

    def add(self, *texts: str | None) -> None:
        """Show and keep the texts; None is no warning."""
        for text in texts:
            if text:
                self.texts.append(text)
                self._progress.warn(text)


def _simulation_warnings(
    material: Material,
    structures: Sequence[Structure],
    results: Sequence[SimulationResult],
    config: Config,
) -> tuple[str, ...]:
    if not material.simulated_by:
        return (f"no engine simulates {material.name}: atoms and defects only",)
    if not structures:
        return ("no supercell could be built: nothing was simulated",)
    from adatom.simulation import caution, engine_for

    engine = engine_for(config.simulate.relax_engine, "relax", structures, material)
    out = [caution(engine, structures[0], material)]  # cells are of one size
    failed = [r for r in results if r.status.startswith("failed")]
    if failed:
        out.append(f"{len(failed)} of {len(results)} simulations failed: {failed[0].status}")
    return tuple(filter(None, out))


def resume_campaign(
    path: Path,
    *,
    only_find: bool = False,
    mu: tuple[str, ...] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Resume a campaign with the options of its ``campaign.toml``.

    Parameters
    ----------
    path
        Directory of the campaign.
    only_find
        Stop after atoms and defects.
    mu
        Reservoirs in the place of those that it was run with; None for the same.
    progress
        Receives the progress of every step.

    Raises
    ------
    BadInput
        If there is no campaign in `path`, or its frames are gone or changed.
    """
    with CampaignDirectory.existing(path, read_only=True) as directory:
        config = parse_config(dict(directory.config), str(directory.config_path))
    config = config if mu is None else with_reservoirs(config, mu)
    return run_campaign(config, path, only_find=only_find, progress=progress)


def with_reservoirs(config: Config, mu: tuple[str, ...]) -> Config:
    """Give a configuration other reservoirs."""
    simulate = config.simulate.model_copy(update={"mu": mu})
    return config.model_copy(update={"simulate": simulate})
