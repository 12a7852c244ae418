"""The main job: from frames to advice, in one campaign directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adatom.analysis.card import uncalibrated
from adatom.analysis.frame import calibrator_of
from adatom.campaign.adapt import choose_ensemble
from adatom.campaign.advise import advise_campaign
from adatom.campaign.config import Config, ensemble_of, material_of, parse_config
from adatom.campaign.find import MovieResult, find_in_movie
from adatom.campaign.report import report_campaign
from adatom.campaign.simulate import check_simulation, make_structures, simulate_all
from adatom.campaign.sources import open_movie
from adatom.campaign.steps import Steps
from adatom.campaign.summary import summarise
from adatom.core import SimulationResult, Structure
from adatom.parallel.progress import Progress, Silent
from adatom.report import CampaignView
from adatom.store import CampaignDirectory

_FAR_STRAIN = 0.10  # distortion of the lattice, as a share, above which the scale is doubted


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a run came to.

    Parameters
    ----------
    summary
        Numbers, JSON-able.
    view
        What the report shows; None where the report was there already.
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
    """Run a campaign, or finish one: what the ledger knows is not done again.

    Parameters
    ----------
    config
        Everything that decides the results.
    path
        Its directory; made where it is missing.
    only_find
        Stop after atoms and defects.
    progress
        Told of every step.

    Raises
    ------
    BadInput
        If the input cannot be used; nothing was written then.
    """
    progress = progress or Silent()
    material = material_of(config)
    ensemble = ensemble_of(config)
    calibrator_of(ensemble)
    if not only_find and material.simulated_by:
        check_simulation(config, material)
    movie, warnings = open_movie(config.input, material, progress, seed=config.seed)
    for warning in warnings:
        progress.warn(warning)
    source = config.input.paths or (movie.source,)
    with CampaignDirectory.open(
        path, config.table(), movie.fingerprint, source=source
    ) as directory:
        steps = Steps(directory, progress)
        chosen = choose_ensemble(movie, material, config, ensemble, steps)
        unknown = uncalibrated(chosen.ensemble.card, config.find)
        told = (*chosen.warnings, unknown) if unknown else chosen.warnings
        warnings = (*warnings, *told)
        for warning in told:
            progress.warn(warning)
        found = find_in_movie(movie, material, config, chosen.ensemble, steps, chosen.analysed)
        movie = movie.released()  # the page shows a few frames: memory is for simulations now
        more = (*_novelty_warnings(found), *_lattice_warnings(found.lattices))
        for warning in more:
            progress.warn(warning)
        warnings = (*warnings, *more)
        parents = [found.key]
        structures: list[Structure] = []
        results: list[SimulationResult] = []
        if not only_find and not material.simulated_by:
            warnings = (*warnings, f"no engine simulates {material.name}: atoms and defects only")
            progress.warn(warnings[-1])
        elif not only_find:
            structures, keys = make_structures(movie, found, config, steps)
            results, done = simulate_all(structures, keys, material, config, steps)
            parents += [*keys, *done]
            if not structures:
                warnings = (*warnings, "no lattice to build a supercell on: nothing was simulated")
                progress.warn(warnings[-1])
        advice = advise_campaign(movie, material, found, results, config, steps, parents)
        view = report_campaign(
            movie, material, found, structures, results, advice, warnings, config, steps, parents
        )
        summary = summarise(movie, found, results, advice, warnings, directory)
    return Outcome(summary, view)


def resume_campaign(
    path: Path, *, only_find: bool = False, progress: Progress | None = None
) -> Outcome:
    """Carry on a campaign from its own ``campaign.toml``.

    Raises
    ------
    BadInput
        If there is no campaign in `path`, or its frames are gone or changed.
    """
    with CampaignDirectory.existing(path, read_only=True) as directory:
        config = parse_config(dict(directory.config), str(directory.config_path))
    return run_campaign(config, path, only_find=only_find, progress=progress)


def _novelty_warnings(found: MovieResult) -> tuple[str, ...]:
    unlike, out = found.out_of_distribution, []
    if unlike:
        which = f"{len(unlike)} of {len(found.lattices)} frames (first {unlike[0]})"
        out.append(
            f"{which} are unlike anything the networks were trained on: check the material and the "
            "scale, and trust their atoms little"
        )
    if found.unsure:
        which = f"{len(found.unsure)} of {len(found.lattices)} frames (first {found.unsure[0]})"
        out.append(
            f"hardly an atom is sure in {which}, as in noise, dirt or another material: check what "
            "they show, or take more counts"
        )
    patched = {i: boxes for i, boxes in found.unlike_regions.items() if i not in unlike}
    if patched:
        first, boxes = next(iter(patched.items()))
        left, top, right, bottom = boxes[0]
        out.append(
            f"parts of {len(patched)} of {len(found.lattices)} frames are unlike training (frame "
            f"{first}: {len(boxes)}, the first at x {left:.0f} to {right:.0f}, y {top:.0f} to "
            f"{bottom:.0f} Å): look at what is there, and trust its atoms less"
        )
    return tuple(out)


def _lattice_warnings(lattices: dict[int, Any]) -> tuple[str, ...]:
    missing = [i for i, lattice in lattices.items() if lattice is None]
    strained = [
        i
        for i, lattice in lattices.items()
        if lattice is not None and max(abs(s) for s in lattice.affine.strain()) > _FAR_STRAIN
    ]
    out = []
    if missing:
        out.append(f"no lattice in {len(missing)} of {len(lattices)} frames: first {missing[0]}")
    if strained:
        out.append(
            f"the lattice is more than {_FAR_STRAIN:.0%} off the given scale in {len(strained)} "
            f"of {len(lattices)} frames: check `pixel_size_A`"
        )
    return tuple(out)
