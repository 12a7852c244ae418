"""A sheet of gold, one atom thick, for ASE's effective medium theory: real physics in a second."""

from __future__ import annotations

import ase

from adatom.core import Material, SimulationTask, Structure

A = 2.75  # Å
GOLDENE = Material(
    name="goldene",
    cell_A=((A, 0.0), (A / 2.0, A * 3.0**0.5 / 2.0)),
    basis=((0.0, 0.0),),
    site_species=("Au",),
    species=("Au",),
    bond_length_A=A,
    coordination=6,
    ring_size=3,
)
EMT_PATH = "ase.calculators.emt:EMT"


def gold(n: int = 4) -> ase.Atoms:
    cell = [[A, 0.0, 0.0], [A / 2.0, A * 3.0**0.5 / 2.0, 0.0], [0.0, 0.0, 14.0]]
    unit = ase.Atoms("Au", positions=[[0.0, 0.0, 7.0]], cell=cell, pbc=True)
    return unit.repeat((n, n, 1))


def gold_task(atoms: ase.Atoms, kind: str, engine: str = EMT_PATH, **more: float) -> SimulationTask:
    return SimulationTask(Structure.from_ase(atoms), kind, engine, material=GOLDENE, **more)
