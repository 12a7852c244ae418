"""The Python functions: each step separately, also on NumPy frames and `ase.Atoms`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.analysis.card import calibration_warning
from adatom.analysis.flags import image_warnings, pixel_warnings
from adatom.analysis.frame import name_defects
from adatom.analysis.lattice import lattice_of
from adatom.analysis.movie import analyse_movie
from adatom.analysis.options import AnalysisOptions
from adatom.campaign.arguments import (
    ALONG_C,
    MaterialLike,
    StructureLike,
    ZoneAxis,
    checked_seed,
    checked_temperatures,
    read_ensemble,
    read_material,
    read_structures,
    table_of,
)
from adatom.campaign.choose import choose_material, chosen_note, screening_of
from adatom.campaign.config import Config, InputOptions
from adatom.campaign.given import Engines, simulate_given
from adatom.campaign.pipeline import lattice_warnings
from adatom.campaign.sources import checked_frames, settle_scale, twin_movie
from adatom.campaign.verdict import judge
from adatom.core import (
    Advice,
    AtomTable,
    DefectTable,
    Frame,
    Material,
    Movie,
    SimulationResult,
    Structure,
)
from adatom.errors import BadInput, WrongMaterialWarning
from adatom.features.find import FindOptions
from adatom.feedback import advise as _advise
from adatom.frames.lattice.screening import Screening
from adatom.frames.readers.read import read
from adatom.instrument import TwinOptions
from adatom.materials.library import load_material
from adatom.parallel.progress import Silent
from adatom.simulation import DynamicsOptions, RelaxOptions
from adatom.structures import SupercellOptions, build_supercell, sample_structures
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
        Number of frames.
    seed
        Seed of specimen and noise.

    Returns
    -------
    Counts, shape (frame, row, col), and the pixel size in Å.

    Raises
    ------
    BadInput
        If the count is below one, or the seed below zero.

    Examples
    --------
    >>> import adatom as ad
    >>> frames, pixel_size_A = ad.example_frames(1)
    >>> frames.shape, round(pixel_size_A, 4)
    ((1, 192, 192), 0.1042)
    """
    if count < 1:
        raise BadInput(
            "`count`", expected="at least one frame", got=repr(count), todo="Ask for one or more."
        )
    movie = twin_movie(TwinOptions(frames=count), load_material("graphene"), checked_seed(seed))
    frames = list(movie)
    return np.stack([f.data for f in frames]), frames[0].calibration.pixel_size_A


def find(
    frames: Frames,
    *,
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
    pixel_size_A: float | None = None,
    fit_scale: bool = False,
    weights: str | Path | None = None,
    options: FindOptions | None = None,
) -> AtomTable:
    """Find every atom with its position covariance, element and probability.

    Parameters
    ----------
    frames
        A `Movie` from `read` (which has options for axes, channels and a choice of frames), or what
        `read` takes: file names, an array of shape (row, col) or (frame, row, col), lazy arrays.
    material
        Material in the frames: its name, its TOML file, a structure file that ASE reads, or
        a `Material`. Left out, it is chosen by lattice and scale, and a warning says so.
    zone_axis
        Lattice direction of the beam, for a structure file.
    pixel_size_A
        Pixel size in Å; needed if the frames have none.
    fit_scale
        Take the scale from the material's lattice, in place of the given one.
    weights
        File of an ensemble (``.safetensors``); by default the shipped one of the material.
    options
        How atoms are found. Probabilities hold for the options that the ensemble was calibrated
        with; others give a warning.

    Warns
    -----
    WrongMaterialWarning
        If the frames do not show the material; ``adatom find`` then ends with exit code 3.
    UserWarning
        If the lattice contradicts the pixel size (the message has both values; the given one is
        used), a scale or the material had to be assumed, the options are not those of the
        calibration, pixels are masked or clipped, or image and
        atoms disagree in parts of a frame (contamination, missed and invented columns).

    Returns
    -------
    Atoms of all frames; `AtomTable.data` is a polars table.

    Raises
    ------
    BadInput
        If a frame cannot be used, no scale is known, or there are no networks for the material.
    NoMaterial
        If no material is named, and the frames do not clearly show one.

    Examples
    --------
    >>> import adatom as ad
    >>> frames, pixel_size_A = ad.example_frames(1)
    >>> atoms = ad.find(frames, material="graphene", pixel_size_A=pixel_size_A)
    >>> sorted(set(atoms.elements[atoms.is_likely].tolist()))
    ['C', 'Si']
    """
    if material is not None:  # missing networks are told of before frames are read
        read_ensemble(material, zone_axis, weights)
    opened = _open(frames, material, zone_axis, pixel_size_A, fit_scale=fit_scale)
    chosen, movie = opened.material, opened.movie
    ensemble = read_ensemble(opened.named, zone_axis, weights)
    unknown = calibration_warning(ensemble.card, options or FindOptions())
    for note in (unknown, *opened.notes):
        if note:
            warnings.warn(note, stacklevel=2)
    analysis = AnalysisOptions(find=options or FindOptions())
    parts, lattices, flags = [], {}, {}
    for i, result in enumerate(analyse_movie(movie, ensemble, chosen, analysis)):
        parts.append(result.atoms)
        lattices[i], flags[i] = result.lattice, result.flags
    for told in (*pixel_warnings(flags), *image_warnings(flags)):
        warnings.warn(told, stacklevel=2)
    atoms = AtomTable.concat(parts)
    screening = opened.screening or screening_of(movie, chosen)
    wrong = judge(movie, chosen, ensemble, screening, atoms, lattices, flags, options)
    if wrong is not None:
        warnings.warn(wrong, WrongMaterialWarning, stacklevel=2)
    else:
        for note in lattice_warnings(lattices, movie, chosen, opened.notes):
            warnings.warn(note, stacklevel=2)
    return atoms


def adapt(
    frames: Frames,
    *,
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
    pixel_size_A: float | None = None,
    fit_scale: bool = False,
    weights: str | Path | None = None,
    options: AdaptOptions | None = None,
    find_options: FindOptions | None = None,
    seed: int = 0,
) -> Adapted:
    """Retrain an ensemble on the first frames of an experiment, without a label.

    Parameters
    ----------
    frames, material, zone_axis, pixel_size_A, fit_scale, weights
        As of `find`.
    options
        Rounds, steps, frames.
    find_options
        How atoms are found, here and later: the adapted ensemble is calibrated for them.
    seed
        Seed of the training and of its simulated frames.

    Returns
    -------
    `Adapted.ensemble` and what every round did; `adatom.learning.weights.save` writes it to a file
    that `find` takes as `weights`. In a script, call it under ``if __name__ == "__main__":``, as
    every use of processes must be.

    Raises
    ------
    BadInput
        If a frame cannot be used, or the frames do not show the material.

    Examples
    --------
    Frames that do not show the material are refused, because the networks would learn wrong labels:

    >>> import numpy as np
    >>> import adatom as ad
    >>> noise = np.random.default_rng(0).poisson(3.0, (1, 128, 128))
    >>> try:
    ...     adapted = ad.adapt(noise, material="graphene", pixel_size_A=0.12)
    ... except ad.AdatomError as error:
    ...     print(error.expected[:40])
    atoms that stand as in graphene: its lat
    """
    if material is not None:  # missing networks are told of before frames are read
        read_ensemble(material, zone_axis, weights)
    opened = _open(frames, material, zone_axis, pixel_size_A, fit_scale=fit_scale)
    chosen, movie = opened.material, opened.movie
    ensemble = read_ensemble(opened.named, zone_axis, weights)
    for note in opened.notes:
        warnings.warn(note, stacklevel=2)
    first = min((options or AdaptOptions()).frames, len(movie))
    some = [movie[i] for i in range(first)]
    return adapt_ensemble(
        some, chosen, ensemble, options, find_options=find_options, seed=checked_seed(seed)
    )


def find_defects(
    frames: Frames,
    atoms: AtomTable,
    *,
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
    pixel_size_A: float | None = None,
    fit_scale: bool = False,
) -> DefectTable:
    """Name the defects of every frame.

    Atoms from `find` come with the sites that were tested for a missing atom, so the defects are
    those of ``adatom find``. For other atoms, every lattice site is tested against the image, which
    takes a refinement of each frame.

    Parameters
    ----------
    frames, material, zone_axis, pixel_size_A, fit_scale
        As of `find`: with the same values, frames and atoms have the same scale.
    atoms
        Atoms of these frames.

    Warns
    -----
    UserWarning
        If the lattice contradicts the pixel size, as `find` does.

    Returns
    -------
    Defects of all frames; `DefectTable.data` is a polars table.

    Raises
    ------
    BadInput
        If a frame cannot be used or no scale is known.

    Examples
    --------
    >>> import adatom as ad
    >>> frames, pixel_size_A = ad.example_frames(1)
    >>> given = {"material": "graphene", "pixel_size_A": pixel_size_A}
    >>> atoms = ad.find(frames, **given)
    >>> defects = ad.find_defects(frames, atoms, **given)
    >>> sorted(defects.data["kind"])
    ['Si1C3', 'V1']
    """
    opened = _open(frames, material, zone_axis, pixel_size_A, fit_scale=fit_scale)
    chosen, movie = opened.material, opened.movie
    for note in opened.notes:
        warnings.warn(note, stacklevel=2)

    def named(frame: Frame) -> DefectTable:
        own = atoms.of_frame(frame.index)
        return name_defects(frame, own, lattice_of(own, chosen), chosen)

    return DefectTable.concat(map(named, movie))


def supercells(
    atoms: AtomTable | StructureLike | Sequence[StructureLike],
    *,
    frame: int = 0,
    center_xy_A: tuple[float, float] | None = None,
    kind: str = "defect",
    material: MaterialLike = "graphene",
    zone_axis: ZoneAxis = ALONG_C,
    extent_xy_A: tuple[float, float] | None = None,
    draws: int = 4,
    seed: int = 0,
    options: SupercellOptions | None = None,
) -> list[Structure]:
    """Build a periodic supercell around a point of a frame, and sample from its uncertainty.

    Parameters
    ----------
    atoms
        Table from `find`; or exact positions as `ase.Atoms` or `Structure`, or a sequence with one
        of them per frame: x and y in Å as in the image, y down.
    frame
        Number of the frame.
    center_xy_A
        Middle of the defect, Å, measured axes; by default the mean position of the impurity atoms,
        or of all atoms.
    kind
        Name for the structures.
    material, zone_axis
        The crystal, as of `find`.
    extent_xy_A
        Far corner of the frame, Å; by default that of the atoms.
    draws
        Number of structures to sample.
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

    Examples
    --------
    >>> import adatom as ad
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(12, 12, 1), vacuum=5.0)
    >>> sheet.symbols[160] = "Si"
    >>> cells = ad.supercells(sheet, draws=1)
    >>> [cell.to_ase().symbols.count("Si") for cell in cells]
    [1, 1]
    """
    chosen = read_material(material, zone_axis)
    table = atoms if isinstance(atoms, AtomTable) else table_of(atoms)
    if frame not in table.frames:
        raise BadInput(
            "`frame`",
            expected="a frame that has atoms: " + (_listed(table.frames) or "there is none"),
            got=str(frame),
            todo="Name the number of one of these frames.",
        )
    own = table.of_frame(frame)
    lattice = lattice_of(own, chosen)
    if lattice is None:
        raise BadInput(
            f"frame {frame}",
            expected=f"at least a dozen atoms on a {chosen.name} lattice",
            got=f"{int(own.is_likely.sum())} atoms without one",
            todo="Check `material` and `pixel_size_A`.",
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
    rng = np.random.default_rng(checked_seed(seed))
    likeliest = build_supercell(own, lattice, extent, **common)
    return [likeliest, *sample_structures(own, lattice, extent, count=draws, rng=rng, **common)]


def simulate(
    structures: StructureLike | Sequence[StructureLike],
    *,
    temperatures_K: Sequence[float] = (300.0, 900.0),
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
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
        One supercell or several at the material's lattice constant, as `Structure` or `ase.Atoms`.
        A sheet may be wrapped across its cell, and turned: the results have it in the plane of the
        first two cell vectors. Atoms stay where ``ase.constraints.FixAtoms`` fixes them.
    temperatures_K
        Temperatures of the dynamics, K; empty for relaxations only.
    material, zone_axis
        The crystal, as of `find`; it sets the lattice constants to scale between. By default, the
        built-in sheet that has each structure's elements and distances.
    relax_options, dynamics_options
        Convergence, lengths.
    relax_engine, dynamics_engine
        Names of engines; `adatom doctor` lists those of all installed packages.
    seed
        Seed of the dynamics; every structure gets its own from it.
    workers
        Number of processes; by default one per core. In a script, call it under ``if __name__ ==
        "__main__":``, as every use of processes must be.

    Warns
    -----
    UserWarning
        If an engine computes a structure badly: GFN1-xTB with a cell that is small for the Γ point.

    Returns
    -------
    The relaxations in the order of the structures, then the dynamics. A structure that cannot be
    simulated has the status ``failed: <why>``, and the others are simulated.

    Raises
    ------
    BadInput
        If a temperature is not positive, or if no structure can be simulated: it has no cell or no
        vacuum, is not of the material, or has constraints other than ``FixAtoms``.
    EngineMissing
        If an engine is not installed; the message says how to install it.

    Examples
    --------
    >>> import adatom as ad
    >>> from ase.build import graphene
    >>> (result,) = ad.simulate(graphene(size=(4, 4, 1), vacuum=5.0), temperatures_K=[], workers=1)
    >>> result.task, result.status
    ('relax', 'done')
    """
    config = _defaults()
    engines = Engines(
        relax_engine or config.simulate.relax_engine,
        dynamics_engine or config.simulate.dynamics_engine,
        relax_options or config.relax,
        dynamics_options or config.dynamics,
    )
    return simulate_given(
        read_structures(structures),
        None if material is None else read_material(material, zone_axis),
        engines,
        checked_temperatures(temperatures_K),
        first_seed=checked_seed(seed) + 1,
        workers=workers,
    )


def advise(
    atoms: AtomTable,
    defects: DefectTable,
    results: Sequence[SimulationResult] = (),
    *,
    material: MaterialLike = "graphene",
    zone_axis: ZoneAxis = ALONG_C,
    frame_dose_per_A2: float | None = None,
    voltage_kV: float = 60.0,
) -> list[Advice]:
    """Rank the next actions of an experiment: scans, voltage, where to put the beam.

    Parameters
    ----------
    atoms, defects, results
        From `find`, `find_defects`, `simulate`.
    material, zone_axis
        The crystal, as of `find`.
    frame_dose_per_A2
        Electrons per Å² and frame, where known.
    voltage_kV
        Acceleration voltage of the frames, kV.

    Returns
    -------
    Actions, best first, each with its reason, expected gain and dose.

    Raises
    ------
    BadInput
        If the dose is not a positive number.

    Examples
    --------
    >>> import adatom as ad
    >>> from adatom.core import AtomTable, DefectTable
    >>> [advice.action for advice in ad.advise(AtomTable.empty(), DefectTable.empty())]
    ['stop']
    """
    if not voltage_kV > 0:
        raise BadInput(
            "`voltage_kV`",
            expected="an acceleration voltage above 0 kV",
            got=repr(voltage_kV),
            todo="Give the voltage of the frames.",
        )
    return _advise(
        atoms,
        defects,
        species=len(read_material(material, zone_axis).species),
        frame_dose_per_A2=frame_dose_per_A2,
        results=results,
        voltage_kV=voltage_kV,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """Frames whose material and scale are settled; `named` is what the user calls the material."""

    movie: Movie
    material: Material
    named: MaterialLike
    notes: tuple[str, ...]
    screening: Screening | None


def _open(
    frames: Frames,
    material: MaterialLike | None,
    zone_axis: ZoneAxis,
    pixel_size_A: float | None,
    *,
    fit_scale: bool,
) -> _Opened:
    """Read frames, choose the material if none is named, and settle the scale.

    The notes of a `Movie` are not repeated: the user read it and has them in `Movie.notes`.
    """
    named = None if material is None else read_material(material, zone_axis)
    given = isinstance(frames, Movie)
    movie = frames if isinstance(frames, Movie) else read(frames, pixel_size_A=pixel_size_A)
    movie, left_out = checked_frames(movie, Silent())
    notes = (*(() if given else movie.notes), *left_out)
    screening = None
    if material is None or named is None:
        material, screening = choose_material(movie)
        named = read_material(material, zone_axis)
        notes = (*notes, chosen_note(material, screening))
    movie, more = settle_scale(movie, named, fit=fit_scale)
    return _Opened(movie, named, material, (*notes, *more), screening)


def _listed(frames: Sequence[int]) -> str:
    """Numbers of frames in words, the first and the last of many."""
    return ", ".join(map(str, frames)) if len(frames) < 5 else f"{frames[0]} to {frames[-1]}"


def _defaults() -> Config:
    """Default options of all steps; the input is not used."""
    return Config(input=InputOptions(paths=("array",)))


def _center(atoms: AtomTable, material: Material) -> tuple[float, float]:
    impurity = atoms.elements != material.host
    x, y = (atoms.xy[impurity] if impurity.any() else atoms.xy).mean(axis=0)
    return float(x), float(y)
