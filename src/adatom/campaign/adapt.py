"""Adaptation inside a campaign and from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adatom.analysis.frame import FrameResult, analyse_frame
from adatom.campaign.choose import open_input
from adatom.campaign.config import Config
from adatom.campaign.steps import Job, Steps
from adatom.core import Frame, Material, Movie
from adatom.errors import BadInput
from adatom.learning import weights
from adatom.learning.ensemble import Ensemble
from adatom.parallel.progress import Progress
from adatom.store import file_hash, read_json, write_json

# Number of first frames that decide whether a campaign adapts. Three allow a majority, and their
# analysis is kept for the campaign where it does not adapt.
_JUDGED_FRAMES = 3


@dataclass(frozen=True, slots=True, eq=False)
class ChosenEnsemble:
    """The ensemble that a campaign uses.

    Parameters
    ----------
    ensemble
        The given ensemble, or the adapted one.
    warnings
        Result of the adaptation, for the user.
    analysed
        Results of the frames that this ensemble has already analysed, by frame number.
    """

    ensemble: Ensemble
    warnings: tuple[str, ...] = ()
    analysed: dict[int, FrameResult] = field(default_factory=dict)


def needs_adaptation(results: Sequence[FrameResult]) -> bool:
    """Decide whether most frames are out of distribution or have few confident atoms.

    Parameters
    ----------
    results
        Results of the first frames.
    """
    flags = [r.flags for r in results]
    far = [f.is_out_of_distribution or f.has_few_confident_atoms for f in flags]
    return float(np.mean(far)) > 0.5


def choose_ensemble(
    movie: Movie, material: Material, config: Config, ensemble: Ensemble, steps: Steps
) -> ChosenEnsemble:
    """Choose the ensemble for a campaign, and adapt it where needed.

    The configuration decides: never, always, or automatically if most of the first frames are out
    of distribution. If the frames then do not show the material, the campaign goes on with the
    given ensemble and a warning. The result is stored in the campaign's directory, so a resumed
    campaign does not adapt again.

    Raises
    ------
    StepFailed
        If `adapt` is ``always`` and the frames do not show the material.
    """
    if config.adapt == "never":
        return ChosenEnsemble(ensemble)
    path = steps.directory.path / "adapted.safetensors"
    outcome = steps.directory.parts / "adaptation.json"
    analysed: dict[int, FrameResult] = {}

    def make() -> str:
        first = [movie[i] for i in range(min(config.adaptation.frames, len(movie)))]
        if config.adapt == "auto":
            for i, frame in enumerate(first[:_JUDGED_FRAMES]):
                analysed[i] = analyse_frame(frame, ensemble, material, config.analysis())
        if analysed and not needs_adaptation([*analysed.values()]):
            write_json(outcome, {"adapted": False, "warning": None})
        else:
            write_json(outcome, _adapt(first, material, config, ensemble, path, steps.progress))
        return current()

    def current() -> str:
        if not outcome.exists():
            return ""
        files = [outcome]
        if read_json(outcome)["adapted"]:
            files += [path, path.with_suffix(".json")]
        return file_hash(*files) if all(f.exists() for f in files) else ""

    # The first frame alone: a campaign that grows keeps its ensemble, and with it its results; one
    # whose earlier frames changed is refused.
    first = movie.frame_hash(0)
    inputs = [config.adapt, first, material, ensemble.fingerprint(), config.adaptation]
    job = Job("adapt", "movie", [*inputs, config.analysis()], current, make, seed=config.seed)
    steps.run([job])
    done = read_json(outcome)
    warnings = (done["warning"],) if done["warning"] else ()
    if done["adapted"]:
        return ChosenEnsemble(weights.load(path), warnings)
    return ChosenEnsemble(ensemble, warnings, analysed)


def _adapt(
    first: Sequence[Frame],
    material: Material,
    config: Config,
    ensemble: Ensemble,
    path: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Adapt to the first frames; return whether networks changed, and a message for the user."""
    from adatom.training.adapt.rounds import adapt  # torch, which takes seconds, is for training

    try:
        done = adapt(
            first,
            material,
            ensemble,
            config.adaptation,
            find_options=config.find,
            seed=config.seed,
            progress=progress,
        )
    except BadInput as refused:
        if config.adapt == "always":
            raise
        told = f"the networks were not adapted: expected {refused.expected}, got {refused.got}"
        return {"adapted": False, "warning": told}
    why = "the first frames are unlike training: " if config.adapt == "auto" else ""
    if not done.changed:
        told = "the networks were not adapted: a round found less in simulated frames with truth"
        return {"adapted": False, "warning": why + told}
    weights.save(done.ensemble, path)
    return {"adapted": True, "warning": f"{why}the networks were adapted to them"}


def adapt_to_file(config: Config, path: Path, progress: Progress) -> dict[str, Any]:
    """Adapt to the frames of a configuration, and write the ensemble with its model card.

    Returns
    -------
    The model card; its key ``adapted`` describes every round.

    Raises
    ------
    BadInput
        If the frames cannot be used, or do not show the material.
    """
    from adatom.training.adapt.rounds import adapt  # as above

    weights.check_output(path)
    opened = open_input(config, progress)
    for note in opened.notes:
        progress.warn(note)
    config, movie, material, ensemble = (
        opened.config, opened.movie, opened.material, opened.ensemble
    )  # fmt: skip
    frames = [movie[i] for i in range(min(config.adaptation.frames, len(movie)))]
    done = adapt(
        frames,
        material,
        ensemble,
        config.adaptation,
        find_options=config.find,
        seed=config.seed,
        progress=progress,
    )
    weights.save(done.ensemble, path)
    return done.ensemble.card
