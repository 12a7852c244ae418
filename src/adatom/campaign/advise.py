"""Rank what to do next, from what was found and simulated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adatom.campaign.config import Config
from adatom.campaign.find import MovieResult
from adatom.campaign.steps import Job, Steps
from adatom.core import GRAPHENE, Advice, Calibration, Material, Movie, SimulationResult
from adatom.feedback import advice_to_json, advise
from adatom.simulation import uncertain_cross_section
from adatom.store import file_hash, load_maps, write_json

# Out-of-plane <v²> of carbon in graphene at 300 K from phonons and the displacement threshold with
# the spread of published values: Susi et al., Nat. Commun. 7, 13040 (2016).
_MEAN_SQUARE_VELOCITY = 3.05e5
_THRESHOLD_EV, _THRESHOLD_SD_EV = 21.5, 0.4
_VOLTAGES_KV = (60.0, 80.0, 100.0)  # at which microscopes are usually aligned


def advise_campaign(
    movie: Movie,
    material: Material,
    found: MovieResult,
    results: Sequence[SimulationResult],
    config: Config,
    steps: Steps,
    parents: Sequence[str],
) -> list[Advice]:
    """Rank what to do next; ``advice.json`` is written where it is not there yet."""
    directory = steps.directory
    maps = load_maps(directory.maps_path)
    last = len(movie) - 1
    disagreement = maps.read(last)["mutual_information"].max(axis=0).astype(np.float64)
    advice = advise(
        found.atoms,
        found.defects,
        species=len(material.species),
        frame_dose_per_A2=movie.dose_per_A2,
        mutual_information=disagreement,
        calibration=Calibration(maps.pixel_size_A),
        results=results,
        # Threshold and vibrations are known here for graphene alone.
        damage=damage_by_voltage(material, config.voltage_kV) if material == GRAPHENE else {},
        latest_frame=last,
        voltage_kV=config.voltage_kV,
        options=config.advice,
    )
    path = directory.advice_path
    write = Job(
        "advice",
        "movie",
        [config.advice, config.voltage_kV],
        current=lambda: file_hash(path) if path.exists() else "",
        make=lambda: write_json(path, advice_to_json(advice)),
        parents=tuple(parents),
    )
    steps.run([write])
    return advice


def damage_by_voltage(material: Material, voltage_kV: float) -> dict[float, tuple[float, float]]:
    """Knock-on cross section of a host atom at the usual voltages and the microscope's own.

    Returns
    -------
    Mean and standard deviation in barn, by voltage in kV.
    """
    out = {}
    for voltage in sorted({*_VOLTAGES_KV, voltage_kV}):
        cross = uncertain_cross_section(
            voltage,
            material.host,
            _THRESHOLD_EV,
            _MEAN_SQUARE_VELOCITY,
            threshold_sd_eV=_THRESHOLD_SD_EV,
        )
        out[voltage] = (cross.mean_barn, cross.sd_barn)
    return out
