"""Options of the iterative training, where the configuration and the training both find them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AdaptOptions(BaseModel):
    """How an ensemble adapts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(3, ge=1, description="most rounds")
    frames: int = Field(6, ge=1, description="first frames that are used")
    steps: int = Field(240, ge=1, description="optimiser steps of a network in a round")
    learning_rate: float = Field(3e-4, gt=0, description="its peak in a round")
    real_share: float = Field(0.4, ge=0, le=1, description="share of real frames in training")
    fewer: float = Field(4.0, ge=1, description="train down to so many times fewer counts")
    calibration_frames: int = Field(192, ge=24, description="simulated frames of a calibration")
    validation_frames: int = Field(16, ge=4, description="simulated frames of the guard")
    settled: float = Field(0.004, ge=0, description="share of changed labels that ends the rounds")
    tolerance: float = Field(0.004, ge=0, description="loss of F1 that the guard lets pass")
