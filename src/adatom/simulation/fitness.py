"""What an engine is not fit for in a structure, and the best engine that is fit for it.

Engines say it themselves: `unfit(atoms, material)` of an engine gives the reason, or an empty
string. `relax` and `dynamics` refuse such a structure, unless the task allows it.
"""

from __future__ import annotations

from collections.abc import Sequence

import ase
import numpy as np
from ase.neighborlist import natural_cutoffs, neighbor_list
from numpy.typing import NDArray

from adatom.core import Material, SimulationTask, Structure
from adatom.errors import AdatomError, BadInput, EngineMissing
from adatom.simulation.engines.base import AUTO, Engine, Task, find_engine, require

# Bonds are up to this factor longer than the sum of the covalent radii.
_STRETCH = 1.2
_BEYOND = 1.3  # as `_STRETCH`, for atoms without bonds
_ENOUGH = 0.5  # share of the structures of a campaign for which an engine must be fit
# Engines in the order in which one is chosen where a material names none, the most accurate first.
# Dynamics run in LAMMPS; in GFN1-xTB, slowly, where LAMMPS is not fit. A missing LAMMPS is an
# error, because a user should know before hours are spent.
_ORDER: dict[Task, tuple[str, ...]] = {
    "relax": ("sevennet", "gfn1-xtb", "lammps"),
    "dynamics": ("lammps", "gfn1-xtb"),
}


def adatoms(atoms: ase.Atoms) -> NDArray[np.bool_]:
    """Find the atoms that sit on a complete sheet.

    An ad-atom's neighbours have, without it, as many neighbours as most atoms of their element. A
    substitutional atom is none: without it, its neighbours lack one.

    Parameters
    ----------
    atoms
        Periodic, positions in Å.

    Returns
    -------
    Shape (atom,), True for an ad-atom. An atom without bonds is judged by the atoms up to a tenth
    farther than a bond: over a vacancy, drawn too high, it is none; elsewhere it is one.

    Examples
    --------
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    >>> sheet.pbc = True
    >>> sheet.append(ase.Atom("C", sheet.positions[:2].mean(axis=0) + [0.0, 0.0, 1.3]))
    >>> np.flatnonzero(adatoms(sheet)).tolist()
    [32]
    """
    i, j = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=_STRETCH))
    count = np.bincount(i, minlength=len(atoms))
    usual = np.zeros(len(atoms), dtype=np.int64)
    for number in set(atoms.numbers.tolist()):
        own = atoms.numbers == number
        usual[own] = np.bincount(count[own]).argmax()
    found = np.ones(len(atoms), dtype=np.bool_)
    np.logical_and.at(found, i, count[j] > usual[j])
    if not count.all():  # heights are drawn, not seen: a Si of the sheet may lie beyond its bonds
        i, j = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=_BEYOND))
        lone = count[i] == 0
        np.logical_and.at(found, i[lone], count[j[lone]] >= usual[j[lone]])
    return found & (len(atoms) > 1)


def unfit(engine: Engine, atoms: ase.Atoms, material: Material) -> str:
    """Say why an engine is not fit for a structure; an empty string where it is.

    Parameters
    ----------
    engine
        It has a method ``unfit(atoms, material)``, or none.
    atoms
        Flat, as of `adatom.simulation.sheet.lay_flat`.
    material
        The crystal of the structure.
    """
    ask = getattr(engine, "unfit", None)
    return "" if ask is None else str(ask(atoms, material))


def check_fitness(engine: Engine, task: SimulationTask) -> tuple[str, ...]:
    """Refuse a task whose structure the engine is not fit for, unless the task allows it.

    Parameters
    ----------
    engine
        The engine that the task names.
    task
        Its structure flat, as of `adatom.simulation.sheet.lay_flat`.

    Returns
    -------
    Notes for the result: the reason where the task allows it, nothing where the engine is fit.

    Raises
    ------
    BadInput
        If the engine is not fit; the message names one that is, where one is installed.
    """
    atoms = task.structure.atoms
    if not np.isfinite(atoms.positions).all():
        return ()  # the engine reports it
    why = unfit(engine, atoms, task.material)
    if not why:
        return ()
    if task.allow_unfit:
        return (f"not fit: {why}",)
    try:
        better = f"Use {choose_engine(task.kind, [task.structure], task.material)}"
    except EngineMissing:
        better = "Install sevenn or tblite"
    raise BadInput(
        f"structure {task.structure.name} in {engine.name}",
        expected="a structure that the engine is fit for",
        got=why,
        todo=f"{better}, or allow it with `allow_unfit`.",
    )


def engine_for(name: str, kind: Task, structures: Sequence[Structure], material: Material) -> str:
    """Give the engine of a name; for ``auto`` the one that `choose_engine` chooses.

    An engine that is fit for half of the structures is enough: one draw with a rare element must
    not take the fast engine from all others. Each structure that it is not fit for is refused on
    its own. Where there is no such engine, it is chosen for the perfect crystal.

    Parameters
    ----------
    name
        Name of an engine, an import path, or ``auto``.
    kind, structures, material
        As of `choose_engine`.

    Raises
    ------
    EngineMissing
        If no engine is installed that could be chosen.
    """
    if name != AUTO:
        return name
    try:
        return choose_engine(kind, structures, material, least_share=_ENOUGH)
    except EngineMissing:
        return choose_engine(kind, [], material)


def choose_engine(
    kind: Task, structures: Sequence[Structure], material: Material, *, least_share: float = 1.0
) -> str:
    """Choose the engine of a task: the first that is installed and fit for the structures.

    Energies of two engines cannot be compared; structures that belong together get one engine.

    Parameters
    ----------
    kind
        ``relax`` or ``dynamics``.
    structures
        Flat, as of `adatom.simulation.sheet.lay_flat`.
    material
        The crystal. Its `simulated_by` is the order of relaxations, where it names engines;
        otherwise they are tried from the most accurate to the fastest.
    least_share
        Share of the structures for which it must be fit.

    Raises
    ------
    EngineMissing
        If none is; the message has the reason of each.

    Examples
    --------
    >>> from ase.build import graphene
    >>> from adatom.core import GRAPHENE
    >>> sheet = Structure.from_ase(graphene(size=(4, 4, 1), a=2.46, vacuum=8.0))
    >>> choose_engine("dynamics", [sheet], GRAPHENE)
    'lammps'
    """
    order = _ORDER[kind]
    if kind == "relax" and material.simulated_by:
        order = (*material.simulated_by, *(n for n in order if n not in material.simulated_by))
    reasons = []
    for name in order:
        try:
            engine = require(name, kind)
        except AdatomError as error:
            if kind == "dynamics":
                raise
            reasons.append(f"{name}: {error.got}")
            continue
        refused = [why for s in structures if (why := _refusal(engine, s, material))]
        if len(refused) <= (1.0 - least_share) * len(structures):
            return find_engine(name).name
        reasons.append(f"{name}: {refused[0]}")
    raise EngineMissing(
        f"engine for {kind} of {material.name}",
        expected="one that is installed and fit",
        got="; ".join(reasons),
        todo="Install one: `adatom doctor` lists what each one needs.",
    )


def second_engine(first: str, structure: Structure, material: Material) -> str:
    """Choose an engine to compare a relaxation with: the fastest other one that is fit.

    Parameters
    ----------
    first
        Name of the engine that relaxed it.
    structure, material
        As of `choose_engine`.

    Returns
    -------
    Its name; empty where none is installed and fit.

    Examples
    --------
    >>> from ase.build import graphene
    >>> from adatom.core import GRAPHENE
    >>> sheet = Structure.from_ase(graphene(size=(4, 4, 1), a=2.46, vacuum=8.0))
    >>> second_engine("gfn1-xtb", sheet, GRAPHENE), second_engine("lammps", sheet, GRAPHENE)
    ('lammps', 'gfn1-xtb')
    """
    for name in reversed(_ORDER["relax"]):
        try:
            if name != first and not _refusal(require(name, "relax"), structure, material):
                return name
        except AdatomError:
            continue
    return ""


def _refusal(engine: Engine, structure: Structure, material: Material) -> str:
    """Why an engine refuses a structure; an empty string where it does not."""
    try:
        engine.check_elements(set(structure.atoms.get_chemical_symbols()))
    except AdatomError as error:
        return error.got
    return unfit(engine, structure.atoms, material)
