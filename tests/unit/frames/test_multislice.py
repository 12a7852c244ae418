"""Sheets and cells for multislice images."""

import sys

import numpy as np
import pytest
from ase import Atoms

from adatom.core import GRAPHENE
from adatom.errors import EngineMissing
from adatom.frames.simulate.multislice import PrismOptions, atoms_of, prism_image
from adatom.frames.simulate.sheet import graphene_sheet

CELL = [12.0, 10.0, 2.0]


def test_a_sheet_has_the_defects_that_were_asked_for():
    extent = (30.0, 34.0)
    sheet = graphene_sheet(extent, np.random.default_rng(5), disorder_A=0.0, strain=0.0)
    assert np.count_nonzero(sheet.species == 1) == 3 + 1
    assert len(sheet.vacancies_xy) == 2 + 2
    assert sheet.xy.min() < -2.0
    assert np.all(sheet.xy.max(axis=0) > np.array(extent) + 2.0)
    distances = np.linalg.norm(sheet.xy[:, None] - sheet.xy[None], axis=2)
    assert distances[np.triu_indices(len(sheet.xy), 1)].min() > 1.2
    silicon = np.sort(distances[sheet.species == 1], axis=1)[:, 1:6]
    fourfold = np.sort(np.count_nonzero(silicon < 2.1, axis=1))
    np.testing.assert_array_equal(fourfold, [3, 3, 3, 4])


def test_a_cell_holds_its_specimen_with_a_gap_around_it():
    sheet = graphene_sheet((20.0, 24.0), np.random.default_rng(1))
    atoms = atoms_of(sheet, GRAPHENE)
    np.testing.assert_array_equal(atoms.positions[:, :2], sheet.xy)
    assert np.all(np.diag(atoms.cell.array)[:2] > np.ptp(sheet.xy, axis=0) + 3.0)
    assert atoms.symbols.count("Si") == np.count_nonzero(sheet.species == 1)


def test_without_abtem_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "abtem", None)
    with pytest.raises(EngineMissing, match=r"pip install adatom\[bench\]"):
        prism_image(Atoms("C", cell=CELL), (8, 8), 0.2, PrismOptions())
