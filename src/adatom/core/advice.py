"""An action that the experiment could take next."""

from __future__ import annotations

from dataclasses import dataclass

from adatom.core.scan import ScanRequest


@dataclass(frozen=True, slots=True)
class Advice:
    """One action, with its reason, expected gain and dose.

    Parameters
    ----------
    action
        ``scan``, ``place_beam``, ``set_voltage`` or ``stop``.
    reason
        One sentence for the operator.
    gain
        Expected gain of information, nats; for a manipulation, its probability of success.
    gain_unit
        ``nats`` or ``probability``.
    uncertainty
        Standard deviation of the gain, in its unit.
    dose
        Number of electrons that it needs.
    scan
        The scan to make, for ``scan``.
    target_xy_A
        Where to put the beam, Å, for ``place_beam``.
    dwell_s
        Time of the beam at the target, s, for ``place_beam``.
    voltage_kV
        Acceleration voltage, kV.
    """

    action: str
    reason: str
    gain: float
    gain_unit: str
    uncertainty: float
    dose: float
    scan: ScanRequest | None = None
    target_xy_A: tuple[float, float] | None = None
    dwell_s: float | None = None
    voltage_kV: float | None = None
