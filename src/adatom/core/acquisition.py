"""How frames were recorded: voltage, detector, times and dose, as far as it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import isclose

# Taken where neither the files nor the user give a voltage, kV: sheets are mostly imaged at it,
# because it is below the knock-on threshold of carbon.
ASSUMED_KV = 60.0
_ELECTRONS_PER_PA_S = 6.241509074e6  # 1 pA s over the elementary charge (exact, SI 2019)
_SAME = 1e-3  # relative difference below which two files say the same


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How frames were recorded; None for what is not known.

    Parameters
    ----------
    voltage_kV
        Acceleration voltage.
    detector_mrad
        Inner and outer angle of the annular detector.
    frame_time_s
        Time from frame to frame.
    dwell_s
        Time on each pixel, all passes of a frame together.
    current_pA
        Current of the beam.
    dose_per_A2
        Electrons per Å² and frame.

    Examples
    --------
    >>> from adatom.core import Acquisition
    >>> known = Acquisition(voltage_kV=200.0, dwell_s=2e-5, current_pA=27.0)
    >>> round(known.with_dose(0.1).dose_per_A2)
    337041
    """

    voltage_kV: float | None = None
    detector_mrad: tuple[float, float] | None = None
    frame_time_s: float | None = None
    dwell_s: float | None = None
    current_pA: float | None = None
    dose_per_A2: float | None = None

    @property
    def usual_voltage_kV(self) -> float:
        """The voltage, or the one that is assumed where it is not known."""
        return ASSUMED_KV if self.voltage_kV is None else self.voltage_kV

    def or_else(self, other: Acquisition) -> Acquisition:
        """Fill what is not known here from another description."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(other, **{name: value for name, value in mine.items() if value is not None})

    def with_dose(self, pixel_size_A: float | None) -> Acquisition:
        """Add the dose where it is not known, but current and time on a pixel are.

        Parameters
        ----------
        pixel_size_A
            Edge of a pixel, Å; None if not known.
        """
        if self.dose_per_A2 is not None or pixel_size_A is None:
            return self
        if self.current_pA is None or self.dwell_s is None:
            return self
        electrons = self.current_pA * self.dwell_s * _ELECTRONS_PER_PA_S
        return replace(self, dose_per_A2=electrons / pixel_size_A**2)


UNKNOWN = Acquisition()


def common_acquisition(several: Sequence[Acquisition]) -> tuple[Acquisition, tuple[str, ...]]:
    """What files of one movie agree on.

    Returns
    -------
    The values that no file contradicts, and the names of those that differ. A value that some
    files lack is not known.

    Examples
    --------
    >>> from adatom.core import Acquisition
    >>> common_acquisition([Acquisition(voltage_kV=60.0), Acquisition(voltage_kV=80.0)])[1]
    ('voltage_kV',)
    """
    differ: list[str] = []
    kept: dict[str, object] = {}
    for name in (f.name for f in fields(Acquisition)):
        values = [getattr(one, name) for one in several]
        known = [v for v in values if v is not None]
        if len(known) == len(values) and all(_same(v, known[0]) for v in known):
            kept[name] = known[0]
        elif any(not _same(v, known[0]) for v in known):
            differ.append(name)
    return Acquisition(**kept), tuple(differ)  # type: ignore[arg-type]


def _same(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return all(_same(a, b) for a, b in zip(one, other, strict=True))
    return isclose(float(one), float(other), rel_tol=_SAME)  # type: ignore[arg-type]
