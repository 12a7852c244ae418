"""Damage is counted at the sites where it happens, and one voltage holds for all actions."""

from __future__ import annotations

import numpy as np

import adatom as ad
from adatom.campaign.advise import damage_options
from adatom.core import GRAPHENE, AtomTable
from adatom.feedback import AdviceOptions, advise, choose_voltage
from adatom.feedback.damage import sites_of
from adatom.instrument.twin_options import PUBLISHED_HOPS_A2
from adatom.materials.library import load_material
from silicon import defect_table, sheet

DAMAGE = damage_options(GRAPHENE, 60.0)


def plan(atoms: AtomTable, at: np.ndarray, **given):
    defects = defect_table((0, "Si1C3", at, 0.9, -1))
    return advise(atoms, defects, species=2, **DAMAGE, **given)


def test_carbon_beside_silicon_is_counted_once_and_nothing_else():
    atoms, at = sheet(si_sigma=0.3)
    (p,) = sites_of(atoms, [s.site for s in DAMAGE["sites"]], 1.42)
    near = np.linalg.norm(atoms.xy - at, axis=1)
    assert np.flatnonzero(p).tolist() == sorted(np.argsort(near)[1:4].tolist())


def test_silicon_in_the_field_decides_the_voltage():
    atoms, at = sheet(si_sigma=0.3)
    options = AdviceOptions(manipulate=None)
    scan, voltage = plan(atoms, at, frame_dose_per_A2=1e6, options=options)[:2]
    assert scan.voltage_kV == voltage.voltage_kV == 60.0
    assert "Most events are expected at 3 C beside Si." in voltage.reason
    # As for the perfect crystal, whose atoms need 21.5 eV, 80 kV was harmless.
    blind = advise(
        atoms, defect_table((0, "Si1C3", at, 0.9, -1)), species=2, frame_dose_per_A2=1e6,
        damage=DAMAGE["damage"], options=options,
    )  # fmt: skip
    assert blind[0].voltage_kV > 60.0


def test_no_voltage_is_advised_above_that_of_an_advised_move():
    atoms, at = sheet()
    for dose in (None, 1e3, 1e6):
        told = plan(atoms, at, frame_dose_per_A2=dose)
        assert any(a.action == "place_beam" for a in told)
        assert {a.voltage_kV for a in told if a.voltage_kV is not None} == {60.0}


def test_the_limit_beside_silicon_is_that_of_its_moves():
    # At 60 kV the published hops take 0.28 barn of one Si atom: 0.1 events at 3.6e7 e/Å².
    (site,) = DAMAGE["sites"]
    (found,) = choose_voltage(
        {60.0: DAMAGE["damage"][60.0]}, atoms=100.0, dose_per_A2=1e6, max_events=0.1,
        sites=[(site, 3.0)],
    )  # fmt: skip
    assert 5e6 < found.dose_limit_per_A2 < 3.6e7
    # The mean over what is not known of the threshold is above the rate at its middle.
    assert 1.0 < found.events / (PUBLISHED_HOPS_A2 * 1e6) < 3.0


def test_nitrogen_and_boron_have_their_own_thresholds():
    known = load_material("h-BN").knock_on
    assert known is not None
    assert (known.element, known.threshold_eV) == ("B", 19.36)
    assert [(s.element, s.threshold_eV) for s in known.sites] == [("N", 23.06)]
    assert "excites electrons" in damage_options(load_material("MoS2"), 80.0)["caveat"]


def test_molybdenum_does_not_count_as_sulfur():
    """Advice on MoS2 counts the S of the columns S2 alone, as on the command line."""
    options = AdviceOptions(manipulate=None, min_gain_nats=0.0)
    xy = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), axis=-1).reshape(-1, 2) * 1.8
    one = np.ones(len(xy))

    def limit_of(labels: list[str]) -> float:
        atoms = AtomTable.build(
            frame=0, xy=xy, covariance=np.tile(0.09 * np.eye(2), (len(xy), 1, 1)), p_exists=one,
            element=labels, p_element=one, votes=one, amplitude=one,
        )  # fmt: skip
        told = advise(
            atoms, defect_table((0, "vac_S2", xy[70], 0.9, -1)), species=4, frame_dose_per_A2=1e9,
            options=options, **damage_options(load_material("MoS2"), 80.0),
        )  # fmt: skip
        (scan,) = [a.scan for a in told if a.action == "scan"]
        assert scan is not None
        return scan.dose_per_A2

    columns = ["Mo", "S2"] * 72
    as_single = ["Mo" if k == "Mo" else "S" for k in columns]
    assert np.isclose(limit_of(as_single) / limit_of(columns), 2.0, rtol=1e-6)


def test_python_and_campaigns_weigh_the_same_sites():
    atoms, at = sheet(si_sigma=0.3)
    told = ad.advise(atoms, defect_table((0, "Si1C3", at, 0.9, -1)), frame_dose_per_A2=1e6)
    (voltage,) = [a for a in told if a.action == "set_voltage"]
    assert "Most events are expected at 3 C beside Si." in voltage.reason
