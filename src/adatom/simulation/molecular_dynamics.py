"""Molecular dynamics of a supercell at a temperature.

`dynamics` gives a task to the engine that the task names. The engine fills a `Samples` and makes
the result from it. Engines that are an ASE calculator use `dynamics_with_ase`.

Velocities are sampled at twice the temperature, because half of the kinetic energy becomes
potential energy. A strong Langevin thermostat then heats every atom separately, because the stiff,
nearly harmonic modes of a sheet hardly exchange energy within picoseconds. The production uses
stochastic velocity rescaling (Bussi, Donadio & Parrinello, J. Chem. Phys. 126, 014101 (2007)). It
samples the canonical ensemble and, unlike Langevin friction, does not slow down diffusion and
hopping.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import ase
import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCom
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from threadpoolctl import threadpool_limits

from adatom.core import SimulationResult, SimulationTask
from adatom.errors import AdatomError, BadInput, StepFailed
from adatom.simulation.engines.base import Engine, require
from adatom.simulation.fitness import check_fitness
from adatom.simulation.options import DynamicsOptions, RelaxOptions
from adatom.simulation.scaling import scale_to
from adatom.simulation.sheet import lay_flat, without_charges

# Time constants of the thermostats, fs: strong damping while heating, weak damping in production.
LANGEVIN_fs = 50.0
RESCALING_fs = 100.0
_START_FMAX_EV_A, _START_STEPS = 0.05, 200  # of the minimum that a run starts from


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
        name, it does not cover the elements or is not fit for the structure, or that is not a
        sheet with a cell and
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
    flat = replace(task, structure=without_charges(lay_flat(task.structure)))
    notes = check_fitness(engine, flat)
    result = engine.dynamics(flat, options)
    return replace(result, notes=(*notes, *result.notes)) if notes else result


def dynamics_with_ase(
    engine: Engine, task: SimulationTask, options: DynamicsOptions
) -> SimulationResult:
    """Minimise, heat and run dynamics on an engine's ASE calculator, on one thread.

    Parameters
    ----------
    engine
        Engine with calculator, lattice constant and label.
    task, options
        As for `dynamics`.

    Returns
    -------
    As of `dynamics`.

    Raises
    ------
    BadInput
        If the engine does not cover the elements.
    """
    begin = time.perf_counter()
    source = task.structure.to_ase()
    symbols = set(source.get_chemical_symbols())
    engine.check_elements(symbols)
    constant = engine.lattice_constant_A(task.material, symbols)
    atoms = scale_to(source, task.material.lattice_constant_A, constant)
    start, samples, status = atoms, Samples(), "done"
    deadline = begin + options.max_seconds
    try:
        with (
            threadpool_limits(limits=1),
            engine.calculator(atoms, RelaxOptions()) as calculator,
        ):
            atoms.calc = calculator
            fixed = task.structure.fixed
            # Without fixed atoms the total momentum is conserved: three degrees of freedom less.
            atoms.set_constraint(FixAtoms(mask=fixed) if fixed.any() else FixCom())
            rng = np.random.default_rng(task.seed)
            try:
                start = _heat(atoms, task.temperature_K, options, rng, deadline)
                _produce(atoms, task.temperature_K, samples, options, rng, deadline)
            finally:
                samples.notes = tuple(getattr(calculator, "notes", ()))
    except (AdatomError, RuntimeError, ValueError, ArithmeticError) as error:
        status = f"failed: {error.got if isinstance(error, AdatomError) else error}"
    start.set_constraint()
    return samples.result(
        task,
        engine=engine.label(symbols),
        start=start,
        status=status,
        seconds=time.perf_counter() - begin,
    )


def _heat(
    atoms: ase.Atoms,
    kelvin: float,
    options: DynamicsOptions,
    rng: np.random.Generator,
    deadline: float,
) -> ase.Atoms:
    """Minimise, sample velocities and equilibrate; return the minimum."""
    for _ in FIRE(atoms, logfile=None).irun(fmax=_START_FMAX_EV_A, steps=_START_STEPS):
        _check_time(deadline, options, 0.0)
    minimum: ase.Atoms = atoms.copy()
    minimum.calc = SinglePointCalculator(minimum, energy=float(atoms.get_potential_energy()))
    MaxwellBoltzmannDistribution(atoms, temperature_K=2.0 * kelvin, rng=rng)
    step = options.timestep_fs * units.fs
    damped = Langevin(
        atoms,
        step,
        temperature_K=kelvin,
        friction=1.0 / (LANGEVIN_fs * units.fs),
        fixcm=False,
        rng=rng,
    )
    count = round(options.equilibration_ps * 1e3 / options.timestep_fs)
    for _ in damped.irun(count):
        _check_time(deadline, options, 0.0)
    return minimum


def _produce(
    atoms: ase.Atoms,
    kelvin: float,
    samples: Samples,
    options: DynamicsOptions,
    rng: np.random.Generator,
    deadline: float,
) -> None:
    """Run the production, sample by sample."""
    step = options.timestep_fs * units.fs
    run: MolecularDynamics
    if options.thermostat == "none":
        run = VelocityVerlet(atoms, step)
    else:
        run = Bussi(atoms, step, temperature_K=kelvin, taut=RESCALING_fs * units.fs, rng=rng)
    stride = max(1, round(options.sample_fs / options.timestep_fs))
    count = max(2, round(options.production_ps * 1e3 / (stride * options.timestep_fs)))
    kept = set(evenly_kept(count, options.trajectory_frames - 1))
    for i in range(count):
        for _ in run.irun(stride):
            _check_time(deadline, options, i * stride * options.timestep_fs)
        energy, kinetic = float(atoms.get_potential_energy()), float(atoms.get_kinetic_energy())
        if not np.isfinite(energy + kinetic):
            raise StepFailed(
                "dynamics",
                expected="finite energies",
                got=f"energy {energy} eV",
                todo="Use a shorter time step.",
            )
        samples.time_fs.append((i + 1) * stride * options.timestep_fs)
        samples.temperature_K.append(float(atoms.get_temperature()))
        samples.energy_eV.append(energy)
        samples.total_energy_eV.append(energy + kinetic)
        if i in kept:
            frame = atoms.copy()
            frame.set_constraint()
            frame.calc = SinglePointCalculator(frame, energy=energy)
            frame.info["time_fs"] = samples.time_fs[-1]
            samples.geometries.append(frame)


def _check_time(deadline: float, options: DynamicsOptions, done_fs: float) -> None:
    if time.perf_counter() > deadline:
        raise over_time(options, done_fs)


def over_time(options: DynamicsOptions, done_fs: float) -> StepFailed:
    """Make the error for a production that does not fit into its time."""
    return StepFailed(
        "dynamics",
        expected=f"{options.production_ps} ps in {options.max_seconds:g} s",
        got=f"{done_fs * 1e-3:g} ps when the time was over",
        todo="Allow more seconds, or ask for a shorter production.",
    )


def evenly_kept(count: int, most: int) -> range:
    """Samples to keep, the last one among them, at even times.

    Parameters
    ----------
    count
        Number of samples.
    most
        Most samples to keep.

    Examples
    --------
    >>> [*evenly_kept(20, 6)], [*evenly_kept(3, 6)]
    ([3, 7, 11, 15, 19], [0, 1, 2])
    """
    least = -(-count // most)
    # A stride that divides the number makes the first interval, from time zero, as long as others.
    whole = [k for k in range(least, 2 * least) if count % k == 0]
    stride = whole[0] if whole else least
    return range((count - 1) % stride, count, stride)


@dataclass
class Samples:
    """The samples of a trajectory; an engine fills them.

    Parameters
    ----------
    time_fs, temperature_K, energy_eV, total_energy_eV
        One number per sample; the total energy is potential plus kinetic.
    geometries
        Geometries of some samples, with velocities and potential energy.
    notes
        What the engine says of the calculation.
    """

    time_fs: list[float] = field(default_factory=list)
    temperature_K: list[float] = field(default_factory=list)
    energy_eV: list[float] = field(default_factory=list)
    total_energy_eV: list[float] = field(default_factory=list)
    geometries: list[ase.Atoms] = field(default_factory=list)
    notes: tuple[str, ...] = ()

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
            weight=task.structure.weight,
            notes=self.notes,
            trajectory=(first, *self.geometries),
            trace={
                "time_fs": np.array(self.time_fs),
                "temperature_K": np.array(self.temperature_K),
                "energy_eV": np.array(self.energy_eV),
                "total_energy_eV": np.array(self.total_energy_eV),
            },
        )
