"""Options of the analysis of a frame."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from adatom.features import DefectOptions
from adatom.features.defects.vacancy_test import EvidenceOptions
from adatom.features.find import FindOptions


class AnalysisOptions(BaseModel):
    """Options of `analyse_frame`, in the order of its steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    find: FindOptions = FindOptions()
    evidence: EvidenceOptions = EvidenceOptions()
    defects: DefectOptions = DefectOptions()
