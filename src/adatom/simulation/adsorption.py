"""Ad-atoms on a sheet: where they end, and how strongly they are bound there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import ase
import numpy as np
from ase.neighborlist import natural_cutoffs, neighbor_list
from threadpoolctl import threadpool_limits

from adatom.core import SimulationResult, SimulationTask
from adatom.errors import AdatomError, BadInput, StepFailed
from adatom.simulation.energies import Site, place_adatom
from adatom.simulation.engines.base import Engine, require
from adatom.simulation.fitness import check_fitness
from adatom.simulation.options import RelaxOptions
from adatom.simulation.relaxation import relax
from adatom.simulation.sheet import lay_flat, without_charges

SITES: tuple[Site, ...] = ("hollow", "bridge", "top")
_BOND = 1.2  # bonds are up to this factor longer than the sum of the covalent radii
_FREE_BOX_A = 14.0  # edge of the cell of a free atom, Å
# Of ad-atoms: forces small enough to leave a site that is no minimum, and the given start.
RELAX = RelaxOptions(fmax_eV_A=0.02, max_steps=400, max_seconds=1800.0, prepare=False)


@dataclass(frozen=True, slots=True, eq=False)
class AdatomState:
    """An ad-atom that was started over one site, where it came to rest.

    Parameters
    ----------
    start
        Site that it was put over: ``hollow``, ``bridge`` or ``top``.
    end
        Where it is: ``top``, ``bridge`` or ``hollow`` by its one, two or more bonds; ``in the
        sheet``; ``free`` without bonds.
    adsorption_eV
        Energy over that of the sheet and the free atom, eV, negative where it is bound; NaN where
        the engine has no free atom.
    height_A
        Height over its nearest neighbour in the sheet, Å.
    bonds_A
        Lengths of its bonds, Å, rising.
    result
        The relaxation; the ad-atom is the last atom.
    """

    start: Site
    end: str
    adsorption_eV: float
    height_A: float
    bonds_A: tuple[float, ...]
    result: SimulationResult


@dataclass(frozen=True, slots=True, eq=False)
class Adsorption:
    """Ad-atoms of one element on one sheet.

    Parameters
    ----------
    structure, element, engine
        Names.
    states
        One for each start that finished, the most stable first.
    failed
        Pairs of start and reason.
    reference
        What the adsorption energies are measured from, or why there are none.
    notes
        What has to be known of them.
    """

    structure: str
    element: str
    engine: str
    states: tuple[AdatomState, ...]
    failed: tuple[tuple[str, str], ...]
    reference: str
    notes: tuple[str, ...] = ()


def adsorb(
    task: SimulationTask,
    element: str,
    *,
    near_xy_A: tuple[float, float] | None = None,
    sites: Sequence[Site] = SITES,
    options: RelaxOptions | None = None,
) -> Adsorption:
    """Put an ad-atom over sites of a sheet, relax it from each, and give its adsorption energies.

    Parameters
    ----------
    task
        A task ``relax`` of the sheet without the ad-atom; its engine and material are used.
    element
        Chemical symbol of the ad-atom.
    near_xy_A
        The site of each kind nearest to this point is taken, Å; by default the middle of the cell.
    sites
        Kinds of site to start over.
    options
        Of the relaxations.

    Raises
    ------
    BadInput
        If there is no such element or site, or the engine does not cover it or is not fit for
        ad-atoms.
    StepFailed
        If the sheet, or every start, fails.

    Examples
    --------
    >>> from ase.build import graphene
    >>> from adatom.core import GRAPHENE, Structure
    >>> sheet = Structure.from_ase(graphene(size=(4, 4, 1), a=2.46, vacuum=8.0))
    >>> task = SimulationTask(sheet, "relax", "gfn1-xtb", material=GRAPHENE)
    >>> adsorb(task, "H", sites=["top"]).states[0].end
    'top'
    """
    o = options or RELAX
    engine = require(task.engine, "relax")
    bare = without_charges(lay_flat(task.structure))
    cell = bare.atoms.cell.array
    middle = 0.5 * (cell[0] + cell[1])
    point = (float(middle[0]), float(middle[1])) if near_xy_A is None else near_xy_A
    placed = {site: place_adatom(bare, element, site, point) for site in dict.fromkeys(sites)}
    if not placed:
        raise BadInput(
            "sites", expected="one of " + ", ".join(SITES), got="none", todo="Name a site."
        )
    engine.check_elements(set(next(iter(placed.values())).atoms.get_chemical_symbols()))
    notes = [n for s in placed.values() for n in check_fitness(engine, replace(task, structure=s))]
    sheet = relax(replace(task, structure=bare), o)
    if sheet.status != "done":
        raise StepFailed(
            f"sheet {bare.name}", expected="a relaxed sheet", got=sheet.status,
            todo="Allow more steps or seconds.",
        )  # fmt: skip
    atom_eV, reference = _free_atom(engine, element)
    states, failed = [], []
    for site, structure in placed.items():
        result = relax(replace(task, structure=structure), o)
        if result.status == "done":
            bound = result.energy_eV - sheet.energy_eV - atom_eV
            states.append(_state(site, bound, result))
        else:
            failed.append((site, result.status))
        notes += result.notes
    if not states:
        raise StepFailed(
            f"{element} on {bare.name}", expected="a start that relaxes",
            got="; ".join(f"{site}: {why}" for site, why in failed),
            todo="Allow more steps or seconds, or another engine.",
        )  # fmt: skip
    states.sort(key=lambda s: s.result.energy_eV)
    return Adsorption(
        bare.name, element, sheet.engine, tuple(states), tuple(failed), reference,
        tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def site_of(atoms: ase.Atoms, index: int) -> tuple[str, tuple[float, ...]]:
    """Tell over which site of a sheet an atom is, by its bonds.

    Parameters
    ----------
    atoms
        Periodic, the sheet in the xy plane.
    index
        Number of the atom.

    Returns
    -------
    ``top``, ``bridge``, ``hollow``, ``in the sheet`` or ``free``; and the lengths of its bonds, Å.

    Examples
    --------
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    >>> sheet.append(ase.Atom("C", sheet.positions[[0, 1]].mean(axis=0) + [0.0, 0.0, 1.3]))
    >>> site_of(sheet, 32)[0], site_of(sheet, 5)[0], len(site_of(sheet, 5)[1])
    ('bridge', 'in the sheet', 3)
    """
    i, j, d = neighbor_list("ijd", atoms, natural_cutoffs(atoms, mult=_BOND))
    bonds = tuple(sorted(round(float(x), 3) for x in d[i == index]))
    neighbours = j[i == index]
    if not len(neighbours):
        return "free", ()
    side = atoms.positions[index, 2] - atoms.positions[neighbours, 2]
    # An atom of the sheet has its neighbours around it, an ad-atom below or above it.
    if len(neighbours) > 1 and abs(side.mean()) < 0.5:
        return "in the sheet", bonds
    return ("top", "bridge", "hollow")[min(len(neighbours), 3) - 1], bonds


def _state(site: Site, bound_eV: float, result: SimulationResult) -> AdatomState:
    atoms = result.trajectory[-1]
    last = len(atoms) - 1
    end, bonds = site_of(atoms, last)
    nearest = int(np.argmin(atoms.get_distances(last, range(last), mic=True)))
    height = abs(float(atoms.positions[last, 2] - atoms.positions[nearest, 2]))
    return AdatomState(site, end, float(bound_eV), height, bonds, result)


def _free_atom(engine: Engine, element: str) -> tuple[float, str]:
    """Energy of a free atom, eV, and what it is; NaN where the engine is not made for one."""
    if "free atoms" in engine.not_for:
        return float("nan"), f"none ({engine.name} is not for free atoms)"
    atom = ase.Atoms(element, cell=[_FREE_BOX_A] * 3, pbc=True)
    atom.center()
    try:
        with threadpool_limits(limits=1), engine.calculator(atom, RelaxOptions()) as calculator:
            atom.calc = calculator
            energy = float(atom.get_potential_energy())
    except (AdatomError, RuntimeError, ValueError, ArithmeticError) as error:
        why = error.got if isinstance(error, AdatomError) else str(error).strip()
        return float("nan"), f"none (the free atom fails in {engine.name}: {why})"
    return energy, f"the relaxed sheet and the free {element} atom at {energy:.3f} eV, without spin"
