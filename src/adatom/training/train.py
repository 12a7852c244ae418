"""Training of an ensemble on simulated frames, one process per network."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adatom.core import VACANCY, Calibration, Material, content_hash
from adatom.errors import BadInput
from adatom.frames.simulate.synthesize import random_pair
from adatom.frames.simulate.universal import UNIVERSAL, universal_pair
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.ensemble import Ensemble
from adatom.learning.kinds import diversify, heads_of, train_start
from adatom.learning.network import Network, Trunk, network_of, weights_of
from adatom.learning.train import TrainOptions
from adatom.materials.library import load_material
from adatom.parallel.processes import cores, local_processes
from adatom.parallel.progress import Progress
from adatom.training.calibrate import calibrate_ensemble
from adatom.version import __version__

# Ensemble whose trunks a training starts from, by material: graphene starts from scratch, the
# universal ensemble from graphene, every other material from the universal ensemble.
_START = {"graphene": "scratch", UNIVERSAL.name: "graphene"}
# Default number of optimiser steps and peak learning rate by the start. 8000 steps from scratch
# take about 50 minutes on two cores (docs/benchmarks/ensemble.md); trained trunks need fewer.
_STEPS = {"scratch": 8000, "graphene": 4500}
_RATES = {"scratch": 3e-3, "graphene": 2e-3}
# The same for a start from the universal ensemble: about ten minutes.
_TUNE_STEPS, _TUNE_RATE = 1000, 1.5e-3
_LOG_INTERVAL = 50  # optimiser steps between two lines of ADATOM_TRAIN_LOG


def parse_options(**given: Any) -> TrainOptions:
    """Validate training options that a user gave.

    Raises
    ------
    BadInput
        If an option does not exist or its value is not allowed; the message names the allowed ones.

    Examples
    --------
    >>> from adatom.training.train import parse_options
    >>> parse_options(members=4, kind="scratch").members
    4
    """
    try:
        return TrainOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        allowed = re.findall(r"'([^']+)'", str(first.get("ctx", {}).get("expected", "")))
        close = difflib.get_close_matches(str(first["input"]), allowed, n=1)
        raise BadInput(
            f"`{first['loc'][0]}`",
            expected=str(first["msg"]).removeprefix("Input should be "),
            got=repr(first["input"]),
            todo=f"Did you mean {close[0]!r}?" if close else "Choose one of these.",
        ) from error


def train_options(
    material_name: str, *, steps: int | None, start: str | None, **given: Any
) -> TrainOptions:
    """Complete the training options of a material.

    Most materials start from the universal ensemble and need a tenth of the steps of a training
    from scratch.

    Parameters
    ----------
    material_name
        Name of the material or path of its file.
    steps
        Optimiser steps of each network; None for the default of the start.
    start
        Ensemble whose trunks to start from, or ``scratch``; None for the default of the material.
    **given
        Other fields of `TrainOptions`.

    Raises
    ------
    BadInput
        If an option does not exist or its value is not allowed.

    Examples
    --------
    >>> from adatom.training.train import train_options
    >>> train_options("graphene", steps=None, start=None).steps
    8000
    >>> train_options("MoS2", steps=None, start=None).steps
    1000
    """
    chosen = start or _START.get(material_name.strip().lower(), UNIVERSAL.name)
    usual, rate = _STEPS.get(chosen, _TUNE_STEPS), _RATES.get(chosen, _TUNE_RATE)
    return parse_options(steps=steps or usual, start=chosen, learning_rate=rate, **given)


def train_ensemble(
    material: Material,
    *,
    seed: int = 0,
    options: TrainOptions | None = None,
    workers: int | None = None,
    keep: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ensemble:
    """Train an ensemble on simulated frames of a material.

    Parameters
    ----------
    material
        Material that the frames show.
    seed
        Seed of the first network; the others count up from it.
    options
        See `TrainOptions`; lengths are those for graphene's scale.
    workers
        Number of processes; by default the number of cores.
    keep
        Directory for finished networks; networks found there are not trained again.
    progress
        Called with the number of finished networks and of all networks.

    Raises
    ------
    BadInput
        If the trunks that `options.start` names do not fit.
    """
    options = (options or TrainOptions()).at_scale(material.scale)
    trunks = _trunks(options)
    stored, total, done = _FinishedNetworks(keep, material, options), count_jobs(options), 0

    def finished() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    with local_processes(workers or cores()) as pool:
        starts = {
            f"start{seed + i}": partial(
                _train_start, material, seed + i, count, options, trunks[i % len(trunks)]
            )
            for i, count in enumerate(heads_of(options))
        }
        networks = _run(pool, starts, stored, finished)
        members = {
            f"{options.kind}{seed}-{i}": partial(
                _train_member, material, networks[0], seed, i, options
            )
            for i in range(total - len(starts))
        }
        if members:
            networks = _run(pool, members, stored, finished)
    return Ensemble(
        tuple(weights_of(network) for network in networks),
        (*material.species, VACANCY),
        Calibration(options.working_pixel_size_A),
        {
            "material": material.name,
            "made_by": f"adatom train {material.name} --kind {options.kind} "
            f"--members {options.members} --steps {options.steps} --start {options.start} "
            f"--seed {seed}",
            "adatom": __version__,
            "seeds": [seed + i for i in range(len(starts))],
            "training": options.model_dump(),
            "data": "random simulated frames: frames/crystal.py and Conditions.random",
        },
    )


def count_jobs(options: TrainOptions) -> int:
    """Count the training jobs: the start networks, then the jobs that make members of one."""
    after = {"shared": 0, "scratch": 0, "baseline": options.members}
    return len(heads_of(options)) + after.get(options.kind, 1)


@dataclass(frozen=True, slots=True)
class _FinishedNetworks:
    """Finished networks on disk: an interrupted training continues with the missing ones."""

    folder: Path | None
    material: Material
    options: TrainOptions

    def path(self, name: str) -> Path | None:
        if self.folder is None:
            return None
        recipe = content_hash(self.material, self.options, __version__)
        return self.folder / f"{self.material.name}-{recipe}-{name}.safetensors"

    def load(self, name: str) -> list[Network] | None:
        path = self.path(name)
        if path is None or not path.exists():
            return None
        try:
            return [network_of(found) for found in weights.load(path).networks]
        except BadInput:  # a file that was cut, or lost its card: it is trained again
            return None

    def save(self, name: str, networks: list[Network]) -> None:
        path = self.path(name)
        if path is not None:
            working = Calibration(self.options.working_pixel_size_A)
            classes = (*self.material.species, VACANCY)
            found = tuple(weights_of(network) for network in networks)
            weights.save(Ensemble(found, classes, working), path)


def _run(
    pool: Executor,
    jobs: Mapping[str, Callable[[], list[Network]]],
    stored: _FinishedNetworks,
    finished: Callable[[], None],
) -> list[Network]:
    """Run the jobs whose networks are not stored yet; give all networks in the order of jobs."""
    found: dict[str, list[Network]] = {}
    waiting = {}
    for name, job in jobs.items():
        before = stored.load(name)
        if before is None:
            waiting[pool.submit(job)] = name
        else:
            found[name] = before
            finished()
    for done in as_completed(waiting):
        name = waiting[done]
        found[name] = done.result()
        stored.save(name, found[name])
        finished()
    return [network for name in jobs for network in found[name]]


def _trunks(options: TrainOptions) -> list[Trunk | None]:
    """Load the trunks to start from; a single None means training from scratch."""
    if options.start == "scratch":
        return [None]
    path = Path(options.start)
    found = weights.load(path) if path.suffix else weights.load_shipped(options.start)
    if found.networks[0].width != options.width:
        raise BadInput(
            f"`start` {options.start}",
            expected=f"trunks of width {options.width}",
            got=f"width {found.networks[0].width}",
            todo="Start from another ensemble, or from scratch.",
        )
    return [network_of(network).trunk for network in found.networks]


def _train_start(
    material: Material, seed: int, heads: int, options: TrainOptions, trunk: Trunk | None
) -> list[Network]:
    """Train one start network on one thread; runs in a worker process."""
    use_threads(1)
    log = os.environ.get("ADATOM_TRAIN_LOG")
    note = partial(_log_loss, Path(log), seed) if log else None
    classes = len(material.species) + 1
    source = _source(material, options)
    return [train_start(source, classes, seed, heads, options, note, trunk)]


def _train_member(
    material: Material, start: Network, seed: int, member: int, options: TrainOptions
) -> list[Network]:
    """Make members of one network on one thread; runs in a worker process."""
    use_threads(1)
    return diversify(start, _source(material, options), seed, options, member)


def _source(material: Material, options: TrainOptions) -> Any:
    if material == UNIVERSAL:
        return partial(universal_pair, field_A=options.field_A)
    return partial(random_pair, material, field_A=options.field_A)


def _log_loss(path: Path, seed: int, step: int, loss: float) -> None:
    if step % _LOG_INTERVAL == 0:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{seed}\t{step}\t{loss:.5f}\n")


def train_to_file(
    material_name: str,
    path: Path,
    *,
    options: TrainOptions,
    seed: int,
    progress: Progress,
    zone_axis: tuple[int, int, int] = (0, 0, 1),
) -> dict[str, Any]:
    """Train, calibrate and measure an ensemble and write it with its card.

    Finished networks are kept beside `path` until all are trained, so that an interrupted training
    continues with the missing ones.

    Parameters
    ----------
    material_name
        Name of the material or path of its file.
    path
        ``.safetensors`` file to write; the card is written beside it.
    options
        See `train_options`.
    seed
        Seed of the first network.
    progress
        Receives the progress of the steps ``train`` and ``calibrate``.
    zone_axis
        Beam direction for a structure file, Miller indices.

    Returns
    -------
    The model card.

    Raises
    ------
    BadInput
        If the material, its file or the start cannot be used, or the ensemble cannot be written.
    """
    weights.check_output(path)
    material = (
        UNIVERSAL if material_name == UNIVERSAL.name else load_material(material_name, zone_axis)
    )
    keep = path.with_suffix(".members")
    progress.start("train", count_jobs(options), 0)
    ensemble = train_ensemble(
        material,
        seed=seed,
        options=options,
        keep=keep,
        progress=lambda *_: progress.advance("train"),
    )
    progress.finish("train")
    progress.start("calibrate", 1, 0)
    ensemble = calibrate_ensemble(ensemble, material, seed=seed, workers=cores())
    weights.save(ensemble, path)
    progress.advance("calibrate")
    progress.finish("calibrate")
    shutil.rmtree(keep, ignore_errors=True)
    return ensemble.card
