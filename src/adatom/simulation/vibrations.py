"""Harmonic vibrations of a sheet: frequencies, the motion of single atoms, free energy.

The Hessian comes from finite differences of the engine's forces, its modes from ASE. A supercell at
Γ has the modes of all wave vectors that fit into it: 7 x 7 cells of graphene sample 49 of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ase
import numpy as np
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.constants import atomic_mass, elementary_charge, hbar
from scipy.constants import k as boltzmann
from threadpoolctl import threadpool_limits

from adatom.core import SimulationTask
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput, StepFailed
from adatom.simulation.engines.base import require
from adatom.simulation.fitness import check_fitness
from adatom.simulation.hessian import hessian_eV_A2
from adatom.simulation.options import RelaxOptions
from adatom.simulation.relaxation import STIFFNESS_EV_A2
from adatom.simulation.scaling import scale_to
from adatom.simulation.sheet import lay_flat, without_charges

_EV_J = elementary_charge  # joule in one eV
# Modes below it are left out of sums: the translations, with the error of the Hessian.
_LEAST_THz = 0.3
_LEAST_SHARE = 0.1  # of the motion along an axis, in modes that are no translation


class VibrationOptions(BaseModel):
    """How vibrations are computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_A: float = Field(0.01, gt=0, le=0.1, description="displacement of the differences, Å")
    fmax_eV_A: float = Field(0.005, gt=0, description="largest force before it, eV/Å")
    max_steps: int = Field(500, ge=1, description="most steps of the relaxation before it")
    accuracy: float = Field(0.1, gt=0, le=100, description="tblite's accuracy")


@dataclass(frozen=True, slots=True, eq=False)
class Vibrations:
    """Harmonic vibrations of the free atoms of a structure.

    Parameters
    ----------
    structure, engine
        Names.
    atoms
        The relaxed structure.
    free
        Shape (free,): numbers of the atoms that vibrate; all others are held.
    frequencies_THz
        Shape (mode,), rising; imaginary frequencies are negative.
    modes
        Shape (mode, free, 3): displacements times the root of the mass, each of length one.
    seconds
        Wall time.
    notes
        What has to be known of it.
    """

    structure: str
    engine: str
    atoms: ase.Atoms
    free: NDArray[np.int64]
    frequencies_THz: FloatArray
    modes: FloatArray
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def imaginary(self) -> int:
        """Number of imaginary frequencies: none in a minimum, one at a saddle."""
        return int((self.frequencies_THz < -_LEAST_THz).sum())

    def mean_square_velocity_m2_s2(self, atom: int, temperature_K: float) -> FloatArray:
        """Compute the mean square velocity of an atom along x, y and z, shape (3,), m²/s².

        ``<v²> = Σ e² E(ω) / m`` over the modes, where ``E(ω) = ħω (1/2 + n)`` is the energy of a
        mode, half of it kinetic (Susi et al., Nat. Commun. 7, 13040 (2016), eq. 6, for the
        modes of a supercell). The translations, 3 of all modes, are left out and their
        share is made up by the others. NaN along an axis where an imaginary mode is all the motion:
        the structure is no minimum there.

        Parameters
        ----------
        atom
            Number of a free atom; in the axes of the flat sheet, z is across it.
        temperature_K
            Temperature, K; 0 for the zero-point motion.

        Raises
        ------
        BadInput
            If the atom was held, or the temperature is negative.
        """
        at = np.flatnonzero(self.free == atom)
        if not len(at):
            raise BadInput(
                f"atom {atom}", expected="an atom that vibrates", got="one that was held",
                todo="Leave it free in the vibrations.",
            )  # fmt: skip
        kept = self.frequencies_THz > _LEAST_THz
        energy_J = _mode_energy_eV(self.frequencies_THz[kept], temperature_K) * _EV_J
        shares = self.modes[kept][:, int(at[0])] ** 2
        mass = float(self.atoms.get_masses()[atom]) * atomic_mass
        # Without lost modes, the shares of one coordinate sum to one.
        whole = shares.sum(axis=0)
        known = whole > _LEAST_SHARE
        out: FloatArray = np.full(3, np.nan)
        out[known] = (energy_J @ shares)[known] / mass / whole[known]
        return out

    def free_energy_eV(self, temperature_K: float) -> float:
        """Compute the Helmholtz free energy of the vibrations, with their zero-point energy, eV.

        Parameters
        ----------
        temperature_K
            Temperature, K, above zero.
        """
        from ase.thermochemistry import HarmonicThermo

        _check_temperature(temperature_K)
        kept = self.frequencies_THz > _LEAST_THz
        energies = _quantum_eV(self.frequencies_THz[kept])
        return float(
            HarmonicThermo(energies.tolist()).get_helmholtz_energy(
                max(temperature_K, 1e-3), verbose=False
            )
        )

    @property
    def zero_point_eV(self) -> float:
        """Zero-point energy, eV."""
        kept = self.frequencies_THz > _LEAST_THz
        return float(0.5 * _quantum_eV(self.frequencies_THz[kept]).sum())


def vibrate(
    task: SimulationTask,
    atoms: Sequence[int] | None = None,
    options: VibrationOptions | None = None,
) -> Vibrations:
    """Relax a structure and compute the harmonic vibrations of its free atoms.

    Parameters
    ----------
    task
        A task ``relax``; its engine and material are used. Masses of the atoms are kept: set them
        for isotopes.
    atoms
        Numbers of the atoms that vibrate, all others being held; by default all that are not fixed.
    options
        Displacement and convergence.

    Raises
    ------
    BadInput
        If an atom does not exist or is fixed, or the engine is not fit for the structure.
    StepFailed
        If the structure does not relax.

    Examples
    --------
    >>> from ase.build import graphene
    >>> from adatom.core import GRAPHENE, Structure
    >>> sheet = Structure.from_ase(graphene(size=(4, 4, 1), a=2.46, vacuum=8.0))
    >>> found = vibrate(SimulationTask(sheet, "relax", "lammps", material=GRAPHENE), [0])
    >>> found.frequencies_THz.shape, found.imaginary
    ((3,), 0)
    """
    o = options or VibrationOptions()
    begin = time.perf_counter()
    engine = require(task.engine, "relax")
    structure = without_charges(lay_flat(task.structure))
    free = _free(structure.fixed, atoms)
    notes = list(check_fitness(engine, replace(task, structure=structure)))
    symbols = set(structure.atoms.get_chemical_symbols())
    engine.check_elements(symbols)
    constant = engine.lattice_constant_A(task.material, symbols)
    sheet = scale_to(structure.to_ase(), task.material.lattice_constant_A, constant)
    masses = sheet.get_masses()
    if structure.fixed.any():
        sheet.set_constraint(FixAtoms(mask=structure.fixed))
    relaxing = RelaxOptions(accuracy=o.accuracy)
    with threadpool_limits(limits=1), engine.calculator(sheet, relaxing) as calculator:
        sheet.calc = calculator
        optimiser = BFGS(sheet, logfile=None, alpha=STIFFNESS_EV_A2)
        if not optimiser.run(fmax=o.fmax_eV_A, steps=o.max_steps):
            raise StepFailed(
                f"vibrations of {structure.name}",
                expected=f"forces below {o.fmax_eV_A} eV/Å in {o.max_steps} steps",
                got=f"{np.abs(sheet.get_forces()).max():.3f} eV/Å",
                todo="Allow more steps, or relax the structure first.",
            )
        hessian = hessian_eV_A2(sheet, free, step_A=o.step_A)
        notes += getattr(calculator, "notes", ())
    still = sheet.copy()
    still.set_constraint()
    still.set_masses(masses)
    from ase.vibrations import VibrationsData  # it loads matplotlib

    data = VibrationsData.from_2d(still, hessian, indices=free.tolist())
    energies, shapes = data.get_energies_and_modes(all_atoms=False)
    signed = np.where(energies.imag != 0.0, -energies.imag, energies.real)
    frequencies = signed * _EV_J / (2.0 * math.pi * hbar) * 1e-12
    weighted = shapes * np.sqrt(masses[free])[None, :, None]
    weighted /= np.linalg.norm(weighted, axis=(1, 2))[:, None, None]
    found = Vibrations(
        structure.name, engine.label(symbols), still, free, frequencies, weighted,
        time.perf_counter() - begin, tuple(dict.fromkeys(notes)),
    )  # fmt: skip
    if not found.imaginary:
        return found
    several = "frequencies" if found.imaginary > 1 else "frequency"
    told = f"{found.imaginary} imaginary {several}, the largest {frequencies.min():.1f} THz"
    return replace(found, notes=(*found.notes, f"this is no minimum: {told}"))


def _free(fixed: NDArray[np.bool_], atoms: Sequence[int] | None) -> NDArray[np.int64]:
    """Numbers of the atoms that vibrate."""
    if atoms is None:
        return np.flatnonzero(~fixed)
    given = np.asarray(atoms)
    if not np.issubdtype(given.dtype, np.integer):
        raise BadInput(
            "atoms that vibrate", expected="whole numbers of atoms", got=repr(given.tolist()),
            todo="Count the atoms from 0.",
        )  # fmt: skip
    chosen = np.unique(given)
    there = len(chosen) and chosen[0] >= 0 and chosen[-1] < len(fixed)
    if not there or fixed[chosen].any():
        raise BadInput(
            "atoms that vibrate",
            expected=f"numbers of free atoms, 0 to {len(fixed) - 1}",
            got=", ".join(map(str, chosen.tolist())) or "none",
            todo="Count the atoms from 0, and leave out those that are fixed.",
        )
    return chosen


def _quantum_eV(frequency_THz: FloatArray) -> FloatArray:
    """Energy ħω of one quantum, eV."""
    out: FloatArray = 2.0 * math.pi * hbar * frequency_THz * 1e12 / _EV_J
    return out


def _mode_energy_eV(frequency_THz: FloatArray, temperature_K: float) -> FloatArray:
    """Mean energy of a mode, ħω (1/2 + n), eV."""
    _check_temperature(temperature_K)
    quantum = _quantum_eV(frequency_THz)
    if temperature_K == 0.0:
        return 0.5 * quantum
    thermal = boltzmann * temperature_K / _EV_J
    out: FloatArray = quantum * (0.5 + 1.0 / np.expm1(np.minimum(quantum / thermal, 700.0)))
    return out


def _check_temperature(temperature_K: float) -> None:
    if not (math.isfinite(temperature_K) and temperature_K >= 0.0):
        raise BadInput(
            "temperature", expected="a finite number of K, at least 0", got=repr(temperature_K),
            todo="Give it in kelvin.",
        )  # fmt: skip
