"""Adaptation inside a campaign and from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adatom.analysis.frame import FrameResult, analyse_frame
from adatom.campaign.config import Config, ensemble_of, material_of
from adatom.campaign.sources import open_movie
from adatom.campaign.steps import Job, Steps
from adatom.core import Frame, Material, Movie
from adatom.errors import BadInput
from adatom.learning import weights
from adatom.learning.weights import Ensemble
from adatom.parallel.progress import Progress
from adatom.store import file_hash, read_json, write_json
from adatom.training.adapt.rounds import adapt

_LOOKED_AT = 3  # first frames that decide whether a campaign adapts: most of them must be far


@dataclass(frozen=True, slots=True, eq=False)
class ChosenEnsemble:
    """The ensemble that a campaign's frames need.

    Parameters
    ----------
    ensemble
        As it was, or adapted.
    warnings
        What became of the adaptation.
    analysed
        Frames that this ensemble analysed on the way, by number.
    """

    ensemble: Ensemble
    warnings: tuple[str, ...] = ()
    analysed: dict[int, FrameResult] = field(default_factory=dict)


def is_far(results: Sequence[FrameResult]) -> bool:
    """Tell whether most of some frames are unlike training, or show hardly a confident atom."""
    flags = [r.flags for r in results]
    far = [f.is_out_of_distribution or f.has_few_confident_atoms for f in flags]
    return float(np.mean(far)) > 0.5


def choose_ensemble(
    movie: Movie, material: Material, config: Config, ensemble: Ensemble, steps: Steps
) -> ChosenEnsemble:
    """Give the ensemble that a campaign's frames need.

    Adapts where the configuration says so: always, never, or where the first frames are far from
    training; frames that then turn out not to show the material are told of, and found with the
    ensemble as it was. What came of it lies in the campaign's directory, and is not done twice.

    Raises
    ------
    StepFailed
        If it was asked for always, and the frames do not show the material.
    """
    if config.adapt == "never":
        return ChosenEnsemble(ensemble)
    path = steps.directory.path / "adapted.safetensors"
    outcome = steps.directory.parts / "adaptation.json"
    analysed: dict[int, FrameResult] = {}

    def make() -> str:
        first = [movie[i] for i in range(min(config.adaptation.frames, len(movie)))]
        if config.adapt == "auto":
            for i, frame in enumerate(first[:_LOOKED_AT]):
                analysed[i] = analyse_frame(frame, ensemble, material, config.analysis())
        if analysed and not is_far([*analysed.values()]):
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

    inputs = [config.adapt, movie.fingerprint, material, ensemble.fingerprint(), config.adaptation]
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
    """Adapt to the first frames; gives whether it did, and what to tell the user."""
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
    """Adapt to the frames that a configuration names and write the ensemble with its card.

    Returns
    -------
    The model card, with what every round did under ``adapted``.

    Raises
    ------
    BadInput
        If the frames cannot be used, or do not show the material.
    """
    material = material_of(config)
    ensemble = ensemble_of(config)
    movie, warnings = open_movie(config.input, material, progress, seed=config.seed)
    for warning in warnings:
        progress.warn(warning)
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
