"""Options of the iterative training; the campaign configuration includes them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AdaptOptions(BaseModel):
    """How the networks are retrained on the first frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(3, ge=1, description="largest number of rounds")
    frames: int = Field(6, ge=1, description="number of first frames that are used")
    steps: int = Field(240, ge=1, description="optimiser steps of each network in a round")
    learning_rate: float = Field(3e-4, gt=0, description="highest learning rate in a round")
    real_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="share of the training frames that are cropped from real frames",
    )
    fewer: float = Field(
        4.0,
        ge=1,
        description="lowest dose in training: this many times fewer counts than the frames",
    )
    calibration_frames: int = Field(
        192, ge=24, description="number of simulated frames that calibrate the probabilities"
    )
    validation_frames: int = Field(
        16, ge=4, description="number of simulated frames that validate each round"
    )
    settled: float = Field(
        0.004, ge=0, description="share of changed labels below which the rounds stop"
    )
    tolerance: float = Field(0.004, ge=0, description="loss of F1 in validation that is accepted")
