"""Limits of a real instrument: without them, and outside of them, it is not driven."""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from adatom.core import BeamConditions, BeamRequest, ScanRequest
from adatom.errors import BadInput

_TODO = "Change the instrument, or its `limits` if it may be driven so."


class Limits(BaseModel):
    """What may be done with a real instrument; the user gives it, nothing is assumed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    voltage_kV: tuple[float, float] = Field(description="voltages at which it may be driven, kV")
    most_current_pA: float = Field(gt=0, description="largest probe current, pA")
    field_of_view_A: tuple[float, float] = Field(
        description="smallest and largest field of view, Å; no scan or parked beam leaves the "
        "largest one around the middle"
    )
    longest_dwell_s: float = Field(
        ge=0, description="longest time for which the beam is parked, s; 0: it only scans"
    )
    pixels: tuple[int, int] = Field((16, 4096), description="fewest and most pixels along an edge")
    pixel_time_us: tuple[float, float] = Field(
        (0.1, 1e5), description="shortest and longest time on a pixel, µs"
    )

    def check_conditions(self, beam: BeamConditions) -> None:
        """Refuse a beam that the limits do not know.

        Raises
        ------
        BadInput
            If voltage or current is outside.

        Examples
        --------
        >>> limits = Limits(
        ...     voltage_kV=(55, 65),
        ...     most_current_pA=100,
        ...     field_of_view_A=(10, 200),
        ...     longest_dwell_s=5,
        ... )
        >>> limits.check_conditions(BeamConditions(60.0, 50.0))
        """
        low, high = self.voltage_kV
        if not low <= beam.voltage_kV <= high:
            raise BadInput(
                "voltage", expected=f"{low:g} to {high:g} kV, for which limits are given",
                got=f"{beam.voltage_kV:g} kV", todo=_TODO,
            )  # fmt: skip
        if not 0 < beam.current_pA <= self.most_current_pA:
            raise BadInput(
                "probe current", expected=f"above 0 and at most {self.most_current_pA:g} pA",
                got=f"{beam.current_pA:g} pA", todo=_TODO,
            )  # fmt: skip

    def check_place(self, request: ScanRequest) -> None:
        """Refuse a frame that leaves the largest field around the middle.

        Parameters
        ----------
        request
            Frame with its centre from the middle of the largest field, Å.

        Raises
        ------
        BadInput
            If a part of it lies outside.
        """
        reach = self.field_of_view_A[1] / 2
        far = max(abs(v) for v in request.center_xy_A) + request.field_of_view_A / 2
        if far > reach * (1 + 1e-9):
            x, y = request.center_xy_A
            raise BadInput(
                "place of the frame", expected=f"all of it within {reach:g} Å of the middle",
                got=f"a field of {request.field_of_view_A:g} Å around ({x:g}, {y:g}) Å", todo=_TODO,
            )  # fmt: skip

    def check_beam_place(self, request: BeamRequest) -> None:
        """Refuse a parked beam outside of the largest field around the middle.

        Raises
        ------
        BadInput
            If it is.
        """
        point = replace(request.seen, center_xy_A=request.place_xy_A, field_of_view_A=0.0)
        self.check_place(point)

    def pixel_us(self, request: ScanRequest, beam: BeamConditions) -> float:
        """Time on a pixel that gives the dose, µs.

        Raises
        ------
        BadInput
            If the instrument may not scan so fast or so slowly.

        Examples
        --------
        >>> limits = Limits(
        ...     voltage_kV=(55, 65),
        ...     most_current_pA=100,
        ...     field_of_view_A=(10, 200),
        ...     longest_dwell_s=5,
        ... )
        >>> frame = ScanRequest((0.0, 0.0), 24.0, 192, 1e5)  # pixels of 0.125 Å
        >>> round(limits.pixel_us(frame, BeamConditions(60.0, 50.0)), 2)
        5.01
        """
        area_A2 = request.calibration.pixel_size_A**2
        time_us = 1e6 * request.dose_per_A2 * area_A2 / beam.electrons_per_s
        low, high = self.pixel_time_us
        if not low <= time_us <= high:
            per_us = beam.electrons_per_s / 1e6 / area_A2
            raise BadInput(
                "dose of a frame",
                expected=f"{low * per_us:.3g} to {high * per_us:.3g} e⁻/Å² with such pixels, by "
                "the shortest and longest time on a pixel",
                got=f"{request.dose_per_A2:.3g} e⁻/Å²",
                todo="Ask for another dose, pixel size or current.",
            )
        return time_us


def limits_needed(subject: str) -> BadInput:
    """Make the error of a real instrument without limits."""
    fields = ", ".join(name for name, field in Limits.model_fields.items() if field.is_required())
    return BadInput(
        subject,
        expected=f"the option `limits` with {fields}: a real instrument is not driven without",
        got="none",
        todo="Give them in the file of --instrument-options, under [limits].",
    )
