"""Options of the iterative training, where the configuration and the training both find them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AdaptOptions(BaseModel):
    """How the networks are retrained on the first frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(3, ge=1, description="most rounds")
    frames: int = Field(6, ge=1, description="how many of the first frames are used")
    steps: int = Field(240, ge=1, description="optimiser steps of each network in a round")
    learning_rate: float = Field(3e-4, gt=0, description="highest learning rate in a round")
    real_share: float = Field(
        0.4, ge=0, le=1, description="share of the training frames that are cut from the real ones"
    )
    fewer: float = Field(
        4.0,
        ge=1,
        description="training goes down to this many times fewer counts than the frames have",
    )
    calibration_frames: int = Field(
        192, ge=24, description="simulated frames that the probabilities are calibrated on"
    )
    validation_frames: int = Field(
        16, ge=4, description="simulated frames that each round is validated on"
    )
    settled: float = Field(
        0.004, ge=0, description="share of changed labels below which the rounds end"
    )
    tolerance: float = Field(0.004, ge=0, description="loss of F1 in validation that is accepted")
