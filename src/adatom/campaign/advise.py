"""Rank the next actions of an experiment, from its atoms, defects and simulations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adatom.campaign.config import Config
from adatom.campaign.find import MovieResult
from adatom.campaign.steps import Job, Steps
from adatom.core import (
    Advice,
    Calibration,
    KnockOnData,
    Material,
    Movie,
    SimulationResult,
    SiteThreshold,
)
from adatom.feedback import SiteDamage, advice_to_json, advise
from adatom.simulation import uncertain_cross_section
from adatom.store import file_hash, load_maps, write_json

# Acceleration voltages, kV, for which microscopes are usually aligned when imaging sheets.
_VOLTAGES_KV = (60.0, 80.0, 100.0)


def advise_campaign(
    movie: Movie,
    material: Material,
    found: MovieResult,
    results: Sequence[SimulationResult],
    config: Config,
    steps: Steps,
    parents: Sequence[str],
    *,
    shown: bool = True,
) -> list[Advice]:
    """Rank the next actions, and write ``advice.json`` if it does not exist yet.

    There is no advice if the frames do not show the material (`shown`): dose and damage are those
    of something else.
    """
    directory = steps.directory
    maps = load_maps(directory.maps_path)
    last = len(movie) - 1
    disagreement = maps.read(last)["mutual_information"].max(axis=0).astype(np.float64)
    advice = advise(
        found.atoms,
        found.defects,
        species=len(material.species),
        frame_dose_per_A2=movie.acquisition.dose_per_A2,
        mutual_information=disagreement,
        calibration=Calibration(maps.pixel_size_A),
        results=results,
        **damage_options(material, movie.acquisition.usual_voltage_kV),
        latest_frame=last,
        voltage_kV=movie.acquisition.usual_voltage_kV,
        options=config.advice,
    )
    advice = without_contradiction(advice, found, last) if shown else []
    path = directory.advice_path
    write = Job(
        "advice",
        "movie",
        [config.advice, movie.acquisition, shown],
        current=lambda: file_hash(path) if path.exists() else "",
        make=lambda: write_json(path, advice_to_json(advice)),
        parents=tuple(parents),
    )
    steps.run([write])
    return advice


def damage_options(material: Material, voltage_kV: float) -> dict[str, Any]:
    """Give the arguments of `feedback.advise` that say what the beam does to a material.

    Parameters
    ----------
    material
        The crystal.
    voltage_kV
        Acceleration voltage of the microscope, kV.
    """
    known = material.knock_on
    return {
        "damage": damage_by_voltage(material, voltage_kV),
        "element": "" if known is None else known.element,
        "sites": site_damage(material, voltage_kV),
        "bond_length_A": material.bond_length_A,
        "caveat": "" if known is None else known.caveat,
    }


def without_contradiction(advice: Sequence[Advice], found: MovieResult, frame: int) -> list[Advice]:
    """Drop what contradicts the warnings about the latest frame.

    Where its atoms are not to be trusted, nothing is known well enough to move one or to stop.
    Where a part of it is not, no atom of that part is moved.

    Parameters
    ----------
    advice
        Ranked actions.
    found
        What the frames show, with their flags.
    frame
        The latest frame.
    """
    flags = found.flags.get(frame)
    if flags is None:
        return list(advice)
    doubtful = flags.is_out_of_distribution or flags.has_few_confident_atoms
    covered = (*flags.unlike_regions, *flags.unsupported_regions, *flags.covered_regions)

    def holds(action: Advice) -> bool:
        if action.action == "stop":
            return not (doubtful or covered or flags.missed_regions)
        if action.target_xy_A is None:
            return True
        x, y = action.target_xy_A
        inside = any(
            left <= x <= right and top <= y <= bottom for left, top, right, bottom, _ in covered
        )
        return not (doubtful or inside)

    return [action for action in advice if holds(action)]


def damage_by_voltage(material: Material, voltage_kV: float) -> dict[float, tuple[float, float]]:
    """Compute the knock-on cross section at the usual voltages and the microscope's own.

    Returns
    -------
    Mean and standard deviation in barn, by voltage in kV; empty where the material has no knock-on
    data.
    """
    known = material.knock_on
    return {} if known is None else _by_voltage(known, voltage_kV)


def site_damage(material: Material, voltage_kV: float) -> list[SiteDamage]:
    """Compute the same for the atoms at sites with a threshold of their own.

    Parameters
    ----------
    material
        The crystal.
    voltage_kV
        Acceleration voltage of the microscope, kV.
    """
    known = material.knock_on
    sites = () if known is None else known.sites
    return [SiteDamage(site, _by_voltage(site, voltage_kV)) for site in sites]


def _by_voltage(
    known: KnockOnData | SiteThreshold, voltage_kV: float
) -> dict[float, tuple[float, float]]:
    out = {}
    for voltage in sorted({*_VOLTAGES_KV, voltage_kV}):
        cross = uncertain_cross_section(
            voltage,
            known.element,
            known.threshold_eV,
            known.mean_square_velocity_m2_s2,
            threshold_sd_eV=known.threshold_sd_eV,
        )
        out[voltage] = (cross.mean_barn, cross.sd_barn)
    return out
