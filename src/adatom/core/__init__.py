"""The data types: frozen, typed, without I/O and torch. Each one is made from those before it.

``Frame -> Prediction -> AtomTable -> Structure -> SimulationResult -> Advice -> ScanRequest``
"""

from adatom.core.advice import Advice
from adatom.core.atoms import AtomTable
from adatom.core.calibration import Affine, Calibration
from adatom.core.defect_kind import (
    Adatom,
    Antisite,
    Boundary,
    Cluster,
    DefectKind,
    Interstitial,
    Other,
    Rings,
    StoneWales,
    Substitution,
    Vacancy,
)
from adatom.core.defects import DefectTable
from adatom.core.empty_sites import EmptySites
from adatom.core.frame import Frame, LabelledFrame, Movie, ScanRequest
from adatom.core.imaging import Estimate, Imaging
from adatom.core.lattice import Lattice
from adatom.core.material import GRAPHENE, KnockOnData, Material
from adatom.core.prediction import VACANCY, Prediction
from adatom.core.record import Record, content_hash
from adatom.core.simulation import SimulationResult, SimulationTask
from adatom.core.structure import Structure

__all__ = [
    "GRAPHENE",
    "VACANCY",
    "Adatom",
    "Advice",
    "Affine",
    "Antisite",
    "AtomTable",
    "Boundary",
    "Calibration",
    "Cluster",
    "DefectKind",
    "DefectTable",
    "EmptySites",
    "Estimate",
    "Frame",
    "Imaging",
    "Interstitial",
    "KnockOnData",
    "LabelledFrame",
    "Lattice",
    "Material",
    "Movie",
    "Other",
    "Prediction",
    "Record",
    "Rings",
    "ScanRequest",
    "SimulationResult",
    "SimulationTask",
    "StoneWales",
    "Structure",
    "Substitution",
    "Vacancy",
    "content_hash",
]
