"""Relaxed positions carry the strain of the cell, and no shift, turn or mirror."""

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.structures import Compared, pristine_supercell, relaxed_positions


@pytest.fixture(scope="module")
def one():
    found = pristine_supercell(GRAPHENE)
    found.atoms.positions[:, 2] += np.random.default_rng(1).normal(0.0, 0.1, len(found.atoms))
    return found


def near(structure):
    middle = 0.5 * structure.atoms.cell.array[:2, :2].sum(axis=0)
    away = structure.atoms.positions[:, :2] - middle
    return away, np.linalg.norm(away, axis=1) < 5.0


def test_a_shift_a_turn_and_a_mirror_are_no_error(one):
    moved = one.to_ase()
    away, core = near(one)
    turn = np.array([[np.cos(0.02), np.sin(0.02)], [-np.sin(0.02), np.cos(0.02)]])
    moved.positions[:, :2] += away @ turn - away + [0.2, -0.1]
    moved.positions[:, 2] *= -1.0
    found = relaxed_positions(one, [one.atoms, moved], [0.5, 0.5])
    assert found.sigma_A[core].max() < 1.1e-3
    assert np.isnan(found.atoms.arrays["sigma_cell"]).all()


def test_a_wider_cell_adds_its_strain_and_half_of_it_is_the_error(one):
    away, core = near(one)
    wide = one.to_ase()
    wide.positions[:, :2] += 0.01 * away
    found = relaxed_positions(one, [one.atoms], [1.0], wide=Compared(wide, share=2.0))
    shift = found.atoms.positions[:, :2] - one.atoms.positions[:, :2]
    centre = away[core].mean(axis=0)
    np.testing.assert_allclose(shift[core], 0.02 * (away[core] - centre), atol=1e-6)
    squares = (0.5 * shift[core]) ** 2
    expected = np.sqrt(squares.mean(axis=1) + 1e-6)
    np.testing.assert_allclose(found.sigma_A[core, 0], expected, rtol=1e-6)


def test_the_spread_of_draws_and_two_engines_count(one):
    rng = np.random.default_rng(3)
    draws = []
    for _ in range(200):
        drawn = one.to_ase()
        drawn.positions += rng.normal(0.0, 0.05, drawn.positions.shape)
        draws.append(drawn)
    found = relaxed_positions(one, draws, [1.0] * 200, other=draws[0])
    _, core = near(one)
    assert np.median(found.atoms.arrays["sigma_draws"][core]) == pytest.approx(0.05, rel=0.1)
    assert np.median(found.atoms.arrays["sigma_engine"][core]) < 0.05
    assert np.all(found.sigma_A >= found.atoms.arrays["sigma_draws"])
