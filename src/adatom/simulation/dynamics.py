"""Molecular dynamics of a supercell at a temperature, run natively in LAMMPS.

The thermostats: velocities are drawn at twice the temperature (half of it flows into the bonds),
a strong Langevin thermostat then heats every atom by itself, because the stiff, nearly harmonic
modes of a sheet hardly exchange energy within picoseconds; production runs under stochastic
velocity rescaling (Bussi, Donadio & Parrinello, J. Chem. Phys. 126, 014101 (2007)), which samples
the canonical ensemble and, unlike Langevin's friction, leaves diffusion and hopping as they are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

import ase
import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from adatom.core import SimulationResult, SimulationTask
from adatom.errors import BadInput, StepFailed
from adatom.materials.library import load_material
from adatom.simulation.classical import Sheet, choose_potential
from adatom.simulation.engines import engine_version, require
from adatom.simulation.scaling import lattice_constant_A, scale_to

_LANGEVIN_fs = 50.0
_RESCALING_fs = 100.0


class DynamicsOptions(BaseModel):
    """How a structure is heated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timestep_fs: float = Field(0.5, gt=0, le=2, description="time step, fs")
    equilibration_ps: float = Field(1.0, ge=0, description="heating before the production, ps")
    production_ps: float = Field(10.0, gt=0, description="length of the trajectory, ps")
    sample_fs: float = Field(25.0, gt=0, description="time between samples of the trace, fs")
    trajectory_frames: int = Field(50, ge=2, description="geometries to keep")
    thermostat: Literal["rescaling", "none"] = Field(
        "rescaling", description="of the production: rescaling (NVT) or none (NVE)"
    )
    max_seconds: float = Field(600.0, gt=0, description="most wall time, s")
    material: str = Field("graphene", description="material of the sheet, sets its scale")


@dataclass
class _Samples:
    """What the trajectory went through; only `_produce` writes to it."""

    time_fs: list[float] = field(default_factory=list)
    temperature_K: list[float] = field(default_factory=list)
    energy_eV: list[float] = field(default_factory=list)
    total_energy_eV: list[float] = field(default_factory=list)
    geometries: list[ase.Atoms] = field(default_factory=list)


def dynamics(task: SimulationTask, options: DynamicsOptions) -> SimulationResult:
    """Run molecular dynamics of one structure at the potential's own lattice constant.

    Parameters
    ----------
    task
        The structure, at its material's lattice constant; the engine ``lammps``; temperature in K
        and seed of velocities and thermostat. Carbon runs in LCBOP, carbon with silicon in
        Tersoff's SiC. Fixed atoms stay.
    options
        Times and limits.

    Returns
    -------
    Mean and standard deviation of the potential energy over the second half of the production,
    the trace (also ``total_energy_eV``, potential and kinetic), and geometries with velocities and
    potential energy; atoms that leave the cell go on in it, unwrapped. The first geometry is the
    minimum that the run started from. Status ``failed: <why>`` with what there is where LAMMPS
    gave up or the time ran out.

    Raises
    ------
    BadInput
        If the task is not dynamics, the temperature is not positive, or no classical potential
        covers the elements.
    EngineMissing
        If the engine is missing or does no dynamics.
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
    require(task.engine, "dynamics")
    begin = time.perf_counter()
    source = task.structure.to_ase()
    potential = choose_potential(set(source.get_chemical_symbols()))
    own = lattice_constant_A(f"lammps/{potential.name}", options.material)
    atoms = scale_to(source, load_material(options.material).lattice_constant_A, own)
    samples, status = _Samples(), "done"
    try:
        with Sheet(atoms, potential) as sheet:
            atoms.set_positions(_heat(sheet, task, options))
            _produce(sheet, atoms, samples, options, begin + options.max_seconds)
    except StepFailed as error:
        status = f"failed: {error.got}"
    second_half = np.array(samples.energy_eV[len(samples.energy_eV) // 2 :])
    return SimulationResult(
        structure=task.structure.name,
        draw=task.structure.draw,
        engine=f"lammps {engine_version('lammps')} ({potential.name})",
        task="dynamics",
        temperature_K=task.temperature_K,
        energy_eV=float(second_half.mean()) if len(second_half) else float("nan"),
        energy_sd_eV=float(second_half.std()) if len(second_half) else float("nan"),
        status=status,
        seconds=time.perf_counter() - begin,
        trajectory=(atoms, *samples.geometries),
        trace={
            "time_fs": np.array(samples.time_fs),
            "temperature_K": np.array(samples.temperature_K),
            "energy_eV": np.array(samples.energy_eV),
            "total_energy_eV": np.array(samples.total_energy_eV),
        },
    )


def _heat(sheet: Sheet, task: SimulationTask, options: DynamicsOptions) -> NDArray[np.float64]:
    """Minimise, draw velocities, equilibrate, start the production's thermostat."""
    fixed = task.structure.fixed
    kelvin = task.temperature_K
    velocities, langevin, rescaling = _seeds(task.seed)
    sheet.hold(fixed)
    minimum = sheet.minimise()
    # Only a sheet without held atoms keeps its momentum, and so has three freedoms less.
    drift = 0 if fixed.any() else 3
    sheet.command(f"""
        compute_modify thermo_temp extra/dof {drift + 3 * int(fixed.sum())}
        timestep {options.timestep_fs * 1e-3}
        velocity mobile create {2.0 * kelvin} {velocities} mom yes rot no dist gaussian loop all
        velocity held set 0.0 0.0 0.0
        fix integrate mobile nve
        fix heat mobile langevin {kelvin} {kelvin} {_LANGEVIN_fs * 1e-3} {langevin} zero yes
        thermo 0
        run {round(options.equilibration_ps * 1e3 / options.timestep_fs)} post no
        unfix heat
        """)
    if drift:
        sheet.command("velocity mobile zero linear")
    if options.thermostat == "rescaling":
        sheet.command(f"""
            fix heat mobile temp/csvr {kelvin} {kelvin} {_RESCALING_fs * 1e-3} {rescaling}
            fix_modify heat temp thermo_temp
            """)
    return minimum


def _produce(
    sheet: Sheet,
    atoms: ase.Atoms,
    samples: _Samples,
    options: DynamicsOptions,
    deadline: float,
) -> None:
    """Run the production, sample by sample."""
    stride = max(1, round(options.sample_fs / options.timestep_fs))
    count = max(2, round(options.production_ps * 1e3 / (stride * options.timestep_fs)))
    kept = set(np.linspace(0, count - 1, min(count, options.trajectory_frames - 1)).round())
    for i in range(count):
        sheet.command(f"run {stride} pre {'no' if i else 'yes'} post no")
        energy, kelvin = sheet.energy_eV, sheet.temperature_K
        if not (np.isfinite(energy) and np.isfinite(kelvin)):
            raise StepFailed(
                "dynamics",
                expected="finite energies",
                got=f"energy {energy} eV at {kelvin} K",
                todo="Use a shorter time step.",
            )
        samples.time_fs.append((i + 1) * stride * options.timestep_fs)
        samples.temperature_K.append(kelvin)
        samples.energy_eV.append(energy)
        samples.total_energy_eV.append(energy + sheet.kinetic_eV)
        if i in kept:
            frame = atoms.copy()
            frame.set_positions(sheet.positions())
            frame.set_velocities(sheet.velocities_A_fs() / units.fs)
            frame.calc = SinglePointCalculator(frame, energy=energy)
            frame.info["time_fs"] = samples.time_fs[-1]
            samples.geometries.append(frame)
        if time.perf_counter() > deadline:
            raise StepFailed(
                "dynamics",
                expected=f"{options.production_ps} ps in {options.max_seconds:g} s",
                got=f"{samples.time_fs[-1] * 1e-3:g} ps when the time was over",
                todo="Allow more seconds, or ask for a shorter production.",
            )


def _seeds(seed: int) -> list[int]:
    """Three seeds that LAMMPS accepts (positive, below 9e8), one for each random stream."""
    return [int(s) % 899_999_999 + 1 for s in np.random.SeedSequence(seed).generate_state(3)]
