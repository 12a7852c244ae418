"""What a beam can move or knock out at its voltage: asked before anything moves."""

from __future__ import annotations

from adatom.core import BeamConditions, Material
from adatom.core.units import A2_PER_BARN
from adatom.errors import BadInput
from adatom.feedback.moving import MoveOptions, knocks_of
from adatom.simulation import displacement_cross_section_barn

_VOLTAGES_KV = (60.0, 80.0, 90.0, 100.0, 120.0, 200.0, 300.0)  # of microscopes
_EXPECTED = 3.0  # the limit of time must leave so many times the expected time of a knock
_BEST_FLUX_A = 0.42  # Å: Gaussian width of a usual probe


def check_voltage(beam: BeamConditions, options: MoveOptions) -> None:
    """Refuse a voltage at which the rates of exchanges are not known.

    Raises
    ------
    BadInput
        If it is one.
    """
    low, high = options.voltage_kV
    if not low <= beam.voltage_kV <= high:
        raise BadInput(
            "voltage",
            expected=f"{low:g} to {high:g} kV, where the rates of the prior hold",
            got=f"{beam.voltage_kV:g} kV",
            todo="Set the voltage, or give `voltage_kV` with rates that you know.",
        )


def knock_cross_section_A2(material: Material, beam: BeamConditions, options: MoveOptions) -> float:
    """Give the cross section of the displacement of an atom of the crystal, Å².

    Parameters
    ----------
    material
        The sheet.
    beam
        Voltage and current.
    options
        Give the limit of time.

    Raises
    ------
    BadInput
        If no threshold is known, or the beam would not knock an atom out within the time.
    """
    known = material.knock_on
    if known is None or known.element != material.host:
        raise BadInput(
            "vacancy",
            expected=f"a material with a knock-on threshold of {material.host}",
            got=f"{material.name}, for which none is known",
            todo="Give one in the material's file.",
        )

    def cross_section(voltage_kV: float) -> float:
        barn = displacement_cross_section_barn(
            voltage_kV, known.element, known.threshold_eV, known.mean_square_velocity_m2_s2
        )
        return A2_PER_BARN * barn

    def seconds(voltage_kV: float) -> float:
        rate = knocks_of(cross_section(voltage_kV), _BEST_FLUX_A, beam.electrons_per_s, 0.0)
        return 1.0 / max(rate, 1e-99)

    most = options.longest_s / _EXPECTED
    if seconds(beam.voltage_kV) > most:
        enough = next((v for v in _VOLTAGES_KV if seconds(v) <= most), None)
        raise BadInput(
            "voltage",
            expected=f"one that knocks {known.element} out within {most:.3g} s: "
            f"{known.threshold_eV:g} eV are needed",
            got=f"{beam.voltage_kV:g} kV, which takes {seconds(beam.voltage_kV):.2g} s at "
            f"{beam.current_pA:g} pA",
            todo="Choose another material."
            if enough is None
            else f"Set {enough:g} kV, where it takes about {seconds(enough):.2g} s.",
        )
    return cross_section(beam.voltage_kV)
