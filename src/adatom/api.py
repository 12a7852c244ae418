"""The Python face: each step as one function, on plain NumPy frames and `ase.Atoms` too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
from numpy.typing import NDArray

from adatom.analysis.frame import name_defects
from adatom.analysis.lattice import lattice_of
from adatom.analysis.movie import analyse_movie
from adatom.campaign.config import Config, InputOptions, ensemble_of
from adatom.campaign.simulate import relaxed_structure
from adatom.campaign.sources import settle_scale, twin_movie
from adatom.core import (
    Advice,
    AtomTable,
    DefectTable,
    Frame,
    Material,
    Movie,
    SimulationResult,
    SimulationTask,
    Structure,
)
from adatom.errors import BadInput
from adatom.feedback import advise as _advise
from adatom.frames.readers.read import read
from adatom.instrument import TwinOptions
from adatom.materials.library import load_material
from adatom.parallel.processes import cores, local_processes
from adatom.simulation import DynamicsOptions, RelaxOptions, dynamics, relax
from adatom.structures import SupercellOptions, build_supercell, draw_structures
from adatom.training.adapt.options import AdaptOptions
from adatom.training.adapt.rounds import Adapted
from adatom.training.adapt.rounds import adapt as adapt_ensemble

Frames = Movie | NDArray[Any] | str | Path | Sequence[str | Path]

__all__ = [
    "adapt",
    "advise",
    "example_frames",
    "find",
    "find_defects",
    "read",
    "simulate",
    "supercells",
]


def example_frames(count: int = 2, *, seed: int = 7) -> tuple[NDArray[np.float32], float]:
    """Take frames with the simulated microscope: graphene with a vacancy and a walking Si.

    Parameters
    ----------
    count
        Frames.
    seed
        Seed of specimen and noise.

    Returns
    -------
    Counts, shape (frame, row, col), and the pixel size in Å.
    """
    movie = twin_movie(TwinOptions(frames=count), load_material("graphene"), seed)
    frames = list(movie)
    return np.stack([f.data for f in frames]), frames[0].calibration.pixel_size_A


def find(
    frames: Frames,
    *,
    material: str = "graphene",
    pixel_size_A: float | None = None,
    trust_scale: bool = False,
    weights: str | Path | None = None,
) -> AtomTable:
    """Find every atom with its position covariance, element and probability.

    Parameters
    ----------
    frames
        A `Movie` from `read`, file names, or an array of shape (row, col) or (frame, row, col).
    material
        What they show.
    pixel_size_A
        Å; needed where the frames do not say.
    trust_scale
        Keep that scale though the lattice disagrees.
    weights
        An ensemble's file; the shipped one by default.

    Returns
    -------
    All atoms of all frames; `AtomTable.data` is a polars table.

    Raises
    ------
    BadInput
        If a frame cannot be used or no scale is known.
    """
    chosen = load_material(material)
    config = _config(material, weights)
    movie = frames if isinstance(frames, Movie) else read(frames, pixel_size_A=pixel_size_A)
    movie, _ = settle_scale(movie, chosen, trust=trust_scale)
    ensemble = ensemble_of(config)
    return AtomTable.concat(r.atoms for r in analyse_movie(movie, ensemble, chosen))


def adapt(
    frames: Frames,
    *,
    material: str = "graphene",
    pixel_size_A: float | None = None,
    trust_scale: bool = False,
    weights: str | Path | None = None,
    options: AdaptOptions | None = None,
) -> Adapted:
    """Retrain an ensemble on the first frames of an experiment, without a label.

    Parameters
    ----------
    frames, material, pixel_size_A, trust_scale, weights
        As of `find`.
    options
        Rounds, steps, frames.

    Returns
    -------
    `Adapted.ensemble` and what every round did; `adatom.learning.weights.save` writes it to a file
    that `find` takes as `weights`. In a script, call it under ``if __name__ == "__main__":``, as
    every use of processes must be.

    Raises
    ------
    BadInput
        If a frame cannot be used, or the frames do not show the material.
    """
    chosen = load_material(material)
    ensemble = ensemble_of(_config(material, weights))
    movie = frames if isinstance(frames, Movie) else read(frames, pixel_size_A=pixel_size_A)
    movie, _ = settle_scale(movie, chosen, trust=trust_scale)
    first = min((options or AdaptOptions()).frames, len(movie))
    return adapt_ensemble([movie[i] for i in range(first)], chosen, ensemble, options)


def find_defects(
    frames: Frames,
    atoms: AtomTable,
    *,
    material: str = "graphene",
    pixel_size_A: float | None = None,
) -> DefectTable:
    """Name the defects of every frame.

    Atoms from `find` bring the sites that were tested for a missing atom, so that the defects are
    those of ``adatom find``. For atoms from elsewhere the counts are asked, which takes a
    refinement of every frame.

    Parameters
    ----------
    frames, material, pixel_size_A
        As of `find`.
    atoms
        Of these frames.
    """
    chosen = load_material(material)
    movie = frames if isinstance(frames, Movie) else read(frames, pixel_size_A=pixel_size_A)

    def named(frame: Frame) -> DefectTable:
        own = atoms.of_frame(frame.index)
        return name_defects(frame, own, lattice_of(own, chosen), chosen)

    return DefectTable.concat(map(named, movie))


def supercells(
    atoms: AtomTable,
    *,
    frame: int = 0,
    center_xy_A: tuple[float, float] | None = None,
    kind: str = "defect",
    material: str = "graphene",
    extent_xy_A: tuple[float, float] | None = None,
    draws: int = 4,
    seed: int = 0,
    options: SupercellOptions | None = None,
) -> list[Structure]:
    """Build a periodic supercell around a place in a frame, and draws from its uncertainty.

    Parameters
    ----------
    atoms
        FoundAtoms atoms.
    frame
        Which frame.
    center_xy_A
        Middle of the defect, Å, measured axes; by default that of the foreign atoms, or of all.
    kind
        Name for the structures.
    material
        The crystal.
    extent_xy_A
        Far corner of the frame, Å; by default that of the atoms.
    draws
        How many structures to draw.
    seed
        Seed of the draws.
    options
        Size and distances.

    Returns
    -------
    The most probable structure, then the draws; `Structure.to_ase` gives `ase.Atoms`.

    Raises
    ------
    BadInput
        If no lattice fits the frame's atoms.
    """
    chosen, own = load_material(material), atoms.of_frame(frame)
    lattice = lattice_of(own, chosen)
    if lattice is None:
        raise BadInput(
            f"frame {frame}",
            expected=f"at least a dozen atoms on a {material} lattice",
            got=f"{int(own.is_likely.sum())} atoms without one",
            todo="Check the material and the pixel size.",
        )
    center = center_xy_A or _center(own, chosen)
    extent = extent_xy_A or (float(own.xy[:, 0].max()), float(own.xy[:, 1].max()))
    common: dict[str, Any] = {
        "center_xy_A": center,
        "kind": kind,
        "frame": frame,
        "defect": 0,
        "options": options,
    }
    rng = np.random.default_rng(seed)
    likeliest = build_supercell(own, lattice, extent, **common)
    return [likeliest, *draw_structures(own, lattice, extent, count=draws, rng=rng, **common)]


def simulate(
    structures: Sequence[Structure] | Sequence[ase.Atoms],
    *,
    temperatures_K: Sequence[float] = (300.0, 900.0),
    material: str = "graphene",
    relax_options: RelaxOptions | None = None,
    dynamics_options: DynamicsOptions | None = None,
    relax_engine: str | None = None,
    dynamics_engine: str | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> list[SimulationResult]:
    """Relax structures, by default with GFN1-xTB, then heat each, by default in LAMMPS.

    Parameters
    ----------
    structures
        Supercells at the material's lattice constant, as `Structure` or `ase.Atoms`.
    temperatures_K
        K; empty for relaxations only.
    material
        Sets the lattice constants to scale between.
    relax_options, dynamics_options
        Convergence, lengths.
    relax_engine, dynamics_engine
        Names of engines, of any installed package: `adatom doctor` lists them.
    seed
        Seed of the initial velocities; counts up.
    workers
        Processes; by default one a core. In a script, call it under ``if __name__ ==
        "__main__":``, as every use of processes must be.

    Returns
    -------
    Relaxations in the order of the structures, then the dynamics.
    """
    config, chosen = _config(material, None), load_material(material)
    given = [s if isinstance(s, Structure) else Structure.from_ase(s) for s in structures]
    with local_processes(min(workers or cores(), max(len(given), 1))) as pool:
        engine = relax_engine or config.simulate.relax_engine
        jobs = [
            pool.submit(
                relax,
                SimulationTask(s, "relax", engine, material=chosen),
                relax_options or config.relax,
            )
            for s in given
        ]
        relaxed = [job.result() for job in jobs]
        heated = [
            pool.submit(
                dynamics,
                SimulationTask(
                    relaxed_structure(s, r),
                    "dynamics",
                    dynamics_engine or config.simulate.dynamics_engine,
                    temperature,
                    seed + 1 + i,
                    material=chosen,
                ),
                dynamics_options or config.dynamics,
            )
            for i, (s, r) in enumerate(zip(given, relaxed, strict=True))
            if r.trajectory and not r.status.startswith("failed")
            for temperature in temperatures_K
        ]
        return [*relaxed, *(job.result() for job in heated)]


def advise(
    atoms: AtomTable,
    defects: DefectTable,
    results: Sequence[SimulationResult] = (),
    *,
    material: str = "graphene",
    frame_dose_per_A2: float | None = None,
) -> list[Advice]:
    """Rank what the experiment could do next: scans, voltage, where to put the beam.

    Parameters
    ----------
    atoms, defects, results
        From `find`, `find_defects`, `simulate`.
    material
        The crystal.
    frame_dose_per_A2
        Electrons per Å² and frame, where known.
    """
    return _advise(
        atoms,
        defects,
        species=len(load_material(material).species),
        frame_dose_per_A2=frame_dose_per_A2,
        results=results,
    )


def _config(material: str, weights: str | Path | None) -> Config:
    return Config(
        material=material,
        weights=None if weights is None else str(weights),
        input=InputOptions(paths=("array",)),
    )


def _center(atoms: AtomTable, material: Material) -> tuple[float, float]:
    foreign = atoms.elements != material.host
    x, y = (atoms.xy[foreign] if foreign.any() else atoms.xy).mean(axis=0)
    return float(x), float(y)
