"""Base class of engines that are an ASE calculator."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import AbstractContextManager
from functools import cache

import ase
import numpy as np
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers
from ase.optimize import BFGS
from threadpoolctl import threadpool_limits

from adatom.core import Material, SimulationResult, SimulationTask
from adatom.errors import AdatomError, BadInput
from adatom.simulation.engines.base import Status, Task, unsupported_task
from adatom.simulation.molecular_dynamics import dynamics_with_ase
from adatom.simulation.options import DynamicsOptions, RelaxOptions
from adatom.simulation.relaxation import relax_with_ase
from adatom.simulation.scaling import measure_lattice_constant_A

_FMAX_EV_A, _STEPS = 1e-3, 100  # of the heights in a sheet whose lattice constant is measured


class CalculatorEngine(ABC):
    """Base of an engine whose energies and forces come from an ASE calculator.

    A subclass sets the class attributes and implements `calculator`; it can then relax with BFGS.
    With ``dynamics`` among its `tasks` it runs molecular dynamics through ASE, too; an engine with
    dynamics of its own overrides `dynamics`.

    Attributes
    ----------
    name, tasks, elements, boundary, not_for, install
        As of `adatom.simulation.engines.base.ListedEngine`.
    covers
        Chemical symbols that it covers.
    distribution
        Name of the installed package whose version is reported.
    lattice_constants_A
        Lattice constant of a stress-free sheet by the material's name, Å, as
        `adatom.simulation.measure_lattice_constant_A` gives it. Others are measured when needed.
    reference_cells
        Cells along each side of the sheet that is measured; 1 where the energy of an atom does not
        depend on the size of the cell. The default is for the Γ point alone.
    """

    name: str
    tasks: tuple[Task, ...] = ("relax",)
    elements: str
    boundary: str
    not_for: str
    install: str
    covers: frozenset[str]
    distribution: str
    lattice_constants_A: dict[str, float] = {}  # noqa: RUF012 (overridden, never changed)
    reference_cells: int = 7

    @abstractmethod
    def calculator(
        self, atoms: ase.Atoms, options: RelaxOptions
    ) -> AbstractContextManager[Calculator]:
        """Give a calculator (eV, eV/Å) for these atoms, closed at the end of the context.

        Where nothing has to be closed, return ``contextlib.nullcontext(calculator)``.
        """

    def version(self) -> str:
        """Version of `distribution`; any error says that the engine is not installed.

        Where the engine has to be loaded to be sure that it works, override this to do so.
        """
        return importlib.metadata.version(self.distribution)

    def status(self) -> Status:
        """Load the engine to find out whether it is installed."""
        try:
            return Status(installed=True, version=self.version())
        except AdatomError as error:
            return Status(installed=False, note=error.got)
        except Exception as error:  # noqa: BLE001 (a foreign library may fail in any way)
            return Status(installed=False, note=f"it does not load: {error}")

    def check_elements(self, symbols: Collection[str]) -> None:
        """Refuse elements that are not in `covers`.

        Raises
        ------
        BadInput
            Names those that are not covered.
        """
        strange = sorted(set(symbols) - self.covers, key=lambda s: atomic_numbers[s])
        if strange:
            raise BadInput(
                f"elements for {self.name}",
                expected=self.elements,
                got="+".join(strange),
                todo="Use an engine that covers them: `adatom doctor` lists what each one does.",
            )

    def label(self, symbols: Collection[str]) -> str:
        """Name and version."""
        del symbols  # one method for all elements
        return f"{self.name} {self.version()}"

    def lattice_constant_A(self, material: Material, symbols: Collection[str]) -> float:
        """Lattice constant, Å, of a stress-free sheet: from the table, or measured.

        Raises
        ------
        BadInput
            If the material is no sheet, or the engine does not hold it together.
        """
        del symbols
        known = self.lattice_constants_A.get(material.name)
        return known if known is not None else _measured_A(self, material)

    def relax(self, task: SimulationTask, options: RelaxOptions) -> SimulationResult:
        """Relax one structure with BFGS, from the given positions."""
        return relax_with_ase(self, task, options)

    def dynamics(self, task: SimulationTask, options: DynamicsOptions) -> SimulationResult:
        """Run dynamics through ASE, where ``dynamics`` is among `tasks`.

        Raises
        ------
        EngineMissing
            If it is not; names the engines that do.
        """
        if "dynamics" not in self.tasks:
            raise unsupported_task(self, "dynamics")
        return dynamics_with_ase(self, task, options)


@cache
def _measured_A(engine: CalculatorEngine, material: Material) -> float:
    """Lattice constant of an engine, Å; measured once in a process."""

    def energy_eV(atoms: ase.Atoms) -> float:
        # More accurate than for a relaxation, because the energy curve is flat at its minimum.
        with (
            threadpool_limits(limits=1),
            engine.calculator(atoms, RelaxOptions(accuracy=1.0)) as calculator,
        ):
            atoms.calc = calculator
            if np.ptp(atoms.positions[:, 2]) > 0.0:  # atoms above each other find their heights
                BFGS(atoms, logfile=None).run(fmax=_FMAX_EV_A, steps=_STEPS)
            return float(atoms.get_potential_energy())

    return measure_lattice_constant_A(energy_eV, material, cells=engine.reference_cells)
