"""What the atoms do: relaxation, dynamics, and the odds of knocking one out."""

from adatom.simulation.dynamics import DynamicsOptions, dynamics
from adatom.simulation.engines import (
    ENGINES,
    Engine,
    EngineStatus,
    engine_status,
    engine_version,
    find_engine,
    require,
)
from adatom.simulation.knock_on import (
    CrossSection,
    displacement_cross_section_barn,
    dose_per_event_A2,
    maximum_energy_transfer_eV,
    uncertain_cross_section,
)
from adatom.simulation.relax import RelaxOptions, relax
from adatom.simulation.scaling import lattice_constant_A, measure_lattice_constant_A, scale_to

__all__ = [
    "ENGINES",
    "CrossSection",
    "DynamicsOptions",
    "Engine",
    "EngineStatus",
    "RelaxOptions",
    "displacement_cross_section_barn",
    "dose_per_event_A2",
    "dynamics",
    "engine_status",
    "engine_version",
    "find_engine",
    "lattice_constant_A",
    "maximum_energy_transfer_eV",
    "measure_lattice_constant_A",
    "relax",
    "require",
    "scale_to",
    "uncertain_cross_section",
]
