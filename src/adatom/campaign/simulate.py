"""Build supercells of defects, relax and heat them; the ledger records every step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from adatom.campaign.config import Config
from adatom.campaign.energies import Ask, elements_together, relax_all
from adatom.campaign.pool import job_of, relaxed_structure, run_jobs, run_or_report
from adatom.campaign.spread import NONE, with_spread
from adatom.campaign.steps import Steps
from adatom.core import Material, SimulationResult, SimulationTask, Structure
from adatom.simulation import (
    AUTO,
    dynamics,
    engine_for,
    engine_version,
    find_engine,
    read_reservoirs,
    require,
)
from adatom.simulation.reservoirs import element_structure
from adatom.store import (
    RESULTS_COLUMNS,
    read_result,
    result_files,
    results_table,
    write_structures,
    write_table,
)
from adatom.structures import check_room, structure_name


def check_simulation(config: Config, material: Material) -> None:
    """Check, before anything is written, that the simulations can run.

    Raises
    ------
    EngineMissing
        If an engine is not installed, saying how to install it.
    BadInput
        If the defect does not fit into the supercell, there is no engine of a name, or no structure
        of an element that serves as a reservoir.
    """
    check_room(material, config.supercell)
    chosen = (config.simulate.relax_engine, config.simulate.dynamics_engine)
    for name in material.simulated_by:
        find_engine(name)
    require(engine_for(chosen[0], "relax", [], material), "relax")
    require(engine_for(chosen[1], "dynamics", [], material), "dynamics")
    if config.simulate.second_engine not in (AUTO, NONE):
        require(config.simulate.second_engine, "relax")
    for reservoir in read_reservoirs(config.simulate.mu):
        if reservoir.energy_eV is None:
            element_structure(reservoir.symbol)


def simulate_all(
    structures: Sequence[Structure],
    parents: Sequence[str],
    material: Material,
    config: Config,
    steps: Steps,
) -> tuple[list[SimulationResult], list[str]]:
    """Relax every structure, then run dynamics of every relaxed draw at every temperature.

    The perfect crystal in the cell of each structure is relaxed once, for the formation energies.

    Returns
    -------
    The relaxations in the order of the structures, then the dynamics; and the ledger keys of all
    that was run. A failed simulation has the status ``failed: <why>`` and does not stop the others.
    """
    directory = steps.directory
    engine = engine_for(config.simulate.relax_engine, "relax", structures, material)
    asks = [
        Ask(structure, engine, beside, (key,))
        for structure, key, beside in zip(
            structures, parents, elements_together(structures), strict=True
        )
    ]
    relaxed = relax_all(asks, material, config, steps, own=engine)
    heated, hot_keys, hot_stems = _heat(
        structures, relaxed.results, relaxed.keys[: len(asks)], material, config, steps
    )
    spread = with_spread(structures, relaxed, engine, material, config, steps)
    for found in spread.positions:
        name = structure_name(found.kind, found.frame, found.defect, -1)
        write_structures(directory.relaxed / f"{name}.extxyz", [found])
    rows = dict(zip(relaxed.stems, [*spread.results, *relaxed.references], strict=True))
    checks = spread.checks
    for stem, result in zip(checks.stems, [*checks.results, *checks.references], strict=True):
        rows.setdefault(stem, result)
    rows |= dict(zip(hot_stems, heated, strict=True))
    files = [result_files(stem)[0].relative_to(directory.path).as_posix() for stem in rows]
    table = results_table(list(rows.values()), files)
    write_table(directory.simulations_path, table, RESULTS_COLUMNS)
    return [*spread.results, *heated], [*relaxed.keys, *checks.keys, *hot_keys]


def _heat(
    structures: Sequence[Structure],
    relaxed: Sequence[SimulationResult],
    parents: Sequence[str],
    material: Material,
    config: Config,
    steps: Steps,
) -> tuple[list[SimulationResult], list[str], list[Path]]:
    engine = engine_for(config.simulate.dynamics_engine, "dynamics", structures, material)
    allow = config.simulate.allow_unfit
    version = engine_version(engine)
    tasks, stems, jobs = [], [], []
    for i, (structure, result) in enumerate(zip(structures, relaxed, strict=True)):
        # The most probable structure is relaxed alone: draws tell what heat does.
        if structure.draw < 0 or result.status.startswith("failed") or not result.trajectory:
            continue
        start = relaxed_structure(structure, result)
        for temperature in config.simulate.temperatures_K:
            seed = int(
                np.random.SeedSequence([config.seed, i, int(temperature)]).generate_state(1)[0]
            )
            task = SimulationTask(
                start, "dynamics", engine, temperature, seed % 2**30 + 1,
                material=material, allow_unfit=allow,
            )  # fmt: skip
            stem = steps.directory.trajectories / f"{structure.name}-{temperature:g}K"
            tasks.append(task)
            stems.append(stem)
            jobs.append(job_of("dynamics", task, stem, [config.dynamics, version], (parents[i],)))
    work = partial(run_or_report, partial(dynamics, options=config.dynamics))
    keys = run_jobs(jobs, tasks, stems, work, steps)
    return [read_result(stem) for stem in stems], keys, stems
