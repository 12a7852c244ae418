"""Options of relaxations and dynamics, the same for every engine."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RelaxOptions(BaseModel):
    """How a structure is relaxed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fmax_eV_A: float = Field(0.05, gt=0, description="largest force at the end, eV/Å")
    max_steps: int = Field(150, ge=1, description="most steps of the optimiser")
    max_seconds: float = Field(300.0, gt=0, description="most wall time, s")
    electronic_temperature_K: float = Field(300.0, gt=0, description="of the electrons, K")
    accuracy: float = Field(
        10.0, gt=0, le=100, description="tblite's accuracy; forces to 1e-3 eV/Å at 10"
    )
    prepare: bool = Field(
        default=True, description="go to the classical minimum first, and start from its Hessian"
    )
    buckle: bool = Field(
        default=True,
        description="of a sheet one atom thick, also try other bucklings at that minimum, and "
        "start from the lowest",
    )
    kick_A: float = Field(
        0.5,
        ge=0,
        le=1,
        description="an odd atom of a flat minimum is moved by this much across the sheet, Å, and "
        "it is relaxed again; 0 for never",
    )
    trajectory_frames: int = Field(12, ge=2, description="geometries to keep")


class DynamicsOptions(BaseModel):
    """How a structure is heated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timestep_fs: float = Field(0.5, gt=0, le=2, description="time step, fs")
    equilibration_ps: float = Field(1.0, ge=0, description="heating before the production, ps")
    production_ps: float = Field(10.0, gt=0, description="length of the trajectory, ps")
    sample_fs: float = Field(25.0, gt=0, description="time between samples of the trace, fs")
    trajectory_frames: int = Field(50, ge=2, description="geometries to keep")
    thermostat: Literal["rescaling", "none"] = Field(
        "rescaling", description="of the production: rescaling (NVT) or none (NVE)"
    )
    max_seconds: float = Field(600.0, gt=0, description="most wall time, s")
