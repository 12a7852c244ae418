"""Make an ensemble: simulated frames from `frames`, networks from `learning`, one core a member."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import Any

import adatom
from adatom.campaign.assess import calibrate_ensemble
from adatom.campaign.executors import cores, local_processes
from adatom.campaign.progress import Progress
from adatom.core import Calibration, Material, content_hash, find_material
from adatom.frames.synthesize import random_labelled
from adatom.learning import weights
from adatom.learning.train import TrainOptions, train_member


def train_ensemble(
    material: Material,
    *,
    members: int = 6,
    seed: int = 0,
    options: TrainOptions | None = None,
    workers: int | None = None,
    keep: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> weights.Ensemble:
    """Train an ensemble from scratch on simulated frames of a material.

    Parameters
    ----------
    material
        What the frames show.
    members
        Number of networks; each has its own seed, for weights and data.
    seed
        Seed of the first; the others count up from it.
    options
        See `TrainOptions`.
    workers
        Processes at a time; the number of cores by default.
    keep
        Directory for finished members; those found there are not trained again.
    progress
        Called with the number of members finished and of all.
    """
    options = options or TrainOptions()
    working = Calibration(options.working_pixel_size_A)
    found: dict[int, Any] = {}
    for i in range(members):
        path = _member_path(keep, material, seed + i, options)
        if path is not None and path.exists():
            found[i] = weights.load(path).members[0]
    with local_processes(workers or cores()) as pool:
        jobs = {
            pool.submit(_member, material.name, seed + i, options): i
            for i in range(members)
            if i not in found
        }
        for job in as_completed(jobs):
            i = jobs[job]
            found[i] = job.result()
            path = _member_path(keep, material, seed + i, options)
            if path is not None:
                weights.save(weights.Ensemble((found[i],), material.species, working), path)
            if progress is not None:
                progress(len(found), members)
    return weights.Ensemble(
        tuple(found[i] for i in range(members)),
        material.species,
        working,
        {
            "material": material.name,
            "made_by": f"adatom train {material.name} --members {members} --seed {seed}",
            "adatom": adatom.__version__,
            "seeds": [seed + i for i in range(members)],
            "training": options.model_dump(),
            "data": "random simulated frames: frames/specimen.py and Conditions.random",
        },
    )


def _member(material: str, seed: int, options: TrainOptions) -> Any:
    """Train one member in a process of its own, on one thread."""
    weights.threads(1)
    chosen = find_material(material)
    source = partial(_draw, chosen, options.field_A)
    log = os.environ.get("ADATOM_TRAIN_LOG")
    note = partial(_log, Path(log), seed) if log else None
    return train_member(source, len(chosen.species), seed, options, note)


def _member_path(
    keep: Path | None, material: Material, seed: int, options: TrainOptions
) -> Path | None:
    if keep is None:
        return None
    recipe = content_hash(material, options, adatom.__version__)
    return keep / f"{material.name}-{recipe}-{seed}.safetensors"


def _draw(material: Material, field_A: float, rng: Any) -> Any:
    return random_labelled(material, rng, field_A=field_A)


def _log(path: Path, seed: int, step: int, loss: float) -> None:
    if step % 50 == 0:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{seed}\t{step}\t{loss:.5f}\n")


def train_to_file(
    material_name: str,
    path: Path,
    *,
    members: int,
    steps: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Train, calibrate and measure an ensemble and write it with its card.

    Finished members wait beside `path` until all are there, so that an interrupted training
    carries on with the missing ones.

    Returns
    -------
    The model card.
    """
    material = find_material(material_name)
    keep = path.with_suffix(".members")
    progress.start("train", members, 0)
    ensemble = train_ensemble(
        material,
        members=members,
        seed=seed,
        options=TrainOptions(steps=steps),
        keep=keep,
        progress=lambda *_: progress.advance("train"),
    )
    progress.finish("train")
    progress.start("calibrate", 1, 0)
    ensemble = calibrate_ensemble(ensemble, material, seed=seed)
    weights.save(ensemble, path)
    progress.advance("calibrate")
    progress.finish("calibrate")
    shutil.rmtree(keep, ignore_errors=True)
    return ensemble.card
