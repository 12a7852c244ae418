"""Barriers between states of a sheet, in real engines."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from ase.io import write
from typer.testing import CliRunner

import adatom as ad
from adatom.cli.main import app
from adatom.errors import BadInput
from adatom.simulation import BarrierOptions
from adatom.store import read_trajectory

FLAT = BarrierOptions(images=7, flat=True)


def rotated_bond(cells: int) -> tuple[Atoms, Atoms]:
    """A sheet, and the same with one bond turned by 90 degrees: a Stone-Wales defect."""
    sheet = graphene(size=(cells, cells, 1), a=2.46, vacuum=8.0)
    i = cells // 2 * (cells + 1) * 2
    j = int(np.argsort(sheet.get_distances(i, range(len(sheet)), mic=True))[1])
    bond = sheet.get_distance(i, j, mic=True, vector=True)
    side = 0.5 * np.array([-bond[1], bond[0], 0.0])
    turned = sheet.copy()
    turned.positions[[i, j]] = sheet.positions[i] + 0.5 * bond + [-side, side]
    return sheet, turned


def test_stone_wales_in_flat_sheets_goes_to_the_known_barrier_of_lcbop():
    # 9.27 eV is known of LCBOP. In n x n cells the strain of the copies adds about 1 / n².
    found = {n: ad.barrier(*rotated_bond(n), engine="lammps", options=FLAT) for n in (6, 8)}
    assert {b.negative_modes for b in found.values()} == {1}
    small, large = found[6].barrier_eV, found[8].barrier_eV
    infinite = large - (small - large) / (8**2 / 6**2 - 1.0)
    assert infinite == pytest.approx(9.27, abs=0.1)


def test_a_sheet_that_may_buckle_has_a_lower_saddle():
    found = ad.barrier(*rotated_bond(7), engine="lammps")
    assert (found.status, found.negative_modes) == ("done", 1)
    assert found.barrier_eV == pytest.approx(9.04, abs=0.05)
    assert found.reaction_eV == pytest.approx(found.barrier_eV - found.reverse_eV)
    assert found.saddle is not None
    assert np.ptp(found.saddle.positions[:, 2]) > 0.5  # flat it would be at 9.58 eV
    assert np.linalg.norm(found.saddle.get_forces(), axis=1).max() < 0.03


def test_order_and_place_of_the_atoms_do_not_matter():
    sheet, turned = rotated_bond(4)
    plain = ad.barrier(sheet, turned, engine="lammps", options=FLAT)
    order = np.random.default_rng(3).permutation(len(turned))
    other = turned[order]
    other.positions += [0.4, -0.2, 1.0]
    other.wrap()
    mixed = ad.barrier(sheet, other, engine="lammps", options=FLAT)
    assert mixed.barrier_eV == pytest.approx(plain.barrier_eV, abs=0.01)


def test_states_that_do_not_belong_together_are_refused():
    sheet, turned = rotated_bond(4)
    less = turned.copy()
    del less[0]
    with pytest.raises(BadInput, match=r"same atoms, got C32 and C31"):
        ad.barrier(sheet, less, engine="lammps")
    wide = turned.copy()
    wide.set_cell(turned.cell * [1.01, 1.01, 1.0], scale_atoms=True)
    with pytest.raises(BadInput, match=r"same cell, got 9\.840x9\.840"):
        ad.barrier(sheet, wide, engine="lammps")
    with pytest.raises(BadInput, match="both relax to the same minimum"):
        ad.barrier(sheet, sheet, engine="lammps")
    far = sheet.copy()
    far.positions[5, 2] += 5.0
    with pytest.raises(BadInput, match=r"atom 5 \(C\) moves by 5\.0 Å"):
        ad.barrier(sheet, far, engine="lammps", allow_unfit=True)


def test_the_command_writes_band_picture_and_numbers(tmp_path):
    files = [tmp_path / "a.extxyz", tmp_path / "b.extxyz"]
    for path, atoms in zip(files, rotated_bond(4), strict=True):
        write(path, atoms)
    band, picture = tmp_path / "band.extxyz", tmp_path / "band.png"
    words = ["barrier", *map(str, files), "--engine", "lammps", "--flat", "--images", "5", "--json",
             "-o", str(band), "--picture", str(picture)]  # fmt: skip
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    told = json.loads(done.stdout)
    assert told["barrier_eV"] == pytest.approx(10.2, abs=0.05)
    assert (told["status"], told["negative_modes"]) == ("done", 1)
    images = read_trajectory(band)
    assert [round(i.get_potential_energy() - images[0].get_potential_energy(), 6) for i in images] \
        == pytest.approx(told["energy_eV"], abs=1e-5)  # fmt: skip
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="--images"):
        CliRunner().invoke(app, [*words[:6], "--images", "2"], catch_exceptions=False)


def test_an_unfit_engine_is_refused_unless_allowed():
    sheet, _ = rotated_bond(4)
    on, beside = sheet.copy(), sheet.copy()
    for atoms, bond in ((on, [0, 1]), (beside, [2, 3])):
        atoms.extend(Atoms("C", [atoms.positions[bond].mean(axis=0) + [0.0, 0.0, 1.5]]))
    with pytest.raises(BadInput, match="allow_unfit"):
        ad.barrier(on, beside, engine="lammps")
