"""Formation energies with stated chemical potentials, and ad-atoms put on a sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import ase
import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import find_mic
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.spatial import Voronoi

from adatom.core import SimulationResult, Structure
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput

_BOND = 1.15  # bonds are up to this factor longer than the sum of the covalent radii
_SAME_A = 0.3  # Å: atoms whose distances from a site differ by less are equally near
_SAME_CELL_A = 1e-4  # Å: vectors of cells that differ by less are the same
Site = Literal["top", "bridge", "hollow"]


def formation_energy_eV(
    result: SimulationResult, chemical_potentials_eV: Mapping[str, float]
) -> float:
    """Compute the energy of a structure over that of its atoms in their reservoirs.

    ``E - Σ n μ`` over the elements, for a neutral cell (Zhang & Northrup, Phys. Rev. Lett. 67, 2339
    (1991)). For a vacancy in a sheet of one element, with the energy per atom of the perfect sheet
    as μ, it is the energy of taking one atom to the edge of the sheet. For an ad-atom with the
    energy of the free atom as its μ, it is the adsorption energy.

    Parameters
    ----------
    result
        A relaxation that converged, or dynamics.
    chemical_potentials_eV
        Energy of one atom in its reservoir, eV, by chemical symbol: in the same engine, and for
        engines at the Γ point alone in a cell of the same size.

    Raises
    ------
    BadInput
        If the result failed, or an element has no chemical potential.

    Examples
    --------
    >>> found = SimulationResult(
    ...     "V1", -1, "e", "relax", 0.0, -7.0, 0.0, "done", 1.0, (ase.Atoms("C2"),)
    ... )
    >>> formation_energy_eV(found, {"C": -5.0})
    3.0
    """
    if result.status != "done" or not result.trajectory:
        raise BadInput(
            f"energy of {result.structure}",
            expected="a simulation that is done",
            got=result.status,
            todo="Relax it with more steps or more seconds.",
        )
    count = result.trajectory[-1].symbols.formula.count()
    absent = sorted(set(count) - set(chemical_potentials_eV))
    if absent:
        raise BadInput(
            "chemical potentials",
            expected="one for each of " + ", ".join(sorted(count)),
            got="none for " + ", ".join(absent),
            todo="Give the energy of one atom in its reservoir, in eV, in the same engine.",
        )
    reservoir = sum(n * chemical_potentials_eV[symbol] for symbol, n in count.items())
    return float(result.energy_eV - reservoir)


@dataclass(frozen=True, slots=True)
class ChemicalPotential:
    """A chemical potential that was chosen.

    Parameters
    ----------
    symbol
        Chemical symbol.
    energy_eV
        Energy of one atom in its reservoir, eV, in the engine of the energies.
    source
        The reservoir in words.
    """

    symbol: str
    energy_eV: float
    source: str

    def __str__(self) -> str:
        """Say it as the reference of an energy does."""
        return f"μ({self.symbol}) = {self.energy_eV:.4f} eV, {self.source}"


def against_perfect_crystal(
    result: SimulationResult,
    perfect: SimulationResult | None,
    chosen: Sequence[ChemicalPotential] = (),
) -> SimulationResult:
    """Give a relaxation its formation energy, with the perfect crystal in its cell as reservoir.

    The energy per formula unit of the perfect crystal settles the sum of the chemical potentials of
    its elements. That is enough where the structure has the elements of the crystal in their
    proportions: every defect of a crystal of one element, and defects of a compound that keep its
    composition. Each further element, and all but one of a compound's, needs a choice.

    Parameters
    ----------
    result
        A relaxation.
    perfect
        That of the perfect crystal in the same cell, by the same engine with the same settings;
        None where there is no such cell.
    chosen
        Chemical potentials that were chosen.

    Returns
    -------
    The result with its `formation_energy_eV`, NaN where there is none, and its `reference`: the
    chemical potentials, or why there is no energy.

    Examples
    --------
    >>> def relaxed(formula, energy_eV):
    ...     atoms = ase.Atoms(formula, cell=[5.0, 5.0, 20.0])
    ...     return SimulationResult(
    ...         "V1", 0, "e", "relax", 0.0, energy_eV, 0.0, "done", 1.0, (atoms,)
    ...     )
    >>> perfect = relaxed("C4", -40.0)
    >>> found = against_perfect_crystal(relaxed("C3", -22.0), perfect)
    >>> found.formation_energy_eV, found.reference
    (8.0, 'μ(C) = -10.0000 eV, of the perfect crystal C4 in the same cell')
    >>> against_perfect_crystal(relaxed("C3Si", -25.0), perfect).reference
    'none (μ(Si) not chosen)'
    >>> silicon = ChemicalPotential("Si", -4.6, "diamond Si")
    >>> found = against_perfect_crystal(relaxed("C3Si", -25.0), perfect, [silicon])
    >>> round(found.formation_energy_eV, 2)
    9.6
    """
    why = _no_reference(result, perfect)
    if why or perfect is None:
        return replace(result, reference=f"none ({why})")
    formula = perfect.trajectory[-1].symbols.formula
    unit, _ = formula.reduce()
    unit_eV = perfect.energy_eV / len(perfect.trajectory[-1]) * sum(unit.count().values())
    count = result.trajectory[-1].symbols.formula.count()
    by_symbol = {p.symbol: p for p in chosen if p.symbol in {*count, *unit.count()}}
    mu = _settled(count, unit.count(), unit_eV, {s: p.energy_eV for s, p in by_symbol.items()})
    if isinstance(mu, str):
        return replace(result, reference=f"none ({mu})")
    used = [str(p) for s, p in sorted(by_symbol.items()) if mu[s] == p.energy_eV]
    crystal = f"μ({unit:metal}) = {unit_eV:.4f} eV, of the perfect crystal {formula:metal} in the "
    return replace(
        result,
        formation_energy_eV=formation_energy_eV(result, mu),
        reference="; ".join([*used, f"{crystal}same cell"]),
    )


def _settled(
    count: Mapping[str, int],
    unit: Mapping[str, int],
    unit_eV: float,
    chosen: Mapping[str, float],
) -> dict[str, float] | str:
    """Chemical potentials, eV, of a structure's elements and the crystal's; or what is missing.

    Parameters
    ----------
    count, unit
        Atoms by element, of the structure and of a formula unit of the crystal.
    unit_eV
        Energy of that unit.
    chosen
        Chemical potentials that were chosen, eV.
    """
    own = {s: chosen[s] for s in unit if s in chosen} if len(unit) > 1 else {}
    left = sorted(set(unit) - set(own))
    if not left:
        return f"{_listed(sorted(unit))} chosen, but the crystal settles the last of them"
    shares = {Fraction(count.get(symbol, 0), n) for symbol, n in unit.items()}
    open_ = sorted(set(count) - set(unit) - set(chosen))
    open_ = open_ or (left if len(shares) > 1 and len(left) > 1 else [])
    if open_:
        return f"{_listed(open_)} not chosen"
    # Of a compound the crystal settles only the sum: what is left shares it alike.
    rest = unit_eV - sum(n * own[s] for s, n in unit.items() if s in own)
    each = rest / sum(unit[s] for s in left)
    return {s: e for s, e in chosen.items() if s not in unit} | own | dict.fromkeys(left, each)


def _listed(symbols: Sequence[str]) -> str:
    return ", ".join(f"μ({symbol})" for symbol in symbols)


def _no_reference(result: SimulationResult, perfect: SimulationResult | None) -> str:
    """Say why a relaxation has no formation energy whatever is chosen; empty where it may."""
    if result.status != "done" or not result.trajectory:
        return "the relaxation is not done"
    if perfect is None:
        return "no perfect crystal in its cell: a flake, or a cell that adatom does not make"
    if perfect.status != "done" or not perfect.trajectory:
        return f"the perfect crystal in its cell: {perfect.status}"
    atoms, crystal = result.trajectory[-1], perfect.trajectory[-1]
    cell_differs = not np.allclose(atoms.cell.array, crystal.cell.array, atol=_SAME_CELL_A)
    if cell_differs or result.engine != perfect.engine:
        return "the perfect crystal has another engine or cell"
    return ""


def place_adatom(
    structure: Structure, symbol: str, site: Site, near_xy_A: tuple[float, float]
) -> Structure:
    """Put an atom on a sheet: on top of an atom, over a bond, or over the middle of a ring.

    Parameters
    ----------
    structure
        A sheet, flat as of `adatom.simulation.sheet.lay_flat`, periodic in its plane.
    symbol
        Chemical symbol of the atom.
    site
        ``top``, ``bridge`` (the middle of two bonded atoms), or ``hollow`` (a corner of the Voronoi
        cells of the atoms as seen from above).
    near_xy_A
        The site of that kind nearest to this point is taken, Å.

    Returns
    -------
    The structure with one atom more, the last one. It is as far from its nearest neighbours as the
    sum of the covalent radii, but at least half of that above them.

    Raises
    ------
    BadInput
        If there is no such element or site.

    Examples
    --------
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    >>> made = place_adatom(Structure.from_ase(sheet), "C", "hollow", (4.0, 3.0)).atoms
    >>> round(float(np.sort(made.get_distances(32, range(32), mic=True))[0]), 2)
    1.61
    """
    if symbol not in atomic_numbers or symbol == "X":
        raise BadInput(
            f"element {symbol!r}",
            expected="a chemical symbol, such as C or Si",
            got=repr(symbol),
            todo="Name one element by its symbol.",
        )
    sheet = structure.to_ase()
    sheet.set_constraint()
    sheet.pbc = (True, True, False)
    point = np.array(near_xy_A, dtype=np.float64)
    sites = _sites(sheet, site)
    if not len(sites):
        raise BadInput(
            f"{site} site in {structure.name}",
            expected="a sheet with bonds",
            got="none",
            todo="Give a sheet, or another site.",
        )
    flat = np.column_stack([sites - point, np.zeros(len(sites))])
    ways, distance = find_mic(flat, sheet.cell, (True, True, False))
    place = point + ways[int(np.argmin(distance)), :2]
    trial = sheet.copy()
    trial.append(ase.Atom(symbol, (*place, 0.0)))
    beside = trial.get_distances(len(sheet), range(len(sheet)), mic=True, vector=True)
    across = np.linalg.norm(beside[:, :2], axis=1)
    under = across < across.min() + _SAME_A
    radii = covalent_radii[sheet.numbers[under]] + covalent_radii[atomic_numbers[symbol]]
    heights = np.sqrt(np.maximum(radii**2 - across[under] ** 2, 0.25 * radii**2))
    out = structure.to_ase()
    top_A = float((out.positions[under, 2] + heights).max())
    out.append(ase.Atom(symbol, (*place, top_A)))
    out.arrays["source_atom"][-1] = -1
    made = Structure.from_ase(out)
    return replace(made, name=f"{structure.name}-{symbol}-{site}", kind=structure.kind)


def _sites(sheet: ase.Atoms, site: Site) -> FloatArray:
    """Places of one kind in the plane, shape (place, 2), Å."""
    xy = sheet.positions[:, :2]
    if site == "top":
        return np.array(xy)
    if site == "bridge":
        i, vector = neighbor_list("iD", sheet, natural_cutoffs(sheet, mult=_BOND))
        middles: FloatArray = xy[i] + 0.5 * vector[:, :2]
        return middles
    cell = sheet.cell.array[:2, :2]
    images = np.array([(u, v) for u in (-1, 0, 1) for v in (-1, 0, 1)]) @ cell
    every = (xy[:, None, :] + images).reshape(-1, 2)
    corners = Voronoi(every).vertices
    fraction = np.linalg.solve(cell.T, corners.T).T
    own = ((fraction > -0.5) & (fraction < 1.5)).all(axis=1)
    inside: FloatArray = corners[own]
    return inside
