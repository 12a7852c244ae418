"""Relaxation of a supercell to the nearest minimum, with the trace of how it went there.

How it is made fast, measured on Si3C6 in 112 sites of graphene (111 atoms, GFN1-xTB), drawn with
0.07 Å noise, to 0.05 eV/Å, in evaluations of the forces:

==================================================  ===========
BFGS, and LBFGS, from the draw                           78
BFGS from the draw, Hessian of the Tersoff potential     37
BFGS after a minimisation in Tersoff                     38
BFGS after that, with its Hessian (this module)          20
==================================================  ===========

The classical minimum and its Hessian cost one second of LAMMPS together; they also take the draw's
noise out, whose forces of tens of eV/Å otherwise throw atoms across the sheet. Where no classical
potential covers the elements, BFGS starts from the draw.

A step of 111 atoms takes 1.3 s with a fast BLAS (`engines.preload_fast_blas`), 6 s without; 20 Å of
vacuum are cheaper than 10 Å, and the wave function is carried from step to step.

Γ point only: the cell should not be divisible by three along a lattice vector, and be seven cells
or wider.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from threadpoolctl import threadpool_limits

from adatom.core import SimulationResult, SimulationTask
from adatom.core.arrays import FloatArray
from adatom.errors import AdatomError, BadInput
from adatom.materials.library import load_material
from adatom.simulation.classical import ClassicalCalculator, Sheet, choose_potential
from adatom.simulation.engines import engine_version, load_tblite, require
from adatom.simulation.scaling import GFN1, lattice_constant_A, scale_to

# Softer modes than this (eV/Å²) are ripples that the two methods do not share.
_SOFTEST = 3.0
_STIFFNESS = 70.0  # ASE's default for a mode of which nothing is known, eV/Å²


class RelaxOptions(BaseModel):
    """How a structure is relaxed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fmax_eV_A: float = Field(0.05, gt=0, description="largest force at the end, eV/Å")
    max_steps: int = Field(150, ge=1, description="most steps of the optimiser")
    max_seconds: float = Field(300.0, gt=0, description="most wall time, s")
    electronic_temperature_K: float = Field(300.0, gt=0, description="of the electrons, K")
    accuracy: float = Field(
        10.0, gt=0, le=100, description="tblite's accuracy; forces to 1e-3 eV/Å at 10"
    )
    prepare: bool = Field(
        default=True, description="go to the classical minimum first, and start from its Hessian"
    )
    material: str = Field("graphene", description="material of the sheet, sets its scale")
    trajectory_frames: int = Field(12, ge=2, description="geometries to keep")


_TOO_NEAR_A = 0.85  # no bond of C or heavier is shorter than 1.1 Å
# GFN1-xTB's charges can run away at a sane geometry (−10463 in place of −6275 eV, 2600 eV/Å, seen
# for Si3 in a sheet); the most crowded draws start near 15 eV/Å.
_RUNAWAY_EV_A = 200.0


@dataclass
class _Path:
    """What the optimiser went through; only `relax` writes to it."""

    energy_eV: list[float] = field(default_factory=list)
    fmax_eV_A: list[float] = field(default_factory=list)
    geometries: list[ase.Atoms] = field(default_factory=list)


def relax(task: SimulationTask, options: RelaxOptions) -> SimulationResult:
    """Relax one structure at its engine's own lattice constant, on one thread.

    Parameters
    ----------
    task
        The structure, at its material's lattice constant, and the engine: ``gfn1-xtb`` or
        ``lammps`` (classical: seconds, and only C and Si). Fixed atoms stay.
    options
        Convergence and limits.

    Returns
    -------
    Energy, trace and trajectory. The first geometry is the structure as it came, scaled and
    without energies; all others carry energy and forces. Status ``not converged`` with the last
    geometry where steps or time ran out, ``failed: <why>`` where the engine gave up.

    Raises
    ------
    BadInput
        If the task is not a relaxation, or the engine does not cover the elements.
    EngineMissing
        If the engine is missing.

    Notes
    -----
    For many draws at once, give it to processes that were *spawned*: GNU OpenMP hangs in a
    process forked from one that used threads.
    """
    if task.kind != "relax":
        raise BadInput(
            f"task {task.structure.name}",
            expected="relax",
            got=task.kind,
            todo="Give a relaxation, or call dynamics.",
        )
    require(task.engine, "relax")
    begin = time.perf_counter()
    deadline = begin + options.max_seconds
    given, method, path, status = _attempt(task, options, deadline)
    if status.startswith("failed") and options.prepare and task.engine == GFN1:
        # The classical minimum can be a place where the charges run away: start where it was.
        plain = options.model_copy(update={"prepare": False})
        given, method, path, status = _attempt(task, plain, deadline)
    return SimulationResult(
        structure=task.structure.name,
        draw=task.structure.draw,
        engine=method,
        task="relax",
        temperature_K=0.0,
        energy_eV=path.energy_eV[-1] if path.energy_eV else float("nan"),
        energy_sd_eV=float("nan"),
        status=status,
        seconds=time.perf_counter() - begin,
        trajectory=(given, *_thin(path.geometries, options.trajectory_frames - 1)),
        trace={
            "step": np.arange(len(path.energy_eV), dtype=np.float64),
            "energy_eV": np.array(path.energy_eV),
            "fmax_eV_A": np.array(path.fmax_eV_A),
        },
    )


def _attempt(
    task: SimulationTask, options: RelaxOptions, deadline: float
) -> tuple[ase.Atoms, str, _Path, str]:
    """One relaxation: scaled structure, name of the method, what it went through, status."""
    path = _Path()
    with threadpool_limits(limits=1), ExitStack() as stack:
        given, atoms, hessian, method = _start(task, options, stack)
        try:
            status = _walk(atoms, hessian, path, options, deadline)
        except (AdatomError, RuntimeError, ValueError, ArithmeticError) as error:
            why = error.got if isinstance(error, AdatomError) else str(error).strip()
            status = f"failed: {why or type(error).__name__}"
    return given, method, path, status


def _start(
    task: SimulationTask, options: RelaxOptions, stack: ExitStack
) -> tuple[ase.Atoms, ase.Atoms, FloatArray | None, str]:
    """Scaled structure, where the optimiser starts, first Hessian (eV/Å²), name of the method."""
    source = task.structure.to_ase()
    experiment = load_material(options.material).lattice_constant_A
    symbols = set(source.get_chemical_symbols())
    hessian = None
    if task.engine == GFN1:
        own = lattice_constant_A(GFN1, options.material)
        given = scale_to(source, experiment, own)
        atoms = given.copy()
        if options.prepare:
            atoms, hessian = _classical_start(given, task.structure.fixed, own, options.material)
        atoms.calc = load_tblite()(
            method="GFN1-xTB",
            accuracy=options.accuracy,
            electronic_temperature=options.electronic_temperature_K,
            verbosity=0,
        )
        method = f"{GFN1} (tblite {engine_version(GFN1)})"
    else:
        potential = choose_potential(symbols)
        own = lattice_constant_A(f"lammps/{potential.name}", options.material)
        given = scale_to(source, experiment, own)
        atoms = given.copy()
        atoms.calc = ClassicalCalculator(stack.enter_context(Sheet(atoms, potential)))
        method = f"lammps {engine_version('lammps')} ({potential.name})"
    if task.structure.fixed.any():
        atoms.set_constraint(FixAtoms(mask=task.structure.fixed))
    return given, atoms, hessian, method


def _classical_start(
    given: ase.Atoms, fixed: NDArray[np.bool_], own_A: float, material: str
) -> tuple[ase.Atoms, FloatArray | None]:
    """Classical minimum at the scale ``own_A`` and its Hessian; what was given where it fails."""
    try:
        potential = choose_potential(set(given.get_chemical_symbols()))
        classical = lattice_constant_A(f"lammps/{potential.name}", material)
        stretched = scale_to(given, own_A, classical)
        with Sheet(stretched, potential) as sheet:
            sheet.hold(fixed)
            stretched.set_positions(sheet.minimise())
            if nearest_distance_A(stretched) < _TOO_NEAR_A:  # the potential has let atoms fuse
                return given.copy(), None
            hessian = sheet.hessian(stretched.get_positions())
    except AdatomError:  # elements without a potential, no LAMMPS, atoms on top of each other
        return given.copy(), None
    held = np.repeat(fixed, 3)
    hessian[held] = hessian[:, held] = 0.0
    hessian[held, held] = _STIFFNESS
    curvature, modes = np.linalg.eigh(hessian)
    stiff: FloatArray = (modes * np.maximum(np.abs(curvature), _SOFTEST)) @ modes.T
    out = scale_to(stretched, classical, own_A)
    # Atoms that must not move are where they were, whatever rounding or centring did.
    out.positions[fixed] = given.positions[fixed]
    return out, stiff


def _walk(
    atoms: ase.Atoms,
    hessian: FloatArray | None,
    path: _Path,
    options: RelaxOptions,
    deadline: float,
) -> str:
    """Run BFGS, recording every step, and give the status."""
    optimiser = BFGS(atoms, logfile=None, alpha=_STIFFNESS)
    if hessian is not None:
        optimiser.H0 = hessian
    for converged in optimiser.irun(fmax=options.fmax_eV_A, steps=options.max_steps):
        energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            return "failed: the energy is not a number"
        frame = atoms.copy()
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        path.geometries.append(frame)
        path.energy_eV.append(energy)
        path.fmax_eV_A.append(float(np.linalg.norm(forces, axis=1).max()))
        if path.fmax_eV_A[-1] > _RUNAWAY_EV_A:
            return f"failed: the engine's forces run away ({path.fmax_eV_A[-1]:.0f} eV/Å)"
        if converged:
            return "done"
        if time.perf_counter() > deadline:
            break
    return "not converged"


def nearest_distance_A(atoms: ase.Atoms) -> float:
    """Shortest distance between two atoms, periodic images included, Å."""
    distances = neighbor_list("d", atoms, 1.5)
    return float(distances.min()) if len(distances) else 1.5


def _thin(geometries: list[ase.Atoms], count: int) -> list[ase.Atoms]:
    """First, last and evenly some between."""
    if len(geometries) <= count:
        return geometries
    chosen = np.unique(np.linspace(0, len(geometries) - 1, count).round().astype(int))
    return [geometries[i] for i in chosen] if count > 1 else geometries[-1:]
