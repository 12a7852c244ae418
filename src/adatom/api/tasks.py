"""Tasks beyond relaxation and heat: barriers, vibrations, ad-atoms, displacement thresholds."""

from __future__ import annotations

from collections.abc import Sequence

from adatom.campaign.arguments import (
    ALONG_C,
    MaterialLike,
    StructureLike,
    ZoneAxis,
    read_material,
    read_structures,
)
from adatom.campaign.fate import Fate, fate_of
from adatom.campaign.tasks import task_of
from adatom.core import Material, SimulationResult, Structure
from adatom.errors import BadInput
from adatom.simulation import AUTO, RelaxOptions
from adatom.simulation.adsorption import SITES, Adsorption
from adatom.simulation.adsorption import adsorb as _adsorb
from adatom.simulation.barrier import Barrier, BarrierOptions, find_barrier
from adatom.simulation.displacement import DisplacementOptions, Threshold
from adatom.simulation.displacement import displacement_threshold as _threshold
from adatom.simulation.energies import Site
from adatom.simulation.vibrations import VibrationOptions, Vibrations
from adatom.simulation.vibrations import vibrate as _vibrate


def barrier(
    initial: StructureLike,
    final: StructureLike,
    *,
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
    engine: str = AUTO,
    allow_unfit: bool = False,
    options: BarrierOptions | None = None,
) -> Barrier:
    """Find the energy barrier between two states of a sheet.

    Both states are relaxed in one cell. A nudged elastic band between them, whose bonds turn where
    bonds turn, gives the way; its highest image is refined to a saddle, and the negative modes of
    its Hessian are counted.

    Parameters
    ----------
    initial, final
        The same atoms in the same cell, in any order, at the material's lattice constant. Atoms
        stay where ``ase.constraints.FixAtoms`` fixes them in the initial state.
    material, zone_axis
        The crystal, as of `find`; by default the built-in sheet that fits the initial state.
    engine
        Name of an engine, or the import path of an ASE calculator; by default the first that is
        installed and fit.
    allow_unfit
        Run an engine also on what it says that it is not fit for; the notes say so.
    options
        Images, convergence, limits.

    Returns
    -------
    Barrier in both directions, the band and the saddle, and whether that is one.

    Raises
    ------
    BadInput
        If the states have other atoms or cells, are the same, or more than one step apart.
    EngineMissing
        If the engine is not installed.

    Examples
    --------
    A Stone-Wales rotation in a small flat cell of a classical potential:

    >>> from ase.build import graphene
    >>> import numpy as np
    >>> import adatom as ad
    >>> from adatom.simulation import BarrierOptions
    >>> sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    >>> i, j = 9, 18
    >>> bond = sheet.get_distance(i, j, mic=True, vector=True)
    >>> side = 0.5 * np.array([-bond[1], bond[0], 0.0])
    >>> turned = sheet.copy()
    >>> turned.positions[[i, j]] = sheet.positions[i] + 0.5 * bond + [-side, side]
    >>> options = BarrierOptions(images=5, flat=True)
    >>> found = ad.barrier(sheet, turned, engine="lammps", options=options)
    >>> found.status, found.negative_modes, round(found.barrier_eV, 1)
    ('done', 1, 10.2)
    """
    first, last = _one(initial), _one(final)
    task = task_of(first, _material(material, zone_axis), engine, allow_unfit=allow_unfit)
    return find_barrier(task, last, options)


def vibrate(
    structure: StructureLike,
    *,
    atoms: Sequence[int] | None = None,
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
    engine: str = AUTO,
    allow_unfit: bool = False,
    options: VibrationOptions | None = None,
) -> Vibrations:
    """Compute the harmonic vibrations of a sheet: frequencies, motion of atoms, free energy.

    Parameters
    ----------
    structure
        At the material's lattice constant. Its masses are kept: set them for isotopes.
    atoms
        Numbers of the atoms that vibrate, the others being held; by default all that are not fixed.
    material, zone_axis, engine, allow_unfit
        As of `barrier`.
    options
        Displacement and convergence.

    Returns
    -------
    Frequencies and modes. `Vibrations.mean_square_velocity_m2_s2` is what knock-on damage needs.

    Raises
    ------
    BadInput
        If an atom does not exist or is fixed, or the engine is not fit.
    StepFailed
        If the structure does not relax.

    Examples
    --------
    >>> import adatom as ad
    >>> from ase.build import graphene
    >>> found = ad.vibrate(graphene(size=(5, 5, 1), a=2.46, vacuum=8.0), engine="lammps")
    >>> across = found.mean_square_velocity_m2_s2(0, 300.0)[2]
    >>> round(float(across) / 1e5, 1)
    2.9
    """
    task = task_of(_one(structure), _material(material, zone_axis), engine, allow_unfit=allow_unfit)
    return _vibrate(task, atoms, options)


def adsorb(
    structure: StructureLike,
    element: str,
    *,
    near_xy_A: tuple[float, float] | None = None,
    sites: Sequence[Site] = SITES,
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
    engine: str = AUTO,
    allow_unfit: bool = False,
    options: RelaxOptions | None = None,
) -> Adsorption:
    """Put an ad-atom over sites of a sheet, and find where it ends and how it is bound there.

    Parameters
    ----------
    structure
        The sheet without the ad-atom, at the material's lattice constant.
    element
        Chemical symbol of the ad-atom.
    near_xy_A
        The site of each kind nearest to this point is taken, Å; by default the middle of the cell.
    sites
        Starts: ``hollow``, ``bridge``, ``top``.
    material, zone_axis, engine, allow_unfit
        As of `barrier`; the engine must be fit for ad-atoms, and none that is classical is.
    options
        Of the relaxations.

    Returns
    -------
    The states, the most stable first. To see what one does at a temperature, give its last geometry
    to `simulate`, and the result to `fate`.

    Raises
    ------
    BadInput
        If there is no such element or site, or the engine is not fit for ad-atoms.
    StepFailed
        If every start fails.

    Examples
    --------
    >>> import adatom as ad
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    >>> ad.adsorb(sheet, "C", engine="lammps")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    adatom.errors.BadInput: structure C32-C-hollow in lammps: expected a structure that ...
    """
    task = task_of(
        _one(structure), _material(material, zone_axis), engine, allow_unfit=allow_unfit,
        fit_for_adatom=element,
    )  # fmt: skip
    return _adsorb(task, element, near_xy_A=near_xy_A, sites=sites, options=options)


def displacement_threshold(
    structure: StructureLike,
    atom: int,
    *,
    direction: tuple[float, float, float] = (0.0, 0.0, 1.0),
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
    engine: str = AUTO,
    allow_unfit: bool = False,
    options: DisplacementOptions | None = None,
) -> Threshold:
    """Find the least knock on an atom that moves it, and the one that drives it out.

    Parameters
    ----------
    structure
        At the material's lattice constant.
    atom
        Number of the atom.
    direction
        Direction of the knock: that of the beam.
    material, zone_axis, engine, allow_unfit
        As of `barrier`.
    options
        Interval of energies, its width at the end, time step and length.

    Raises
    ------
    BadInput
        If there is no such atom, or the interval does not hold the threshold.
    StepFailed
        If the time ran out.

    Examples
    --------
    >>> import adatom as ad
    >>> from adatom.simulation import DisplacementOptions
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    >>> coarse = DisplacementOptions(low_eV=15.0, high_eV=35.0, tolerance_eV=5.0)
    >>> found = ad.displacement_threshold(sheet, 12, engine="lammps", options=coarse)
    >>> 15.0 < found.leaves_eV < 35.0
    True
    """
    task = task_of(_one(structure), _material(material, zone_axis), engine, allow_unfit=allow_unfit)
    return _threshold(task, atom, direction=direction, options=options)


def fate(
    result: SimulationResult,
    *,
    material: MaterialLike = "graphene",
    zone_axis: ZoneAxis = ALONG_C,
) -> Fate:
    """Tell what became of the defects in a molecular dynamics run.

    Parameters
    ----------
    result
        Dynamics of `simulate`.
    material, zone_axis
        The crystal, as of `find`.

    Returns
    -------
    The defects at the start and at the end, named as those of images, and every change between.

    Examples
    --------
    >>> import adatom as ad
    >>> from adatom.core import SimulationResult
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(6, 6, 1), a=2.46, vacuum=8.0)
    >>> ran = SimulationResult("V1", 0, "e", "dynamics", 300.0, 0.0, 0.0, "done", 1.0,
    ...                        (sheet[1:], sheet))
    >>> print(ad.fate(ran))
    V1 becomes perfect crystal: 1 change in 0.001 ps, the last at 0.001 ps
    """
    return fate_of(result, read_material(material, zone_axis))


def _one(given: StructureLike) -> Structure:
    structures = read_structures(given)
    if len(structures) != 1:
        raise BadInput(
            "structure", expected="one", got=str(len(structures)), todo="Give them one by one."
        )
    return structures[0]


def _material(material: MaterialLike | None, zone_axis: ZoneAxis) -> Material | None:
    return None if material is None else read_material(material, zone_axis)
