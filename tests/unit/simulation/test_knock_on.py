"""Knock-on cross sections: what is refused, and the voltages that a campaign asks for."""

from __future__ import annotations

import math

import pytest

from adatom.errors import BadInput
from adatom.simulation import (
    displacement_cross_section_barn,
    dose_per_event_A2,
    maximum_energy_transfer_eV,
    uncertain_cross_section,
)

C12 = 12.0


def test_dose_per_event():
    assert dose_per_event_A2(1.0) == 1e8
    assert dose_per_event_A2(0.0) == math.inf


@pytest.mark.parametrize(
    "call",
    [
        lambda: maximum_energy_transfer_eV(-60.0, C12),
        lambda: maximum_energy_transfer_eV(math.nan, C12),
        lambda: displacement_cross_section_barn(60.0, "Xx", 21.0, 3e5),
        lambda: displacement_cross_section_barn(60.0, "C", 0.0, 3e5),
        lambda: displacement_cross_section_barn(60.0, "C", 21.0, -1.0),
        lambda: uncertain_cross_section(60.0, "C", 21.0, 3e5, threshold_sd_eV=8.0),
        lambda: dose_per_event_A2(-1.0),
    ],
)
def test_bad_numbers_are_refused(call):
    with pytest.raises(BadInput, match="expected"):
        call()


def test_the_microscopes_own_voltage_is_weighed_too():
    from adatom.campaign.advise import damage_by_voltage
    from adatom.core import GRAPHENE

    damage = damage_by_voltage(GRAPHENE, 90.0)
    assert list(damage) == [60.0, 80.0, 90.0, 100.0]
    assert damage[80.0][0] < damage[90.0][0] < damage[100.0][0]
