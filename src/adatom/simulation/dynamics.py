"""Molecular dynamics of a supercell at a temperature.

`dynamics` gives a task to the engine that the task names. The engine fills a `Samples` and makes
the result from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import ase
import numpy as np
from ase.constraints import FixAtoms

from adatom.core import SimulationResult, SimulationTask
from adatom.errors import BadInput
from adatom.simulation.engines.base import require
from adatom.simulation.options import DynamicsOptions
from adatom.simulation.sheet import lay_flat


def dynamics(task: SimulationTask, options: DynamicsOptions) -> SimulationResult:
    """Run molecular dynamics of one structure with the engine that the task names.

    Parameters
    ----------
    task
        The structure, at its material's lattice constant; the name of the engine; temperature in K
        and seed of velocities and thermostat. Fixed atoms stay.
    options
        Times and limits.

    Returns
    -------
    Mean and standard deviation of the potential energy over the second half of the production,
    the trace (also ``total_energy_eV``, potential and kinetic), and geometries with velocities and
    potential energy, at even times; positions are unwrapped. The first geometry is the
    minimum that the run started from, at time zero. If the engine failed or the time ran out, the
    status is ``failed: <why>`` and the result has the samples up to then.

    Raises
    ------
    BadInput
        If the task is not dynamics, the temperature is not positive, there is no engine of that
        name, it does not cover the elements, or the structure is not a sheet with a cell and
        vacuum.
    EngineMissing
        If the engine is not installed, or does no dynamics.

    Examples
    --------
    >>> from ase.build import graphene
    >>> from adatom.core import GRAPHENE, SimulationTask, Structure
    >>> sheet = Structure.from_ase(graphene(size=(4, 4, 1), a=2.46, vacuum=7.0))
    >>> task = SimulationTask(sheet, "dynamics", "lammps", 300.0, seed=1, material=GRAPHENE)
    >>> result = dynamics(task, DynamicsOptions(equilibration_ps=0.1, production_ps=0.1))
    >>> result.status, result.trace["temperature_K"].shape
    ('done', (4,))
    """
    if task.kind != "dynamics":
        raise BadInput(
            f"task {task.structure.name}",
            expected="dynamics",
            got=task.kind,
            todo="Give dynamics, or call relax.",
        )
    if not (np.isfinite(task.temperature_K) and task.temperature_K > 0.0):
        raise BadInput(
            "temperature",
            expected="a positive number of K",
            got=repr(task.temperature_K),
            todo="Give the temperature in kelvin.",
        )
    engine = require(task.engine, "dynamics")
    return engine.dynamics(replace(task, structure=lay_flat(task.structure)), options)


@dataclass
class Samples:
    """The samples of a trajectory; an engine fills them.

    Parameters
    ----------
    time_fs, temperature_K, energy_eV, total_energy_eV
        One number per sample; the total energy is potential plus kinetic.
    geometries
        Geometries of some samples, with velocities and potential energy.
    """

    time_fs: list[float] = field(default_factory=list)
    temperature_K: list[float] = field(default_factory=list)
    energy_eV: list[float] = field(default_factory=list)
    total_energy_eV: list[float] = field(default_factory=list)
    geometries: list[ase.Atoms] = field(default_factory=list)

    def result(
        self, task: SimulationTask, *, engine: str, start: ase.Atoms, status: str, seconds: float
    ) -> SimulationResult:
        """Make the result from the samples.

        Parameters
        ----------
        task
            Task that was run.
        engine
            Engine with version and method.
        start
            The minimum that the run started from.
        status
            ``done`` or ``failed: <why>``.
        seconds
            Wall time.
        """
        if task.structure.fixed.any():
            for atoms in (start, *self.geometries):
                atoms.set_constraint(FixAtoms(mask=task.structure.fixed))
        first = start.copy()
        first.calc = start.calc
        first.info["time_fs"] = 0.0
        second_half = np.array(self.energy_eV[len(self.energy_eV) // 2 :])
        return SimulationResult(
            structure=task.structure.name,
            draw=task.structure.draw,
            engine=engine,
            task="dynamics",
            temperature_K=task.temperature_K,
            energy_eV=float(second_half.mean()) if len(second_half) else float("nan"),
            energy_sd_eV=float(second_half.std()) if len(second_half) else float("nan"),
            status=status,
            seconds=seconds,
            trajectory=(first, *self.geometries),
            trace={
                "time_fs": np.array(self.time_fs),
                "temperature_K": np.array(self.temperature_K),
                "energy_eV": np.array(self.energy_eV),
                "total_energy_eV": np.array(self.total_energy_eV),
            },
        )
