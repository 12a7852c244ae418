"""Numbers that the report computes: tracks, comparable energies, thermal averages."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import ase
import numpy as np
import polars as pl
from numpy.typing import NDArray

from adatom.core import AtomTable, DefectTable, SimulationResult, Structure
from adatom.core.arrays import FloatArray
from adatom.report.view import CampaignView

UNCERTAIN_P = 0.9  # p_exists below which an atom is drawn dashed and counted as uncertain
_LONGEST = 40  # characters of a name; longer ones are cut, so that labels fit
# Control characters, which neither HTML nor fonts can show; tab and newline are allowed.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Digits to subscript digits, for formulas.
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
# Elements of a compound are at least this many to one of its commonest: SrTiO3 has 1 to 3.
_GUEST_SHARE = 0.25
_FLAT_SPAN_A = 1.5  # Å: ripples of a sheet are lower, layers of MoS2 are 3.1 apart


def median_sigma(atoms: AtomTable) -> float:
    """Median over the atoms of the position's standard deviation per axis, Å; NaN without atoms.

    For one atom it is the square root of half the trace of its covariance.
    """
    if len(atoms) == 0:
        return math.nan
    sx, sy = atoms.column("sigma_x_A"), atoms.column("sigma_y_A")
    return float(np.nanmedian(np.sqrt((sx**2 + sy**2) / 2.0)))


def printable(text: str, most: int | None = None) -> str:
    """Remove control characters and replace lone surrogates; cut to `most` characters.

    File names may contain them, but neither HTML nor a font can show them.
    """
    clean = _CONTROL.sub("", str(text).encode("utf-8", "replace").decode("utf-8"))
    return clean if most is None or len(clean) <= most else clean[: most - 1] + "…"


def formula(atoms: ase.Atoms) -> str:
    """Composition in Hill order with subscripts, such as C₁₀₉Si₃."""
    return str(atoms.get_chemical_formula()).translate(_SUBSCRIPTS)


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One defect followed through the frames.

    Parameters
    ----------
    number
        Track number; None if the defects of this row were not linked.
    frames
        Shape (n,), ascending.
    kinds
        Name of the kind in each of these frames.
    p
        Shape (n,): probability of the defect and its kind.
    xy
        Shape (n, 2), Å.
    atoms
        Numbers of its atoms in each of these frames.
    hops
        Shape (n,): hops up to each of these frames; None if they were not counted.
    origin
        Where it came from, before any change of its kind.
    p_beam
        Probability that the beam made it; NaN if unknown.
    alternatives
        What else it may be in each of these frames, as its table tells it.
    """

    number: int | None
    frames: NDArray[np.int64]
    kinds: tuple[str, ...]
    p: FloatArray
    xy: FloatArray
    atoms: tuple[tuple[int, ...], ...]
    hops: NDArray[np.int64] | None
    origin: str
    p_beam: float
    alternatives: tuple[str, ...] = ()

    @property
    def main_kind(self) -> str:
        """The kind with the largest summed probability."""
        weight: dict[str, float] = {}
        for kind, p in zip(self.kinds, self.p, strict=True):
            weight[kind] = weight.get(kind, 0.0) + (p if math.isfinite(p) else 0.0)
        return max(weight, key=lambda k: weight[k])

    @property
    def net_A(self) -> float:
        """Distance from the first to the last position, Å."""
        return float(np.linalg.norm(self.xy[-1] - self.xy[0]))

    @property
    def label(self) -> str:
        """Label in figures and tables."""
        return f"{self.main_kind}, not linked" if self.number is None else f"track {self.number}"


def tracks(defects: DefectTable) -> list[Track]:
    """Group defects by track, largest summed probability first; unlinked ones by kind."""
    table = defects.data.sort("frame")
    linked = table.filter(pl.col("track") >= 0)
    loose = table.filter((pl.col("track") < 0) | pl.col("track").is_null())
    out = [
        _track(part, int(number))
        for number in linked["track"].unique(maintain_order=True)
        if (part := linked.filter(pl.col("track") == number)).height
    ]
    out.sort(key=lambda t: (-float(np.nansum(t.p)), t.number))
    names = loose["kind"].unique(maintain_order=True)
    return out + [_track(loose.filter(pl.col("kind") == kind), None) for kind in names]


def _track(part: pl.DataFrame, number: int | None) -> Track:
    beam = part["p_beam_induced"].drop_nulls()
    return Track(
        number=number,
        frames=part["frame"].to_numpy().astype(np.int64),
        kinds=tuple(printable(k, _LONGEST) for k in part["kind"]),
        p=part["p"].fill_null(np.nan).to_numpy().astype(np.float64),
        xy=part.select("x_A", "y_A").to_numpy(),
        atoms=tuple(tuple(numbers or ()) for numbers in part["atoms"].to_list()),
        hops=None if part["hops"].has_nulls() else part["hops"].to_numpy().astype(np.int64),
        origin=str(part["origin"][0] or ""),
        p_beam=float(beam.to_numpy().mean()) if len(beam) else math.nan,
        alternatives=tuple(printable(a or "", 3 * _LONGEST) for a in part["alternatives"]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class EnergyRow:
    """The relaxed energies of one defect's samples.

    Parameters
    ----------
    label
        Name of the defect.
    results
        Its relaxations, in the order of their sample numbers.
    """

    label: str
    results: tuple[SimulationResult, ...]

    def energies(self, *, converged: bool = True) -> FloatArray:
        """Finite energies, shape (sample,), eV: of the converged relaxations, or of the others."""
        chosen = [
            r.energy_eV
            for r in self.results
            if math.isfinite(r.energy_eV) and (r.status == "done") is converged
        ]
        return np.array(chosen, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class EnergyGroup:
    """Energies that may be compared: of one composition and one engine.

    Parameters
    ----------
    composition
        Formula with subscripts, or the structure's name if the composition is not known.
    engine
        Engine with its version.
    rows
        One row per defect.
    """

    composition: str
    engine: str
    rows: tuple[EnergyRow, ...]

    @property
    def lowest_eV(self) -> float:
        """Zero of the group, eV: lowest converged energy, else lowest energy; NaN if none."""
        for converged in (True, False):
            values = np.concatenate([r.energies(converged=converged) for r in self.rows])
            if len(values):
                return float(values.min())
        return math.nan

    @property
    def results(self) -> tuple[SimulationResult, ...]:
        """All relaxations of the group."""
        return tuple(r for row in self.rows for r in row.results)


def energy_groups(view: CampaignView) -> list[EnergyGroup]:
    """Group the relaxations so that the energies within a group may be compared.

    Total energies of different compositions or engines have different zeros. Their difference has
    no meaning without chemical potentials, so they are never in one group.
    """
    groups: dict[tuple[str, str], dict[str, list[SimulationResult]]] = {}
    for result in view.results:
        if result.task != "relax":
            continue
        structure = view.structure_of(result)
        key = (_composition(result, structure), result.engine)
        rows = groups.setdefault(key, {})
        rows.setdefault(defect_label(result.structure, structure), []).append(result)
    return [
        EnergyGroup(
            composition=composition,
            engine=engine,
            rows=tuple(
                EnergyRow(label, tuple(sorted(results, key=lambda r: r.draw)))
                for label, results in rows.items()
            ),
        )
        for (composition, engine), rows in groups.items()
    ]


def defect_label(name: str, structure: Structure | None) -> str:
    """Name of the defect that a structure was built around."""
    if structure is None or structure.frame < 0:
        return printable(name, _LONGEST)
    number = f", defect {structure.defect}" if structure.defect >= 0 else ""
    return f"{printable(structure.kind, _LONGEST)}, frame {structure.frame}{number}"


def draw_label(draw: int) -> str:
    """Label of a sample."""
    return "most probable" if draw < 0 else f"draw {draw}"


def _composition(result: SimulationResult, structure: Structure | None) -> str:
    if structure is not None:
        return formula(structure.atoms)
    return (
        formula(result.trajectory[-1])
        if result.trajectory
        else printable(result.structure, _LONGEST)
    )


@dataclass(frozen=True, slots=True, eq=False)
class ThermalRun:
    """One molecular dynamics run, with averages over its second half.

    Parameters
    ----------
    result
        The engine's result.
    label
        Name of the defect.
    time_ps, temperature_K, energy_eV
        Shape (sample,).
    atoms
        Number of atoms; 0 if it is not known.
    """

    result: SimulationResult
    label: str
    time_ps: FloatArray
    temperature_K: FloatArray
    energy_eV: FloatArray
    atoms: int

    def second_half(self, series: FloatArray) -> tuple[float, float]:
        """Mean and standard deviation over the second half; NaN if no value is finite."""
        part = series[len(series) // 2 :]
        part = part[np.isfinite(part)]
        return (float(part.mean()), float(part.std())) if len(part) else (math.nan, math.nan)

    @property
    def canonical_sd_K(self) -> float:
        """Standard deviation of the temperature in the canonical ensemble, K: ``T sqrt(2 / 3N)``.

        Allen and Tildesley, Computer Simulation of Liquids (2nd ed., 2017), sec. 2.5: the kinetic
        energy of 3N degrees of freedom has a relative variance of 2/3N.
        """
        if self.atoms == 0:
            return math.nan
        return self.result.temperature_K * math.sqrt(2.0 / (3.0 * self.atoms))


def thermal_runs(view: CampaignView) -> list[ThermalRun]:
    """Collect the molecular dynamics runs, sorted by temperature; cut series to one length."""
    out = []
    for result in view.results:
        if result.task != "dynamics":
            continue
        structure = view.structure_of(result)
        trace = result.trace
        series = [
            np.asarray(trace.get(name, ()), dtype=np.float64)
            for name in ("time_fs", "temperature_K", "energy_eV")
        ]
        n = min(len(s) for s in series)
        cell = structure.atoms if structure else next(iter(result.trajectory), ase.Atoms())
        out.append(
            ThermalRun(
                result=result,
                label=defect_label(result.structure, structure),
                time_ps=series[0][:n] / 1000.0,
                temperature_K=series[1][:n],
                energy_eV=series[2][:n],
                atoms=len(cell),
            )
        )
    return sorted(out, key=lambda run: run.result.temperature_K)


def host_element(atoms: ase.Atoms) -> str:
    """The most frequent element."""
    names, counts = np.unique(atoms.get_chemical_symbols(), return_counts=True)
    return str(names[int(np.argmax(counts))])


def guest_elements(atoms: ase.Atoms) -> frozenset[str]:
    """Elements of which there are too few to be the crystal's.

    Examples
    --------
    >>> sorted(guest_elements(ase.Atoms("C30Si2"))), sorted(guest_elements(ase.Atoms("Mo24S48V")))
    (['Si'], ['V'])
    """
    names, counts = np.unique(atoms.get_chemical_symbols(), return_counts=True)
    few = counts < _GUEST_SHARE * counts.max()
    return frozenset(names[few].tolist())


def is_flat(atoms: ase.Atoms) -> bool:
    """Whether the crystal's atoms lie in one plane: "out of the plane" says something there."""
    own = np.array([s not in guest_elements(atoms) for s in atoms.get_chemical_symbols()])
    low, high = np.quantile(heights(atoms)[own], (0.1, 0.9))
    return bool(high - low < _FLAT_SPAN_A)


def heights(atoms: ase.Atoms) -> FloatArray:
    """Heights above the median of the host atoms, shape (atom,), Å.

    A sheet that an engine wrapped at the cell boundary along z is unwrapped first.
    """
    host = np.array(atoms.get_chemical_symbols()) == host_element(atoms)
    z = atoms.positions[:, 2] - atoms.positions[host, 2][0]
    length = float(atoms.cell.array[2, 2])
    if atoms.pbc[2] and length > 0:
        z = z - length * np.round(z / length)
    out: FloatArray = z - np.median(z[host])
    return out


@dataclass(frozen=True, slots=True, eq=False)
class RelaxedDefect:
    """One defect's supercell before and after relaxation, with all its relaxed samples.

    Parameters
    ----------
    label
        Name of the defect.
    built
        The supercell whose relaxation is shown.
    result
        The converged relaxation of lowest energy, else any with a geometry, else None.
    relaxed
        Last geometry of every converged sample.
    """

    label: str
    built: Structure
    result: SimulationResult | None
    relaxed: tuple[ase.Atoms, ...]

    @property
    def after(self) -> ase.Atoms | None:
        """The relaxed geometry that is shown; None if nothing was relaxed."""
        return self.result.trajectory[-1] if self.result else None


def relaxed_defects(view: CampaignView) -> list[RelaxedDefect]:
    """Choose the relaxation to show for every defect: the one of lowest energy."""
    members: dict[tuple[str, str], list[Structure]] = {}
    for structure in view.structures:
        label = defect_label(structure.name, structure)
        members.setdefault((label, formula(structure.atoms)), []).append(structure)
    out = []
    for (label, _), structures in members.items():
        answers = [
            (owner, result)
            for result in view.results
            if result.task == "relax" and result.trajectory
            if (owner := view.structure_of(result)) is not None and owner in structures
        ]
        done = [(s, r) for s, r in answers if r.status == "done" and math.isfinite(r.energy_eV)]
        built = min(structures, key=lambda s: s.draw)
        result: SimulationResult | None = None
        if done:
            built, result = min(done, key=lambda pair: pair[1].energy_eV)
        elif answers:
            built, result = answers[0]
        out.append(RelaxedDefect(label, built, result, tuple(r.trajectory[-1] for _, r in done)))
    return sorted(out, key=lambda d: (d.result is None, -len(d.relaxed)))
