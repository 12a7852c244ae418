"""What a microscope is asked for, and what a parked beam answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.core.arrays import FloatArray
from adatom.core.calibration import Calibration
from adatom.core.units import ELECTRONS_PER_S_PER_PA
from adatom.errors import BadInput


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """A request for an image.

    Parameters
    ----------
    center_xy_A
        Centre of the field of view, x and y in Å in the frame of the specimen.
    field_of_view_A
        Edge of the square field, Å.
    pixels
        Pixels along an edge.
    dose_per_A2
        Electrons per Å².
    voltage_kV
        Acceleration voltage.
    """

    center_xy_A: tuple[float, float]
    field_of_view_A: float
    pixels: int
    dose_per_A2: float
    voltage_kV: float = 60.0

    @property
    def calibration(self) -> Calibration:
        """Pixel size of the frame that this request would give."""
        return Calibration(self.field_of_view_A / self.pixels)

    def to_specimen(self, xy: FloatArray) -> FloatArray:
        """Convert positions in the frame of this request to the axes of the specimen.

        Parameters
        ----------
        xy
            Shape (..., 2), Å; (0, 0) is the centre of the frame's first pixel.

        Examples
        --------
        >>> import numpy as np
        >>> ScanRequest((24.0, 24.0), 16.0, 160, 1e5).to_specimen(np.array([8.0, 2.0])).tolist()
        [24.0, 18.0]
        """
        out: FloatArray = xy + (np.asarray(self.center_xy_A) - self.field_of_view_A / 2)
        return out


@dataclass(frozen=True, slots=True)
class BeamRequest:
    """A request to park the beam on one place.

    The place is given in a frame that was seen. An adapter turns it into the scan unit's own
    fractions.

    Parameters
    ----------
    seen
        Request of that frame.
    xy_A
        Place in it, x and y in Å; (0, 0) is the centre of its first pixel.
    dwell_s
        Longest dwell time, s.

    Raises
    ------
    BadInput
        If the place lies outside the frame, or the dwell time is not a positive number.

    Examples
    --------
    >>> seen = ScanRequest((24.0, 24.0), 16.0, 160, 1e5)
    >>> BeamRequest(seen, (8.0, 2.0), 0.5).place_xy_A
    (24.0, 18.0)
    """

    seen: ScanRequest
    xy_A: tuple[float, float]
    dwell_s: float

    def __post_init__(self) -> None:
        """Check place and dwell time."""
        edge = self.seen.field_of_view_A
        if not all(0.0 <= v <= edge for v in self.xy_A):
            raise BadInput(
                "place of the beam",
                expected=f"x and y within the frame, 0 to {edge:g} Å",
                got=f"({self.xy_A[0]:g}, {self.xy_A[1]:g}) Å",
                todo="Take a frame that shows the place.",
            )
        if not 0.0 < self.dwell_s < float("inf"):
            raise BadInput(
                "dwell time",
                expected="a positive number of seconds",
                got=f"{self.dwell_s:g} s",
                todo="Give a dwell time.",
            )

    @property
    def place_xy_A(self) -> tuple[float, float]:
        """The place in the axes of the specimen, Å."""
        x, y = self.seen.to_specimen(np.asarray(self.xy_A))
        return float(x), float(y)


@dataclass(frozen=True, slots=True)
class BeamConditions:
    """State of the beam.

    Parameters
    ----------
    voltage_kV
        Acceleration voltage, kV.
    current_pA
        Probe current, pA.
    """

    voltage_kV: float
    current_pA: float

    @property
    def electrons_per_s(self) -> float:
        """Electrons per second."""
        return self.current_pA * ELECTRONS_PER_S_PER_PA


@dataclass(frozen=True, slots=True, eq=False)
class DwellTrace:
    """Signal of the detector while the beam was parked.

    Parameters
    ----------
    request
        What was asked for.
    counts
        Detected counts of each time slice, shape (slice,). Without a trace: all NaN.
    slice_s
        Duration of a slice, s.
    stopped
        The dwell ended before its longest time, because its signal or a user said so.
    """

    request: BeamRequest
    counts: FloatArray
    slice_s: float
    stopped: bool

    @property
    def dwell_s(self) -> float:
        """Time for which the beam was on, s."""
        return len(self.counts) * self.slice_s
