"""Simulate structures that the user gives; one that is refused does not stop the others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from adatom.campaign.energies import Ask, Plan, elements_together, make_plan, relax_task
from adatom.campaign.fate import dynamics_with_fate
from adatom.campaign.pool import Simulate, failed_result, relaxed_structure, run_or_report
from adatom.campaign.shared import leaders_of, shared_result
from adatom.core import GRAPHENE, Material, SimulationResult, SimulationTask, Structure
from adatom.errors import AdatomError, BadInput, StepFailed
from adatom.materials.library import load_material, material_names
from adatom.parallel.processes import cores, local_processes
from adatom.simulation import (
    AUTO,
    DynamicsOptions,
    RelaxOptions,
    caution,
    check_fitness,
    engine_for,
    require,
)
from adatom.simulation.reservoirs import Reservoir
from adatom.simulation.sheet import check_sheet_of, lay_flat
from adatom.structures import SupercellOptions

_LOST = StepFailed(
    "simulation",
    expected="a worker process that finishes",
    got="one that ended before (killed, or out of memory)",
    todo="Give a smaller structure, or another engine.",
)


@dataclass(frozen=True, slots=True)
class Engines:
    """Engines and their options.

    Parameters
    ----------
    relax, dynamics
        Names of the engines; ``auto`` for those fit for each structure's material.
    relax_options, dynamics_options
        Convergence, lengths.
    allow_unfit
        Run an engine also on what it says that it is not fit for.
    reservoirs
        Chemical potentials beside the crystal's.
    """

    relax: str
    dynamics: str
    relax_options: RelaxOptions
    dynamics_options: DynamicsOptions
    allow_unfit: bool = False
    reservoirs: tuple[Reservoir, ...] = ()


def simulate_given(
    structures: Sequence[Structure],
    material: Material | None,
    engines: Engines,
    temperatures_K: Sequence[float],
    *,
    first_seed: int,
    workers: int | None,
) -> list[SimulationResult]:
    """Relax structures, and run dynamics of each at every temperature.

    Parameters
    ----------
    structures
        Structures to simulate.
    material
        The crystal; None for the built-in sheet that fits each structure.
    engines
        Engines and options.
    temperatures_K
        Temperatures of the dynamics; none for relaxations only.
    first_seed
        Seed of the first structure's dynamics; the others count up from it.
    workers
        Number of processes; by default one per core.

    Warns
    -----
    UserWarning
        If an engine computes a structure badly, such as a small cell at the Γ point alone.

    Returns
    -------
    The relaxations in the order of the structures, then the dynamics. A refused structure has the
    status ``failed: <why>``.

    Raises
    ------
    BadInput
        If every structure is refused.
    EngineMissing
        If an engine is not installed.
    """
    if engines.relax != AUTO:
        require(engines.relax, "relax")
    if temperatures_K and engines.dynamics != AUTO:
        require(engines.dynamics, "dynamics")
    tasks: list[SimulationTask] = []
    refused: dict[int, AdatomError] = {}
    for i, structure in enumerate(structures):
        try:
            tasks.append(_relaxation(structure, material, engines))
        except BadInput as error:
            refused[i] = error
            fallback = material or GRAPHENE
            name = engine_for(engines.relax, "relax", [], fallback)
            tasks.append(SimulationTask(structure, "relax", name, material=fallback))
    if structures and len(refused) == len(structures):
        raise refused[0]
    _warn(tasks, refused)
    plans, of_plan = _plans(tasks, refused, engines)
    with local_processes(min(workers or cores(), max(len(tasks), 1))) as pool:
        work = partial(relax_task, options=engines.relax_options)
        relaxed = [failed_result(task, refused.get(i, _LOST)) for i, task in enumerate(tasks)]
        for plan, own in zip(plans, of_plan, strict=True):
            found = _shared(pool, work, plan.tasks, engines.relax_options)
            done, _ = plan.finished(found, tasks[own[0]].engine)
            for i, result in zip(own, done, strict=True):
                relaxed[i] = result
        hot = [
            SimulationTask(
                relaxed_structure(task.structure, result),
                "dynamics",
                engine_for(engines.dynamics, "dynamics", [task.structure], task.material),
                temperature,
                first_seed + i,
                material=task.material,
                allow_unfit=engines.allow_unfit,
            )
            for i, (task, result) in enumerate(zip(tasks, relaxed, strict=True))
            if result.trajectory and not result.status.startswith("failed")
            for temperature in temperatures_K
        ]
        heated = _all(pool, partial(dynamics_with_fate, options=engines.dynamics_options), hot, {})
    return [*relaxed, *heated]


def material_of_structure(structure: Structure) -> Material:
    """Find the built-in sheet that a structure is made of: by elements and distances.

    Parameters
    ----------
    structure
        Flat, as of `adatom.simulation.sheet.lay_flat`.

    Raises
    ------
    BadInput
        If no built-in sheet fits.

    Examples
    --------
    >>> from ase.build import graphene
    >>> sheet = graphene("BN", a=2.50, size=(4, 4, 1), vacuum=8.0)
    >>> material_of_structure(Structure.from_ase(sheet)).name
    'h-BN'
    """
    for name in ("graphene", *material_names()):
        material = load_material(name)
        if material.form != "sheet":
            continue
        try:
            check_sheet_of(structure, material)
        except BadInput:
            continue
        return material
    raise BadInput(
        f"structure {structure.name}",
        expected="a sheet of a built-in material, where no `material` is named",
        got=structure.atoms.get_chemical_formula(),
        todo="Name its `material`: a built-in name, a TOML file or a structure file.",
    )


def _plans(
    tasks: Sequence[SimulationTask], refused: Mapping[int, AdatomError], engines: Engines
) -> tuple[list[Plan], list[list[int]]]:
    """Group the tasks by material and engine; what each group has to relax, and its numbers."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, task in enumerate(tasks):
        if i not in refused:
            groups.setdefault((task.material.name, task.engine), []).append(i)
    plans = []
    for own in groups.values():
        structures = [tasks[i].structure for i in own]
        asks = [
            # Draws of a frame are compared; structures of no frame stand each for itself.
            Ask(s, tasks[own[0]].engine, beside if s.frame >= 0 else frozenset(s.atoms.symbols), ())
            for s, beside in zip(structures, elements_together(structures), strict=True)
        ]
        plans.append(
            make_plan(
                asks, tasks[own[0]].material, SupercellOptions(), engines.reservoirs,
                allow=engines.allow_unfit,
            )
        )  # fmt: skip
    return plans, list(groups.values())


def _relaxation(
    structure: Structure, material: Material | None, engines: Engines
) -> SimulationTask:
    flat = lay_flat(structure)
    if material is not None:
        check_sheet_of(flat, material)
    chosen = material or material_of_structure(flat)
    name = engine_for(engines.relax, "relax", [flat], chosen)
    require(name, "relax").check_elements(set(flat.atoms.get_chemical_symbols()))
    task = SimulationTask(flat, "relax", name, material=chosen, allow_unfit=engines.allow_unfit)
    check_fitness(require(name, "relax"), task)
    return task


def _warn(tasks: Sequence[SimulationTask], refused: Mapping[int, AdatomError]) -> None:
    texts = [
        caution(task.engine, task.structure, task.material)
        for i, task in enumerate(tasks)
        if i not in refused
    ]
    for text in dict.fromkeys(filter(None, texts)):  # once for cells of one kind
        warnings.warn(text, stacklevel=4)


def _shared(
    pool: Executor, work: Simulate, tasks: Sequence[SimulationTask], options: RelaxOptions
) -> list[SimulationResult]:
    """Relax; draws that start at one classical minimum are relaxed once."""
    leaders = leaders_of(tasks, options)
    first = sorted(set(leaders))
    found = dict(zip(first, _all(pool, work, [tasks[i] for i in first], {}), strict=True))
    alone = [i for i, k in enumerate(leaders) if k != i and found[k].status != "done"]
    found |= dict(zip(alone, _all(pool, work, [tasks[i] for i in alone], {}), strict=True))
    return [
        found[i] if i in found else shared_result(tasks[i], found[k]) for i, k in enumerate(leaders)
    ]


def _all(
    pool: Executor,
    work: Simulate,
    tasks: Sequence[SimulationTask],
    refused: Mapping[int, AdatomError],
) -> list[SimulationResult]:
    """Run the tasks in a pool; what is refused or ends its process is a failed result."""
    todo = {i: task for i, task in enumerate(tasks) if i not in refused}
    found = _collected(pool, work, todo)
    for i in set(todo) - set(found):  # a process ended: each of the rest gets one of its own
        with local_processes(1) as own:
            found |= _collected(own, work, {i: todo[i]})
    return [
        found[i] if i in found else failed_result(task, refused.get(i, _LOST))
        for i, task in enumerate(tasks)
    ]


def _collected(
    pool: Executor, work: Simulate, tasks: Mapping[int, SimulationTask]
) -> dict[int, SimulationResult]:
    """Run tasks in a pool; those that did not finish because a process ended are left out."""
    jobs, found = {}, {}
    with suppress(BrokenExecutor):
        for i, task in tasks.items():
            jobs[i] = pool.submit(run_or_report, work, task)
    for i, job in jobs.items():
        with suppress(BrokenExecutor):
            found[i] = job.result()
    return found
