"""A simulated microscope that sees a perfect sheet of the material, with Poisson noise."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from adatom.core import (
    BeamConditions,
    BeamRequest,
    DwellTrace,
    Frame,
    Material,
    ScanRequest,
)
from adatom.errors import BadInput
from adatom.frames.simulate.specimen import lattice_points
from adatom.instrument import Capabilities, StopWhen


class CameraOptions(BaseModel):
    """The beam of the camera."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="seed of the noise")
    probe_sigma_A: float = Field(0.45, gt=0, description="standard deviation of the probe, Å")


class Camera:
    """An open `LatticeCamera`; a real one would hold the connection."""

    capabilities = Capabilities(
        simulated=True, center_xy_A=(0.0, 0.0), field_of_view_A=(4.0, 60.0), pixels=(32, 1024)
    )

    conditions = BeamConditions(voltage_kV=60.0, current_pA=50.0)
    time_s = 0.0  # it takes no time

    def __init__(self, options: CameraOptions, material: Material) -> None:
        self.probe_sigma_A = options.probe_sigma_A
        self.rng = np.random.default_rng(options.seed)
        self.sites_xy = lattice_points(material, (90.0, 90.0), 0.0, angle_rad=0.1) - 45.0

    def acquire(self, request: ScanRequest) -> Frame:
        """Take a frame; counts follow the dose."""
        self.capabilities.check(request)
        pixel_A = request.calibration.pixel_size_A
        pixels_A = np.arange(request.pixels)[:, None] * pixel_A
        xy = self.sites_xy - np.asarray(request.center_xy_A) + request.field_of_view_A / 2
        x, y = (np.exp(-(((pixels_A - c) / self.probe_sigma_A) ** 2) / 2) for c in xy.T)
        electrons = request.dose_per_A2 * pixel_A**2
        image = self.rng.poisson(0.01 * electrons * (0.1 + y @ x.T)).astype(np.float32)
        return Frame(
            image, request.calibration, source=LatticeCamera.name, dose_per_A2=request.dose_per_A2
        )

    def place_beam(self, request: BeamRequest, stop_when: StopWhen | None = None) -> DwellTrace:
        """Refuse: it only scans, as `capabilities` says."""
        self.capabilities.check_beam(request, stop_when)
        raise NotImplementedError

    def abort(self) -> None:
        """Do nothing: nothing runs between two calls."""


class LatticeCamera:
    """Opens the camera."""

    name = "lattice-camera"
    summary = "Simulated microscope over a perfect sheet"
    options_type = CameraOptions

    def open(self, options: BaseModel, material: Material) -> Camera:
        """Put the material under the beam."""
        if not isinstance(options, CameraOptions):
            raise BadInput(
                "options of lattice-camera",
                expected="CameraOptions",
                got=type(options).__name__,
                todo="Give CameraOptions.",
            )
        return Camera(options, material)


INSTRUMENT = LatticeCamera()
