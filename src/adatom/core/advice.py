"""What the experiment is told to do next."""

from __future__ import annotations

from dataclasses import dataclass

from adatom.core.frame import ScanRequest


@dataclass(frozen=True, slots=True)
class Advice:
    """One action, with its reason and its price.

    Parameters
    ----------
    action
        ``scan``, ``place_beam``, ``set_voltage`` or ``stop``.
    reason
        One sentence for the operator.
    gain
        Expected gain of knowledge, nats (or the probability of success of a manipulation).
    gain_unit
        ``nats`` or ``probability``.
    uncertainty
        Standard deviation of the gain, in its unit.
    dose
        Electrons that it costs.
    scan
        The scan to make, where the action is one.
    target_xy_A
        Where to put the beam, Å, for ``place_beam``.
    dwell_s
        How long, s, for ``place_beam``.
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
