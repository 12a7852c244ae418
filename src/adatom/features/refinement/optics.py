"""Options of the refinement, and the parameters that all atoms of a frame share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.noise import Noise


class RefineOptions(BaseModel):
    """How positions are refined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(4, ge=1, description="Fisher-scoring steps with the probe known")
    probe_iterations: int = Field(8, ge=1, description="steps in which the probe is fitted")
    start_sigma_A: float = Field(
        0.12, gt=0, description="how far the networks' positions are trusted, Å (1 sigma)"
    )
    largest_step_A: float = Field(0.12, gt=0, description="longest move in one iteration, Å")
    largest_shift_A: float = Field(0.45, gt=0, description="farthest from the start, Å")


@dataclass(frozen=True, slots=True, eq=False)
class Optics:
    """Probe, noise and jitter: the parameters that all atoms of a frame share.

    Parameters
    ----------
    probe
        Fitted probe, in binned pixels.
    noise
        Fitted noise of the binned pixels.
    pixel_size_A
        Size of the binned pixels, Å.
    jitter_A
        Standard deviation of the shifts of scan lines along x, Å.
    """

    probe: Probe
    noise: Noise
    pixel_size_A: float
    jitter_A: float = 0.0

    @property
    def sigma_A(self) -> float:
        """Mean width (sigma) of the core of the probe, Å."""
        return self.probe.sigma() * self.pixel_size_A

    @property
    def ellipticity(self) -> float:
        """Ratio of the long to the short width of the core."""
        low, high = np.linalg.eigvalsh(self.probe.matrix())
        return float(np.sqrt(high / max(low, 1e-12)))
