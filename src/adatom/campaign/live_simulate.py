"""Simulations beside the live loop: what a defect costs, and how much dose it bears."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from adatom.analysis.frame import FrameResult
from adatom.core import AtomTable, Lattice, Material, SimulationTask, Structure
from adatom.core.units import A2_PER_BARN
from adatom.feedback.live import ATOM, Knowledge
from adatom.parallel.beside import Beside, Event
from adatom.simulation import (
    AUTO,
    RelaxOptions,
    displacement_cross_section_barn,
    engine_for,
    relax,
)
from adatom.simulation.displacement import DisplacementOptions, displacement_threshold
from adatom.simulation.energies import against_perfect_crystal
from adatom.structures import SupercellOptions, build_supercell
from adatom.structures.supercell import pristine_like

Line = dict[str, Any]

# A small cell, so that an answer comes within a minute: enough for a threshold, which is local.
_CELL = SupercellOptions(min_width_A=12.0, min_separation_A=8.0, defect_radius_A=4.5)
_KNOCKS = DisplacementOptions(tolerance_eV=1.0, max_seconds=300.0)
_EVENTS = 0.1  # displaced atoms that a closer look may be expected to cost, as in `adatom advise`
_BESIDE_BONDS = 1.35  # atoms this near to a defect's atoms or holes are beside it
_LEAST_BARN = 1e-9  # below, no dose that a specimen gets displaces an atom


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A defect to simulate.

    Parameters
    ----------
    kind
        Name of the defect.
    frame
        Number of the frame that shows it.
    center_xy_A, extent_xy_A
        Its place in the frame, and the frame's far corner, Å.
    atoms, lattice, material
        Of the frame.
    voltage_kV
        Of the beam.
    """

    kind: str
    frame: int
    center_xy_A: tuple[float, float]
    extent_xy_A: tuple[float, float]
    atoms: AtomTable
    lattice: Lattice
    material: Material
    voltage_kV: float


def simulate(ask: Ask) -> Line:
    """Relax a defect, and find the least knock that displaces an atom beside it.

    Parameters
    ----------
    ask
        The defect.

    Returns
    -------
    In plain types: engine, energy and formation energy in eV (None where there is no reservoir),
    the threshold in eV, its cross section in barn, and the dose per Å² at which 0.1 atoms beside
    the defect are expected to be displaced (None where no dose is).

    Raises
    ------
    BadInput, EngineMissing, StepFailed
        As of the steps.
    """
    begin, known = time.perf_counter(), ask.material.knock_on
    structure = build_supercell(
        ask.atoms, ask.lattice, ask.extent_xy_A, center_xy_A=ask.center_xy_A, kind=ask.kind,
        frame=ask.frame, defect=0, options=_CELL,
    )  # fmt: skip
    engine = engine_for(AUTO, "relax", [structure], ask.material)
    task = SimulationTask(structure, "relax", engine, material=ask.material)
    relaxed = relax(task, RelaxOptions())
    perfect = pristine_like(structure, ask.material, _CELL)
    against = None if perfect is None else relax(replace(task, structure=perfect), RelaxOptions())
    formation = against_perfect_crystal(relaxed, against).formation_energy_eV
    atom, count = _weakest(structure, ask.material)
    # Knocks take thousands of steps: by the engine of dynamics, which is the faster one.
    quick = engine_for(AUTO, "dynamics", [structure], ask.material)
    least = displacement_threshold(replace(task, engine=quick), atom, options=_KNOCKS)
    barn = limit = None
    if known is not None and known.element == least.element:
        barn = displacement_cross_section_barn(
            ask.voltage_kV, least.element, least.moves_eV, known.mean_square_velocity_m2_s2
        )
        limit = _EVENTS / (count * barn * A2_PER_BARN) if barn > _LEAST_BARN else None
    return {
        "kind": ask.kind, "engine": relaxed.engine, "status": relaxed.status,
        "energy_eV": round(relaxed.energy_eV, 4),
        "formation_energy_eV": round(formation, 3) if np.isfinite(formation) else None,
        "threshold_engine": least.engine, "threshold_eV": round(least.moves_eV, 2),
        "atoms_beside": count, "barn": barn,
        "dose_limit_per_A2": limit, "seconds": round(time.perf_counter() - begin, 1),
    }  # fmt: skip


def _weakest(structure: Structure, material: Material) -> tuple[int, int]:
    """Atom of the crystal with the fewest neighbours near the middle, and how many are like it."""
    atoms = structure.to_ase()
    reach = _BESIDE_BONDS * material.bond_length_A
    distances = atoms.get_all_distances(mic=True)
    neighbours = ((distances > 0) & (distances < reach)).sum(axis=1)
    host = np.array(atoms.get_chemical_symbols()) == material.host
    foreign = ~host
    beside = host & ((neighbours < material.coordination) | (distances[:, foreign] < reach).any(1))
    beside = beside if beside.any() else host
    rows = np.flatnonzero(beside)
    least = rows[np.argmin(neighbours[rows])]
    return int(least), len(rows)


class Simulations(Protocol):
    """Simulations beside a loop: asked for when a defect is sure, told when they come."""

    def ask(self, result: FrameResult, known: Knowledge, frame: int) -> None:
        """Ask for what is sure in a frame and was not asked for."""
        ...

    def told(self) -> list[Line]:
        """Give what happened since the last call, for the record; never waits."""
        ...

    def close(self) -> None:
        """End at once."""
        ...


class NoSimulations:
    """None at all."""

    def ask(self, result: FrameResult, known: Knowledge, frame: int) -> None:
        """Do nothing."""

    def told(self) -> list[Line]:
        """Nothing happens."""
        return []

    def close(self) -> None:
        """Do nothing."""


class SimulationsBeside:
    """Simulate each kind of sure defect once, in a process of its own.

    Parameters
    ----------
    material, sure
        The specimen, and the probability from which a defect is sure.
    work
        What is done with an `Ask`.
    """

    def __init__(
        self, material: Material, sure: float, work: Callable[[Any], Line] = simulate
    ) -> None:
        self._material, self._sure = material, sure
        self.worker = Beside(work)
        self._asked: set[str] = set()

    def ask(self, result: FrameResult, known: Knowledge, frame: int) -> None:
        """Ask for the kinds that are sure by all frames and that this one shows whole."""
        if result.lattice is None:
            return
        sure = {q.kind for q in known.questions if q.log_odds > 0 and not q.is_open(self._sure)}
        sure -= {ATOM, *self._asked, *(kind for kind, _ in known.simulated)}
        far = result.found.frame.calibration.extent_xy(result.found.frame.shape)
        for row in result.defects.data.iter_rows(named=True):
            if row["kind"] not in sure:
                continue
            sure.remove(row["kind"])
            self._asked.add(row["kind"])
            self.worker.offer(
                row["kind"],
                Ask(row["kind"], frame, (row["x_A"], row["y_A"]), far, result.atoms,
                    result.lattice, self._material, known.voltage_kV),
            )  # fmt: skip

    def told(self) -> list[Line]:
        """Give what came, in words and numbers."""
        return [_line(event) for event in self.worker.poll()]

    def close(self) -> None:
        """End the worker; what it works on is lost."""
        self.worker.close()


def _line(event: Event) -> Line:
    words = {
        "done": f"{event.key} is simulated",
        "failed": f"{event.key} cannot be simulated: {event.result}",
        "killed": f"the worker that simulated {event.key} ended: another one begins again",
        "given up": f"{event.key} is not simulated: its worker ended twice",
    }
    more = event.result if event.what == "done" else {}
    return {"what": event.what, "kind": event.key, "why": words[event.what], "result": more}


def learned(known: Knowledge, line: Line) -> Knowledge:
    """Take a line of a simulation into account: what dose its defect bears.

    Parameters
    ----------
    known
        Before.
    line
        From `Simulations.told`.
    """
    if line["what"] == "killed":
        return known
    limit = line["result"].get("dose_limit_per_A2")
    return replace(known, simulated=(*known.simulated, (line["kind"], limit)))
