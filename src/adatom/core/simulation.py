"""Tasks for simulation engines, and their results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import ase
import numpy as np
from numpy.typing import NDArray

from adatom.core.material import Material
from adatom.core.structure import Structure


@dataclass(frozen=True, slots=True, eq=False)
class SimulationTask:
    """A simulation of one structure with one engine.

    Parameters
    ----------
    structure
        Structure to simulate.
    kind
        ``relax`` (to the nearest minimum) or ``dynamics`` (molecular dynamics).
    engine
        Name of the engine, such as ``gfn1-xtb`` or ``lammps``.
    temperature_K
        Temperature of the dynamics; 0 for a relaxation.
    seed
        Seed of the initial velocities and the thermostat.
    material
        The crystal of the structure: its lattice constant sets the scale in every engine.
    allow_unfit
        Run it also where the engine says that it is not fit for the structure.
    beside
        Elements of all structures that are compared with it: an engine that has several methods
        takes one for all of them.
    """

    structure: Structure
    kind: Literal["relax", "dynamics"]
    engine: str
    temperature_K: float = 0.0
    seed: int = 0
    material: Material = field(kw_only=True)
    allow_unfit: bool = field(default=False, kw_only=True)
    beside: frozenset[str] = field(default=frozenset(), kw_only=True)


@dataclass(frozen=True, slots=True, eq=False)
class SimulationResult:
    """Result of a simulation.

    Parameters
    ----------
    structure
        Name of the structure.
    draw
        Number of the draw, -1 for the most probable structure.
    engine
        Engine with its version.
    task
        ``relax`` or ``dynamics``.
    temperature_K
        Requested temperature; 0 for a relaxation.
    energy_eV
        Potential energy: of the relaxed structure, or the mean over the trajectory's second half.
    energy_sd_eV
        Standard deviation over that half; NaN for a relaxation.
    status
        ``done``, ``not converged`` (with the last geometry) or ``failed: <why>``.
    seconds
        Wall time.
    trajectory
        Geometries, first to last; the last is the relaxed one. Copied, never shared.
    trace
        Named series, each of shape (sample,): ``time_fs``, ``temperature_K``, ``energy_eV``;
        for a relaxation ``step``, ``energy_eV``, ``fmax_eV_A``.
    notes
        What the engine says of the calculation, one sentence each: k-points, magnetic moment,
        fall-backs of a self-consistency.
    formation_energy_eV
        Energy over that of its atoms in their reservoirs; NaN where there is none.
    reference
        The reservoirs, or why there is no formation energy; empty where none was asked for.
    weight
        Importance weight of the draw: how well it explains the frame; NaN if it was not weighted.
    draws_sd_eV, engine_sd_eV, size_sd_eV, thermal_sd_eV
        Parts of the spread of the defect's formation energy: what the image leaves open, the
        engine, the size of the cell, and thermal sampling; NaN where they are not known.
    size_shift_eV
        What a cell without end would add to its formation energy; NaN where it is not known.
    """

    structure: str
    draw: int
    engine: str
    task: str
    temperature_K: float
    energy_eV: float
    energy_sd_eV: float
    status: str
    seconds: float
    trajectory: tuple[ase.Atoms, ...] = ()
    trace: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    formation_energy_eV: float = float("nan")
    reference: str = ""
    weight: float = float("nan")
    draws_sd_eV: float = float("nan")
    engine_sd_eV: float = float("nan")
    size_sd_eV: float = float("nan")
    thermal_sd_eV: float = float("nan")
    size_shift_eV: float = float("nan")
