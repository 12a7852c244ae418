"""The story of every defect: what it is, what it did, what the simulations say of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adatom.core import SimulationResult, Structure
from adatom.core.energy import spreads_of_defects
from adatom.report.facts import Track, guest_elements, heights, is_flat, tracks
from adatom.report.fates import (
    BondEvent,
    Minimum,
    Motion,
    RunFate,
    events_in_words,
    minima,
    motion_of,
    relaxation_events,
    run_fate,
)
from adatom.report.markup import count, listing, number
from adatom.report.view import CampaignView
from adatom.report.words import (
    capital,
    counted,
    energy_difference,
    energy_in_words,
    how_sure,
    kind_in_words,
)

_LEAST_P_BEAM = 0.05  # below this, that the beam made a defect is told in the table alone
_FLAT_A = 0.1  # Å: an atom nearer to the sheet is in its plane
DOUBTFUL_P = 0.5  # a defect below it in every frame is named as doubtful


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """Simulations of one defect.

    Parameters
    ----------
    built
        Its supercells: the most probable one (draw -1) first, then the samples.
    relaxations
        Relaxations of the samples.
    minima
        Energies of the converged ones, grouped.
    lowest
        The converged relaxation of lowest energy, of the commonest composition; None if none
        converged.
    bonds
        Bonds that it formed or broke, against the most probable structure.
    fates
        Runs of molecular dynamics by temperature in K.
    failed
        Simulations that failed.
    """

    built: tuple[Structure, ...]
    relaxations: tuple[SimulationResult, ...]
    minima: tuple[Minimum, ...]
    lowest: SimulationResult | None
    bonds: tuple[BondEvent, ...]
    fates: dict[float, tuple[RunFate, ...]]
    failed: int

    @property
    def first(self) -> Structure:
        """The most probable structure."""
        return self.built[0]

    @property
    def relaxed(self) -> tuple[SimulationResult, ...]:
        """The converged relaxations with a finite energy."""
        done = (r for r in self.relaxations if r.status == "done" and r.trajectory)
        return tuple(r for r in done if math.isfinite(r.energy_eV))


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """One defect and all that is known of it.

    Parameters
    ----------
    rank
        Number on the page, from 1; 0 for a supercell of perfect crystal.
    words
        Its name in plain words.
    track
        The defect in the frames; None for perfect crystal.
    motion
        Its hops; None if it was seen in one frame, or not followed.
    simulated
        Simulations; None if it was not simulated.
    """

    rank: int
    words: str
    track: Track | None
    motion: Motion | None
    simulated: Simulated | None

    @property
    def is_doubtful(self) -> bool:
        """Whether its probability is below one half in every frame."""
        return self.track is not None and not np.nan_to_num(self.track.p).max() >= DOUBTFUL_P


def stories(view: CampaignView) -> list[Story]:
    """Tell every defect's story, the surest and most often seen first."""
    groups = _simulated(view)
    owner = {
        (int(f), int(d)): int(t)
        for f, d, t in view.defects.data.select("frame", "defect", "track").iter_rows()
    }
    by_track: dict[int | None, Simulated] = {}
    loose: list[Simulated] = []
    for simulated in groups:
        place = (simulated.first.frame, simulated.first.defect)
        number_ = owner.get(place, -1) if simulated.first.kind != "pristine" else -1
        if number_ >= 0:
            by_track.setdefault(number_, simulated)
        else:
            loose.append(simulated)
    out = []
    for rank, track in enumerate(tracks(view.defects), start=1):
        followed = track.number is not None and len(track.frames) > 1
        motion = motion_of(track) if followed else None
        own = by_track.get(track.number) if track.number is not None else None
        if own is None:
            own = next(
                (s for s in loose if track.number is None and s.first.kind in track.kinds), None
            )
            loose = [s for s in loose if s is not own]
        out.append(Story(rank, kind_in_words(track.main_kind, view.material), track, motion, own))
    out += [Story(0, _cell_words(view, s), None, None, s) for s in loose]
    return out


def _cell_words(view: CampaignView, simulated: Simulated) -> str:
    kind = simulated.first.kind
    return "perfect crystal" if kind == "pristine" else kind_in_words(kind, view.material)


def _simulated(view: CampaignView) -> list[Simulated]:
    members: dict[tuple[int, int, str], list[Structure]] = {}
    for structure in view.structures:
        place = (structure.frame, structure.defect, structure.kind)
        if structure.frame < 0:
            place = (-1, -1, structure.name)
        members.setdefault(place, []).append(structure)
    return [_one(view, sorted(group, key=lambda s: s.draw)) for group in members.values()]


def _one(view: CampaignView, built: list[Structure]) -> Simulated:
    keys = {(s.name, s.draw) for s in built}
    names = {s.name for s in built}
    own = [r for r in view.results if (r.structure, r.draw) in keys or r.structure in names]
    relaxations = [r for r in own if r.task == "relax" and r.draw >= 0]
    relaxations = relaxations or [r for r in own if r.task == "relax"]  # no samples
    done = [
        r for r in relaxations if r.status == "done" and r.trajectory and math.isfinite(r.energy_eV)
    ]
    alike: dict[str, list[SimulationResult]] = {}
    for r in done:  # energies of other compositions have another zero
        alike.setdefault(r.trajectory[-1].get_chemical_formula(), []).append(r)
    most = max(alike.values(), key=len, default=[])
    lowest = min(most, key=lambda r: r.energy_eV, default=None)
    fates: dict[float, list[RunFate]] = {}
    for r in own:
        fate = run_fate(r)
        if fate is not None:
            fates.setdefault(r.temperature_K, []).append(fate)
    after = lowest.trajectory[-1] if lowest else None
    return Simulated(
        built=tuple(built),
        relaxations=tuple(relaxations),
        minima=minima([r.energy_eV for r in most]),
        lowest=lowest,
        bonds=relaxation_events(built[0].atoms, after) if after is not None else (),
        fates={t: tuple(fates[t]) for t in sorted(fates)},
        failed=sum(r.status.startswith("failed") for r in own),
    )


def place_of(track: Track) -> str:
    """Where the viewer shows a defect best: frame, x and y in Å, for its links."""
    k = int(np.argmax(np.nan_to_num(track.p)))
    return f"{track.frames[k]} {track.xy[k][0]:.2f} {track.xy[k][1]:.2f}"


def headline(view: CampaignView, told: Sequence[Story]) -> str:
    """Say in one sentence what was found."""
    if view.headline:
        return view.headline
    if len(view.atoms) == 0:
        return "No atoms were found" if view.frame_count else "Nothing to show yet"
    sure = [s for s in told if s.track is not None and not s.is_doubtful]
    doubtful = sum(s.is_doubtful for s in told)
    tail = f"; {counted(doubtful)} more in doubt" if doubtful and sure else ""
    if not sure:
        tail = f": {counted(doubtful)} in doubt" if doubtful else ""
        return f"No defect for sure{tail}" if doubtful else "No defect found"
    kinds = Counter(s.words for s in sure)
    if len(sure) == 1:
        return capital(sure[0].words) + tail
    if len(kinds) == 1:
        ((words, n),) = kinds.items()
        return f"{capital(counted(n))} defects: each {words}{tail}"
    named = [w if n == 1 else f"{n}\u00a0×\u00a0{w}" for w, n in kinds.most_common(3)]
    rest = len(sure) - sum(n for _, n in kinds.most_common(3))
    more = f"; {rest} more of other kinds" if rest else ""
    head = f"{capital(counted(len(sure)))} defects: " if len(sure) > 1 else ""
    return head + "; ".join(named) + more + tail


def certainty(view: CampaignView, track: Track) -> str:
    """How sure the defect is, and in how many frames it was seen."""
    p = track.p[np.isfinite(track.p)]
    if track.number is None and len(track.frames) > len(set(track.frames)):
        seen = len(track.frames)
        return f"{seen} places, p {p.min():.2f} to {p.max():.2f}" if len(p) else f"{seen} places"
    text = how_sure(float(p.mean()) if len(p) else math.nan)
    if view.frame_count > 1:
        text += f"; in {len(np.unique(track.frames))} of {view.frame_count} frames"
    return text


def deeds(view: CampaignView, story: Story) -> str:
    """What the defect did in the movie; empty for one frame."""
    track, motion = story.track, story.motion
    if track is None or track.number is None or view.frame_count < 2:
        return ""
    parts = []
    if motion is not None and motion.steps:
        low, high = motion.rate_interval
        if motion.hops:
            where = listing([str(f) for f in motion.hop_frames[:6]])
            more = " …" if motion.hops > 6 else ""
            times = {1: "once", 2: "twice"}.get(motion.hops, f"{counted(motion.hops)} times")
            parts.append(
                f"hopped {times} in {count(motion.steps, 'step')} (frame {where}{more}): "
                f"{motion.hops / motion.steps:.2f} a step, 68 % interval {low:.2f} to {high:.2f}"
            )
        else:
            parts.append(f"no hop in {count(motion.steps, 'step')} (at most {high:.2f} a step)")
    parts += _changes(view, track)
    if track.origin in ("appeared", "came into the field"):
        parts.append(f"{track.origin} in frame {track.frames.min()}")
    if track.frames.max() < view.frame_count - 1:
        parts.append(f"last seen in frame {track.frames.max()}")
    if track.p_beam >= _LEAST_P_BEAM:
        parts.append(f"made by the beam with p {track.p_beam:.2f}")
    return "; ".join(parts)


def _changes(view: CampaignView, track: Track) -> list[str]:
    changed = [
        (int(track.frames[k]), track.kinds[k])
        for k in range(1, len(track.kinds))
        if track.kinds[k] != track.kinds[k - 1]
    ]
    if not changed:
        return []
    if len(changed) > 2:
        return [f"changed its kind {counted(len(changed))} times"]
    return [f"{kind_in_words(kind, view.material)} from frame {f}" for f, kind in changed]


def verdicts(story: Story) -> list[tuple[str, str]]:
    """What the simulations say: label and sentence of each."""
    simulated = story.simulated
    if simulated is None:
        return []
    out = []
    if simulated.relaxations:
        out.append(("Relaxed", _relaxed(simulated)))
    for kelvin, fates in simulated.fates.items():
        time = number(max(f.snapshots[-1][0] for f in fates), 1)
        span = f"of {time} ps" if len(fates) > 1 else f"for {time} ps"
        out.append((f"{kelvin:g} K", f"{events_in_words(fates)} {span}"))
    if simulated.failed:
        out.append(("Failed", count(simulated.failed, "simulation")))
    return out


def _relaxed(simulated: Simulated) -> str:
    draws, found = len(simulated.relaxations), simulated.minima
    if not found:
        return f"none of {count(draws, 'draw')} converged"
    n = sum(m.draws for m in found)
    parts = []
    if n == 1:
        parts.append(f"{count(1, 'draw')} of {draws}" if draws > 1 else "one draw")
    elif len(found) == 1:
        spread = float(np.ptp([r.energy_eV for r in simulated.relaxed]))
        parts.append(f"{n} draws end in one minimum, within {energy_difference(spread)}")
    else:
        where = [f"{energy_difference(m.above_eV) if k else 'lowest'} ({count(m.draws, 'draw')})"
                 for k, m in enumerate(found)]  # fmt: skip
        parts.append(f"{counted(len(found))} minima: {listing(where)}")
    assert simulated.lowest is not None  # noqa: S101
    formation = simulated.lowest.formation_energy_eV
    spreads = spreads_of_defects(simulated.relaxations)
    if len(spreads) == 1:  # not one draw's: its digits would say that it is as sure as they are
        (spread_eV,) = spreads.values()
        parts.append(f"formation energy {energy_in_words(spread_eV.mean_eV, spread_eV.sd_eV)}")
    elif math.isfinite(formation):
        of = " of the lowest" if len(found) > 1 else ""
        parts.append(f"formation energy{of} {energy_in_words(formation)}")
    parts += _shape(simulated)
    return "; ".join(parts)


def _shape(simulated: Simulated) -> list[str]:
    """Heights of impurity atoms, and bonds that formed or broke."""
    assert simulated.lowest is not None  # noqa: S101
    atoms = simulated.lowest.trajectory[-1]
    symbols, guest, z = atoms.get_chemical_symbols(), guest_elements(atoms), heights(atoms)
    out = []
    guests = [n for n, s in enumerate(symbols) if s in guest and is_flat(atoms)][:3]
    for n in guests:
        high = abs(float(z[n]))
        out.append(f"{symbols[n]} {high:.1f} Å out of the plane" if high > _FLAT_A
                   else f"{symbols[n]} in the plane")  # fmt: skip
    for formed, verb in ((True, "forms"), (False, "breaks")):
        own = [e for e in simulated.bonds if e.formed is formed]
        pairs = Counter("–".join(sorted(symbols[n] for n in e.bond)) for e in own)
        out += [f"{pair} bond {verb}" if k == 1 else f"{k} {pair} bonds {verb[:-1]}"
                for pair, k in pairs.items()]  # fmt: skip
    return out
