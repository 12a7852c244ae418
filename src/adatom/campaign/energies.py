"""Relax structures with what their energies rest on: perfect crystals and reservoirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from adatom.campaign.config import Config
from adatom.campaign.pool import RESERVOIR, job_of, method, run_jobs, run_or_report
from adatom.campaign.recall import recall_of
from adatom.campaign.shared import leaders_of
from adatom.campaign.steps import Steps
from adatom.core import Material, SimulationResult, SimulationTask, Structure
from adatom.errors import BadInput
from adatom.simulation import (
    ChemicalPotential,
    RelaxOptions,
    against_perfect_crystal,
    engine_version,
    relax,
)
from adatom.simulation.reservoirs import (
    Reservoir,
    element_structure,
    read_reservoirs,
    relax_element,
)
from adatom.store import read_result
from adatom.structures import SupercellOptions, pristine_like


@dataclass(frozen=True, slots=True)
class Ask:
    """A structure to relax, for its formation energy.

    Parameters
    ----------
    structure
        The structure.
    engine
        Name of the engine.
    beside
        Elements of all structures that it is compared with.
    parents
        Ledger keys that it rests on.
    """

    structure: Structure
    engine: str
    beside: frozenset[str]
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Relaxed:
    """Results of `relax_all`.

    Parameters
    ----------
    results
        In the order of what was asked, with formation energies.
    references
        Perfect crystals and reservoirs.
    keys
        Ledger keys of all that was run, those of `results` first.
    stems
        Paths of all of them, those of `results` first.
    """

    results: list[SimulationResult]
    references: list[SimulationResult]
    keys: list[str]
    stems: list[Path]


def relax_all(
    asks: Sequence[Ask], material: Material, config: Config, steps: Steps, *, own: str
) -> Relaxed:
    """Relax structures, and once for each cell and method the perfect crystal and the reservoirs.

    A failed simulation has the status ``failed: <why>`` and does not stop the others. Chemical
    potentials that are given as numbers are energies of the engine `own`.
    """
    simulate = config.simulate
    plan = make_plan(
        asks, material, config.supercell, read_reservoirs(simulate.mu), allow=simulate.allow_unfit
    )
    tasks = plan.tasks
    stems = [steps.directory.trajectories / f"{t.structure.name}-relax" for t in tasks]
    jobs = []
    for i, (task, stem) in enumerate(zip(tasks, stems, strict=True)):
        inputs: list[object] = [config.relax, engine_version(task.engine)]
        if i >= len(asks):  # no job makes a reference: its cell and formula identify it
            inputs.append(task.structure.atoms.cell.cellpar().round(4).tolist())
        if task.beside:
            inputs.append(sorted(task.beside))
        jobs.append(job_of("relax", task, stem, inputs, asks[i].parents if i < len(asks) else ()))
    work = partial(run_or_report, partial(relax_task, options=config.relax))
    recall = recall_of(simulate.memory, config.relax)
    share = partial(leaders_of, options=config.relax)
    keys = run_jobs(jobs, tasks, stems, work, steps, recall, share)
    results, others = plan.finished([read_result(stem) for stem in stems], own)
    return Relaxed(results, others, keys, stems)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What has to be relaxed for the formation energies of structures of one material.

    Parameters
    ----------
    asks
        The structures.
    made, perfect, elements
        Tasks of them, of their perfect crystals and of the reservoirs.
    crystal_of
        For each structure the number of its perfect crystal; None where it has none.
    reservoir_of
        Symbol and method of each of `elements`.
    chosen
        The reservoirs.
    """

    asks: Sequence[Ask]
    made: list[SimulationTask]
    perfect: list[SimulationTask]
    elements: list[SimulationTask]
    crystal_of: list[int | None]
    reservoir_of: list[tuple[str, str]]
    chosen: Sequence[Reservoir]

    @property
    def tasks(self) -> list[SimulationTask]:
        """All of them, in the order that `finished` takes their results."""
        return [*self.made, *self.perfect, *self.elements]

    def finished(
        self, found: Sequence[SimulationResult], own: str
    ) -> tuple[list[SimulationResult], list[SimulationResult]]:
        """Give the structures' results their formation energies; and the other results."""
        n, m = len(self.made), len(self.made) + len(self.perfect)
        potentials = _potentials(self.chosen, self.reservoir_of, found[m:], own)
        results = [
            against_perfect_crystal(
                result, None if of is None else found[n + of], potentials(ask.engine, result.engine)
            )
            for ask, result, of in zip(self.asks, found[:n], self.crystal_of, strict=True)
        ]
        return results, [*(against_perfect_crystal(r, r) for r in found[n:m]), *found[m:]]


def make_plan(
    asks: Sequence[Ask],
    material: Material,
    options: SupercellOptions,
    chosen: Sequence[Reservoir],
    *,
    allow: bool,
) -> Plan:
    """List what has to be relaxed: each perfect crystal and reservoir once for each method."""
    made = [_task(ask, material, allow=allow) for ask in asks]
    perfect, crystal_of = _perfect(asks, material, options, allow=allow)
    elements, reservoir_of = _reservoirs(asks, material, chosen)
    return Plan(asks, made, perfect, elements, crystal_of, reservoir_of, chosen)


def elements_together(structures: Sequence[Structure]) -> list[frozenset[str]]:
    """Elements of all structures of each one's defect: their energies are compared."""
    together: dict[tuple[str, int, int], set[str]] = {}
    for s in structures:
        own = together.setdefault((s.kind, s.frame, s.defect), set())
        own.update(s.atoms.get_chemical_symbols())
    return [frozenset(together[s.kind, s.frame, s.defect]) for s in structures]


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
            made = None
            with suppress(BadInput):  # the heights of its atoms are not known
                made = pristine_like(structure, material, options)
            number[cell] = None if made is None else len(perfect)
            perfect += [] if made is None else [made]
        of_structure.append(number[cell])
    return perfect, of_structure


def _task(ask: Ask, material: Material, *, allow: bool) -> SimulationTask:
    own = frozenset(ask.structure.atoms.get_chemical_symbols())
    # Named only where it matters: keys of one-method engines stay as they are.
    beside = ask.beside if method(ask.engine, own | ask.beside) != method(ask.engine, own) else ()
    return SimulationTask(
        ask.structure, "relax", ask.engine, material=material, allow_unfit=allow,
        beside=frozenset(beside),
    )  # fmt: skip


def _perfect(
    asks: Sequence[Ask], material: Material, options: SupercellOptions, *, allow: bool
) -> tuple[list[SimulationTask], list[int | None]]:
    """Perfect crystals, once for each cell and method, and which one each structure has."""
    crystals, of = references([a.structure for a in asks], material, options)
    tasks: list[SimulationTask] = []
    number: dict[tuple[int, str], int] = {}
    of_ask: list[int | None] = []
    for ask, which in zip(asks, of, strict=True):
        if which is None:
            of_ask.append(None)
            continue
        key = (which, method(ask.engine, ask.beside))
        if key not in number:
            number[key] = len(tasks)
            task = _task(Ask(crystals[which], ask.engine, ask.beside, ()), material, allow=allow)
            tasks.append(_renamed(task, tasks))
        of_ask.append(number[key])
    return tasks, of_ask


def _renamed(task: SimulationTask, others: Sequence[SimulationTask]) -> SimulationTask:
    """Name a reference by its method, too, where another one has its name."""
    if all(task.structure.name != t.structure.name for t in others):
        return task
    name = "-".join([task.structure.name, *sorted(task.beside), task.engine.replace(":", "-")])
    return replace(task, structure=replace(task.structure, name=name))


def _reservoirs(
    asks: Sequence[Ask], material: Material, chosen: Sequence[Reservoir]
) -> tuple[list[SimulationTask], list[tuple[str, str]]]:
    """Elements in their own structure, once for each method; and the symbol and method of each."""
    tasks: list[SimulationTask] = []
    keys: list[tuple[str, str]] = []
    for reservoir in (r for r in chosen if r.energy_eV is None):
        atoms, _ = element_structure(reservoir.symbol)
        for ask in asks:
            key = (reservoir.symbol, method(ask.engine, ask.beside))
            if key in keys or reservoir.symbol not in {*ask.beside, *_elements(material)}:
                continue
            atoms.info |= {"name": f"reservoir-{reservoir.symbol}", "kind": RESERVOIR}
            task = SimulationTask(
                Structure.from_ase(atoms), "relax", ask.engine, material=material, beside=ask.beside
            )
            tasks.append(_renamed(task, tasks))
            keys.append(key)
    return tasks, keys


def _elements(material: Material) -> set[str]:
    return set() if material.crystal is None else {symbol for symbol, *_ in material.crystal.atoms}


def _potentials(
    chosen: Sequence[Reservoir],
    keys: Sequence[tuple[str, str]],
    found: Sequence[SimulationResult],
    own: str,
) -> Callable[[str, str], list[ChemicalPotential]]:
    """Give the function from an engine's name and label to the chosen chemical potentials."""

    def of(engine: str, label: str) -> list[ChemicalPotential]:
        out = [
            ChemicalPotential(r.symbol, r.energy_eV, "as given")
            for r in chosen
            # A number is an energy of the campaign's own engine, and none of another.
            if r.energy_eV is not None and engine == own
        ]
        for (symbol, made_by), result in zip(keys, found, strict=True):
            if made_by == label and result.status == "done":
                each = result.energy_eV / len(result.trajectory[-1])
                source = f"{symbol}-rich: of {result.notes[0]}"
                out.append(ChemicalPotential(symbol, each, source))
        return out

    return of


def relax_task(task: SimulationTask, options: RelaxOptions) -> SimulationResult:
    """Relax a structure, or an element in its own structure."""
    if task.structure.kind != RESERVOIR:
        return relax(task, options)
    symbol = task.structure.atoms.get_chemical_symbols()[0]
    found = relax_element(task.engine, symbol, options, beside=task.beside)
    return replace(found, structure=task.structure.name)
