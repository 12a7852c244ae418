"""Relaxation of a supercell to the nearest energy minimum.

`relax` gives a task to the engine that the task names. Engines that are an ASE calculator use
`relax_with_ase`: it scales the structure to the engine's lattice constant, and runs BFGS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from adatom.core import Material, SimulationResult, SimulationTask
from adatom.core.arrays import FloatArray
from adatom.errors import AdatomError, BadInput
from adatom.simulation.engines.base import Engine, for_elements, require
from adatom.simulation.fitness import check_fitness
from adatom.simulation.options import RelaxOptions
from adatom.simulation.scaling import scale_to
from adatom.simulation.sheet import lay_flat, without_charges

STIFFNESS_EV_A2 = 70.0  # initial Hessian of BFGS, eV/Å²: the default of ASE
# Largest force, eV/Å, at which a relaxation is stopped after its first steps. The charges of
# GFN1-xTB can diverge at a reasonable geometry (−10463 eV instead of −6275 eV and 2600 eV/Å,
# measured for Si3 in a sheet).
# Draws with close atoms start near 15 eV/Å, a bond drawn too short with some hundred: BFGS, which
# moves no atom by more than 0.2 Å a step, has parted its atoms after some steps.
_RUNAWAY_EV_A, _RUNAWAY_STEPS = 200.0, 8

_FLAT_A = 0.1  # Å: a sheet whose atoms are nearer to one plane than this is flat
_LOWER_EV = 2e-3  # a state is lower than another one by more than BFGS leaves, eV
_BOND_SCALE = 1.2  # bond length over the sum of covalent radii below which two atoms are bonded
_ODD_BOND = 0.05  # relative difference from the median above which a bond is odd

# Function of (structure at the engine's lattice constant, fixed atoms, that lattice constant in Å,
# material). It returns the start geometry, and the first Hessian, shape (3 atom, 3 atom), eV/Å², or
# None.
Start = Callable[
    [ase.Atoms, NDArray[np.bool_], float, Material], tuple[ase.Atoms, FloatArray | None]
]


def relax(task: SimulationTask, options: RelaxOptions) -> SimulationResult:
    """Relax one structure with the engine that the task names, at its own lattice constant.

    Parameters
    ----------
    task
        The structure, at its material's lattice constant, and the name of the engine. `lay_flat`
        makes it whole, with the sheet in the plane of the first two cell vectors. Fixed atoms stay.
    options
        Convergence and limits.

    Returns
    -------
    Energy, trace and trajectory. The first geometry is the given structure, scaled and
    without energies; all others have energy and forces. The status is ``not converged`` if steps or
    time ran out, ``failed: <why>`` if the engine failed.

    Raises
    ------
    BadInput
        If the task is not a relaxation, there is no engine of that name, it does not cover the
        elements or is not fit for the structure, or that is not a sheet with a cell and vacuum.
    EngineMissing
        If the engine is not installed, or does not relax.

    Notes
    -----
    To relax many draws in parallel, use *spawned* processes: GNU OpenMP hangs in a process forked
    from one that used threads.

    Examples
    --------
    >>> from ase.build import graphene
    >>> from adatom.core import GRAPHENE, SimulationTask, Structure
    >>> sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=7.0)
    >>> task = SimulationTask(Structure.from_ase(sheet), "relax", "lammps", material=GRAPHENE)
    >>> result = relax(task, RelaxOptions())
    >>> result.status, round(result.energy_eV / len(sheet), 2)
    ('done', -7.35)
    """
    if task.kind != "relax":
        raise BadInput(
            f"task {task.structure.name}",
            expected="relax",
            got=task.kind,
            todo="Give a relaxation, or call dynamics.",
        )
    engine = for_elements(
        require(task.engine, "relax"),
        {*task.structure.atoms.get_chemical_symbols(), *task.beside},
    )
    flat = replace(task, structure=without_charges(lay_flat(task.structure)))
    notes = check_fitness(engine, flat)
    result = engine.relax(flat, options)
    return replace(result, notes=(*notes, *result.notes)) if notes else result


def from_given_positions(
    given: ase.Atoms, fixed: NDArray[np.bool_], engine_lattice_A: float, material: Material
) -> tuple[ase.Atoms, None]:
    """Start from the given positions, without a Hessian."""
    del fixed, engine_lattice_A, material
    return given.copy(), None


def relax_with_ase(
    engine: Engine,
    task: SimulationTask,
    options: RelaxOptions,
    *,
    starts: Sequence[Start] = (from_given_positions,),
) -> SimulationResult:
    """Relax with BFGS on an engine's ASE calculator, on one thread.

    Parameters
    ----------
    engine
        Engine with calculator, lattice constant and label.
    task, options
        As for `relax`.
    starts
        Functions that give the start geometry; the next one is used if a relaxation fails.

    Returns
    -------
    As of `relax`.

    Raises
    ------
    BadInput
        If the engine does not cover the elements.
    """
    source = task.structure.to_ase()
    symbols = set(source.get_chemical_symbols())
    engine.check_elements(symbols)
    begin = time.perf_counter()
    engine_lattice_A = engine.lattice_constant_A(task.material, symbols)
    given = scale_to(source, task.material.lattice_constant_A, engine_lattice_A)
    held = FixAtoms(mask=task.structure.fixed) if task.structure.fixed.any() else None
    path, status = _Recorded(), "failed: no start"
    for start in starts:
        path = _Recorded()
        with threadpool_limits(limits=1):
            try:
                atoms, hessian = start(given, task.structure.fixed, engine_lattice_A, task.material)
            except AdatomError as error:
                status = f"failed: {error.got}"
                continue
            atoms.set_constraint(held)
            status = _attempt(engine, atoms, hessian, path, options, begin + options.max_seconds)
        if not status.startswith("failed") or time.perf_counter() > begin + options.max_seconds:
            break
    given.set_constraint(held)
    return SimulationResult(
        structure=task.structure.name,
        draw=task.structure.draw,
        engine=engine.label(symbols),
        task="relax",
        temperature_K=0.0,
        energy_eV=path.energy_eV[-1] if path.energy_eV else float("nan"),
        energy_sd_eV=float("nan"),
        status=status,
        seconds=time.perf_counter() - begin,
        weight=task.structure.weight,
        notes=path.notes,
        trajectory=(given, *_subsampled(path.geometries, options.trajectory_frames - 1)),
        trace={
            "step": np.arange(len(path.energy_eV), dtype=np.float64),
            "energy_eV": np.array(path.energy_eV),
            "fmax_eV_A": np.array(path.fmax_eV_A),
        },
    )


@dataclass
class _Recorded:
    """Steps of the optimiser, and what the calculator says; only `_attempt` writes to it."""

    energy_eV: list[float] = field(default_factory=list)
    fmax_eV_A: list[float] = field(default_factory=list)
    geometries: list[ase.Atoms] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def _attempt(
    engine: Engine,
    atoms: ase.Atoms,
    hessian: FloatArray | None,
    path: _Recorded,
    options: RelaxOptions,
    deadline: float,
) -> str:
    """Run one relaxation; return its status, also if the engine fails."""
    try:
        with engine.calculator(atoms, options) as calculator:
            atoms.calc = calculator
            try:
                status = _run_bfgs(atoms, hessian, path, options, deadline)
                if status == "done":
                    _leave_flat_saddle(atoms, path, options, deadline)
            finally:
                path.notes = tuple(getattr(calculator, "notes", ()))
            return status
    except (AdatomError, RuntimeError, ValueError, ArithmeticError) as error:
        why = error.got if isinstance(error, AdatomError) else str(error).strip()
        return f"failed: {why or type(error).__name__}"


def _leave_flat_saddle(
    atoms: ase.Atoms, path: _Recorded, options: RelaxOptions, deadline: float
) -> None:
    """Move one odd atom out of a flat sheet and relax again; keep what is lower.

    Symmetry keeps a flat start flat, also where that is a saddle. The vacancy of graphene in 7 x 7
    cells of GFN1-xTB is lower by 0.074 eV with one of its three atoms out of the plane and a bond
    of 1.89 Å between the two others. It is found from 0.5 Å, and not from 0.2 Å on all three.
    """
    free = np.ones(len(atoms), dtype=np.bool_)
    for constraint in atoms.constraints:
        free[constraint.get_indices()] = False
    odd = odd_atoms(atoms) & free
    if not options.kick_A or np.ptp(atoms.positions[:, 2]) > _FLAT_A or not odd.any():
        return
    radii = covalent_radii[atoms.numbers] * _BOND_SCALE
    bonds = np.bincount(neighbor_list("i", atoms, list(radii)), minlength=len(atoms))
    one = min(np.flatnonzero(odd), key=lambda i: (bonds[i], i))  # that with the fewest bonds
    atoms.positions[one, 2] += options.kick_A
    kicked = _Recorded()
    status = _run_bfgs(atoms, None, kicked, options, deadline)
    if status == "done" and kicked.energy_eV[-1] < path.energy_eV[-1] - _LOWER_EV:
        path.energy_eV += kicked.energy_eV
        path.fmax_eV_A += kicked.fmax_eV_A
        path.geometries += kicked.geometries


def odd_atoms(atoms: ase.Atoms) -> NDArray[np.bool_]:
    """Find the atoms that are not bonded as most others are.

    Parameters
    ----------
    atoms
        A sheet.

    Returns
    -------
    Shape (atom,): True where the number of neighbours is not the commonest one, or a bond differs
    from the median by more than 5 %.
    """
    radii = covalent_radii[atoms.numbers] * _BOND_SCALE
    i, d = neighbor_list("id", atoms, list(radii))
    count = np.bincount(i, minlength=len(atoms))
    odd: NDArray[np.bool_] = count != np.bincount(count).argmax()
    if len(d):
        odd[i[np.abs(d / np.median(d) - 1.0) > _ODD_BOND]] = True
    return odd


def _run_bfgs(
    atoms: ase.Atoms,
    hessian: FloatArray | None,
    path: _Recorded,
    options: RelaxOptions,
    deadline: float,
) -> str:
    """Run BFGS, record every step, and return the status."""
    optimiser = BFGS(atoms, logfile=None, alpha=STIFFNESS_EV_A2)
    if hessian is not None:
        optimiser.H0 = hessian
    for converged in optimiser.irun(fmax=options.fmax_eV_A, steps=options.max_steps):
        energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            return "failed: the energy is not a number"
        frame = atoms.copy()
        moments = {k: v for k, v in atoms.calc.results.items() if k in ("magmom", "magmoms")}
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces, **moments)
        path.geometries.append(frame)
        path.energy_eV.append(energy)
        path.fmax_eV_A.append(float(np.linalg.norm(forces, axis=1).max()))
        if path.fmax_eV_A[-1] > _RUNAWAY_EV_A and len(path.fmax_eV_A) > _RUNAWAY_STEPS:
            return f"failed: the engine's forces run away ({path.fmax_eV_A[-1]:.0f} eV/Å)"
        if converged:
            return "done"
        if time.perf_counter() > deadline:
            break
    return "not converged"


def _subsampled(geometries: list[ase.Atoms], count: int) -> list[ase.Atoms]:
    """Choose `count` geometries: the first, the last, and evenly spaced ones between."""
    if len(geometries) <= count:
        return geometries
    chosen = np.unique(np.linspace(0, len(geometries) - 1, count).round().astype(int))
    return [geometries[i] for i in chosen] if count > 1 else geometries[-1:]
