"""The data types: frozen, typed, without I/O and torch. Each one is made from those before it.

``Frame -> Prediction -> AtomTable -> Structure -> SimulationResult -> Advice -> ScanRequest``
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adatom.core.acquisition import Acquisition
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
    from adatom.core.frame import Frame, LabelledFrame, Movie
    from adatom.core.imaging import Estimate, Imaging
    from adatom.core.lattice import Lattice
    from adatom.core.material import GRAPHENE, KnockOnData, Material, SiteThreshold
    from adatom.core.pixels import MaskedArea, Pixels
    from adatom.core.prediction import VACANCY, Prediction
    from adatom.core.record import Record, content_hash
    from adatom.core.scan import BeamConditions, BeamRequest, DwellTrace, ScanRequest
    from adatom.core.simulation import SimulationResult, SimulationTask
    from adatom.core.structure import Structure

__all__ = [
    "GRAPHENE",
    "VACANCY",
    "Acquisition",
    "Adatom",
    "Advice",
    "Affine",
    "Antisite",
    "AtomTable",
    "BeamConditions",
    "BeamRequest",
    "Boundary",
    "Calibration",
    "Cluster",
    "DefectKind",
    "DefectTable",
    "DwellTrace",
    "EmptySites",
    "Estimate",
    "Frame",
    "Imaging",
    "Interstitial",
    "KnockOnData",
    "LabelledFrame",
    "Lattice",
    "MaskedArea",
    "Material",
    "Movie",
    "Other",
    "Pixels",
    "Prediction",
    "Record",
    "Rings",
    "ScanRequest",
    "SimulationResult",
    "SimulationTask",
    "SiteThreshold",
    "StoneWales",
    "Structure",
    "Substitution",
    "Vacancy",
    "content_hash",
]

# Where each name is defined: a table of atoms imports polars, which reading a file does not need.
_HOMES = {
    "Acquisition": "acquisition",
    "Adatom": "defect_kind",
    "Advice": "advice",
    "Affine": "calibration",
    "Antisite": "defect_kind",
    "AtomTable": "atoms",
    "BeamConditions": "scan",
    "BeamRequest": "scan",
    "Boundary": "defect_kind",
    "Calibration": "calibration",
    "Cluster": "defect_kind",
    "DefectKind": "defect_kind",
    "DefectTable": "defects",
    "DwellTrace": "scan",
    "EmptySites": "empty_sites",
    "Estimate": "imaging",
    "Frame": "frame",
    "GRAPHENE": "material",
    "Imaging": "imaging",
    "Interstitial": "defect_kind",
    "KnockOnData": "material",
    "LabelledFrame": "frame",
    "Lattice": "lattice",
    "MaskedArea": "pixels",
    "Material": "material",
    "Movie": "frame",
    "Other": "defect_kind",
    "Pixels": "pixels",
    "Prediction": "prediction",
    "Record": "record",
    "Rings": "defect_kind",
    "ScanRequest": "scan",
    "SimulationResult": "simulation",
    "SimulationTask": "simulation",
    "SiteThreshold": "material",
    "StoneWales": "defect_kind",
    "Structure": "structure",
    "Substitution": "defect_kind",
    "VACANCY": "prediction",
    "Vacancy": "defect_kind",
    "content_hash": "record",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"adatom.core.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'adatom.core' has no attribute {name!r}")
