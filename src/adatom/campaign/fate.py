"""What became of the defects in a molecular dynamics run, named as those of images are.

Atoms of a geometry are seen from above, on the lattice of the material, and named by the material's
defect namer. Atoms on the sheet, and those that left it, are told by their bonds in three
dimensions: seen from above they may stand over atoms of the sheet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import ase
import numpy as np
from scipy.spatial import cKDTree

from adatom.analysis.lattice import lattice_of
from adatom.campaign.arguments import table_of
from adatom.core import (
    Adatom,
    AtomTable,
    EmptySites,
    Lattice,
    Material,
    SimulationResult,
    SimulationTask,
)
from adatom.core.arrays import FloatArray
from adatom.core.plugins import DEFECT_NAMERS, plugin
from adatom.errors import AdatomError
from adatom.features.defects.base import DefectNamer, DefectOptions
from adatom.features.defects.sites import lattice_sites
from adatom.simulation import DynamicsOptions, adatoms, dynamics
from adatom.simulation.adsorption import site_of

_LEFT_A = 3.0  # Å: an atom without bonds this far from the sheet has left it
_OCCUPIED_A = 0.75  # Å: as of `DefectOptions.site_tolerance_A`
_SAME_A = 1.2  # Å: two copies of one defect that are nearer are one; sites are 1.42 Å apart
_LOOKS = 8  # geometries of a run that are named; each takes a fifth of a second
_MARGIN_A = 9.0  # Å: copies around the cell, so that no defect of it is near the border


@dataclass(frozen=True, slots=True)
class Event:
    """A change of the defects in a run.

    Parameters
    ----------
    time_fs
        Time of the first geometry that shows it, fs.
    before, after
        Names of the defects, sorted, such as ``("V1", "ad-C")``; empty for the perfect crystal.
    """

    time_fs: float
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of the defects of a structure.

    Parameters
    ----------
    start, end
        Names of the defects in the first and in the last geometry.
    events
        Every change between two kept geometries; what comes back between two is not seen.
    length_fs
        Time of the last geometry, fs.
    """

    start: tuple[str, ...]
    end: tuple[str, ...]
    events: tuple[Event, ...]
    length_fs: float

    def __str__(self) -> str:
        """Say it in one sentence."""
        length = f"in {self.length_fs * 1e-3:.3g} ps"
        if not self.events:
            return f"{_told(self.start)} stays {length}"
        last = self.events[-1]
        times = f"{len(self.events)} change{'s' if len(self.events) > 1 else ''} {length}"
        after = f"{last.time_fs * 1e-3:.3g} ps"
        return f"{_told(self.start)} becomes {_told(self.end)}: {times}, the last at {after}"


def fate_of(result: SimulationResult, material: Material) -> Fate:
    """Name the defects of every geometry of a run, and list the changes.

    Parameters
    ----------
    result
        Dynamics, with its trajectory.
    material
        The crystal.

    Examples
    --------
    >>> from ase.build import graphene
    >>> from adatom.core import GRAPHENE
    >>> sheet = graphene(size=(6, 6, 1), a=2.46, vacuum=8.0)
    >>> hole = sheet[1:]
    >>> result = SimulationResult(
    ...     "V1", 0, "e", "dynamics", 300.0, 0.0, 0.0, "done", 1.0, (hole, sheet)
    ... )
    >>> fate_of(result, GRAPHENE).start, fate_of(result, GRAPHENE).end
    (('V1',), ())
    """
    times = [float(a.info.get("time_fs", i)) for i, a in enumerate(result.trajectory)]
    named = [defects_of(atoms, material) for atoms in result.trajectory]
    if not named:
        return Fate((), (), (), 0.0)
    events = [
        Event(time, before, after)
        for time, before, after in zip(times[1:], named[:-1], named[1:], strict=True)
        if before != after
    ]
    return Fate(named[0], named[-1], tuple(events), times[-1])


def dynamics_with_fate(task: SimulationTask, options: DynamicsOptions) -> SimulationResult:
    """Run dynamics; its notes say what became of the defects, by at most eight geometries.

    Parameters
    ----------
    task, options
        As of `adatom.simulation.dynamics`.
    """
    result = dynamics(task, options)
    if result.status != "done" or len(result.trajectory) < 2:
        return result
    last = len(result.trajectory) - 1
    chosen = np.unique(np.linspace(0, last, min(last + 1, _LOOKS)).round().astype(int))
    few = replace(result, trajectory=tuple(result.trajectory[i] for i in chosen))
    try:
        told = str(fate_of(few, task.material))
    except (AdatomError, ValueError):  # a geometry that no namer reads: the run itself is kept
        return result
    return replace(result, notes=(*result.notes, told))


def defects_of(atoms: ase.Atoms, material: Material) -> tuple[str, ...]:
    """Name the defects of one geometry.

    Parameters
    ----------
    atoms
        A sheet in the xy plane, periodic, at any lattice constant.
    material
        The crystal.

    Returns
    -------
    Names, sorted: those of images, ``ad-C`` for atoms on the sheet, ``free-C`` for those that left.
    """
    whole = atoms.copy()
    whole.set_constraint()
    whole.pbc = (True, True, False)
    on_top = adatoms(whole)
    height = np.abs(whole.positions[:, 2] - np.median(whole.positions[:, 2]))
    far = np.flatnonzero(height > _LEFT_A)
    gone = np.zeros(len(whole), dtype=np.bool_)
    gone[[i for i in far if site_of(whole, int(i))[0] == "free"]] = True
    names = [f"free-{s}" for s in whole.symbols[gone]]
    names += [str(Adatom.of([s])) for s in whole.symbols[on_top & ~gone]]
    sheet = whole[~(on_top | gone)]
    if len(sheet):
        names += _in_sheet(sheet, material)
    return tuple(sorted(names))


def _in_sheet(sheet: ase.Atoms, material: Material) -> list[str]:
    """Names of the defects in a sheet without ad-atoms."""
    table, cell, margin = _seen(sheet, material)
    lattice = lattice_of(table, material)
    if lattice is None:
        return ["no lattice"]
    extent = table.xy.max(axis=0)
    namer: DefectNamer = plugin(DEFECT_NAMERS, material.defect_namer, DefectNamer)
    found = namer.name_defects(
        table, lattice, material, (float(extent[0]), float(extent[1])),
        _empty(table, lattice, extent), 0, DefectOptions(),
    )  # fmt: skip
    # Of the copies of a defect one is kept. At the border of the cell, none or two may lie inside.
    xy = found.data.select("x_A", "y_A").to_numpy() - margin
    at = np.linalg.solve(cell.T, xy.T).T
    near = _SAME_A / abs(np.linalg.det(cell)) * np.linalg.norm(cell, axis=1)[::-1]
    kept: list[int] = []
    for i in np.flatnonzero(((at >= -near) & (at < 1.0 + near)).all(axis=1)):
        apart = at[kept] - at[i]
        apart = np.linalg.norm((apart - np.round(apart)) @ cell, axis=1)
        same = [found.kinds[k] == found.kinds[i] for k in kept]
        if not np.any((apart < _SAME_A) & np.array(same, dtype=np.bool_)):
            kept.append(int(i))
    return [str(found.kinds[i]) for i in kept]


def _seen(sheet: ase.Atoms, material: Material) -> tuple[AtomTable, FloatArray, FloatArray]:
    """Atoms in a rectangle around the cell; the cell in the plane, and its corner, Å."""
    cell = sheet.cell.array[:2, :2]
    corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) @ cell
    low, high = corners.min(axis=0) - _MARGIN_A, corners.max(axis=0) + _MARGIN_A
    reach = np.array([(x, y) for x in (low[0], high[0]) for y in (low[1], high[1])])
    ends = np.linalg.solve(cell.T, reach.T).T
    first, last = np.floor(ends.min(axis=0)) - 1, np.ceil(ends.max(axis=0)) + 1
    wrapped = sheet.copy()
    wrapped.wrap()
    parts = []
    for u in np.arange(first[0], last[0]):
        for v in np.arange(first[1], last[1]):
            copy = wrapped.copy()
            copy.positions[:, :2] += np.array([u, v]) @ cell - low
            inside = ((copy.positions[:, :2] >= 0) & (copy.positions[:, :2] <= high - low)).all(
                axis=1
            )
            parts.append(copy[inside])
    every = parts[0]
    for part in parts[1:]:
        every += part
    return table_of(every, material), cell, -low


def _empty(table: AtomTable, lattice: Lattice, extent: FloatArray) -> EmptySites:
    """Every lattice site, and whether no atom is on it."""
    sites = lattice_sites(lattice, (float(extent[0]), float(extent[1]))).measured_xy
    far, _ = cKDTree(table.xy).query(sites)
    return EmptySites(sites, (far > _OCCUPIED_A).astype(np.float64))


def _told(names: tuple[str, ...]) -> str:
    """Names in words."""
    return " + ".join(names) or "perfect crystal"
