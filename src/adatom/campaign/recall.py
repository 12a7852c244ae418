"""Answer a relaxation from the memory, and tell the nearest one that is known."""

from __future__ import annotations

import time
from dataclasses import dataclass

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from adatom.campaign.pool import RESERVOIR, method
from adatom.core import SimulationResult, SimulationTask, content_hash
from adatom.simulation import RelaxOptions, for_elements, require, scale_to
from adatom.simulation.sheet import lay_flat, without_charges
from adatom.store.code import code_hash
from adatom.store.memory import Known, Memory, memory_path
from adatom.structures import fingerprint
from adatom.structures.recognise import lay_onto

# Å: a structure is one that is known where no atom near the middle is farther from its place in
# that one, as both were given: draws of one defect differ by four of their standard deviations.
_SAME_A = 0.5


@dataclass(frozen=True, slots=True)
class Recall:
    """A memory, and the options that its answers rest on.

    Parameters
    ----------
    memory
        The user's relaxations.
    options
        Of the relaxations.
    """

    memory: Memory
    options: RelaxOptions

    def answer(self, task: SimulationTask) -> SimulationResult | None:
        """Give the relaxation of the same defect, turned onto this structure; None if unknown."""
        begin = time.perf_counter()
        found = self.nearest(task)
        if found is None or found.farthest_A > _SAME_A:
            return None
        given = _given(task)
        relaxed = given.copy()
        relaxed.set_positions(found.positions)
        relaxed.calc = SinglePointCalculator(relaxed, energy=found.energy_eV)
        note = f"from the memory: {found.name}, {found.rms_A:.2f} Å away as given"
        return SimulationResult(
            structure=task.structure.name,
            draw=task.structure.draw,
            engine=_label(task),
            task="relax",
            temperature_K=0.0,
            energy_eV=found.energy_eV,
            energy_sd_eV=float("nan"),
            status="done",
            seconds=time.perf_counter() - begin,
            weight=task.structure.weight,
            notes=(note,),
            trajectory=(given, relaxed),
            trace={
                "step": np.zeros(1),
                "energy_eV": np.array([found.energy_eV]),
                "fmax_eV_A": np.full(1, np.nan),
            },
        )

    def nearest(self, task: SimulationTask) -> Nearest | None:
        """Give the nearest relaxation of the same atoms in the same cell with these settings."""
        if not _can(task):
            return None
        given = _given(task)
        best: Nearest | None = None
        for known in self.memory.find(self._settings(task, given), given.get_chemical_formula()):
            laid = lay_onto(known.given, given)
            if laid is None or (best is not None and laid.rms_A >= best.rms_A):
                continue
            moved = _moved_alike(known, given, laid.positions)
            if moved is not None:
                best = Nearest(known.name, known.energy_eV, laid.rms_A, laid.farthest_A, moved)
        return best

    def keep(self, task: SimulationTask, result: SimulationResult, campaign: str) -> None:
        """Keep a relaxation that is done."""
        if not _can(task) or result.status != "done" or any("memory" in n for n in result.notes):
            return
        given, relaxed = _given(task), result.trajectory[-1]
        known = Known(f"{campaign}/{result.structure}", result.energy_eV, given, relaxed)
        self.memory.keep(self._settings(task, given), fingerprint(relaxed), known)

    def _settings(self, task: SimulationTask, given: ase.Atoms) -> str:
        return content_hash(
            _label(task),
            self.options,
            task.material.name,
            task.material.lattice_constant_A,
            given.cell.cellpar().round(3).tolist(),
            code_hash("simulation"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The nearest known relaxation.

    Parameters
    ----------
    name
        Campaign and structure.
    energy_eV
        Its energy.
    rms_A, farthest_A
        Root mean square and largest distance of the atoms near the middle, as both were given.
    positions
        The minimum, shape (atom, 3), turned onto the given structure.
    """

    name: str
    energy_eV: float
    rms_A: float
    farthest_A: float
    positions: NDArray[np.float64]


def _can(task: SimulationTask) -> bool:
    structure = task.structure
    flake = structure.atoms.info.get("form") == "flake"
    other = task.kind != "relax" or structure.kind == RESERVOIR
    return not (other or flake or structure.fixed.any())


def _label(task: SimulationTask) -> str:
    own = frozenset(task.structure.atoms.get_chemical_symbols())
    return method(task.engine, own | task.beside)


def _given(task: SimulationTask) -> ase.Atoms:
    """The structure as a relaxation starts from it: flat, at the engine's lattice constant."""
    flat = without_charges(lay_flat(task.structure))
    symbols = set(flat.atoms.get_chemical_symbols())
    engine = for_elements(require(task.engine, "relax"), {*symbols, *task.beside})
    return scale_to(
        flat.to_ase(),
        task.material.lattice_constant_A,
        engine.lattice_constant_A(task.material, symbols),
    )


def _moved_alike(
    known: Known, given: ase.Atoms, positions: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """The known minimum in the order and cell of the given structure.

    The known start, laid onto the given one, has its atoms at `positions`; its minimum is laid
    there by the same turn, and paired by the nearest atoms.
    """
    there = given.copy()
    there.set_positions(positions)
    laid = lay_onto(known.relaxed, there)
    return None if laid is None else laid.positions


def recall_of(directory: str, options: RelaxOptions) -> Recall | None:
    """Open the memory that a configuration names; None where it is off."""
    path = memory_path(directory)
    return None if path is None else Recall(Memory(path), options)
