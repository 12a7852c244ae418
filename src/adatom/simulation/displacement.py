"""Displacement threshold of an atom in a sheet: the least energy of a knock that moves it.

An atom of the relaxed sheet at rest gets a kinetic energy along a direction, and the motion of all
atoms is followed without a thermostat. The energy is bisected twice: for the knock after which the
structure is another one, and for the knock that drives the atom out. This is how the thresholds in
the literature were found, with density-functional theory (Kotakoski et al., Phys. Rev. B 82, 113404
(2010); Susi et al., Phys. Rev. Lett. 113, 115501 (2014)).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import ase
import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from threadpoolctl import threadpool_limits

from adatom.core import SimulationTask
from adatom.core.arrays import FloatArray
from adatom.errors import AdatomError, BadInput, StepFailed
from adatom.simulation.engines.base import require
from adatom.simulation.fitness import check_fitness
from adatom.simulation.options import RelaxOptions
from adatom.simulation.relaxation import STIFFNESS_EV_A2
from adatom.simulation.scaling import scale_to
from adatom.simulation.sheet import lay_flat, without_charges

Outcome = Literal["stays", "moves", "leaves"]
_START_FMAX_EV_A, _START_STEPS = 0.02, 300  # of the sheet before the knock
_LOOK_FS = 5.0  # time between two looks at the atom, fs
_AWAY_A = 4.0  # Å: an atom this far from all others, and going, has left
_END_FMAX_EV_A, _END_STEPS = 0.1, 150  # of the minimum after the knock
_OTHER_A = 0.7  # Å: half a bond of graphene; an atom that ends farther off has another site


class DisplacementOptions(BaseModel):
    """How the threshold of an atom is searched for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low_eV: float = Field(5.0, gt=0, description="an energy that displaces nothing, eV")
    high_eV: float = Field(40.0, gt=0, description="an energy that drives the atom out, eV")
    tolerance_eV: float = Field(0.5, gt=0, description="width of the interval at the end, eV")
    timestep_fs: float = Field(0.3, gt=0, le=1, description="time step, fs")
    length_fs: float = Field(150.0, gt=0, description="time after which the atom is back, fs")
    max_seconds: float = Field(3600.0, gt=0, description="most wall time, s")


@dataclass(frozen=True, slots=True, eq=False)
class Threshold:
    """Displacement thresholds of one atom along one direction.

    Parameters
    ----------
    structure, engine
        Names.
    atom, element
        Number and chemical symbol of the atom.
    direction
        Shape (3,): unit vector of the knock.
    moves_eV, moves_sd_eV
        Least energy after which the structure is another one, eV, and the standard deviation of a
        uniform distribution over the last interval. The engine's own error is not in it.
    leaves_eV, leaves_sd_eV
        Least energy that drives the atom out, alike.
    tried
        Pairs of energy, eV, and outcome, by energy.
    seconds
        Wall time.
    notes
        What the engine says.
    """

    structure: str
    engine: str
    atom: int
    element: str
    direction: FloatArray
    moves_eV: float
    moves_sd_eV: float
    leaves_eV: float
    leaves_sd_eV: float
    tried: tuple[tuple[float, Outcome], ...]
    seconds: float
    notes: tuple[str, ...] = ()


def displacement_threshold(
    task: SimulationTask,
    atom: int,
    *,
    direction: tuple[float, float, float] = (0.0, 0.0, 1.0),
    options: DisplacementOptions | None = None,
) -> Threshold:
    """Find the least knock that displaces an atom of a sheet, from rest at zero temperature.

    Parameters
    ----------
    task
        A task ``relax``; its engine and material are used.
    atom
        Number of the atom.
    direction
        Direction of the knock, any length: that of the beam, as large transfers go forward.
    options
        Interval, time step, limits.

    Raises
    ------
    BadInput
        If there is no such atom or it is fixed, the direction has no length, or the atom leaves at
        the lower energy, or stays at the upper one.
    StepFailed
        If the time ran out.

    Examples
    --------
    >>> from ase.build import graphene
    >>> from adatom.core import GRAPHENE, Structure
    >>> sheet = Structure.from_ase(graphene(size=(4, 4, 1), a=2.46, vacuum=8.0))
    >>> task = SimulationTask(sheet, "relax", "lammps", material=GRAPHENE)
    >>> options = DisplacementOptions(low_eV=15.0, high_eV=35.0, tolerance_eV=5.0)
    >>> found = displacement_threshold(task, 12, options=options)
    >>> 15.0 < found.leaves_eV < 35.0
    True
    """
    o = options or DisplacementOptions()
    begin = time.perf_counter()
    engine = require(task.engine, "relax")
    structure = without_charges(lay_flat(task.structure))
    way = np.asarray(direction, dtype=np.float64)
    _check(structure.atoms, structure.fixed, atom, way, o)
    notes = check_fitness(engine, replace(task, structure=structure))
    symbols = set(structure.atoms.get_chemical_symbols())
    engine.check_elements(symbols)
    constant = engine.lattice_constant_A(task.material, symbols)
    sheet = scale_to(structure.to_ase(), task.material.lattice_constant_A, constant)
    tried: dict[float, Outcome] = {}
    with threadpool_limits(limits=1), engine.calculator(sheet, RelaxOptions()) as calculator:
        sheet.calc = calculator
        BFGS(sheet, logfile=None, alpha=STIFFNESS_EV_A2).run(
            fmax=_START_FMAX_EV_A, steps=_START_STEPS
        )

        def knock(energy_eV: float) -> Outcome:
            if time.perf_counter() - begin > o.max_seconds:
                raise StepFailed(
                    f"threshold of atom {atom}",
                    expected=f"an interval of {o.tolerance_eV} eV in {o.max_seconds:g} s",
                    got=f"outcomes at {len(tried)} energies when the time was over",
                    todo="Allow more seconds, or a wider tolerance.",
                )
            if energy_eV not in tried:
                tried[energy_eV] = _robust_outcome(
                    sheet, atom, energy_eV, way / np.linalg.norm(way), o
                )
            return tried[energy_eV]

        leaves = _bisected(lambda e: knock(e) == "leaves", o.low_eV, o.high_eV, o, atom)
        # Below the energy that drives it out, the search goes on between what was seen.
        high = min(e for e, outcome in tried.items() if outcome != "stays")
        low = max((e for e in tried if e < high), default=o.low_eV)
        moves = _bisected(lambda e: knock(e) != "stays", low, high, o, atom)
    return Threshold(
        structure.name, engine.label(symbols), atom, sheet.symbols[atom],
        way / np.linalg.norm(way),
        moves_eV=0.5 * sum(moves), moves_sd_eV=(moves[1] - moves[0]) / math.sqrt(12.0),
        leaves_eV=0.5 * sum(leaves), leaves_sd_eV=(leaves[1] - leaves[0]) / math.sqrt(12.0),
        tried=tuple(sorted(tried.items())),
        seconds=time.perf_counter() - begin,
        notes=tuple(dict.fromkeys((*notes, *getattr(calculator, "notes", ())))),
    )  # fmt: skip


def _check(
    atoms: ase.Atoms,
    fixed: NDArray[np.bool_],
    atom: int,
    way: FloatArray,
    o: DisplacementOptions,
) -> None:
    if not 0 <= atom < len(atoms) or fixed[atom]:
        raise BadInput(
            f"atom {atom}",
            expected=f"the number of a free atom, 0 to {len(atoms) - 1}",
            got="a fixed one" if 0 <= atom < len(atoms) else str(atom),
            todo="Name an atom of the structure, counted from 0.",
        )
    if way.shape != (3,) or not np.isfinite(way).all() or not way.any():
        raise BadInput(
            "direction of the knock",
            expected="three numbers that are not all zero",
            got=str(way.tolist()),
            todo="Give the direction of the beam, such as (0, 0, 1).",
        )
    if not o.low_eV + o.tolerance_eV <= o.high_eV:
        raise BadInput(
            "energies of the knock",
            expected=f"an upper one at least {o.tolerance_eV:g} eV over the lower one",
            got=f"{o.low_eV:g} to {o.high_eV:g} eV",
            todo="Widen the interval.",
        )


def _bisected(
    happens: Callable[[float], bool], low: float, high: float, o: DisplacementOptions, atom: int
) -> tuple[float, float]:
    """Interval, eV, at whose upper end it happens, and at whose lower end it does not."""
    if happens(low) or not happens(high):
        raise BadInput(
            f"energies of the knock on atom {atom}",
            expected="a lower one at which it stays, and an upper one that drives it out",
            got=f"{low:g} eV, which moves it" if happens(low) else f"{high:g} eV, not enough",
            todo="Widen the interval with `low_eV` and `high_eV`.",
        )
    while high - low > o.tolerance_eV:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if happens(middle) else (middle, high)
    return low, high


def _robust_outcome(
    sheet: ase.Atoms, atom: int, energy_eV: float, way: FloatArray, o: DisplacementOptions
) -> Outcome:
    """Knock the atom; where the engine fails on the way, once more with half the time step.

    Charges of GFN1-xTB may not converge while an atom leaves; other steps go past that geometry.
    """
    why: Exception | None = None
    for timestep_fs in (o.timestep_fs, 0.5 * o.timestep_fs):
        try:
            own = o.model_copy(update={"timestep_fs": timestep_fs})
            return _outcome(sheet, atom, energy_eV, way, own)
        except (AdatomError, RuntimeError, ValueError, ArithmeticError) as error:
            why = error
            reset = getattr(sheet.calc, "reset", None)
            if reset is not None:
                reset()
    raise StepFailed(
        f"knock of {energy_eV:g} eV on atom {atom}",
        expected="an engine that follows the motion",
        got=why.got if isinstance(why, AdatomError) else str(why).strip(),
        todo="Give other energies with `low_eV` and `high_eV`, or another engine.",
    ) from why


def _outcome(
    sheet: ase.Atoms, atom: int, energy_eV: float, way: FloatArray, o: DisplacementOptions
) -> Outcome:
    """Knock the atom, follow the motion, and say what became of it."""
    trial = sheet.copy()
    trial.calc = sheet.calc
    momenta = np.zeros((len(trial), 3))
    momenta[atom] = math.sqrt(2.0 * trial.get_masses()[atom] * energy_eV) * way
    trial.set_momenta(momenta)
    run = VelocityVerlet(trial, timestep=o.timestep_fs * units.fs)
    stride = max(1, round(_LOOK_FS / o.timestep_fs))
    others = np.arange(len(trial)) != atom
    for _ in range(math.ceil(o.length_fs / (stride * o.timestep_fs))):
        run.run(stride)
        vectors = trial.get_distances(atom, np.flatnonzero(others), mic=True, vector=True)
        far = np.linalg.norm(vectors, axis=1)
        going = float(trial.get_velocities()[atom] @ -vectors[np.argmin(far)]) > 0.0
        if far.min() > _AWAY_A and going:
            return "leaves"
    FIRE(trial, logfile=None).run(fmax=_END_FMAX_EV_A, steps=_END_STEPS)
    shift = trial.positions - sheet.positions
    moved = np.linalg.norm(shift - np.median(shift, axis=0), axis=1)[[atom, *_near(sheet, atom)]]
    return "moves" if moved.max() > _OTHER_A else "stays"


def _near(sheet: ase.Atoms, atom: int) -> list[int]:
    """Neighbours of an atom: a bond may turn while the atom itself comes to rest near by."""
    far = sheet.get_all_distances(mic=True)[atom]
    return [int(i) for i in np.flatnonzero((far > 0.0) & (far < 1.3 * np.sort(far)[1]))]
