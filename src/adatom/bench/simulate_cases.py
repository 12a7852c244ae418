"""Defects with a known relaxed structure, frames of them, and what is found there.

The truth is a minimum of the classical potential that later relaxes what the frame gives, in a cell
more than twice as wide: what is measured is what image, draws and cell do to an energy, and nothing
of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import ase
import numpy as np
import polars as pl
from ase.neighborlist import neighbor_list
from scipy.spatial import cKDTree

from adatom.analysis.frame import analyse_frame
from adatom.campaign.build import choose_defects, supercell_and_draws
from adatom.campaign.config import Config
from adatom.campaign.find import MovieResult
from adatom.core import Calibration, Frame, Lattice, Material, Structure
from adatom.core.arrays import FloatArray
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import expected_image
from adatom.learning.weights import load_shipped
from adatom.materials.library import load_material
from adatom.simulation.buckling import is_one_atom_thick, lowest_minimum
from adatom.simulation.classical import POTENTIALS, Potential, Sheet
from adatom.simulation.engines.lammps import ENGINE as LAMMPS
from adatom.simulation.scaling import scale_to
from adatom.structures import SupercellOptions, pristine_supercell
from adatom.structures.supercell import box_at

# The defects, by material: `changed` makes each in a perfect sheet.
KINDS = {
    "graphene": ("V1", "Si1C3", "Si1C4", "SW", "V2"),
    "MoS2": ("one S", "both S", "two S"),
}
_WIDTHS_A = (34.0, 48.0)  # Å: no copy of the defect is inside of a frame
_BONDED_A, _PULL_A = 1.75, 0.3  # Å: longest bond of C; way of each atom of a pair that bonds
_FINE_EV_A = 1e-3  # largest force left in the truth, eV/Å
_RIPPLE_A = (0.02, 0.3)  # Å: standard deviations of the heights that minimisations start from
_PIXEL_A, _PIXELS = 0.15, 192
_PROBE_A = (0.37, 0.46)  # smallest and largest standard deviation of a spot, Å
_LAID_A = 5.0  # Å: as far as atoms of a defect are laid onto each other
_NEAR_A = 4.0  # Å: a defect that is found so near to the true one is that one
_SEED = 47_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """A defect in a wide sheet, at an energy minimum of a classical potential.

    Parameters
    ----------
    atoms
        At the material's lattice constant, the defect at the origin of x and y; several copies of
        the cell beside each other.
    energy_eV, count
        Energy and atoms by element of one cell.
    perfect_eV, perfect_count
        Those of its perfect crystal.
    """

    atoms: ase.Atoms
    energy_eV: float
    count: dict[str, int]
    perfect_eV: float
    perfect_count: dict[str, int]

    def formation_energy_eV(self, mu_eV: dict[str, float]) -> float:
        """Formation energy over chemical potentials that settle all but one of the elements, eV."""
        left = next(s for s in self.perfect_count if s not in mu_eV)
        rest = self.perfect_eV - sum(
            n * mu_eV[s] for s, n in self.perfect_count.items() if s != left
        )
        mu = {**mu_eV, left: rest / self.perfect_count[left]}
        return self.energy_eV - sum(n * mu[s] for s, n in self.count.items())


@cache
def truth(material_name: str, kind: str, potential_name: str) -> Truth:
    """Make the true structure of a kind of defect: the lowest minimum of several starts.

    It is made in two wide cells. The energy is that of a cell without end, by the law of the
    distance between copies (`adatom.campaign.spread`); the structure is that of the wider cell.
    """
    material = load_material(material_name)
    potential = next(p for p in POTENTIALS if p.name == potential_name)
    a = LAMMPS.for_elements(potential.elements).lattice_constant_A(material, potential.elements)
    made = []
    for width in _WIDTHS_A:
        sheet = pristine_supercell(material, SupercellOptions(min_width_A=width)).to_ase()
        perfect_eV, _ = _minimised(scale_to(sheet, material.lattice_constant_A, a), potential)
        middle = 0.5 * (sheet.cell[0] + sheet.cell[1])[:2]
        rng = np.random.default_rng(_SEED)
        cut = changed(sheet, middle, kind)
        found = []
        for start in (cut, paired(cut)) if kind in ("V1", "V2") else (cut,):
            for ripple in _RIPPLE_A:
                rippled = start.copy()
                rippled.positions[:, 2] += rng.normal(0.0, ripple, len(start))
                found.append(
                    _minimised(scale_to(rippled, material.lattice_constant_A, a), potential)
                )
        if is_one_atom_thick(material):
            lowest = min(found, key=lambda x: x[0])[1]
            found.append(_minimised(lowest, potential, buckle=True))
        made.append((sheet, middle, perfect_eV, *min(found, key=lambda x: x[0])))
    (near, _, near_eV, near_defect_eV, _), (sheet, middle, perfect_eV, energy_eV, relaxed) = made
    ratio = float(sheet.cell.lengths()[0] / near.cell.lengths()[0])
    fall_eV = (near_defect_eV - near_eV) - (energy_eV - perfect_eV)
    out = scale_to(relaxed, a, material.lattice_constant_A)
    out.positions[:, :2] -= middle
    tiled = out.repeat((3, 3, 1))
    tiled.positions -= out.cell[0] + out.cell[1]
    endless_eV = energy_eV - fall_eV / (ratio**2 - 1.0)
    return Truth(tiled, endless_eV, _count(out), perfect_eV, _count(sheet))


def paired(atoms: ase.Atoms) -> ase.Atoms:
    """Move atoms that lack a bond towards each other, in pairs, the nearest first.

    Bonds form there behind a barrier: the divacancy of LCBOP costs 7.3 eV with them and 10.0 eV
    without, the vacancy 6.8 and 7.6 eV.
    """
    out: ase.Atoms = atoms.copy()
    bonds = np.bincount(neighbor_list("i", out, _BONDED_A), minlength=len(out))
    left = np.flatnonzero(bonds < np.bincount(bonds).argmax()).tolist()
    apart = out.get_all_distances(mic=True)
    while len(left) > 1:
        i, j = min(combinations(left, 2), key=lambda pair: apart[pair])
        step = out.get_distance(i, j, mic=True, vector=True)
        step *= _PULL_A / np.linalg.norm(step)
        out.positions[i] += step
        out.positions[j] -= step
        left = [k for k in left if k not in (i, j)]
    return out


def _count(atoms: ase.Atoms) -> dict[str, int]:
    found: dict[str, int] = atoms.symbols.formula.count()
    return found


def _minimised(
    atoms: ase.Atoms, potential: Potential, *, buckle: bool = False
) -> tuple[float, ase.Atoms]:
    """Energy and atoms of a minimum; of the lowest of several bucklings, where that is asked."""
    free = np.zeros(len(atoms), dtype=np.bool_)
    with Sheet(atoms, potential) as sheet:
        sheet.hold(free)
        found = lowest_minimum(sheet, atoms, free) if buckle else sheet.minimise(_FINE_EV_A)
        _, energy_eV = sheet.forces(found)
        out = atoms.copy()
        out.set_positions(found)
        return energy_eV, out


def changed(sheet: ase.Atoms, middle: FloatArray, kind: str) -> ase.Atoms:
    """Make a defect at the atom nearest to the middle."""
    out: ase.Atoms = sheet.copy()
    away = np.linalg.norm(out.positions[:, :2] - middle, axis=1)
    if kind.endswith("S"):
        away[np.array(out.get_chemical_symbols()) != "S"] = np.inf
    i = int(np.argmin(away))
    others = np.argsort(out.get_distances(i, range(len(out)), mic=True))[1:]
    j = int(others[0])
    if kind == "Si1C3":
        out.symbols[i] = "Si"
        out.positions[i, 2] += 1.0
    elif kind == "Si1C4":
        out.symbols[i] = "Si"
        out.positions[i] += 0.5 * out.get_distance(i, j, mic=True, vector=True)
        out.positions[i, 2] += 0.3
        del out[j]
    elif kind == "SW":
        bond = 0.46 * out.get_distance(i, j, mic=True, vector=True)
        center = out.positions[i] + bond / 0.92
        turned = np.array([-bond[1], bond[0], 0.0])
        out.positions[i], out.positions[j] = center - turned, center + turned
    elif kind == "both S":
        above = out.positions[:, :2] - out.positions[i, :2]
        del out[np.flatnonzero(np.linalg.norm(above, axis=1) < 0.1)]
    elif kind == "two S":  # the next column of S, on the same side
        side = [k for k in others if out.symbols[k] == "S"]
        beside = next(k for k in side if abs(out.positions[k, 2] - out.positions[i, 2]) < 0.5)
        del out[sorted([i, int(beside)])]
    else:
        del out[[i, j] if kind == "V2" else [i]]
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A frame of a known defect, and the structures that were built from it.

    Parameters
    ----------
    number, material, kind, dose
        What was imaged; counts at the peak of a host atom.
    structures
        The likeliest one and the draws; empty where the defect was not found.
    true_xy_A, true_elements
        The true columns in the cell's axes before its middle is added, as the frame's lattice
        gives them, shape (column, 2).
    exact_xy_A
        The same columns in the truth's own axes, shape (column, 2).
    """

    number: int
    material: str
    kind: str
    dose: float
    structures: tuple[Structure, ...]
    true_xy_A: FloatArray
    exact_xy_A: FloatArray


def potential_of(material: str, kind: str) -> str:
    """Potential of the truth: the best of those that cover its elements."""
    if material == "MoS2":
        return "rebomos"
    return "tersoff" if "Si" in kind else "lcbop"


def make_case(number: int, material_name: str, kind: str, dose: float, config: Config) -> Case:
    """Image a defect at a random place and direction, find it, and draw its structures."""
    material = load_material(material_name)
    rng = np.random.default_rng([_SEED, number, round(1000 * dose)])
    real = truth(material_name, kind, potential_of(material_name, kind))
    edge = _PIXELS * _PIXEL_A
    turn = rng.uniform(0.0, 2.0 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    center = 0.5 * edge + rng.uniform(-2.0, 2.0, 2)
    image_xy = (real.atoms.positions[:, :2] * (1.0, -1.0)) @ rotation.T + center
    seen = np.all(np.abs(image_xy - 0.5 * edge) < 0.5 * edge + 4.0, axis=1)
    atoms: ase.Atoms = real.atoms[np.flatnonzero(seen)]
    frame = imaged(image_xy[seen], atoms, material, dose, rng, number)
    result = analyse_frame(frame, load_shipped(material_name), material)
    structures: list[Structure] = []
    lattice = result.lattice
    empty = np.zeros((0, 2))
    near = empty
    if lattice is not None:
        found = MovieResult(
            result.atoms, result.defects, pl.DataFrame(), pl.DataFrame(), {number: lattice}, {},
            {}, "",
        )  # fmt: skip
        for chosen in choose_defects(found, frame.calibration.extent_xy((_PIXELS,) * 2), config):
            if np.hypot(*np.subtract(chosen.center_xy_A, center)) < _NEAR_A:
                extent = frame.calibration.extent_xy((_PIXELS, _PIXELS))
                structures = supercell_and_draws(frame, found, chosen, extent, config)
                near = _in_cell(image_xy[seen], chosen.center_xy_A, lattice, config)
                break
    exact = real.atoms.positions[seen, :2] if len(near) else empty
    return Case(number, material_name, kind, dose, tuple(structures), near, exact)


def _in_cell(
    xy: FloatArray, center_xy_A: tuple[float, float], lattice: Lattice, config: Config
) -> FloatArray:
    middle = lattice.undistort(np.array([center_xy_A]))
    return box_at(lattice, middle, config.supercell).from_image(lattice.undistort(xy))


def imaged(
    xy: FloatArray,
    atoms: ase.Atoms,
    material: Material,
    dose: float,
    rng: np.random.Generator,
    number: int,
    *,
    pixels: int = _PIXELS,
) -> Frame:
    """Make a frame of atoms at places of an image, Å, by a random probe.

    Parameters
    ----------
    xy
        Places, shape (atom, 2), Å.
    atoms
        Their elements.
    material
        Its contrast and its species.
    dose
        Counts at the peak of a host atom, a pixel.
    rng
        Of probe and counts.
    number
        Of the frame.
    pixels
        Edge of the frame.
    """
    width, stretch = rng.uniform(*_PROBE_A) * material.scale**0.5, rng.uniform(1.0, 1.06)
    conditions = Conditions(
        pixel_size_A=_PIXEL_A,
        probe_sigma_A=(width * stretch, width / stretch),
        probe_angle_rad=rng.uniform(0.0, np.pi),
        tail_fraction=rng.uniform(0.0, 0.2),
        counts=dose,
        background=rng.uniform(0.05, 0.2),
    )
    species = np.array([material.species.index(s) for s in atoms.get_chemical_symbols()])
    specimen = Specimen(xy, species, np.zeros((0, 2)))
    expected = expected_image(specimen, (pixels, pixels), material, conditions, rng)
    counts = rng.poisson(expected).astype(np.float32)
    return Frame(counts, Calibration(_PIXEL_A), index=number, source="benchmark")


def deviations(
    case: Case, xy_A: FloatArray, cell: FloatArray, radius_A: float
) -> tuple[FloatArray, list[int]]:
    """Distances of a cell's atoms near its defect from the true ones, along x and y.

    Parameters
    ----------
    case
        The case.
    xy_A
        Atoms of a structure of it, shape (atom, 2), at the material's lattice constant.
    cell
        Cell vectors, shape (3, 3).
    radius_A
        Atoms up to this far from the cell's middle count.

    Returns
    -------
    Shape (near atom, 2), after the true atoms up to 5 Å from the middle were shifted and turned
    onto the cell's; and the numbers of these atoms. Atoms without a true one within 0.6 Å are
    left out.
    """
    middle = 0.5 * (cell[0] + cell[1])[:2]
    share = (xy_A - middle) @ np.linalg.inv(cell[:2, :2])
    own = (share - np.round(share)) @ cell[:2, :2]
    distance, at = cKDTree(case.true_xy_A).query(own)
    near = np.linalg.norm(own, axis=1)
    fit = (distance < 0.6) & (near < _LAID_A)
    source, goal = case.exact_xy_A[at[fit]], own[fit]
    u, _, vt = np.linalg.svd((source - source.mean(0)).T @ (goal - goal.mean(0)))
    flip = np.diag([1.0, np.sign(np.linalg.det(u @ vt))])
    moved = (source - source.mean(0)) @ u @ flip @ vt + goal.mean(0)
    inside = np.flatnonzero(fit)[near[fit] < radius_A]
    return (goal - moved)[near[fit] < radius_A], inside.tolist()
