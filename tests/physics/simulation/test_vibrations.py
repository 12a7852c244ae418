"""Harmonic vibrations against formulas and published numbers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from ase.build import graphene
from ase.io import write
from scipy.constants import atomic_mass, hbar, k
from typer.testing import CliRunner

import adatom as ad
from adatom.cli.main import app
from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.simulation import displacement_cross_section_barn


def sheet(cells: int):
    return graphene(size=(cells, cells, 1), a=2.46, vacuum=8.0)


@pytest.fixture(scope="module")
def seven():
    return ad.vibrate(sheet(7), engine="lammps")


def test_carbon_of_graphene_is_as_fast_across_the_sheet_as_published(seven):
    # Susi et al. 2016 and RECIPES: 2.9e5 to 3.2e5 m²/s² at 300 K, from phonons of DFT.
    found = seven.mean_square_velocity_m2_s2(0, 300.0)
    assert 2.8e5 < found[2] < 3.2e5
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    data = GRAPHENE.knock_on.mean_square_velocity_m2_s2
    own, given = (displacement_cross_section_barn(100.0, "C", 21.5, v) for v in (found[2], data))
    assert own == pytest.approx(given, rel=0.15)


def test_modes_are_complete_and_a_minimum_has_no_imaginary_ones(seven):
    assert seven.imaginary == 0
    assert seven.notes == ()
    assert len(seven.frequencies_THz) == 3 * 98
    assert np.abs(seven.frequencies_THz[:3]).max() < 0.3  # the translations
    flat = seven.modes.reshape(3 * 98, -1)
    assert flat @ flat.T == pytest.approx(np.eye(3 * 98), abs=1e-6)


def test_heat_goes_over_into_equipartition_and_cold_into_zero_point_motion(seven):
    mass = 12.011 * atomic_mass
    hot = seven.mean_square_velocity_m2_s2(3, 20_000.0)
    assert hot == pytest.approx([k * 20_000.0 / mass] * 3, rel=0.01)
    kept = seven.frequencies_THz[3:] * 1e12 * 2.0 * math.pi
    still = sum(hbar * kept / 2.0) / 98 / mass  # of all directions, mean over atoms that are alike
    cold = seven.mean_square_velocity_m2_s2(3, 0.0).sum()
    assert cold == pytest.approx(still * 98 / 97, rel=0.03)
    assert seven.free_energy_eV(1.0) == pytest.approx(seven.zero_point_eV, rel=1e-3)
    assert seven.free_energy_eV(600.0) < seven.zero_point_eV


def test_a_heavier_isotope_is_slower():
    light, heavy = sheet(4), sheet(4)
    for atoms, mass in ((light, 12.0), (heavy, 13.00335)):
        atoms.set_masses([mass] * len(atoms))
    slow, fast = (
        ad.vibrate(atoms, engine="lammps").mean_square_velocity_m2_s2(0, 0.0)[2]
        for atoms in (heavy, light)
    )
    assert slow / fast == pytest.approx((12.0 / 13.00335) ** 1.5, rel=1e-3)  # ω and 1/m


def test_the_command_tells_velocities(tmp_path):
    path = tmp_path / "sheet.extxyz"
    write(path, sheet(4))
    done = CliRunner().invoke(
        app, ["vibrate", str(path), "--engine", "lammps", "--atoms", "0,7", "--json"],
        catch_exceptions=False,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert sorted(told["mean_square_velocity_m2_s2"]) == ["0", "7"]
    assert len(told["frequencies_THz"]) == 6
    with pytest.raises(BadInput, match="--atoms 0,x"):
        CliRunner().invoke(app, ["vibrate", str(path), "--atoms", "0,x"], catch_exceptions=False)


def test_held_and_absent_atoms_are_told():
    some = ad.vibrate(sheet(4), atoms=[2], engine="lammps")
    with pytest.raises(BadInput, match="one that was held"):
        some.mean_square_velocity_m2_s2(0, 300.0)
    with pytest.raises(BadInput, match="temperature"):
        some.mean_square_velocity_m2_s2(2, -1.0)
    with pytest.raises(BadInput, match="numbers of free atoms, 0 to 31"):
        ad.vibrate(sheet(4), atoms=[32], engine="lammps")


def test_half_an_atom_does_not_vibrate():
    with pytest.raises(BadInput, match="whole numbers of atoms"):
        ad.vibrate(sheet(4), atoms=[0.5], engine="lammps")


def test_an_axis_whose_only_mode_is_imaginary_has_no_velocity():
    flat = sheet(4)  # Si is larger than C: it buckles, and flat it is on a saddle
    flat.symbols[3] = "Si"
    found = ad.vibrate(flat, atoms=[3], engine="lammps")
    assert found.imaginary == 1
    assert "1 imaginary frequency," in " ".join(found.notes)
    square = found.mean_square_velocity_m2_s2(3, 300.0)
    assert np.isnan(square[2])
    assert np.all(square[:2] > 1e5)
