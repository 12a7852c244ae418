"""Make an ensemble: simulated frames from `frames`, networks from `learning`, one core a member."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import adatom
from adatom.campaign.assess import calibrate_ensemble
from adatom.campaign.executors import cores, local_processes
from adatom.campaign.progress import Progress
from adatom.core import VACANCY, Calibration, Material, content_hash, find_material
from adatom.errors import BadInput
from adatom.frames.synthesize import random_pair
from adatom.learning import weights
from adatom.learning.kinds import diversify, heads_of, train_start
from adatom.learning.network import Network
from adatom.learning.train import TrainOptions


def parse_options(**given: Any) -> TrainOptions:
    """Read training options that a user gave.

    Raises
    ------
    BadInput
        If one is not among those there are; the message names them.
    """
    try:
        return TrainOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(
            f"--{first['loc'][0]}",
            expected=str(first["msg"]).removeprefix("Input should be "),
            got=repr(first["input"]),
            todo="Choose one of these.",
        ) from error


def train_ensemble(
    material: Material,
    *,
    seed: int = 0,
    options: TrainOptions | None = None,
    workers: int | None = None,
    keep: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> weights.Ensemble:
    """Train an ensemble on simulated frames of a material.

    Parameters
    ----------
    material
        What the frames show.
    seed
        Seed of the first network; the others count up from it.
    options
        Kind of the ensemble, number of members, length of training.
    workers
        Processes at a time; the number of cores by default.
    keep
        Directory for finished networks; those found there are not trained again.
    progress
        Called with the number of networks finished and of all.
    """
    options = options or TrainOptions()
    heads = heads_of(options)
    tuned = options.members if options.kind == "baseline" else 0
    total, done = len(heads) + tuned, 0
    with local_processes(workers or cores()) as pool:

        def gather(jobs: dict[Any, tuple[str, int]]) -> list[list[Network]]:
            nonlocal done
            found: dict[int, list[Network]] = {}
            for job in as_completed(jobs):
                name, i = jobs[job]
                found[i] = job.result()
                _keep(found[i], keep, name, material, options)
                done += 1
                if progress is not None:
                    progress(done, total)
            return [found[i] for i in sorted(found)]

        def submit(name: str, i: int, call: Any, *given: Any) -> tuple[Any, tuple[str, int]]:
            kept = _kept(keep, name, material, options)
            if kept is not None:
                return pool.submit(list, kept), (name, i)
            job: Any = pool.submit(partial(call, material.name, *given, options))
            return job, (name, i)

        starts = gather(
            dict(
                submit(f"start{seed + i}", i, _start, seed + i, count)
                for i, count in enumerate(heads)
            )
        )
        networks = [n for part in starts for n in part]
        if options.kind == "baseline":
            members = range(options.members)
            parts = gather(
                dict(submit(f"member{i}", i, _member, networks[0], seed, i) for i in members)
            )
            networks = [n for part in parts for n in part]
        elif options.kind not in ("shared", "scratch"):
            networks = pool.submit(
                _member, material.name, networks[0], seed, None, options
            ).result()
    return weights.Ensemble(
        tuple(networks),
        (*material.species, VACANCY),
        Calibration(options.working_pixel_size_A),
        {
            "material": material.name,
            "made_by": f"adatom train {material.name} --kind {options.kind} "
            f"--members {options.members} --steps {options.steps} --seed {seed}",
            "adatom": adatom.__version__,
            "seeds": [seed + i for i in range(len(heads))],
            "training": options.model_dump(),
            "data": "random simulated frames: frames/specimen.py and Conditions.random",
        },
    )


def _start(material: str, seed: int, heads: int, options: TrainOptions) -> list[Network]:
    """Train one network in a process of its own, on one thread."""
    weights.threads(1)
    chosen = find_material(material)
    log = os.environ.get("ADATOM_TRAIN_LOG")
    note = partial(_log, Path(log), seed) if log else None
    classes = len(chosen.species) + 1
    return [train_start(_source(chosen, options), classes, seed, heads, options, note)]


def _member(
    material: str, start: Network, seed: int, member: int | None, options: TrainOptions
) -> list[Network]:
    """Make members of one network in a process of its own, on one thread."""
    weights.threads(1)
    return diversify(start, _source(find_material(material), options), seed, options, member)


def _source(material: Material, options: TrainOptions) -> Any:
    return partial(random_pair, material, field_A=options.field_A)


def _path(keep: Path | None, name: str, material: Material, options: TrainOptions) -> Path | None:
    if keep is None:
        return None
    recipe = content_hash(material, options, adatom.__version__)
    return keep / f"{material.name}-{recipe}-{name}.safetensors"


def _keep(
    networks: list[Network], keep: Path | None, name: str, material: Material, options: TrainOptions
) -> None:
    path = _path(keep, name, material, options)
    if path is not None and not path.exists():
        working = Calibration(options.working_pixel_size_A)
        classes = (*material.species, VACANCY)
        weights.save(weights.Ensemble(tuple(networks), classes, working), path)


def _kept(
    keep: Path | None, name: str, material: Material, options: TrainOptions
) -> list[Network] | None:
    path = _path(keep, name, material, options)
    if path is None or not path.exists():
        return None
    return list(weights.load(path).networks)


def _log(path: Path, seed: int, step: int, loss: float) -> None:
    if step % 50 == 0:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{seed}\t{step}\t{loss:.5f}\n")


def train_to_file(
    material_name: str,
    path: Path,
    *,
    options: TrainOptions,
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
    tuned = options.members if options.kind == "baseline" else 0
    progress.start("train", len(heads_of(options)) + tuned, 0)
    ensemble = train_ensemble(
        material,
        seed=seed,
        options=options,
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
