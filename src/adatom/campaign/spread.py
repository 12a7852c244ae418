"""What the spread of an energy is made of: a second engine, and a wider cell, for each defect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import units
from ase.geometry import find_mic

from adatom.campaign.config import Config
from adatom.campaign.energies import Ask, Relaxed, elements_together, relax_all
from adatom.campaign.pool import relaxed_structure
from adatom.campaign.steps import Steps
from adatom.core import Material, SimulationResult, Structure
from adatom.core.energy import sd_of_two, spread_of
from adatom.errors import AdatomError
from adatom.simulation import AUTO, second_engine
from adatom.simulation.engines.base import find_engine
from adatom.structures import Compared, relaxed_positions, widen

NONE = "none"  # in the place of a second engine's name
_STAND_IN = "lammps"  # its classical potentials measure the elastic part of the size in seconds
# Least width of the wider cell over that of the defect's. By elasticity the energy of a defect and
# its copies goes with 1 / width² in a sheet: Liu & Yakobson, Nano Lett. 10, 2178 (2010). What is
# left at the first width is then their difference over 1 - 1 / _WIDER².
_WIDER = 1.4
_LEFT = 1.0 / (1.0 - _WIDER**-2)
_ROOM_K = 300.0  # K: temperature by which draws that look alike are weighed
_SAME_COLUMN_A = 0.3  # Å: columns nearer than this are one; a blurred pair of atoms tells no less
_SAME_EV = 1e-3  # eV: minima nearer to each other are one
_UNSURE = 0.5  # share of that shift that counts as its standard deviation: the law is of far fields


Made = tuple[Structure, SimulationResult]  # a structure and its relaxation


@dataclass(frozen=True, slots=True)
class Spread:
    """Results with the parts of their spread, and what was simulated to know them.

    Parameters
    ----------
    results
        The relaxations, in their order.
    checks
        What was relaxed beside them.
    positions
        Relaxed positions of every defect, with their errors (`relaxed_positions`).
    """

    results: list[SimulationResult]
    checks: Relaxed
    positions: list[Structure]


def with_spread(
    structures: Sequence[Structure],
    relaxed: Relaxed,
    engine: str,
    material: Material,
    config: Config,
    steps: Steps,
) -> Spread:
    """Give every relaxation the parts of its defect's spread.

    Draws that the image cannot tell apart are weighed by their energies (`weights_by_energy`). The
    draw of lowest energy among those of the likeliest composition stands for its defect: it is
    relaxed again by a second engine, and in a wider cell.

    Parameters
    ----------
    structures, relaxed
        The structures and their relaxations, in the same order.
    engine
        Name of the engine of these.
    material, config, steps
        As of `adatom.campaign.simulate.simulate_all`.
    """
    together = elements_together(structures)
    groups: dict[tuple[str, int, int], list[int]] = {}
    for i, s in enumerate(structures):
        groups.setdefault((s.kind, s.frame, s.defect), []).append(i)
    leads = {key: lead_of([relaxed.results[i] for i in own], own) for key, own in groups.items()}
    asks: list[Ask] = []
    asked: dict[tuple[tuple[str, int, int], str], int] = {}
    positions: list[Structure] = []
    for key, lead in leads.items():
        if lead is None:
            continue
        start = relaxed_structure(structures[lead], relaxed.results[lead])
        for what, structure, name in _checks(start, engine, material, config):
            asked[key, what] = len(asks)
            asks.append(Ask(structure, name, together[lead], (relaxed.keys[lead],)))
    checks = relax_all(asks, material, config, steps, own=engine)
    out = list(relaxed.results)
    for key, own in groups.items():
        lead = leads[key]
        if lead is None:
            continue
        found = {what: checks.results[i] for (k, what), i in asked.items() if k == key}
        parts = _parts(relaxed.results[lead], found, engine)
        for i, weight in zip(own, weights_by_energy([out[i] for i in own]), strict=True):
            out[i] = replace(out[i], weight=weight)
        draws = [out[i] for i in own if _has_energy(out[i])]
        drawn = [r for r in draws if r.draw >= 0] or draws
        whole = spread_of([r.formation_energy_eV for r in drawn], [r.weight for r in drawn])
        alike = [(structures[i], out[i]) for i in own]
        checked = {
            what: (asks[i].structure, found[what]) for (k, what), i in asked.items() if k == key
        }
        positions.append(
            _positions((structures[lead], relaxed.results[lead]), alike, checked, config)
        )
        for i in own:
            out[i] = replace(
                out[i],
                draws_sd_eV=whole.draws_eV,
                engine_sd_eV=parts[0],
                size_sd_eV=parts[1],
                size_shift_eV=parts[2],
                thermal_sd_eV=0.0,
            )
    return Spread(out, checks, positions)


def _positions(
    lead: Made, every: Sequence[Made], checked: dict[str, Made], config: Config
) -> Structure:
    """Relaxed positions of a defect, from the draws of the lead's atoms and from the checks."""
    start = lead[0]
    alike = [
        (s, r)
        for s, r in every
        if r.status == "done"
        and np.array_equal(s.atoms.numbers, start.atoms.numbers)
        and np.array_equal(s.source_atom, start.source_atom)
    ]
    drawn = [x for x in alike if x[0].draw >= 0] or [lead]
    geometry = {
        what: relaxed_structure(s, r).atoms
        for what, (s, r) in checked.items()
        if r.status == "done"
    }
    wide, other = geometry.get("wide"), geometry.get("engine")
    narrow = geometry.get("as wide")
    if wide is not None and narrow is None and checked["wide"][1].engine != lead[1].engine:
        narrow = other
    return relaxed_positions(
        relaxed_structure(*lead),
        [relaxed_structure(s, r).atoms for s, r in drawn],
        np.nan_to_num([r.weight for _, r in drawn]).tolist(),
        wide=None if wide is None else Compared(wide, narrow, _LEFT),
        other=other,
        radius_A=config.supercell.defect_radius_A,
    )


def lead_of(results: Sequence[SimulationResult], numbers: Sequence[int]) -> int | None:
    """Number of the draw that stands for a defect; None where none has a formation energy."""
    own = [(i, r) for i, r in zip(numbers, results, strict=True) if _has_energy(r)]
    if not own:
        return None
    share: dict[str, float] = {}
    for _, r in own:
        if r.draw >= 0:
            formula = r.trajectory[-1].get_chemical_formula()
            share[formula] = share.get(formula, 0.0) + (r.weight if r.weight > 0 else 1.0 / 64)
    likeliest = max(share, key=lambda f: share[f]) if share else ""
    alike = [x for x in own if x[1].trajectory[-1].get_chemical_formula() == likeliest] or own
    return min(alike, key=lambda x: x[1].energy_eV)[0]


def weights_by_energy(results: Sequence[SimulationResult]) -> list[float]:
    """Weights of a defect's draws, in which those that look alike count by their energies.

    The image says nothing of the heights in a sheet: draws of the same atoms that end in other
    bucklings, with the same columns, explain it as well as each other. Among them the weight
    is by Boltzmann's law at 300 K: the lowest minimum counts, and the others are alternatives.

    Parameters
    ----------
    results
        Relaxations of one defect, of the draws and the likeliest structure.

    Returns
    -------
    A weight for each, whose sum is that of the given weights. They are the given ones where no two
    draws look alike and differ in energy; NaN for what is no draw with an energy.
    """
    drawn = [i for i, r in enumerate(results) if r.draw >= 0 and _has_energy(r)]
    given = [r.weight for r in results]
    weights = np.array(given)
    above_eV = np.zeros(len(results))
    for i in drawn:
        alike = [results[j].energy_eV for j in drawn if _look_alike(results[i], results[j])]
        above_eV[i] = results[i].energy_eV - min(alike)
    if not above_eV.max(initial=0.0) > _SAME_EV:
        return given
    own = weights[drawn]
    total = own.sum() if np.isfinite(own).all() else 1.0
    own = own if np.isfinite(own).all() else np.ones(len(drawn))
    factors = np.exp(-above_eV[drawn] / (units.kB * _ROOM_K))
    if not (own * factors).sum() > 0:
        return given
    weights[drawn] = own * factors * total / (own * factors).sum()
    return [float(w) for w in weights]


def _look_alike(one: SimulationResult, other: SimulationResult) -> bool:
    """Whether two relaxations have the same atoms in the same columns."""
    a, b = one.trajectory[-1], other.trajectory[-1]
    if not np.array_equal(a.numbers, b.numbers) or not np.allclose(a.cell, b.cell, atol=1e-6):
        return False
    way, _ = find_mic(b.positions - a.positions, a.cell, a.pbc)
    way, _ = find_mic(way - np.median(way, axis=0), a.cell, a.pbc)
    return float(np.hypot(way[:, 0], way[:, 1]).max()) < _SAME_COLUMN_A


def _checks(
    start: Structure, engine: str, material: Material, config: Config
) -> list[tuple[str, Structure, str]]:
    """What to relax for one defect: purpose, structure and engine."""
    out = []
    name = config.simulate.second_engine
    other = second_engine(engine, start, material) if name == AUTO else name
    if other not in ("", NONE, engine):
        out.append(("engine", _named(start, f"in-{find_engine(other).name}"), other))
    if config.simulate.size_check == "never":
        return out
    own = config.simulate.size_check == "always" or engine == _STAND_IN
    by = engine if own else _STAND_IN
    wide = widen(start, material, config.supercell, factor=_WIDER)
    if wide is None or not _covers(by, start):
        return out
    out.append(("wide", _named(wide, "" if own else f"in-{by}"), by))
    if not own and other != by:
        out.append(("as wide", _named(start, f"in-{by}"), by))
    return out


def _named(structure: Structure, suffix: str) -> Structure:
    name = f"{structure.name}-{suffix}".replace(":", "-") if suffix else structure.name
    return replace(structure, name=name)


def _covers(engine: str, structure: Structure) -> bool:
    try:
        find_engine(engine).check_elements(set(structure.atoms.symbols))  # type: ignore[attr-defined]
    except AdatomError:
        return False
    return True


def _parts(
    lead: SimulationResult, found: dict[str, SimulationResult], engine: str
) -> tuple[float, float, float]:
    """Standard deviations by engine and cell, and the shift by the cell, eV; NaN: not known."""
    nan = math.nan
    other = found.get("engine")
    by_engine = nan
    if other is not None and _has_energy(other):
        by_engine = sd_of_two(lead.formation_energy_eV, other.formation_energy_eV)
    wide = found.get("wide")
    narrow = found.get("as wide") or (lead if wide and wide.engine == lead.engine else other)
    by_size = shift = nan
    if wide is not None and narrow is not None and _has_energy(wide) and _has_energy(narrow):
        shift = _LEFT * (wide.formation_energy_eV - narrow.formation_energy_eV)
        sampling = 0.0
        if wide.engine != lead.engine:  # the stand-in has no electrons
            sampling = float(getattr(find_engine(engine), "sampling_sd_eV", 0.0))
        by_size = math.hypot(_UNSURE * shift, sampling)
    return by_engine, by_size, shift


def _has_energy(result: SimulationResult) -> bool:
    return result.status == "done" and math.isfinite(result.formation_energy_eV)
