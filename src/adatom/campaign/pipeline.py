"""Run a campaign: from frames to advice, in one directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adatom.analysis.card import calibration_warning, check_card
from adatom.analysis.flags import image_warnings, pixel_warnings
from adatom.campaign.adapt import choose_ensemble
from adatom.campaign.advise import advise_campaign
from adatom.campaign.choose import Opened, open_frames
from adatom.campaign.config import Config, material_of, parse_config
from adatom.campaign.find import MovieResult, find_in_movie
from adatom.campaign.report import page_so_far, report_campaign
from adatom.campaign.simulate import check_simulation, make_structures, simulate_all
from adatom.campaign.sources import SCALE_NOTE, scale_note
from adatom.campaign.steps import Steps
from adatom.campaign.summary import summarise
from adatom.campaign.verdict import judge
from adatom.core import Lattice, Material, Movie, SimulationResult, Structure, content_hash
from adatom.frames.readers.read import prepare_to_read
from adatom.learning.weights import Ensemble
from adatom.parallel.progress import Progress, Silent
from adatom.report import CampaignView
from adatom.simulation import caution
from adatom.store import CampaignDirectory

# Strain of the lattice (dimensionless) above which the user is warned of a distorted scan, and
# error of the scale above which the user is told. Scan distortion is a few per cent.
_FAR_STRAIN, _FAR_SCALE = 0.10, 0.03


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
    if not only_find and config.material is not None and material_of(config).simulated_by:
        check_simulation(config, material_of(config))
    opened = open_frames(config, progress)
    config, movie, material, ensemble = (
        opened.config, opened.movie, opened.material, opened.ensemble
    )  # fmt: skip
    check_card(ensemble.card)
    if not only_find and config.screened and material.simulated_by:
        check_simulation(config, material)
    warnings = _Warnings(progress)
    warnings.add(*opened.notes)
    source = config.input.paths or (movie.source,)
    hashes = [movie.frame_hash(i) for i in range(len(movie))]
    with CampaignDirectory.open(
        path,
        config.table(),
        frames_fingerprint(hashes),
        source=source,
        count=len(hashes),
        earlier=lambda n: frames_fingerprint(hashes[:n]),
    ) as directory:
        steps = Steps(directory, progress)
        if config.adapt == "auto" and opened.screening.excludes(material.name):
            config = config.model_copy(update={"adapt": "never"})
        chosen = choose_ensemble(movie, material, config, ensemble, steps)
        warnings.add(*chosen.warnings, calibration_warning(chosen.ensemble.card, config.find))
        found = find_in_movie(movie, material, config, chosen.ensemble, steps, chosen.analysed)
        headline = _verdict(opened, chosen.ensemble, found, config)
        warnings.add(headline)
        movie = movie.released()  # the page shows a few frames: memory is for simulations now
        warnings.add(*pixel_warnings(found.flags))
        if headline is None:
            warnings.add(
                *ood_warnings(found),
                *lattice_warnings(found.lattices, movie, material, opened.notes),
            )
        else:  # no simulation of what is not there
            only_find = True
        structures: list[Structure] = []
        results: list[SimulationResult] = []
        parents = [found.key]
        if not only_find and material.simulated_by:
            page = partial(page_so_far, movie, material, found, config, steps, warnings.texts)
            page("Simulations are not finished: this page shows what was found.")
            structures, keys = make_structures(movie, found, config, steps)
            try:
                results, done = simulate_all(structures, keys, material, config, steps)
            except BaseException:
                page("The run ended before its simulations: this page shows what was finished.")
                raise
            parents += [*keys, *done]
        if not only_find:
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


def _verdict(opened: Opened, ensemble: Ensemble, found: MovieResult, config: Config) -> str | None:
    return judge(
        opened.movie, opened.material, ensemble, opened.screening, found.atoms, found.lattices,
        found.flags, config.find,
    )  # fmt: skip


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
        return ("no lattice to build a supercell on: nothing was simulated",)
    out = [caution(config.simulate.relax_engine, structures[0], material)]  # cells are of one size
    failed = [r for r in results if r.status.startswith("failed")]
    if failed:
        out.append(f"{len(failed)} of {len(results)} simulations failed: {failed[0].status}")
    return tuple(filter(None, out))


def resume_campaign(
    path: Path, *, only_find: bool = False, progress: Progress | None = None
) -> Outcome:
    """Resume a campaign with the options of its ``campaign.toml``.

    Raises
    ------
    BadInput
        If there is no campaign in `path`, or its frames are gone or changed.
    """
    with CampaignDirectory.existing(path, read_only=True) as directory:
        config = parse_config(dict(directory.config), str(directory.config_path))
    return run_campaign(config, path, only_find=only_find, progress=progress)


def ood_warnings(found: MovieResult) -> tuple[str, ...]:
    """Write the warnings about frames and regions that are out of distribution.

    Parameters
    ----------
    found
        Result of `find_in_movie`.

    Returns
    -------
    One sentence for each kind of warning that applies.
    """
    unlike, out = found.out_of_distribution, []
    if unlike:
        which = f"{len(unlike)} of {len(found.lattices)} frames (first {unlike[0]})"
        out.append(
            f"{which} are unlike anything the networks were trained on: check the material and the "
            "scale, and trust their atoms little"
        )
    if found.few_confident:
        few = found.few_confident
        which = f"{len(few)} of {len(found.lattices)} frames (first {few[0]})"
        out.append(
            f"hardly an atom is sure in {which}, as in noise, dirt or another material: check what "
            "they show"
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
    return (*out, *image_warnings(found.flags))


def lattice_warnings(
    lattices: Mapping[int, Lattice | None],
    movie: Movie,
    material: Material,
    told: Sequence[str] = (),
) -> tuple[str, ...]:
    """Write the warnings about missing and distorted lattices, and about the scale.

    Parameters
    ----------
    lattices
        Lattice of each frame; None where none was found.
    movie
        Calibrated frames.
    material
        What they show.
    told
        Notes of the opening: a scale that was told of there is not told of again.
    """
    if not material.has_lattice:
        return ()
    found = {i: lattice for i, lattice in lattices.items() if lattice is not None}
    missing = [i for i in lattices if i not in found]
    strained = [
        i for i, one in found.items() if max(abs(s) for s in one.affine.strain()) > _FAR_STRAIN
    ]
    out = []
    if missing:
        out.append(f"no lattice in {len(missing)} of {len(lattices)} frames: first {missing[0]}")
    scales = [float(np.linalg.det(one.affine.array())) ** 0.5 for one in found.values()]
    off = bool(scales) and abs(np.median(scales) - 1.0) > _FAR_SCALE
    if any(note.startswith(SCALE_NOTE) for note in told):
        pass
    elif off and movie.calibration is not None:
        px = movie.calibration.pixel_size_A
        out.append(scale_note(px, px * float(np.median(scales)), material))
    elif strained:
        out.append(
            f"the scan is distorted by more than {_FAR_STRAIN:.0%} in {len(strained)} of "
            f"{len(lattices)} frames"
        )
    return tuple(out)
