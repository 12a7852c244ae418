"""Relaxation, molecular dynamics, and knock-on cross sections."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adatom.simulation.adsorption import Adsorption, adsorb
    from adatom.simulation.barrier import Barrier, BarrierOptions, find_barrier
    from adatom.simulation.displacement import (
        DisplacementOptions,
        Threshold,
        displacement_threshold,
    )
    from adatom.simulation.energies import (
        ChemicalPotential,
        against_perfect_crystal,
        formation_energy_eV,
        place_adatom,
    )
    from adatom.simulation.engines.base import (
        AUTO,
        Engine,
        EngineStatus,
        Status,
        caution,
        engine_status,
        engine_version,
        find_engine,
        for_elements,
        require,
    )
    from adatom.simulation.fitness import (
        adatoms,
        check_fitness,
        choose_engine,
        engine_for,
        second_engine,
    )
    from adatom.simulation.knock_on import (
        CrossSection,
        displacement_cross_section_barn,
        dose_per_event_A2,
        maximum_energy_transfer_eV,
        uncertain_cross_section,
    )
    from adatom.simulation.molecular_dynamics import dynamics
    from adatom.simulation.options import DynamicsOptions, RelaxOptions
    from adatom.simulation.relaxation import relax
    from adatom.simulation.reservoirs import read_reservoirs
    from adatom.simulation.scaling import measure_lattice_constant_A, scale_to
    from adatom.simulation.vibrations import VibrationOptions, Vibrations, vibrate

__all__ = [
    "AUTO",
    "Adsorption",
    "Barrier",
    "BarrierOptions",
    "ChemicalPotential",
    "CrossSection",
    "DisplacementOptions",
    "DynamicsOptions",
    "Engine",
    "EngineStatus",
    "RelaxOptions",
    "Status",
    "Threshold",
    "VibrationOptions",
    "Vibrations",
    "adatoms",
    "adsorb",
    "against_perfect_crystal",
    "caution",
    "check_fitness",
    "choose_engine",
    "displacement_cross_section_barn",
    "displacement_threshold",
    "dose_per_event_A2",
    "dynamics",
    "engine_for",
    "engine_status",
    "engine_version",
    "find_barrier",
    "find_engine",
    "for_elements",
    "formation_energy_eV",
    "maximum_energy_transfer_eV",
    "measure_lattice_constant_A",
    "place_adatom",
    "read_reservoirs",
    "relax",
    "require",
    "scale_to",
    "second_engine",
    "uncertain_cross_section",
    "vibrate",
]

# Where each name is defined: finding atoms needs options alone, and ASE takes long to import.
_HOMES = {
    "AUTO": "engines.base",
    "Adsorption": "adsorption",
    "Barrier": "barrier",
    "BarrierOptions": "barrier",
    "ChemicalPotential": "energies",
    "CrossSection": "knock_on",
    "DisplacementOptions": "displacement",
    "DynamicsOptions": "options",
    "Engine": "engines.base",
    "EngineStatus": "engines.base",
    "RelaxOptions": "options",
    "Status": "engines.base",
    "Threshold": "displacement",
    "VibrationOptions": "vibrations",
    "Vibrations": "vibrations",
    "adatoms": "fitness",
    "adsorb": "adsorption",
    "against_perfect_crystal": "energies",
    "caution": "engines.base",
    "check_fitness": "fitness",
    "choose_engine": "fitness",
    "displacement_cross_section_barn": "knock_on",
    "displacement_threshold": "displacement",
    "dose_per_event_A2": "knock_on",
    "dynamics": "molecular_dynamics",
    "engine_for": "fitness",
    "engine_status": "engines.base",
    "engine_version": "engines.base",
    "find_barrier": "barrier",
    "find_engine": "engines.base",
    "for_elements": "engines.base",
    "formation_energy_eV": "energies",
    "maximum_energy_transfer_eV": "knock_on",
    "measure_lattice_constant_A": "scaling",
    "place_adatom": "energies",
    "read_reservoirs": "reservoirs",
    "relax": "relaxation",
    "require": "engines.base",
    "scale_to": "scaling",
    "second_engine": "fitness",
    "uncertain_cross_section": "knock_on",
    "vibrate": "vibrations",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"adatom.simulation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'adatom.simulation' has no attribute {name!r}")
