"""Conformance of a simulation engine: its physics, its manners, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import ase
import numpy as np
from ase.build import graphene

from adatom.conformance.expect import expect, expect_refused
from adatom.core import GRAPHENE, Material, SimulationResult, SimulationTask, Structure
from adatom.core.arrays import FloatArray
from adatom.simulation.engines.base import Engine
from adatom.simulation.options import DynamicsOptions, RelaxOptions

_TIGHT = RelaxOptions(accuracy=1.0)  # energies to better than 1e-5 eV in tblite
_SHORT = DynamicsOptions(equilibration_ps=0.05, production_ps=0.1)
_SHIFT_A = (0.31, -0.17, 0.23)  # along no lattice vector
_TURN_deg, _AXIS = 40.0, (1.0, 2.0, 3.0)  # a rotation that mixes all axes
_STEP_A = 0.005  # of finite differences: its error is of second order, 1e-3 eV/Å in a stiff bond


def rattled_graphene(noise_A: float = 0.05, *, seed: int = 0) -> ase.Atoms:
    """Make a periodic sheet of 32 carbon atoms, each moved at random.

    Parameters
    ----------
    noise_A
        Standard deviation of every coordinate, Å.
    seed
        Of the noise.

    Examples
    --------
    >>> len(rattled_graphene())
    32
    """
    atoms: ase.Atoms = graphene(size=(4, 4, 1), a=2.46, vacuum=7.0)
    atoms.pbc = True
    atoms.positions += np.random.default_rng(seed).normal(0.0, noise_A, (len(atoms), 3))
    return atoms


def check_engine(
    engine: Engine,
    atoms: ase.Atoms,
    *,
    uncovered: str = "X",
    material: Material = GRAPHENE,
    energy_tolerance_eV: float = 1e-4,
    force_tolerance_eV_A: float = 5e-3,
    dynamics_options: DynamicsOptions = _SHORT,
) -> None:
    """Check that an engine gives the physics and the answers that adatom relies on.

    The energy is the same when the atoms are shifted or turned; the forces turn with them, sum up
    to zero and are the negative gradient of the energy, by finite differences; the same question
    has the same answer; the atoms that are given stay as they are; elements that it does not cover
    are refused in words; a relaxation goes down in energy, keeps fixed atoms in their place and
    reports the engine; dynamics repeat with their seed.

    Parameters
    ----------
    engine
        Installed on this machine.
    atoms
        Elements that it covers, periodic, near a minimum but not in it; 20 to 50 are quick.
    uncovered
        Chemical symbol that it does not cover; ``X``, ASE's dummy, by default.
    material
        Material that `atoms` are of, which sets the scale of a relaxation.
    energy_tolerance_eV
        Of the total energy.
    force_tolerance_eV_A
        Of every component of a force.
    dynamics_options
        Length of the dynamics, which run three times; shorter for a slow engine.

    Raises
    ------
    AssertionError
        At the first thing that is wrong: what was expected, what came.

    Examples
    --------
    >>> from adatom.simulation import require
    >>> check_engine(require("lammps", "relax"), rattled_graphene(), uncovered="U")
    """
    expect(isinstance(engine, Engine), "engine", expected="an Engine", got=type(engine).__name__)
    status = engine.status()
    expect(status.installed, engine.name, expected="an installed engine", got=status.note)
    for part in ("elements", "boundary", "not_for", "install"):
        expect(getattr(engine, part), engine.name, expected=f"words in {part}", got="none")
    _check_forces(engine, atoms, energy_tolerance_eV, force_tolerance_eV_A)
    structure = Structure.from_ase(atoms)
    strange = atoms.copy()
    strange.symbols[0] = uncovered
    other = Structure.from_ase(strange)
    if "relax" in engine.tasks:
        options = RelaxOptions(max_steps=4, fmax_eV_A=1e-3)
        _check_relaxation(engine, structure, material, options, energy_tolerance_eV)
        _refuses(
            lambda: engine.relax(
                SimulationTask(other, "relax", engine.name, material=material), options
            ),
            other,
        )
    if "dynamics" in engine.tasks:
        _check_dynamics(engine, structure, material, dynamics_options)
        hot = SimulationTask(other, "dynamics", engine.name, temperature_K=300.0, material=material)
        _refuses(lambda: engine.dynamics(hot, dynamics_options), other)


def _check_forces(engine: Engine, atoms: ase.Atoms, tolerance_eV: float, force_eV_A: float) -> None:
    name, before = engine.name, atoms.copy()
    energy, forces = _evaluate(engine, atoms)
    _unchanged(atoms, before, f"{name}: atoms that it evaluates")
    again, same_forces = _evaluate(engine, atoms)
    _near(again, energy, tolerance_eV, f"{name}: energy when asked again, eV")
    _near(same_forces, forces, force_eV_A, f"{name}: forces when asked again, eV/Å")
    shifted = atoms.copy()
    shifted.translate(_SHIFT_A)
    energy_there, forces_there = _evaluate(engine, shifted)
    _near(energy_there, energy, tolerance_eV, f"{name}: energy of shifted atoms, eV")
    _near(forces_there, forces, force_eV_A, f"{name}: forces on shifted atoms, eV/Å")
    turned = atoms.copy()
    turned.rotate(_TURN_deg, _AXIS, rotate_cell=True)
    energy_there, forces_there = _evaluate(engine, turned)
    _near(energy_there, energy, tolerance_eV, f"{name}: energy of turned atoms, eV")
    arrows = ase.Atoms("H" * len(forces), positions=forces)
    arrows.rotate(_TURN_deg, _AXIS)
    _near(forces_there, arrows.positions, force_eV_A, f"{name}: forces on turned atoms, eV/Å")
    total = forces.sum(axis=0)
    _near(total, np.zeros(3), force_eV_A * len(atoms) ** 0.5, f"{name}: sum of the forces, eV/Å")
    for seed in range(2):
        way = np.random.default_rng(seed).normal(size=forces.shape)
        way /= np.linalg.norm(way)
        slope = (_moved(engine, atoms, way) - _moved(engine, atoms, -way)) / (2.0 * _STEP_A)
        _near(
            float((forces * way).sum()),
            -slope,
            force_eV_A,
            f"{name}: force along a random direction, against finite differences, eV/Å",
        )


def _check_relaxation(
    engine: Engine,
    structure: Structure,
    material: Material,
    options: RelaxOptions,
    tolerance_eV: float,
) -> None:
    name, before = engine.name, structure.to_ase()
    fixed = np.zeros(len(before), dtype=np.bool_)
    fixed[0] = True
    held = Structure(
        before, "held", "given", 0, -1, 3, structure.source_atom, structure.sigma_A, fixed
    )
    task = SimulationTask(held, "relax", name, material=material)
    result = engine.relax(task, options)
    _unchanged(held.atoms, before, f"{name}: the structure that it relaxes")
    _check_report(engine, task, result)
    good = {"done", "not converged"}
    expect(result.status in good, name, expected=f"status of {good}", got=result.status)
    energy = result.trace["energy_eV"]
    expect(
        energy[-1] < energy[0] + tolerance_eV, name, expected="an energy that goes down", got=energy
    )
    _near(result.energy_eV, energy[-1], tolerance_eV, f"{name}: energy_eV and its trace, eV")
    first, last = result.trajectory[0], result.trajectory[-1]
    _near(last.positions[0], first.positions[0], 1e-6, f"{name}: place of a fixed atom, Å")
    again = engine.relax(task, options)
    _near(again.energy_eV, result.energy_eV, tolerance_eV, f"{name}: energy relaxed again, eV")


def _check_dynamics(
    engine: Engine, structure: Structure, material: Material, options: DynamicsOptions
) -> None:
    def run(seed: int) -> SimulationResult:
        task = SimulationTask(structure, "dynamics", engine.name, 300.0, seed, material=material)
        result = engine.dynamics(task, options)
        _check_report(engine, task, result)
        expect(result.status == "done", engine.name, expected="status done", got=result.status)
        return result

    first, same, other = (run(seed).trace["energy_eV"] for seed in (1, 1, 2))
    _near(same, first, 1e-9, f"{engine.name}: energies with the same seed, eV")
    expect(
        first.shape != other.shape or np.abs(first - other).max() > 1e-6,
        engine.name,
        expected="another trajectory with another seed",
        got="the same",
    )


def _check_report(engine: Engine, task: SimulationTask, result: SimulationResult) -> None:
    label = engine.label(set(task.structure.atoms.get_chemical_symbols()))
    for subject, got, expected in (
        ("engine", result.engine, label),
        ("task", result.task, task.kind),
        ("structure", result.structure, task.structure.name),
        ("draw", result.draw, task.structure.draw),
        ("temperature_K", result.temperature_K, task.temperature_K),
    ):
        expect(got == expected, f"{engine.name}: {subject}", expected=repr(expected), got=got)
    lengths = {len(series) for series in result.trace.values()}
    expect(len(lengths) == 1, engine.name, expected="series of one length", got=lengths)
    expect(result.trajectory, engine.name, expected="at least the first geometry", got="none")


def _refuses(call: Callable[[], object], structure: Structure) -> None:
    symbol = structure.atoms.symbols[0]
    expect_refused(call, f"a structure with {symbol}", mentions=symbol)


def _evaluate(engine: Engine, atoms: ase.Atoms) -> tuple[float, FloatArray]:
    """Energy, eV, and forces, shape (atom, 3), eV/Å, of a calculator of its own."""
    with engine.calculator(atoms, _TIGHT) as calculator:
        energy = float(calculator.get_potential_energy(atoms))
        forces = np.array(calculator.get_forces(atoms), dtype=np.float64)
    shape = (len(atoms), 3)
    expect(forces.shape == shape, engine.name, expected=f"forces {shape}", got=forces.shape)
    finite = np.isfinite(energy) and np.isfinite(forces).all()
    expect(finite, engine.name, expected="finite energy and forces", got=f"{energy} eV")
    return energy, forces


def _moved(engine: Engine, atoms: ase.Atoms, way: FloatArray) -> float:
    moved = atoms.copy()
    moved.positions += _STEP_A * way
    return _evaluate(engine, moved)[0]


def _near(
    got: float | FloatArray, expected: float | FloatArray, tolerance: float, subject: str
) -> None:
    same = np.shape(got) == np.shape(expected)
    expect(same, subject, expected=f"shape {np.shape(expected)}", got=np.shape(got))
    apart = float(np.max(np.abs(np.asarray(got) - np.asarray(expected)), initial=0.0))
    expect(apart <= tolerance, subject, expected=f"equal to {tolerance:g}", got=f"{apart:g} apart")


def _unchanged(atoms: ase.Atoms, before: ase.Atoms, subject: str) -> None:
    same = (
        np.array_equal(atoms.positions, before.positions)
        and np.array_equal(atoms.cell.array, before.cell.array)
        and np.array_equal(atoms.numbers, before.numbers)
        and np.array_equal(atoms.pbc, before.pbc)
    )
    expect(same, subject, expected="unchanged", got="changed")
