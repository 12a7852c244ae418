"""What an engine is, and how one is found by its name.

Engines are registered as entry points of the group ``adatom.engines``, adatom's own as well. A new
engine is one file with one object that fits `Engine`, and one line in a ``pyproject.toml``. Most
are an ASE calculator: see `adatom.simulation.engines.calculator.CalculatorEngine`.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, cast, runtime_checkable

import ase
from ase.calculators.calculator import Calculator

from adatom.core import SimulationResult, SimulationTask
from adatom.core.plugins import ENGINES, Plugin, plugin, registered
from adatom.errors import EngineMissing
from adatom.simulation.options import DynamicsOptions, RelaxOptions

Task = Literal["relax", "dynamics"]


@dataclass(frozen=True, slots=True)
class Status:
    """Whether an engine can be used on this machine.

    Parameters
    ----------
    installed
        It is here, and it loads.
    version
        Its version; ``unknown`` for a program, which cannot be asked safely; empty where it is
        not installed.
    note
        Why it does not work, or what it cannot do yet.
    """

    installed: bool
    version: str = ""
    note: str = ""


@runtime_checkable
class ListedEngine(Protocol):
    """What `adatom doctor` shows of an engine; enough for one that adatom cannot run yet.

    Attributes
    ----------
    name
        What the user calls it; also the name of its entry point.
    tasks
        What adatom can run on it; empty where it is only looked for.
    elements
        What it covers, for people.
    boundary
        Its boundary conditions, for people.
    not_for
        What it must not be used for, for people.
    install
        One line that installs it.
    """

    name: str
    tasks: tuple[Task, ...]
    elements: str
    boundary: str
    not_for: str
    install: str

    def status(self) -> Status:
        """Find out whether it is here; loads it, and never raises."""
        ...


@runtime_checkable
class Engine(ListedEngine, Protocol):
    """An engine that adatom can run.

    `adatom.conformance.engines.check_engine` tests one.
    """

    def check_elements(self, symbols: Collection[str]) -> None:
        """Make sure that it covers these chemical symbols.

        Raises
        ------
        BadInput
            If it does not; says which it covers.
        """
        ...

    def label(self, symbols: Collection[str]) -> str:
        """Name, version and method for these elements, as `SimulationResult.engine` reports it."""
        ...

    def lattice_constant_A(self, material: str, symbols: Collection[str]) -> float:
        """Lattice constant, Å, at which a perfect sheet of the material is free of stress in it.

        Parameters
        ----------
        material
            Name of the material.
        symbols
            Elements of the structure, where they decide the method.
        """
        ...

    def calculator(
        self, atoms: ase.Atoms, options: RelaxOptions
    ) -> AbstractContextManager[Calculator]:
        """Give an ASE calculator (eV, eV/Å) for these atoms, closed at the end of the context."""
        ...

    def relax(self, task: SimulationTask, options: RelaxOptions) -> SimulationResult:
        """Relax one structure; see `adatom.simulation.relax`."""
        ...

    def dynamics(self, task: SimulationTask, options: DynamicsOptions) -> SimulationResult:
        """Run molecular dynamics; see `adatom.simulation.dynamics`.

        Raises
        ------
        EngineMissing
            If ``dynamics`` is not among its tasks.
        """
        ...


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One row of `adatom doctor`.

    Parameters
    ----------
    name, tasks, elements, boundary, not_for, install
        As of `ListedEngine`.
    package
        Name and version of the package that registers it.
    installed, version, note
        As of `Status`.
    """

    name: str
    tasks: tuple[Task, ...]
    elements: str
    boundary: str
    not_for: str
    install: str
    package: str
    installed: bool
    version: str
    note: str


def registered_engines() -> tuple[Plugin, ...]:
    """Every registered engine, adatom's own first; those that cannot be used have an error."""
    return registered(ENGINES, ListedEngine)


def engine_status() -> list[EngineStatus]:
    """Find out which engines can be used here; loads each of them.

    Examples
    --------
    >>> [row.installed for row in engine_status() if row.name == "gfn1-xtb"]
    [True]
    """
    return [_row(found) for found in registered_engines() if not found.error]


def find_engine(name: str) -> ListedEngine:
    """Look an engine up by name.

    Raises
    ------
    BadInput
        If there is none; the message names those that there are.
    """
    return cast("ListedEngine", plugin(ENGINES, name, ListedEngine))


def require(name: str, task: Task) -> Engine:
    """Give the engine of this name, sure that it can do a task here.

    Parameters
    ----------
    name
        Name of the engine.
    task
        ``relax`` or ``dynamics``.

    Raises
    ------
    BadInput
        If there is no engine of that name.
    EngineMissing
        If it is not installed, or adatom cannot run this task on it; says how to install it or
        what to use.
    """
    engine = find_engine(name)
    if task not in engine.tasks or not isinstance(engine, Engine):
        raise cannot(engine, task)
    status = engine.status()
    if not status.installed:
        raise missing(engine.name, status.note, engine.install)
    return engine


def engine_version(name: str) -> str:
    """Version of an installed engine; ``unknown`` for a program.

    Raises
    ------
    BadInput
        If there is no engine of that name.
    EngineMissing
        If it is not installed.
    """
    engine = find_engine(name)
    status = engine.status()
    if not status.installed:
        raise missing(engine.name, status.note, engine.install)
    return status.version


def missing(name: str, why: str, install: str) -> EngineMissing:
    """Error for an engine that is not here or does not load."""
    return EngineMissing(
        f"engine {name}",
        expected="an installed engine",
        got=why or "it is not installed",
        todo=f"Install it: {install}",
    )


def cannot(engine: ListedEngine, task: Task) -> EngineMissing:
    """Error for an engine that is asked for a task that adatom cannot run on it."""
    verb = "relax" if task == "relax" else "run dynamics"
    able = [f.name for f in registered_engines() if not f.error and task in f.value.tasks]
    return EngineMissing(
        f"engine {engine.name}",
        expected=f"an engine that adatom can {verb} with: {', '.join(able)}",
        got=f"{engine.name}, which does {' and '.join(engine.tasks) or 'nothing in adatom yet'}",
        todo=f"Use {able[0]}." if able else "Install a package that has one.",
    )


def _row(found: Plugin) -> EngineStatus:
    engine = cast("ListedEngine", found.value)
    try:
        status = engine.status()
    except Exception as error:  # noqa: BLE001 (one faulty package must not hide the others)
        status = Status(installed=False, note=f"{type(error).__name__}: {error}")
    return EngineStatus(
        engine.name,
        engine.tasks,
        engine.elements,
        engine.boundary,
        engine.not_for,
        engine.install,
        found.distribution,
        status.installed,
        status.version,
        status.note,
    )
