"""Choose material and engine for the tasks on structures that the user gives."""

from __future__ import annotations

import warnings

from adatom.campaign.given import material_of_structure
from adatom.core import Material, SimulationTask, Structure
from adatom.simulation import caution, engine_for, place_adatom
from adatom.simulation.sheet import check_sheet_of, lay_flat


def task_of(
    structure: Structure,
    material: Material | None,
    engine: str,
    *,
    allow_unfit: bool = False,
    fit_for_adatom: str = "",
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
    fit_for_adatom
        Chemical symbol of an ad-atom that the engine must be fit for on this structure.

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
    asked = flat
    if fit_for_adatom:
        a, b = flat.atoms.cell.array[:2, :2]
        asked = place_adatom(flat, fit_for_adatom, "bridge", tuple(0.5 * (a + b)))
    name = engine_for(engine, "relax", [asked], chosen)
    text = caution(name, flat, chosen)
    if text:
        warnings.warn(text, stacklevel=3)
    return SimulationTask(flat, "relax", name, material=chosen, allow_unfit=allow_unfit)
