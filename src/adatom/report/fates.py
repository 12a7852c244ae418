"""What became of each defect: its hops in the movie, and its bonds in the simulations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
from ase.data import covalent_radii
from scipy.special import betaincinv

from adatom.core import SimulationResult
from adatom.core.arrays import FloatArray
from adatom.report.facts import Track
from adatom.report.view import CampaignView

# Lengths over the sum of the covalent radii: a bond forms below the first, and is broken above the
# second. The gap keeps a vibrating bond from being told as events.
_FORMED, _BROKEN = 1.15, 1.4
# Share of the last quarter of a run in which a bond must be present (absent) to count as lasting.
_LASTING = 0.7
# Energies of relaxed draws are of two minima if a gap between them is this many times the spread
# within each, and at least this many eV.
_GAP_RATIO, _GAP_eV = 5.0, 0.02

Bond = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Motion:
    """Motion of one defect in the movie.

    Parameters
    ----------
    hops
        Hops to other sites.
    steps
        Number of steps between the frames in which it was seen.
    hop_frames
        Frame at the end of each hop.
    """

    hops: int
    steps: int
    hop_frames: tuple[int, ...]

    @property
    def rate_interval(self) -> tuple[float, float]:
        """68 % interval of the hops a step: quantiles of the beta distribution (Jeffreys)."""
        low, high = betaincinv(self.hops + 0.5, self.steps - self.hops + 0.5, (0.16, 0.84))
        return (0.0 if self.hops == 0 else float(low)), float(high)


def motion_of(track: Track) -> Motion | None:
    """Read the hops of a defect from its track; None if they were not counted."""
    if track.hops is None:
        return None
    frames, first = np.unique(track.frames, return_index=True)
    counts = track.hops[first]
    return Motion(
        hops=int(counts[-1]),
        steps=len(frames) - 1,
        hop_frames=tuple(int(f) for f in frames[1:][np.diff(counts) > 0]),
    )


@dataclass(frozen=True, slots=True)
class Minimum:
    """Relaxed draws of one energy.

    Parameters
    ----------
    above_eV
        Their mean energy above the lowest draw of the defect, eV.
    draws
        Number of draws.
    """

    above_eV: float
    draws: int


def minima(energies_eV: Sequence[float]) -> tuple[Minimum, ...]:
    """Group energies that lie together: each group is a minimum of its own.

    Parameters
    ----------
    energies_eV
        Energies of relaxed draws of one composition.

    Examples
    --------
    >>> [(round(m.above_eV, 2), m.draws) for m in minima([-3.0, -2.6, -3.0, -2.6, -2.6])]
    [(0.0, 2), (0.4, 3)]
    """
    values = np.sort(np.asarray(energies_eV, dtype=np.float64))
    if len(values) == 0:
        return ()
    gaps = np.diff(values)
    cuts = [k for k in range(len(gaps)) if _is_gap(gaps, k)]
    groups = np.split(values, [k + 1 for k in cuts])
    return tuple(Minimum(float(g.mean() - values[0]), len(g)) for g in groups)


def _is_gap(gaps: FloatArray, k: int) -> bool:
    """Whether gap k stands out among the others; of two values only its size is known."""
    others = np.delete(gaps, k)
    typical = float(np.median(others)) if len(others) else 0.0
    return bool(gaps[k] > max(_GAP_eV, _GAP_RATIO * typical))


class Contacts:
    """Distances within a periodic structure, over the sums of the covalent radii.

    Distances are of the nearest image by rounding, which is exact below half the height of the
    cell; supercells are far wider than a bond. Radii: Cordero et al., Dalton Trans. 2008, 2832.

    Parameters
    ----------
    atoms
        The structure.
    """

    def __init__(self, atoms: ase.Atoms) -> None:
        cell = atoms.cell.complete()
        share = atoms.positions @ np.linalg.inv(cell.array)
        apart = share[:, None] - share[None]
        apart -= np.round(apart) * np.asarray(atoms.pbc)
        self.length_A: FloatArray = np.linalg.norm(apart @ cell.array, axis=-1)
        radius = covalent_radii[atoms.numbers]
        self._ratio = self.length_A / (radius[:, None] + radius[None])
        self._ratio[np.tril_indices(len(atoms))] = np.inf  # each pair once

    def within(self, factor: float) -> set[Bond]:
        """Pairs closer than `factor` times the sum of their radii, the smaller number first."""
        return {(int(a), int(b)) for a, b in np.argwhere(self._ratio < factor)}


def bond_lengths(atoms: ase.Atoms) -> dict[Bond, float]:
    """Lengths of the bonds by their atoms, Å.

    Examples
    --------
    >>> from ase.build import molecule
    >>> {pair: round(length, 2) for pair, length in bond_lengths(molecule("H2O")).items()}
    {(0, 1): 0.97, (0, 2): 0.97}
    """
    contacts = Contacts(atoms)
    return {bond: float(contacts.length_A[bond]) for bond in sorted(contacts.within(_FORMED))}


@dataclass(frozen=True, slots=True)
class BondEvent:
    """A bond that formed or broke, and stayed so.

    Parameters
    ----------
    bond
        Numbers of its two atoms in the structure.
    formed
        True if it formed, False if it broke.
    time_ps
        When the change was first seen, ps.
    """

    bond: Bond
    formed: bool
    time_ps: float


@dataclass(frozen=True, slots=True, eq=False)
class RunFate:
    """What a run of molecular dynamics did to the bonds.

    Parameters
    ----------
    result
        The run.
    events
        Lasting changes, first to last.
    healed
        Whether every atom has as many bonds at the end as most have, and some had not at the start.
    snapshots
        Geometries to show with their times in ps: the start, the first change or the middle, the
        end.
    """

    result: SimulationResult
    events: tuple[BondEvent, ...]
    healed: bool
    snapshots: tuple[tuple[float, ase.Atoms], ...]

    @property
    def survived(self) -> bool:
        """Whether the run ended with the bonds that it began with."""
        return not self.events


def run_fate(result: SimulationResult) -> RunFate | None:
    """Follow the bonds through a trajectory; None if it has no motion or the run failed."""
    path = result.trajectory
    if result.task != "dynamics" or len(path) < 3 or result.status.startswith("failed"):
        return None
    times = [float(a.info.get("time_fs", 0.0)) / 1000.0 for a in path]
    contacts = [Contacts(a) for a in path]
    close = [c.within(_FORMED) for c in contacts]
    wide = [c.within(_BROKEN) for c in contacts]
    start = close[0]
    tail = slice(-max(len(path) // 4, 2), None)
    events = [
        BondEvent(bond, formed=False, time_ps=_first(times, [bond not in w for w in wide]))
        for bond in start
        if np.mean([bond not in w for w in wide[tail]]) >= _LASTING
    ]
    late = set().union(*close[tail]) - start
    events += [
        BondEvent(bond, formed=True, time_ps=_first(times, [bond in c for c in close]))
        for bond in late
        if np.mean([bond in w for w in wide[tail]]) >= _LASTING
    ]
    events.sort(key=lambda e: (e.time_ps, e.bond))
    final = (start - {e.bond for e in events if not e.formed}) | {
        e.bond for e in events if e.formed
    }
    symbols = path[0].get_chemical_symbols()
    healed = bool(_odd(start, symbols)) and not _odd(final, symbols)
    shown = times.index(events[0].time_ps) if events else len(path) // 2
    picks = sorted({0, min(shown, len(path) - 1), len(path) - 1})
    return RunFate(result, tuple(events), healed, tuple((times[k], path[k]) for k in picks))


def _first(times: list[float], seen: list[bool]) -> float:
    return times[seen.index(True)] if True in seen else times[-1]


def _odd(bonds: set[Bond], symbols: list[str]) -> list[int]:
    """Atoms with another number of bonds than most."""
    degree = Counter(n for bond in bonds for n in bond)
    numbers = [degree.get(n, 0) for n in range(len(symbols))]
    usual = Counter(numbers).most_common(1)[0][0] if numbers else 0
    return [n for n, d in enumerate(numbers) if d != usual]


def events_in_words(fates: Sequence[RunFate]) -> str:
    """Say what several runs of one defect at one temperature did, as shares of the runs.

    Parameters
    ----------
    fates
        The runs, at least one.
    """
    runs = len(fates)
    kept = sum(f.survived for f in fates)
    healed = sum(f.healed for f in fates)
    if kept == runs:
        return "keeps its bonds" if runs == 1 else f"keeps its bonds in {runs} of {runs} runs"
    parts = [f"keeps its bonds in {kept} of {runs} runs"] if kept else []
    if healed:
        parts.append(f"heals in {healed} of {runs}")
    seen: Counter[str] = Counter()
    for fate in fates:
        if not fate.healed:
            seen.update({_event_word(fate, e) for e in fate.events})
    parts += [f"{word} in {n} of {runs}" for word, n in seen.most_common(2)]
    return ", ".join(parts)


def _event_word(fate: RunFate, event: BondEvent) -> str:
    symbols = fate.result.trajectory[0].get_chemical_symbols()
    pair = "–".join(sorted(symbols[n] for n in event.bond))
    article = "an" if pair[0] in "AEIOUNFHLMRS" and len(pair.split("–")[0]) == 1 else "a"
    return f"{article} {pair} bond {'forms' if event.formed else 'breaks'}"


def relaxation_events(built: ase.Atoms, after: ase.Atoms) -> tuple[BondEvent, ...]:
    """Bonds that a relaxation formed or broke; empty where the atoms differ."""
    if built.get_chemical_symbols() != after.get_chemical_symbols():
        return ()
    before, relaxed = Contacts(built).within(_FORMED), Contacts(after)
    close, wide = relaxed.within(_FORMED), relaxed.within(_BROKEN)
    formed = [BondEvent(b, formed=True, time_ps=math.nan) for b in sorted(close - before)]
    gone = [BondEvent(b, formed=False, time_ps=math.nan) for b in sorted(before - wide)]
    return tuple(formed + gone)


def held_defects(
    view: CampaignView, frame: int, defect: int, sources: Sequence[int]
) -> list[dict[str, Any]]:
    """Defects of a frame that a supercell holds, as rows of the table; its own one first.

    A cell is taken from the frame up to a distance from its defect. Another defect is in it if its
    centre is no farther, whether or not all of its atoms are.

    Parameters
    ----------
    view
        The campaign.
    frame
        Number of the frame that the supercell was built from.
    defect
        Number of its defect in that frame; -1 for perfect crystal.
    sources
        Numbers of the cell's atoms in that frame; -1 for atoms of the perfect lattice.
    """
    rows = list(view.defects.of_frame(frame).data.iter_rows(named=True))
    atoms = view.atoms.of_frame(frame)
    own = np.isin(atoms.column("atom"), [n for n in sources if n >= 0])
    if not own.any():
        return [r for r in rows if r["defect"] == defect]
    main = [r for r in rows if r["defect"] == defect]
    center = np.array([main[0]["x_A"], main[0]["y_A"]]) if main else atoms.xy[own].mean(axis=0)
    reach = float(np.linalg.norm(atoms.xy[own] - center, axis=1).max())
    others = [
        r
        for r in rows
        if r not in main and np.hypot(r["x_A"] - center[0], r["y_A"] - center[1]) <= reach
    ]
    return main + others
