"""The protocol of simulation engines, and their lookup by name.

Engines, also adatom's own, are registered as entry points of the group ``adatom.engines``. A new
engine is one file with one object that fits `Engine`, and one line in a ``pyproject.toml``. Most
are an ASE calculator: see `adatom.simulation.engines.calculator.CalculatorEngine`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, cast, runtime_checkable

import ase
from ase.calculators.calculator import Calculator

from adatom.core import Material, SimulationResult, SimulationTask, Structure
from adatom.core.plugins import ENGINES, Plugin, plugin, registered
from adatom.errors import EngineMissing
from adatom.simulation.options import DynamicsOptions, RelaxOptions

Task = Literal["relax", "dynamics"]
AUTO = "auto"  # in the place of an engine's name: one that is installed and fit
_PATH = re.compile(r"[^\W\d]\w*(\.\w+)*:\w+(\.\w+)*")  # module:name, both with dots


@dataclass(frozen=True, slots=True)
class Status:
    """Whether an engine can be used on this machine.

    Parameters
    ----------
    installed
        It is installed, and it loads.
    version
        Its version; ``unknown`` for a program, which cannot be asked safely; empty where it is
        not installed.
    note
        Reason why it does not work, or its limits.
    """

    installed: bool
    version: str = ""
    note: str = ""


@runtime_checkable
class ListedEngine(Protocol):
    """An engine as `adatom doctor` lists it; adatom may not be able to run it yet.

    Attributes
    ----------
    name
        Name that the user gives; also the name of its entry point.
    tasks
        Tasks that adatom can run on it; empty if adatom can only detect it.
    elements
        Elements that it covers, as text.
    boundary
        Its boundary conditions, as text.
    not_for
        Uses for which it is not suitable, as text.
    install
        Command that installs it, one line.
    """

    name: str
    tasks: tuple[Task, ...]
    elements: str
    boundary: str
    not_for: str
    install: str

    def status(self) -> Status:
        """Find out whether it is installed; loads it, and never raises."""
        ...


@runtime_checkable
class Engine(ListedEngine, Protocol):
    """An engine that adatom can run.

    `adatom.conformance.engines.check_engine` tests one.
    """

    def check_elements(self, symbols: Collection[str]) -> None:
        """Check that it covers these chemical symbols.

        Raises
        ------
        BadInput
            If it does not; the message has the elements that it covers.
        """
        ...

    def label(self, symbols: Collection[str]) -> str:
        """Name, version and method for these elements, as `SimulationResult.engine` reports it."""
        ...

    def lattice_constant_A(self, material: Material, symbols: Collection[str]) -> float:
        """Lattice constant, Å, at which a perfect sheet of the material is free of stress in it.

        Parameters
        ----------
        material
            The crystal.
        symbols
            Elements of the structure; some engines choose the method by them.
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
    """Find an engine by its name, or by the import path of an ASE calculator.

    Parameters
    ----------
    name
        Name of a registered engine; or ``module:name`` of what makes an ASE calculator, see
        `adatom.simulation.engines.imported`.

    Raises
    ------
    BadInput
        If no engine has this name; the message lists the names.
    """
    path = name.strip()
    if _PATH.fullmatch(path):
        from adatom.simulation.engines.imported import imported_engine  # it builds on this module

        return imported_engine(path)
    return cast("ListedEngine", plugin(ENGINES, name, ListedEngine))


def require(name: str, task: Task) -> Engine:
    """Find an engine, and check that it can run a task on this machine.

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
        If it is not installed, or adatom cannot run this task on it; the message says how to
        install it, or which engine to use.
    """
    engine = find_engine(name)
    if task not in engine.tasks or not isinstance(engine, Engine):
        raise unsupported_task(engine, task)
    status = engine.status()
    if not status.installed:
        raise not_installed(engine.name, status.note, engine.install)
    return engine


def for_elements(engine: Engine, symbols: Collection[str]) -> Engine:
    """Give the engine with the method that covers all of these elements, where it has several.

    Energies of two methods cannot be compared: structures that are compared get one method by the
    elements of all of them. An engine has a method ``for_elements(symbols)`` for it, or none.

    Parameters
    ----------
    engine
        An installed engine.
    symbols
        Elements of all structures that are compared.

    Examples
    --------
    >>> lammps = require("lammps", "relax")
    >>> lammps.label({"C"}).split()[-1], for_elements(lammps, {"C", "Si"}).label({"C"}).split()[-1]
    ('(lcbop)', '(tersoff)')
    """
    choose = getattr(engine, "for_elements", None)
    return engine if choose is None else cast("Engine", choose(symbols))


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
        raise not_installed(engine.name, status.note, engine.install)
    return status.version


def caution(name: str, structure: Structure, material: Material) -> str:
    """Say what an engine computes badly for a structure; an empty string if nothing.

    An engine has a method ``caution(atoms, material)`` for it, or none.

    Parameters
    ----------
    name
        Name of the engine.
    structure
        Flat, as of `adatom.simulation.sheet.lay_flat`.
    material
        The crystal of the structure.

    Raises
    ------
    BadInput
        If there is no engine of that name.
    """
    ask = getattr(find_engine(name), "caution", None)
    return "" if ask is None else str(ask(structure.atoms, material))


def not_installed(name: str, why: str, install: str) -> EngineMissing:
    """Make the error for an engine that is not installed or does not load."""
    return EngineMissing(
        f"engine {name}",
        expected="an installed engine",
        got=why or "it is not installed",
        todo=f"Install it: {install}",
    )


def unsupported_task(engine: ListedEngine, task: Task) -> EngineMissing:
    """Make the error for a task that adatom cannot run on an engine."""
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
