"""Tasks beyond relaxation and heat: barriers, vibrations, ad-atoms, displacement thresholds."""

from __future__ import annotations

from adatom.campaign.arguments import (
    ALONG_C,
    MaterialLike,
    StructureLike,
    ZoneAxis,
    read_material,
    read_structures,
)
from adatom.campaign.tasks import task_of
from adatom.core import Material, Structure
from adatom.errors import BadInput
from adatom.simulation import AUTO
from adatom.simulation.barrier import Barrier, BarrierOptions, find_barrier


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


def _one(given: StructureLike) -> Structure:
    structures = read_structures(given)
    if len(structures) != 1:
        raise BadInput(
            "structure", expected="one", got=str(len(structures)), todo="Give them one by one."
        )
    return structures[0]


def _material(material: MaterialLike | None, zone_axis: ZoneAxis) -> Material | None:
    return None if material is None else read_material(material, zone_axis)
