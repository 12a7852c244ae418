"""Displacement thresholds by knocks in real engines."""

from __future__ import annotations

import json

import pytest
from ase.build import graphene
from ase.constraints import FixAtoms
from ase.io import write
from typer.testing import CliRunner

import adatom as ad
from adatom.cli.main import app
from adatom.errors import BadInput, StepFailed
from adatom.simulation import DisplacementOptions


def test_carbon_of_graphene_leaves_at_the_published_energy_and_the_command_says_so(tmp_path):
    # DFT: 22 to 23 eV (Kotakoski et al. 2010; Susi et al. 2016); LCBOP: 24.1 eV.
    path = tmp_path / "sheet.extxyz"
    write(path, graphene(size=(6, 6, 1), a=2.46, vacuum=8.0))
    words = ["threshold", str(path), "--atom", "40", "--low", "15", "--high", "35",
             "--tolerance", "1", "--engine", "lammps", "--json"]  # fmt: skip
    told = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert told["leaves_eV"] == pytest.approx(23.0, abs=2.0)
    assert told["moves_eV"] == told["leaves_eV"]  # nothing but ejection in the perfect sheet
    energies = [energy for energy, _ in told["tried"]]
    outcomes = [outcome for _, outcome in told["tried"]]
    assert energies == sorted(energies)
    assert outcomes == sorted(outcomes, reverse=True)  # stays, then leaves


def test_both_faces_of_a_flat_sheet_are_alike_and_sideways_is_harder():
    sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    coarse = DisplacementOptions(low_eV=15.0, high_eV=35.0, tolerance_eV=2.5)
    up, down = (
        ad.displacement_threshold(
            sheet, 12, direction=(0.0, 0.0, way), engine="lammps", options=coarse
        ).leaves_eV
        for way in (1.0, -2.0)
    )
    assert up == down
    with pytest.raises(BadInput, match="35 eV, not enough"):
        ad.displacement_threshold(
            sheet, 12, direction=(1.0, 0.0, 0.0), engine="lammps", options=coarse
        )


def test_wrong_knocks_are_refused():
    sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    with pytest.raises(BadInput, match="0 to 31"):
        ad.displacement_threshold(sheet, 32, engine="lammps")
    with pytest.raises(BadInput, match="not all zero"):
        ad.displacement_threshold(sheet, 1, direction=(0.0, 0.0, 0.0), engine="lammps")
    sheet.set_constraint(FixAtoms([1]))
    with pytest.raises(BadInput, match="a fixed one"):
        ad.displacement_threshold(sheet, 1, engine="lammps")
    with pytest.raises(StepFailed, match="when the time was over"):
        ad.displacement_threshold(
            sheet, 2, engine="lammps", options=DisplacementOptions(max_seconds=0.001)
        )
