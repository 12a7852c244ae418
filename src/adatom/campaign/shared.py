"""Draws that start a relaxation at the same classical minimum share it.

GFN1-xTB relaxes from the classical minimum of a structure. Draws of one defect mostly fall into one
such minimum: what follows is then the same calculation, and is done once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import ase
import numpy as np
from ase.geometry import find_mic

from adatom.core import SimulationResult, SimulationTask
from adatom.core.arrays import FloatArray
from adatom.errors import AdatomError
from adatom.simulation import RelaxOptions, for_elements, require, scale_to
from adatom.simulation.prepare import classical_minimum
from adatom.simulation.sheet import lay_flat, without_charges

# Å: minima whose atoms are all nearer than this are one. Classical minimisations leave 0.001 Å.
_SAME_A = 0.02


def leaders_of(tasks: Sequence[SimulationTask], options: RelaxOptions) -> list[int]:
    """Find for each task the first one that starts at the same classical minimum.

    Parameters
    ----------
    tasks
        Relaxations.
    options
        Of the relaxations.

    Returns
    -------
    For each task the number of that one; its own where there is none before it, and where its
    engine does not start at a classical minimum.
    """
    leaders: list[int] = []
    nearest: list[tuple[int, ase.Atoms]] = []  # a leader, and a minimum from which it starts
    lowest: list[tuple[int, ase.Atoms]] = []
    for i, task in enumerate(tasks):
        leader = i
        # Where two draws have one nearest minimum, its bucklings are the same: they take longer.
        for known, buckle in ((nearest, False), (lowest, True)):
            wanted = _draw_beside(tasks, i) and (options.buckle or not buckle)
            found = _minimum(task, options, buckle=buckle) if wanted else None
            if found is None:
                break
            leader = next((j for j, x in known if _alike(tasks[j], task) and _same(x, found)), i)
            if leader != i:
                break
            known.append((i, found))
        leaders.append(leader)
    return leaders


def shared_result(task: SimulationTask, leader: SimulationResult) -> SimulationResult:
    """Give a task the relaxation of the one that starts at the same classical minimum."""
    trajectory = tuple(atoms.copy() for atoms in leader.trajectory)
    for atoms in trajectory:  # name and weight travel in `info`: those of the task
        atoms.info = dict(task.structure.to_ase().info)
    return replace(
        leader,
        trajectory=trajectory,
        structure=task.structure.name,
        draw=task.structure.draw,
        weight=task.structure.weight,
        seconds=0.0,
        notes=(*leader.notes, f"as {leader.structure}: both start at one classical minimum"),
    )


def follow(
    leader: Future[SimulationResult],
    task: SimulationTask,
    alone: Callable[[], Future[SimulationResult]],
) -> Future[SimulationResult]:
    """Give the future of a task that shares the relaxation of another one.

    Parameters
    ----------
    leader
        The other one's future.
    task
        The task.
    alone
        Starts the task itself, where the other one has failed.
    """
    own: Future[SimulationResult] = Future()

    def pass_on(done: Future[SimulationResult], *, shared: bool) -> None:
        if done.cancelled():
            own.cancel()
            return
        error = done.exception()
        if error is not None:
            own.set_exception(error)
        elif not shared:
            own.set_result(done.result())
        elif done.result().status == "done":
            own.set_result(shared_result(task, done.result()))
        else:
            alone().add_done_callback(partial(pass_on, shared=False))

    leader.add_done_callback(partial(pass_on, shared=True))
    return own


def _draw_beside(tasks: Sequence[SimulationTask], i: int) -> bool:
    """Whether there is another draw of the same defect, by the same engine."""
    own = tasks[i].structure
    return any(
        t is not tasks[i]
        and (t.structure.kind, t.structure.frame, t.structure.defect, t.engine)
        == (own.kind, own.frame, own.defect, tasks[i].engine)
        for t in tasks
    )


def _alike(one: SimulationTask, other: SimulationTask) -> bool:
    """Whether two tasks are of one engine, material and reference."""
    names = ("engine", "beside", "allow_unfit")
    same = all(getattr(one, name) == getattr(other, name) for name in names)
    return same and one.material.name == other.material.name


def _minimum(task: SimulationTask, options: RelaxOptions, *, buckle: bool) -> ase.Atoms | None:
    """Classical minimum that a relaxation starts from; None where it does not start there."""
    try:
        if task.kind != "relax" or not options.prepare:
            return None
        flat = without_charges(lay_flat(task.structure))
        symbols = {*flat.atoms.get_chemical_symbols(), *task.beside}
        engine = for_elements(require(task.engine, "relax"), symbols)
        if not getattr(engine, "starts_classically", False):
            return None
        constant = engine.lattice_constant_A(task.material, symbols)
        given = scale_to(flat.to_ase(), task.material.lattice_constant_A, constant)
        return classical_minimum(given, flat.fixed, constant, task.material, buckle=buckle)
    except AdatomError:  # the relaxation says why
        return None


def _same(one: ase.Atoms, other: ase.Atoms) -> bool:
    if not np.array_equal(one.numbers, other.numbers):
        return False
    if not np.allclose(one.cell.array, other.cell.array, atol=1e-6):
        return False
    way = _without_shift(other.positions - one.positions, one)
    turned = other.positions * (1.0, 1.0, -1.0) - one.positions
    return _farthest(way) < _SAME_A or _farthest(_without_shift(turned, one)) < _SAME_A


def _without_shift(way: FloatArray, atoms: ase.Atoms) -> FloatArray:
    """Differences of positions, less the commonest shift, through the nearest images."""
    way, _ = find_mic(way, atoms.cell, atoms.pbc)
    out: FloatArray = find_mic(way - np.median(way, axis=0), atoms.cell, atoms.pbc)[0]
    return out


def _farthest(way: FloatArray) -> float:
    return float(np.linalg.norm(way, axis=1).max())
