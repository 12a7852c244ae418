"""Options of the simulated microscope."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

# Cross section, Å², of the published rates (`adatom.core.hops.HopModel`) at graphene's bond length.
PUBLISHED_HOPS_A2 = 2.8e-9
# 570 times that: twelve frames of a demonstration then show several hops.
FAST_HOPS_A2 = 1.6e-6


class TwinOptions(BaseModel):
    """The simulated specimen, beam and stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int = Field(12, ge=1, description="frames of the demonstration")
    sheet_A: float = Field(48.0, gt=20, description="edge of the sheet, Å")
    vacancies: int = Field(1, ge=0, description="single vacancies in the field of view")
    foreign: int = Field(1, ge=0, description="substitutional impurity atoms in the field of view")
    field_of_view_A: float = Field(20.0, gt=8, description="field of view, Å")
    pixels: int = Field(192, ge=32, description="pixels along an edge")
    counts: float = Field(2.0, gt=0, description="detected counts at a host atom's peak, per pixel")
    dose_per_A2: float = Field(2e5, gt=0, description="electrons per Å² and frame")
    current_pA: float = Field(50.0, gt=0, description="probe current, pA")
    hop_cross_section_A2: float = Field(
        PUBLISHED_HOPS_A2,
        ge=0,
        le=1e-4,
        description="cross section of an impurity atom's hop to a neighbour, Å²",
    )
    voltage_kV: float = Field(60.0, gt=0, description="acceleration voltage, kV")
    loss_cross_section_A2: float | None = Field(
        None,
        ge=0,
        le=1e-4,
        description="cross section of the loss of an atom of the crystal's dimmest column, Å²; by "
        "default that of knock-on at the voltage, where the material's threshold is known",
    )
    deposited_per_electron: float = Field(
        0.0,
        ge=0,
        le=1e-5,
        description="carbon atoms of contamination that gather under the beam, per electron; about "
        "1e-8 on a dirty specimen",
    )
    drift_A: float = Field(
        0.25, ge=0, description="drift in the time of such a frame, Å (1 sigma an axis)"
    )
    overhead_s: float = Field(0.0, ge=0, description="time that a frame takes beside its pixels, s")
    traces: bool = Field(default=True, description="the detector is read while the beam is parked")
