"""The steps after the frames: supercells, simulations, advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adatom.analysis.lattice import lattice_of
from adatom.campaign.advise import damage_options
from adatom.campaign.arguments import (
    ALONG_C,
    MaterialLike,
    StructureLike,
    ZoneAxis,
    checked_seed,
    checked_temperatures,
    read_material,
    read_structures,
    table_of,
)
from adatom.campaign.config import Config, InputOptions
from adatom.campaign.given import Engines, simulate_given
from adatom.core import (
    Acquisition,
    Advice,
    AtomTable,
    DefectTable,
    Material,
    Movie,
    SimulationResult,
    Structure,
)
from adatom.errors import BadInput
from adatom.feedback import advise as _advise
from adatom.simulation import DynamicsOptions, RelaxOptions, read_reservoirs
from adatom.structures import SupercellOptions, build_supercell, sample_structures


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
    table = atoms if isinstance(atoms, AtomTable) else table_of(atoms, chosen)
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
    allow_unfit: bool = False,
    mu: str | Sequence[str] | Mapping[str, float] = (),
    seed: int = 0,
    workers: int | None = None,
) -> list[SimulationResult]:
    """Relax structures, then heat each, by default in the first engines that are fit for them.

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
        Names of engines; `adatom doctor` lists those of all installed packages. Or the import path
        of any ASE calculator, such as ``my_module:make_calculator``. By default, each structure
        gets the first that is installed and fit for it: `adatom.simulation.choose_engine`.
    allow_unfit
        Run an engine also on what it says that it is not fit for; the results' `notes` say so.
    mu
        Reservoirs of the formation energies beside the crystal: ``["S-rich"]`` for atoms of S from
        the element, or the energy of one atom in eV, ``{"Si": -5.4}``.
    seed
        Seed of the dynamics; every structure gets its own from it.
    workers
        Number of processes; by default one per core.

    Warns
    -----
    UserWarning
        If an engine computes a structure badly: GFN1-xTB with a cell that is small for the Γ point.

    Returns
    -------
    The relaxations in the order of the structures, then the dynamics. A relaxation has its
    `formation_energy_eV` over the perfect crystal in its cell and the reservoirs, where these
    settle it; `reference` says them, or why there is none. A structure that cannot be simulated
    has the status ``failed: <why>``, and the others are simulated.

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
        allow_unfit,
        read_reservoirs(mu),
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
    frames: Movie | None = None,
    frame_dose_per_A2: float | None = None,
    voltage_kV: float | None = None,
) -> list[Advice]:
    """Rank the next actions of an experiment: scans, voltage, where to put the beam.

    Parameters
    ----------
    atoms, defects, results
        From `find`, `find_defects`, `simulate`.
    material, zone_axis
        The crystal, as of `find`.
    frames
        The movie, from `read`: dose and voltage of its files are used where none are given.
    frame_dose_per_A2
        Electrons per Å² and frame, where known.
    voltage_kV
        Acceleration voltage of the frames, kV; 60 where neither it nor the files tell.

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
    if voltage_kV is not None and not voltage_kV > 0:
        raise BadInput(
            "`voltage_kV`",
            expected="an acceleration voltage above 0 kV",
            got=repr(voltage_kV),
            todo="Give the voltage of the frames.",
        )
    given = Acquisition(voltage_kV=voltage_kV, dose_per_A2=frame_dose_per_A2)
    recorded = given if frames is None else given.or_else(frames.acquisition)
    voltage = recorded.usual_voltage_kV
    chosen = read_material(material, zone_axis)
    return _advise(
        atoms,
        defects,
        species=len(chosen.species),
        frame_dose_per_A2=recorded.dose_per_A2,
        results=results,
        **damage_options(chosen, voltage),
        voltage_kV=voltage,
    )


def _listed(frames: Sequence[int]) -> str:
    """Numbers of frames in words, the first and the last of many."""
    return ", ".join(map(str, frames)) if len(frames) < 5 else f"{frames[0]} to {frames[-1]}"


def _defaults() -> Config:
    """Default options of all steps; the input is not used."""
    return Config(input=InputOptions(paths=("array",)))


def _center(atoms: AtomTable, material: Material) -> tuple[float, float]:
    impurity = ~np.isin(atoms.elements, material.site_species)
    x, y = (atoms.xy[impurity] if impurity.any() else atoms.xy).mean(axis=0)
    return float(x), float(y)
