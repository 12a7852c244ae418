"""Build supercells of defects, relax and heat them; the ledger records every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adatom.campaign.config import Config
from adatom.campaign.steps import Job, Steps
from adatom.core import Material, SimulationResult, SimulationTask, Structure
from adatom.errors import AdatomError
from adatom.parallel.processes import cores, local_processes
from adatom.simulation import (
    against_perfect_crystal,
    dynamics,
    engine_for,
    engine_version,
    find_engine,
    relax,
    require,
    scale_to,
)
from adatom.store import (
    RESULTS_COLUMNS,
    file_hash,
    read_result,
    result_files,
    results_table,
    write_result,
    write_table,
)
from adatom.structures import SupercellOptions, check_room, pristine_like

Simulate = Callable[[SimulationTask], SimulationResult]
# Series of a result, as `SimulationResult.trace` lists them.
_TRACES = {
    "relax": ("step", "energy_eV", "fmax_eV_A"),
    "dynamics": ("time_fs", "temperature_K", "energy_eV"),
}


def check_simulation(config: Config, material: Material) -> None:
    """Check, before anything is written, that the simulations can run.

    Raises
    ------
    EngineMissing
        If an engine is not installed, saying how to install it.
    BadInput
        If the defect does not fit into the supercell, or there is no engine of a name.
    """
    check_room(material, config.supercell)
    chosen = (config.simulate.relax_engine, config.simulate.dynamics_engine)
    for name in material.simulated_by:
        find_engine(name)
    require(engine_for(chosen[0], "relax", [], material), "relax")
    require(engine_for(chosen[1], "dynamics", [], material), "dynamics")


def simulate_all(
    structures: Sequence[Structure],
    parents: Sequence[str],
    material: Material,
    config: Config,
    steps: Steps,
) -> tuple[list[SimulationResult], list[str]]:
    """Relax every structure, then run dynamics of every relaxed draw at every temperature.

    The perfect crystal in the cell of each structure is relaxed once, for the formation energies.

    Returns
    -------
    The relaxations in the order of the structures, then the dynamics; and the ledger keys of all
    that was run. A failed simulation has the status ``failed: <why>`` and does not stop the others.
    """
    directory = steps.directory
    engine = engine_for(config.simulate.relax_engine, "relax", structures, material)
    allow = config.simulate.allow_unfit
    perfect, of_structure = references(structures, material, config.supercell)
    tasks = [
        SimulationTask(s, "relax", engine, material=material, allow_unfit=allow)
        for s in (*structures, *perfect)
    ]
    stems = [directory.trajectories / f"{task.structure.name}-relax" for task in tasks]
    inputs = [config.relax, engine_version(engine)]
    n = len(structures)
    jobs = [
        _job("relax", task, stem, inputs, (key,))
        for task, stem, key in zip(tasks[:n], stems[:n], parents, strict=True)
    ]
    # No job makes a reference: its cell and formula identify it.
    jobs += [
        _job("relax", t, stem, [*inputs, t.structure.atoms.cell.cellpar().round(4).tolist()], ())
        for t, stem in zip(tasks[n:], stems[n:], strict=True)
    ]
    work = partial(run_or_report, partial(relax, options=config.relax))
    keys = _run(jobs, tasks, stems, work, steps)
    results = [read_result(stem) for stem in stems]
    reservoirs = [against_perfect_crystal(r, r) for r in results[n:]]
    relaxed = [
        against_perfect_crystal(result, None if of is None else reservoirs[of])
        for result, of in zip(results[:n], of_structure, strict=True)
    ]
    heated, hot_keys, hot_stems = _heat(structures, relaxed, keys[:n], material, config, steps)
    files = [result_files(stem)[0].relative_to(directory.path) for stem in (*stems, *hot_stems)]
    table = results_table([*relaxed, *reservoirs, *heated], [path.as_posix() for path in files])
    write_table(directory.simulations_path, table, RESULTS_COLUMNS)
    return [*relaxed, *heated], [*keys, *hot_keys]


def references(
    structures: Sequence[Structure], material: Material, options: SupercellOptions
) -> tuple[list[Structure], list[int | None]]:
    """Build the perfect crystal for each cell of the structures, once for each cell.

    Returns
    -------
    The perfect crystals, and for each structure the number of its own; None where it has none.
    """
    perfect: list[Structure] = []
    number: dict[tuple[Any, ...], int | None] = {}
    of_structure = []
    for structure in structures:
        atoms = structure.atoms
        cell = (*atoms.cell.cellpar().round(4).tolist(), atoms.info.get("form"))
        if cell not in number:
            made = pristine_like(structure, material, options)
            number[cell] = None if made is None else len(perfect)
            perfect += [] if made is None else [made]
        of_structure.append(number[cell])
    return perfect, of_structure


def _heat(
    structures: Sequence[Structure],
    relaxed: Sequence[SimulationResult],
    parents: Sequence[str],
    material: Material,
    config: Config,
    steps: Steps,
) -> tuple[list[SimulationResult], list[str], list[Path]]:
    engine = engine_for(config.simulate.dynamics_engine, "dynamics", structures, material)
    allow = config.simulate.allow_unfit
    version = engine_version(engine)
    tasks, stems, jobs = [], [], []
    for i, (structure, result) in enumerate(zip(structures, relaxed, strict=True)):
        # The most probable structure is relaxed alone: draws tell what heat does.
        if structure.draw < 0 or result.status.startswith("failed") or not result.trajectory:
            continue
        start = relaxed_structure(structure, result)
        for temperature in config.simulate.temperatures_K:
            seed = int(
                np.random.SeedSequence([config.seed, i, int(temperature)]).generate_state(1)[0]
            )
            task = SimulationTask(
                start, "dynamics", engine, temperature, seed % 2**30 + 1,
                material=material, allow_unfit=allow,
            )  # fmt: skip
            stem = steps.directory.trajectories / f"{structure.name}-{temperature:g}K"
            tasks.append(task)
            stems.append(stem)
            jobs.append(_job("dynamics", task, stem, [config.dynamics, version], (parents[i],)))
    work = partial(run_or_report, partial(dynamics, options=config.dynamics))
    keys = _run(jobs, tasks, stems, work, steps)
    return [read_result(stem) for stem in stems], keys, stems


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


def relaxed_structure(structure: Structure, result: SimulationResult) -> Structure:
    """Scale the relaxed geometry back to the material's lattice constant, for the next engine."""
    # Ratio of the engine's own lattice constant to the material's.
    stretch = result.trajectory[0].cell.lengths()[0] / structure.atoms.cell.lengths()[0]
    atoms = scale_to(result.trajectory[-1], float(stretch), 1.0)
    atoms.calc = None
    return replace(structure, atoms=atoms)


def _job(
    step: str,
    task: SimulationTask,
    stem: Path,
    inputs: list[object],
    parents: tuple[str, ...],
) -> Job:
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


def _run(
    jobs: Sequence[Job],
    tasks: Sequence[SimulationTask],
    stems: Sequence[Path],
    work: Simulate,
    steps: Steps,
) -> list[str]:
    if all(steps.is_done(job) for job in jobs):  # starts no processes
        return steps.run(jobs)
    with local_processes(min(cores(), len(jobs))) as pool:
        try:
            return steps.run_pool(
                jobs,
                submit=lambda i: pool.submit(work, tasks[i]),
                keep=lambda i, result: write_result(stems[i], result),
            )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _hash_of(*paths: Path) -> str:
    return file_hash(*paths) if all(p.exists() for p in paths) else ""
