"""Energy barrier between two states of a sheet: a nudged elastic band and its saddle.

The band is relaxed in two stages, plain to 0.3 eV/Å and then with a climbing image (Henkelman,
Uberuaga & Jonsson, J. Chem. Phys. 113, 9901 (2000)), along improved tangents (Henkelman & Jonsson,
J. Chem. Phys. 113, 9978 (2000)). The climbing image is then refined along its softest mode, and
the negative modes of its Hessian are counted: a saddle has one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import ase
import numpy as np
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.optimize.optimize import Optimizer
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from threadpoolctl import threadpool_limits

from adatom.core import SimulationTask, Structure
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput, StepFailed
from adatom.simulation.engines.base import require
from adatom.simulation.fitness import check_fitness
from adatom.simulation.options import RelaxOptions
from adatom.simulation.path import first_guess, matched
from adatom.simulation.relaxation import STIFFNESS_EV_A2, odd_atoms
from adatom.simulation.saddle import refine_saddle, softest_modes
from adatom.simulation.scaling import scale_to
from adatom.simulation.sheet import lay_flat, without_charges

_PLAIN_EV_A = 0.3  # largest force at which the plain band gives way to the climbing one
# Springs between images, eV/Å², at the ends and at the top of a band. A sheet that ripples goes a
# long way at no cost, and equal springs would leave no image near the saddle (Asgeirsson et al., J.
# Chem. Theory Comput. 17, 4929 (2021)). Along improved tangents springs do not move the saddle.
_SPRINGS_EV_A2, _WEIGH_EVERY = (0.3, 1.0), 10
_KICK_A = 0.5  # of one odd atom out of a flat state, as of `RelaxOptions`
_LOWER_EV = 2e-3  # a state is lower than another one by more than BFGS leaves, eV
_DIP_EV = 0.05  # an image lower than both its neighbours by more is a state between
_FAR_EV = 1.0  # a refined saddle farther than this from the climbing image is another one
_SAME_EV = 0.02  # states whose energies and
_SAME_A = 0.1  # ... whose atoms differ by less are one state


class BarrierOptions(BaseModel):
    """How a band between two states is relaxed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int = Field(9, ge=3, le=99, description="geometries of the band, with both ends")
    ends_fmax_eV_A: float = Field(0.01, gt=0, description="largest force of both ends, eV/Å")
    fmax_eV_A: float = Field(
        1.0, gt=0, description="largest force of the climbing image, eV/Å, from which it is refined"
    )
    saddle_fmax_eV_A: float = Field(0.02, gt=0, description="largest force of the saddle, eV/Å")
    max_steps: int = Field(500, ge=1, description="most steps of each stage")
    max_seconds: float = Field(3600.0, gt=0, description="most wall time, s")
    flat: bool = Field(
        default=False,
        description="hold the sheet in its plane, as a support does; modes in z are not counted",
    )
    modes_within_A: float = Field(
        4.0,
        ge=0,
        description="the Hessian at the saddle is that of the atoms within this distance, Å, of "
        "those that move; 0 for none",
    )
    seed: int = Field(0, ge=0, description="of the noise in z of the first band")


@dataclass(frozen=True, slots=True, eq=False)
class Barrier:
    """The barrier between two states.

    Parameters
    ----------
    structure
        Names of both states.
    engine
        Engine with its version.
    status
        ``done``, ``not converged``, or ``failed: <why>``.
    barrier_eV, reverse_eV
        Energy of the saddle over the initial and over the final state, eV; zero where the band
        runs downhill.
    reaction_eV
        Energy of the final over the initial state, eV.
    way_A, energy_eV
        Shape (image,): length of the way along the band, Å, and energy over the initial state, eV.
    images
        The band, each with energy and forces; the ends are relaxed.
    saddle
        The refined highest image, with energy and forces; None where the band has none.
    negative_modes
        Negative modes of the Hessian of the atoms near the step; -1 where they were not counted.
        One is a saddle; more are a lower bound of what is wrong.
    seconds
        Wall time.
    notes
        What has to be known of it, one sentence each.
    """

    structure: str
    engine: str
    status: str
    barrier_eV: float
    reverse_eV: float
    reaction_eV: float
    way_A: FloatArray
    energy_eV: FloatArray
    images: tuple[ase.Atoms, ...]
    saddle: ase.Atoms | None
    negative_modes: int
    seconds: float
    notes: tuple[str, ...] = ()


def find_barrier(
    initial: SimulationTask, final: Structure, options: BarrierOptions | None = None
) -> Barrier:
    """Find the barrier between two states with an engine, at the engine's own lattice constant.

    Parameters
    ----------
    initial
        A task ``relax`` of the initial state; its engine and material are those of the barrier.
    final
        The final state: the same atoms in the same cell, in any order.
    options
        Images, convergence and limits.

    Returns
    -------
    The barrier with its band. Where the time or the steps ran out, its status says so.

    Raises
    ------
    BadInput
        If the states have other atoms, other cells, are the same or too far apart, or the engine
        does not cover their elements or is not fit for them.
    EngineMissing
        If the engine is not installed.

    Examples
    --------
    A Stone-Wales rotation in a small flat cell of a classical potential:

    >>> from ase.build import graphene
    >>> from adatom.core import GRAPHENE
    >>> sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    >>> i, j = 9, 18
    >>> bond = sheet.get_distance(i, j, mic=True, vector=True)
    >>> side = 0.5 * np.array([-bond[1], bond[0], 0.0])
    >>> turned = sheet.copy()
    >>> turned.positions[[i, j]] = sheet.positions[i] + 0.5 * bond + [-side, side]
    >>> task = SimulationTask(Structure.from_ase(sheet), "relax", "lammps", material=GRAPHENE)
    >>> options = BarrierOptions(images=5, flat=True)
    >>> found = find_barrier(task, Structure.from_ase(turned), options)
    >>> found.status, found.negative_modes, round(found.barrier_eV, 1)
    ('done', 1, 10.2)
    """
    o = options or BarrierOptions()
    begin = time.perf_counter()
    engine = require(initial.engine, "relax")
    states = [without_charges(lay_flat(s)) for s in (initial.structure, final)]
    matched(*(s.atoms for s in states))  # says what is wrong before anything is computed
    notes = [
        note
        for state in states
        for note in check_fitness(engine, replace(initial, structure=state))
    ]
    symbols = set(states[0].atoms.get_chemical_symbols())
    engine.check_elements(symbols)
    constant = engine.lattice_constant_A(initial.material, symbols)
    ends = [scale_to(s.to_ase(), initial.material.lattice_constant_A, constant) for s in states]
    if states[0].fixed.any():
        ends[0].set_constraint(FixAtoms(mask=states[0].fixed))
    name = f"{states[0].name} to {states[1].name}"
    with threadpool_limits(limits=1), engine.calculator(ends[0], RelaxOptions()) as calculator:
        band = _Band(name, calculator, o, begin + o.max_seconds, notes)
        return band.run(engine.label(symbols), begin, *ends)


@dataclass
class _Band:
    """A band that one calculator relaxes; `notes` grows."""

    name: str
    calculator: Calculator
    options: BarrierOptions
    deadline: float
    notes: list[str]

    def run(self, label: str, begin: float, initial: ase.Atoms, final: ase.Atoms) -> Barrier:
        final = matched(initial, final)
        final.set_constraint(initial.constraints)
        held = initial.constraints
        relaxed = [self._relaxed(end) for end in (initial, final)]
        done = [self._still(end) for end in relaxed]
        self._check_two(*done)
        ends = [done[0], self._still(matched(done[0], done[1]), of=done[1])]
        for end in ends:
            end.set_constraint(held)
        images = self._guess(*ends)
        self._relax(images)
        energy = np.array([image.get_potential_energy() for image in images])
        top = int(np.argmax(energy))
        saddle, modes, status = None, -1, "done"
        if 0 < top < len(images) - 1:
            saddle, status, modes = self._saddle(images, top)
        self._look_between(energy)
        peak = energy.max() if saddle is None else saddle.get_potential_energy()
        if saddle is None and status == "done":
            self.notes.append("the band runs downhill: there is no barrier between these states")
        return Barrier(
            self.name, label, status,
            barrier_eV=float(peak - energy[0]),
            reverse_eV=float(peak - energy[-1]),
            reaction_eV=float(energy[-1] - energy[0]),
            way_A=_way_A(images),
            energy_eV=energy - energy[0],
            images=tuple(self._still(image) for image in images),
            saddle=saddle,
            negative_modes=modes,
            seconds=time.perf_counter() - begin,
            notes=tuple(dict.fromkeys((*self.notes, *getattr(self.calculator, "notes", ())))),
        )  # fmt: skip

    def _relaxed(self, atoms: ase.Atoms) -> ase.Atoms:
        """Relax an end; also with an odd atom kicked out of the plane, and keep what is lower."""
        out = self._minimum(atoms)
        flat = np.ptp(out.positions[:, 2]) < 0.1
        odd = odd_atoms(out)
        if self.options.flat or not flat or not odd.any():
            return out
        kicked = out.copy()
        kicked.positions[np.flatnonzero(odd)[0], 2] += _KICK_A
        other = self._minimum(kicked)
        lower = other.get_potential_energy() < out.get_potential_energy() - _LOWER_EV
        return other if lower else out

    def _minimum(self, atoms: ase.Atoms) -> ase.Atoms:
        out = atoms.copy()
        out.calc = self.calculator
        optimiser = BFGS(out, logfile=None, alpha=STIFFNESS_EV_A2)
        if self._run(optimiser, self.options.ends_fmax_eV_A) != "done":
            raise StepFailed(
                self.name,
                expected=f"ends with forces below {self.options.ends_fmax_eV_A} eV/Å",
                got=f"{np.abs(out.get_forces()).max():.3f} eV/Å when steps or time ran out",
                todo="Allow more steps or seconds, or relax the states first.",
            )
        return self._still(out)

    def _check_two(self, initial: ase.Atoms, final: ase.Atoms) -> None:
        apart = abs(final.get_potential_energy() - initial.get_potential_energy())
        other = matched(initial, final)
        moved = np.linalg.norm(other.positions - initial.positions, axis=1).max()
        if apart < _SAME_EV and moved < _SAME_A:
            raise BadInput(
                self.name,
                expected="two states",
                got="one: both relax to the same minimum",
                todo="Give states that this engine holds apart, or another engine.",
            )

    def _guess(self, initial: ase.Atoms, final: ase.Atoms) -> list[ase.Atoms]:
        rng = np.random.default_rng(self.options.seed)
        images = first_guess(initial, final, self.options.images, rng)
        if self.options.flat:
            for image in images[1:-1]:
                image.positions[:, 2] = initial.positions[:, 2]
        for image in images[1:-1]:
            image.set_constraint(initial.constraints)
            image.calc = self.calculator
        return [initial, *images[1:-1], final]

    def _relax(self, images: list[ase.Atoms]) -> None:
        """Relax the band in two stages; the second ends near the saddle."""
        for climb, fmax in ((False, _PLAIN_EV_A), (True, self.options.fmax_eV_A)):
            band = NEB(
                images,
                k=_SPRINGS_EV_A2[0],
                climb=climb,
                method="improvedtangent",
                allow_shared_calculator=True,
            )
            optimiser = FIRE(band, logfile=None)
            self._run(optimiser, fmax, partial(_tend, band, optimiser, climb, fmax))

    def _look_between(self, energy_eV: FloatArray) -> None:
        """Note a state between both ends, which has barriers of its own."""
        inner = energy_eV[1:-1]
        low = np.flatnonzero((inner < energy_eV[:-2] - _DIP_EV) & (inner < energy_eV[2:] - _DIP_EV))
        if len(low):
            self.notes.append(
                f"the band has a minimum {inner[low[0]] - energy_eV[0]:.2f} eV over the initial "
                "state: another state lies between, and each half has a barrier of its own"
            )

    def _saddle(self, images: list[ase.Atoms], top: int) -> tuple[ase.Atoms, str, int]:
        """Refine the highest image along its softest mode; count the negative modes there."""
        saddle = images[top].copy()
        saddle.calc = self.calculator
        way = images[top + 1].positions - images[top - 1].positions
        free = self._near_step(images, saddle)
        if len(free):
            _, way = softest_modes(saddle, free, flat=self.options.flat)
        climbed = self._still(saddle)
        status = refine_saddle(
            saddle, way, self.options.saddle_fmax_eV_A, self.options.max_steps, self.deadline
        )
        gone = abs(saddle.get_potential_energy() - climbed.get_potential_energy())
        if status != "done" or gone > _FAR_EV:
            self.notes.append("the saddle could not be refined: it is the climbing image")
            return climbed, "not converged", -1
        found = softest_modes(saddle, free, flat=self.options.flat)[0] if len(free) else -1
        if found not in {-1, 1}:
            self.notes.append(
                f"the Hessian of the {len(free)} atoms near the step has {found} negative modes, "
                "and a saddle has one"
            )
        return self._still(saddle), status, found

    def _near_step(self, images: list[ase.Atoms], saddle: ase.Atoms) -> NDArray[np.integer]:
        """Atoms near those that move, without fixed ones; none where no modes are wanted."""
        moved = np.linalg.norm(images[-1].positions - images[0].positions, axis=1)
        near = saddle.get_all_distances(mic=True)[moved > 0.5 * moved.max()].min(axis=0)
        free = near < self.options.modes_within_A
        for constraint in saddle.constraints:
            free[constraint.get_indices()] = False
        return np.flatnonzero(free)

    def _run(
        self, optimiser: Optimizer, fmax: float, ready: Callable[[], bool] = lambda: False
    ) -> str:
        for converged in optimiser.irun(fmax=fmax, steps=self.options.max_steps):
            if ready() or converged:
                return "done"
            if time.perf_counter() > self.deadline:
                break
        return "not converged"

    @staticmethod
    def _still(atoms: ase.Atoms, of: ase.Atoms | None = None) -> ase.Atoms:
        """Copy a geometry with its energy and forces, or with those of another, moved one."""
        out: ase.Atoms = atoms.copy()
        source = of if of is not None else atoms
        out.calc = SinglePointCalculator(
            out,
            energy=float(source.get_potential_energy()),
            forces=source.get_forces(apply_constraint=False),
        )
        return out


def _tend(band: NEB, optimiser: Optimizer, climb: bool, fmax_eV_A: float) -> bool:
    """Make the springs stiff where the energy is high; say whether the climbing image is done."""
    energy = np.array(band.energies)
    if not optimiser.nsteps % _WEIGH_EVERY:
        base, low, high = max(energy[0], energy[-1]), *_SPRINGS_EV_A2
        height = max(float(energy.max() - base), 1e-6)
        share = np.clip((np.maximum(energy[:-1], energy[1:]) - base) / height, 0.0, 1.0)
        band.k = list(low + (high - low) * share)
    forces = np.linalg.norm(band.images[band.imax].get_forces(), axis=1)
    return bool(climb and optimiser.nsteps and forces.max() < fmax_eV_A)


def _way_A(images: list[ase.Atoms]) -> FloatArray:
    """Length of the way along a band up to each image, Å."""
    steps = [np.linalg.norm(b.positions - a.positions) for a, b in pairwise(images)]
    return np.concatenate([[0.0], np.cumsum(steps)])
