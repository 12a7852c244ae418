"""Choose material and engine for the tasks on structures that the user gives."""

from __future__ import annotations

import warnings

from adatom.campaign.given import material_of_structure
from adatom.core import Material, SimulationTask, Structure
from adatom.simulation import caution, engine_for
from adatom.simulation.sheet import check_sheet_of, lay_flat


def task_of(
    structure: Structure,
    material: Material | None,
    engine: str,
    *,
    allow_unfit: bool = False,
    with_atoms_like: Structure | None = None,
) -> SimulationTask:
    """Make the task of a structure: flat, of its material, for an engine that is fit for it.

    Parameters
    ----------
    structure
        A sheet, at the material's lattice constant.
    material
        The crystal; None for the built-in sheet that fits.
    engine
        Name of an engine, an import path, or ``auto``.
    allow_unfit
        Run it also where the engine says that it is not fit for the structure.
    with_atoms_like
        Another structure that the engine must be fit for, such as the sheet with an ad-atom.

    Warns
    -----
    UserWarning
        If the engine computes the structure badly, such as a small cell at the Γ point alone.

    Raises
    ------
    BadInput
        If it is no sheet of the material, or of no built-in one.
    EngineMissing
        If no engine that is fit is installed.
    """
    flat = lay_flat(structure)
    if material is not None:
        check_sheet_of(flat, material)
    chosen = material or material_of_structure(flat)
    name = engine_for(engine, "relax", [with_atoms_like or flat], chosen)
    text = caution(name, flat, chosen)
    if text:
        warnings.warn(text, stacklevel=3)
    return SimulationTask(flat, "relax", name, material=chosen, allow_unfit=allow_unfit)
