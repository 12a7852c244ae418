"""Small sheets of graphene with a Si atom, and tasks for the engines."""

from __future__ import annotations

import ase
import numpy as np

from adatom.core import GRAPHENE, SimulationTask, Structure

A = 2.46


def sheet(columns: int = 4, rows: int = 2) -> ase.Atoms:
    """Orthorhombic graphene at the experimental lattice constant."""
    fractions = [(0, 1 / 6, 0.5), (0.5, 1 / 3, 0.5), (0.5, 2 / 3, 0.5), (0, 5 / 6, 0.5)]
    unit = ase.Atoms("C4", scaled_positions=fractions, cell=[A, A * 3**0.5, 14.0], pbc=True)
    return unit.repeat((columns, rows, 1))


def with_silicon(height: float = 0.5, noise: float = 0.0, **size: int) -> ase.Atoms:
    atoms = sheet(**size)
    atoms.positions += np.random.default_rng(3).normal(0, 1, (len(atoms), 3)) * noise * [1, 1, 0]
    atoms.symbols[0] = "Si"
    atoms.positions[0, 2] += height
    return atoms


def task(atoms: ase.Atoms, kind: str, engine: str, **more: float) -> SimulationTask:
    return SimulationTask(Structure.from_ase(atoms), kind, engine, material=GRAPHENE, **more)


def silicon(atoms: ase.Atoms) -> tuple[np.ndarray, float]:
    """Three shortest bonds of the Si, and its height over their other ends, Å."""
    near = np.argsort(atoms.get_distances(0, range(len(atoms)), mic=True))[1:4]
    height = atoms.positions[0, 2] - atoms.positions[near, 2].mean()
    return atoms.get_distances(0, near, mic=True), height
