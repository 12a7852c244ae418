"""How long a simulation takes from the frame on: rows of `adatom bench simulate`.

Times are of the processor, but for those on two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import polars as pl

from adatom.analysis.frame import analyse_frame
from adatom.bench.rows import Row, row
from adatom.bench.simulate_cases import changed, imaged
from adatom.campaign.build import choose_defects, supercell_and_draws
from adatom.campaign.config import Config, InputOptions, SimulateOptions
from adatom.campaign.energies import Ask, elements_together, make_plan, relax_task
from adatom.campaign.find import MovieResult
from adatom.campaign.pool import relaxed_structure
from adatom.campaign.recall import Recall
from adatom.core import GRAPHENE, Frame, SimulationResult, SimulationTask, Structure
from adatom.errors import StepFailed
from adatom.learning.ensemble import Ensemble
from adatom.learning.weights import load_shipped
from adatom.parallel.processes import local_processes
from adatom.simulation import RelaxOptions, relax
from adatom.simulation.engines.base import find_engine
from adatom.store.memory import Memory
from adatom.structures import SupercellOptions, pristine_supercell

_PIXELS, _DOSE = 512, 10.0
_SEED = 47_100_000
_DRAWS = 8
_FIRST_s, _MEMORY_s, _OF_OTHER, _CORES = 5.0, 0.05, 1.0 / 3.0, 1.8  # targets
_TURNS = 2  # runs of each build, in turns; the least is taken, since machines are shared
_GPAW_CELLS = 2  # along each side: minutes
_SHAKEN_A = 0.05  # Å: as far as a draw of a dim frame lies off

# Relaxes draws in GFN1-xTB in one process, and prints the processor time, s.
_DRAWN = """
import inspect, resource, sys
import adatom as ad, ase.io
def cpu():
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
if __name__ == "__main__":
    draws = ase.io.read(sys.argv[1], ":")
    known = inspect.signature(ad.simulate).parameters
    more = {"relax_engine": "gfn1-xtb"} if "relax_engine" in known else {}
    began = cpu()
    found = ad.simulate(draws, temperatures_K=[], workers=1, **more)
    assert all(r.status == "done" for r in found), [r.status for r in found]
    print(cpu() - began)
"""


def times(other: Path | None, output: Path, *, quick: bool) -> list[Row]:
    """Measure first energies, draws, memory, cores, and the steps of GPAW.

    Parameters
    ----------
    other
        Python of an environment with another adatom, whose time for the draws is taken in turns.
    output
        Directory for what is made.
    quick
        Leave out GPAW.
    """
    output.mkdir(parents=True, exist_ok=True)
    ensemble = load_shipped("graphene")
    frame = _frame()
    began = time.process_time()
    structures, energy_eV = first_energies(frame, ensemble)
    seconds = time.process_time() - began
    rows = [
        row(f"first energies from a {_PIXELS}² frame with a vacancy: likeliest structure and "
            f"{_DRAWS} draws in LCBOP ({energy_eV:.2f} eV)", f"{seconds:.1f} s",
            f"at most {_FIRST_s:g} s", met=seconds <= _FIRST_s),
        _remembered(structures),
        _on_two_cores(structures),
    ]  # fmt: skip
    if find_engine("gfn1-xtb").status().installed:
        rows.append(_draws(structures[1:], other, output))
    if not quick and find_engine("gpaw").status().installed:
        rows.append(_gpaw_steps())
    return rows


def _frame() -> Frame:
    """A frame of graphene with one vacancy near its middle."""
    width = _PIXELS * 0.15 * 1.5
    sheet = pristine_supercell(GRAPHENE, SupercellOptions(min_width_A=width)).to_ase()
    middle = 0.5 * (sheet.cell[0] + sheet.cell[1])[:2]
    atoms = changed(sheet, middle, "V1")
    xy = (atoms.positions[:, :2] - middle) * (1.0, -1.0) + 0.5 * _PIXELS * 0.15
    seen = np.flatnonzero(np.all(np.abs(xy - 0.5 * _PIXELS * 0.15) < 0.6 * width, axis=1))
    rng = np.random.default_rng(_SEED)
    return imaged(xy[seen], atoms[seen], GRAPHENE, _DOSE, rng, 0, pixels=_PIXELS)


def first_energies(frame: Frame, ensemble: Ensemble) -> tuple[list[Structure], float]:
    """Go from a frame to the formation energies of its likeliest defect's draws, in LAMMPS.

    Returns
    -------
    The likeliest structure and the draws; and the median formation energy, eV.
    """
    config = Config(
        input=InputOptions(paths=("simulated",)), material="graphene",
        simulate=SimulateOptions(draws=_DRAWS, max_structures=1),
    )  # fmt: skip
    seen = analyse_frame(frame, ensemble, GRAPHENE)
    if seen.lattice is None:
        raise _failed("a lattice")
    found = MovieResult(
        seen.atoms, seen.defects, pl.DataFrame(), pl.DataFrame(), {frame.index: seen.lattice}, {},
        {}, "",
    )  # fmt: skip
    extent = frame.calibration.extent_xy((_PIXELS, _PIXELS))
    (chosen,) = choose_defects(found, extent, config)
    structures = supercell_and_draws(frame, found, chosen, extent, config)
    together = elements_together(structures)
    asks = [Ask(s, "lammps", b, ()) for s, b in zip(structures, together, strict=True)]
    plan = make_plan(asks, GRAPHENE, config.supercell, (), allow=False)
    done, _ = plan.finished([relax_task(t, config.relax) for t in plan.tasks], "lammps")
    return structures, float(np.median([r.formation_energy_eV for r in done]))


def _failed(expected: str) -> StepFailed:
    return StepFailed("bench simulate", expected=expected, got="none", todo="Report it.")


def _tasks(structures: Sequence[Structure], engine: str) -> list[SimulationTask]:
    return [SimulationTask(s, "relax", engine, material=GRAPHENE) for s in structures]


def _remembered(structures: Sequence[Structure]) -> Row:
    """Time of a relaxation that the memory knows, from another draw of the defect."""
    known, asked = _tasks(structures[:2], "lammps")
    options = RelaxOptions()
    with tempfile.TemporaryDirectory() as folder:
        recall = Recall(Memory(Path(folder)), options)
        recall.keep(known, relax(known, options), "bench")
        recall.answer(asked)  # modules are loaded
        began = time.process_time()
        answer = recall.answer(asked)
        seconds = time.process_time() - began
    said = f"{1e3 * seconds:.0f} ms" if answer else "not recognised"
    met = answer is not None and seconds < _MEMORY_s
    return row("a repeated defect, from the memory", said, f"under {1e3 * _MEMORY_s:g} ms", met=met)


def _on_two_cores(structures: Sequence[Structure]) -> Row:
    """Wall time of the draws in one process over that in two."""
    tasks = _tasks(structures[1:], "lammps") * 2
    work = partial(relax, options=RelaxOptions())
    wall = {}
    for workers in (1, 2):
        with local_processes(workers) as pool:
            list(pool.map(work, tasks[:workers]))  # modules are loaded
            began = time.perf_counter()
            list(pool.map(work, tasks))
            wall[workers] = time.perf_counter() - began
    ratio = wall[1] / wall[2]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return row(f"{len(tasks)} relaxations on two cores over one (wall time{load})",
               f"{ratio:.2f}", f"at least {_CORES:g}", met=ratio >= _CORES)  # fmt: skip


def _draws(draws: Sequence[Structure], other: Path | None, output: Path) -> Row:
    """Processor time of the draws in GFN1-xTB; over another build's where there is one."""
    path = output / "draws.extxyz"
    plain = [s.to_ase() for s in draws]
    ase.io.write(
        path,
        [ase.Atoms(a.symbols, positions=a.positions, cell=a.cell, pbc=a.pbc) for a in plain],
    )
    script = output / "draws.py"
    script.write_text(_DRAWN, "utf-8")
    pythons = {"this": Path(sys.executable)} | ({} if other is None else {"other": other})
    least: dict[str, float] = {}
    for _ in range(_TURNS if other else 1):
        for name, python in pythons.items():
            done = subprocess.run(  # noqa: S603 - the user's own Python
                [str(python), str(script), str(path)], capture_output=True, text=True, check=False,
                env={**os.environ, "ADATOM_MEMORY": "off"},
            )  # fmt: skip
            if done.returncode:
                raise _failed(f"draws relaxed by {python}: {done.stderr[-300:]}")
            least[name] = min(least.get(name, np.inf), float(done.stdout.split()[-1]))
    name = f"{len(draws)} draws of a vacancy relaxed in GFN1-xTB"
    if other is None:
        return row(name, f"{least['this']:.1f} s", "shown", met=True)
    share = least["this"] / least["other"]
    return row(f"{name}, over the other build",
               f"{share:.2f} ({least['this']:.1f} and {least['other']:.1f} s)",
               "at most 1/3", met=share <= _OF_OTHER)  # fmt: skip


def _gpaw_steps() -> Row:
    """Steps of GPAW for Si in a small cell of graphene, from GFN1-xTB's minimum and from a draw."""
    atoms = ase.build.graphene(
        size=(_GPAW_CELLS, _GPAW_CELLS, 1), a=GRAPHENE.lattice_constant_A, vacuum=7.0
    )
    atoms.pbc = True
    atoms.symbols[_GPAW_CELLS] = "Si"
    atoms.positions[_GPAW_CELLS, 2] += 0.5
    atoms.positions += np.random.default_rng(_SEED).normal(0.0, _SHAKEN_A, (len(atoms), 3))
    crude = Structure.from_ase(atoms)
    long = RelaxOptions(max_seconds=3600.0)
    first = _relaxed(crude, "gfn1-xtb", long)
    steps = [
        len(_relaxed(start, "gpaw", long).trace["step"]) - 1
        for start in (relaxed_structure(crude, first), crude)
    ]
    name = f"GPAW (LCAO), {len(atoms)} atoms: steps from GFN1-xTB's minimum over a crude start"
    return row(name, f"{steps[0]} of {steps[1]}", "at most half", 2 * steps[0] <= steps[1])


def _relaxed(structure: Structure, engine: str, options: RelaxOptions) -> SimulationResult:
    return relax(SimulationTask(structure, "relax", engine, material=GRAPHENE), options)
