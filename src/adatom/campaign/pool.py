"""Run simulations in processes, and record them in the ledger; one that fails has its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from adatom.campaign.shared import follow
from adatom.campaign.steps import Job, Steps
from adatom.core import SimulationResult, SimulationTask, Structure
from adatom.errors import AdatomError
from adatom.parallel.processes import cores, local_processes
from adatom.simulation import engine_version, for_elements, require, scale_to
from adatom.store import file_hash, read_result, result_files, write_result

RESERVOIR = "reservoir"  # kind of the structure of an element
Simulate = Callable[[SimulationTask], SimulationResult]
# Gives for each task the number of the one whose result it shares.
Share = Callable[[Sequence[SimulationTask]], list[int]]
# Series of a result, as `SimulationResult.trace` lists them.
_TRACES = {
    "relax": ("step", "energy_eV", "fmax_eV_A"),
    "dynamics": ("time_fs", "temperature_K", "energy_eV"),
}


class Recall(Protocol):
    """What is known from earlier campaigns; `adatom.campaign.recall` has one."""

    def answer(self, task: SimulationTask) -> SimulationResult | None:
        """Give the result of the same task on the same defect; None if unknown."""
        ...

    def keep(self, task: SimulationTask, result: SimulationResult, campaign: str) -> None:
        """Keep a new result."""
        ...


def method(engine: str, symbols: frozenset[str]) -> str:
    """Label of an engine for these elements; its name where it does not cover them."""
    try:
        return for_elements(require(engine, "relax"), symbols).label(symbols)
    except AdatomError:
        return engine


def run_or_report(work: Simulate, task: SimulationTask) -> SimulationResult:
    """Run one task; if the engine refuses it, the result has the reason.

    Parameters
    ----------
    work
        `relax` or `dynamics` with its options.
    task
        Structure and engine. Elements are checked only here, because draws may differ in elements.

    Returns
    -------
    The engine's result; or, with status ``failed: <why>``, the unchanged structure, where the
    engine refused it or raised an error.
    """
    try:
        return work(task)
    except (AdatomError, RuntimeError, ValueError, ArithmeticError) as error:
        return failed_result(task, error)


def failed_result(task: SimulationTask, error: Exception) -> SimulationResult:
    """Make the result of a task that was not run: its structure, and the reason as its status."""
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, AdatomError):
        why = f"{error.subject}: expected {error.expected}, got {error.got}"
    return SimulationResult(
        structure=task.structure.name,
        draw=task.structure.draw,
        engine=f"{task.engine} {engine_version(task.engine)}",
        task=task.kind,
        temperature_K=task.temperature_K,
        energy_eV=float("nan"),
        energy_sd_eV=float("nan"),
        status=f"failed: {why}",
        seconds=0.0,
        trajectory=(task.structure.to_ase(),),
        trace={name: np.zeros(0) for name in _TRACES[task.kind]},
        weight=task.structure.weight,
    )


def job_of(
    step: str,
    task: SimulationTask,
    stem: Path,
    inputs: list[object],
    parents: tuple[str, ...],
) -> Job:
    """Make the job of a task, whose result is written to files of `stem`."""
    # The parent's key identifies the structure. Hashing the coordinates as well would repeat work
    # after a change in their last bit.
    return Job(
        step,
        stem.name,
        [task.engine, task.temperature_K, *inputs],
        current=partial(_hash_of, *result_files(stem)),
        parents=parents,
        seed=task.seed,
    )


def run_jobs(
    jobs: Sequence[Job],
    tasks: Sequence[SimulationTask],
    stems: Sequence[Path],
    work: Simulate,
    steps: Steps,
    recall: Recall | None = None,
    share: Share | None = None,
) -> list[str]:
    """Run the jobs that are missing, each task in a process; return all ledger keys.

    What `recall` knows is answered from there, and what is new is kept there. Tasks that `share`
    finds to be one calculation are run once.
    """
    if all(steps.is_done(job) for job in jobs):  # starts no processes
        return steps.run(jobs)
    missing = [i for i, job in enumerate(jobs) if not steps.is_done(job)]
    known = {i: recall.answer(tasks[i]) if recall else None for i in missing}
    unknown = [i for i in missing if known[i] is None]
    # Of all tasks, also those that are done: an interrupted campaign shares as a whole one does.
    leaders = share(tasks) if share and unknown else range(len(tasks))
    open_ = len({leaders[i] for i in unknown})
    running: dict[int, Future[SimulationResult]] = {}

    def keep(i: int, result: SimulationResult) -> str:
        if recall is not None and not known.get(i):
            recall.keep(tasks[i], result, steps.directory.path.name)
        return write_result(stems[i], result)

    with local_processes(min(cores(), open_)) if open_ else nullcontext() as pool:

        def submit(i: int) -> Future[SimulationResult]:
            answer = known.get(i)
            if answer is None and pool is not None:
                leader = leaders[i]
                if leader not in running:
                    running[leader] = begin(leader, pool)
                if leader == i:
                    return running[i]
                return follow(running[leader], tasks[i], partial(pool.submit, work, tasks[i]))
            return _ready(cast("SimulationResult", answer))

        def begin(i: int, pool: ProcessPoolExecutor) -> Future[SimulationResult]:
            answer = known.get(i)
            if i not in known:
                answer = read_result(stems[i])
            return pool.submit(work, tasks[i]) if answer is None else _ready(answer)

        try:
            return steps.run_pool(jobs, submit=submit, keep=keep)
        except BaseException:
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ready(result: SimulationResult) -> Future[SimulationResult]:
    ready: Future[SimulationResult] = Future()
    ready.set_result(result)
    return ready


def _hash_of(*paths: Path) -> str:
    return file_hash(*paths) if all(p.exists() for p in paths) else ""


def relaxed_structure(structure: Structure, result: SimulationResult) -> Structure:
    """Scale the relaxed geometry back to the material's lattice constant, for the next engine."""
    # Ratio of the engine's own lattice constant to the material's.
    stretch = result.trajectory[0].cell.lengths()[0] / structure.atoms.cell.lengths()[0]
    atoms = scale_to(result.trajectory[-1], float(stretch), 1.0)
    atoms.calc = None
    return replace(structure, atoms=atoms)
