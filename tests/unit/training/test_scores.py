"""Scores of found atoms against true ones."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import Calibration, Frame, LabelledFrame
from adatom.training.scores import Tally, ToolResult, f1_within

IMAGE = np.random.default_rng(0).poisson(5.0, (101, 101)).astype(np.float32)


FRAME = Frame(IMAGE, Calibration(0.2))  # 20 Å


ATOMS = np.array([[4.0, 4.0], [4.0, 10.0], [10.0, 4.0], [10.0, 10.0], [16.0, 16.0]])


TRUTH = LabelledFrame(FRAME, ATOMS, np.array([0, 0, 0, 0, 1]), ("C", "Si"), np.array([[16.0, 4.0]]))


def result(xy, **more):
    return ToolResult(np.asarray(xy, dtype=float).reshape(-1, 2), **more)


def test_a_correct_result_scores_one():
    tally = Tally()
    tally.add(TRUTH, result(ATOMS, element=np.array(["C"] * 4 + ["Si"]),
                            vacancies_xy=TRUTH.vacancies_xy))  # fmt: skip
    assert [tally.f1(k) for k in ("atom", "Si", "vacancy")] == [1.0, 1.0, 1.0]
    assert tally.rmse_A() == 0.0


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    found = np.concatenate([ATOMS[:3], [[7.0, 7.0]]])  # three of five, and one that is none
    tally = Tally()
    tally.add(TRUTH, result(found, element=np.array(["C", "C", "Si", "C"])))
    assert tally.precision("atom") == pytest.approx(3 / 4)
    assert tally.recall("atom") == pytest.approx(3 / 5)
    assert tally.f1("atom") == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert (tally.precision("Si"), tally.recall("Si"), tally.f1("Si")) == (0.0, 0.0, 0.0)
    assert np.isnan(tally.f1("vacancy"))  # never asked for
    tally.add(TRUTH, result(ATOMS, element=np.array(["C"] * 4 + ["Si"])))
    assert tally.f1("atom") == pytest.approx(2 * (8 / 9) * (8 / 10) / (8 / 9 + 8 / 10))
    assert tally.recall("Si") == 0.5


def test_an_atom_found_twice_is_correct_once():
    tally = Tally()
    tally.add(TRUTH, result(np.concatenate([ATOMS, ATOMS + 0.1])))
    assert tally.recall("atom") == 1.0
    assert tally.precision("atom") == 0.5


def test_unlikely_atoms_are_not_counted():
    tally = Tally()
    tally.add(TRUTH, result(np.concatenate([ATOMS, [[7.0, 7.0]]]),
                            p_exists=np.array([0.9] * 5 + [0.4])))  # fmt: skip
    assert tally.f1("atom") == 1.0


def test_atoms_at_the_border_are_neither_right_nor_wrong():
    edge = replace(TRUTH, xy=np.concatenate([ATOMS, [[0.2, 9.0]]]),
                   species=np.array([0, 0, 0, 0, 1, 0]))  # fmt: skip
    missed, invented = Tally(), Tally()
    missed.add(edge, result(ATOMS))
    invented.add(TRUTH, result(np.concatenate([ATOMS, [[9.0, 19.9]]])))
    assert missed.f1("atom") == invented.f1("atom") == 1.0
    # But an atom just inside, found just outside, is found.
    near = replace(TRUTH, xy=np.array([[0.52, 9.0]]), species=np.array([0]))
    found = Tally()
    found.add(near, result([[0.45, 9.0]]))
    assert found.recall("atom") == 1.0


def test_errors_and_coverage_are_per_axis():
    error = np.array([[0.1, 0.0], [0.0, 0.2], [0.0, 0.0], [-0.1, 0.0], [0.0, -0.3]])
    tally = Tally()
    tally.add(TRUTH, result(ATOMS + error, sigma=np.full((5, 2), 0.11)), np.full((5, 2), 0.05))
    assert tally.rmse_A() == pytest.approx(np.sqrt(0.15 / 10))
    assert tally.bound_A() == pytest.approx(0.05)
    assert tally.coverage(1.0) == pytest.approx(8 / 10)
    assert tally.coverage(2.0) == pytest.approx(9 / 10)
    assert np.isnan(Tally().coverage(1.0))


def test_calibration_error_is_the_gap_between_probability_and_share():
    """Atoms said to exist at 0.8 of which half do: a gap of 0.3."""
    found = np.concatenate([ATOMS, ATOMS + [2.5, 0.0]])
    tally = Tally()
    tally.add(TRUTH, result(found, element=np.array(["C"] * 10), p_exists=np.full(10, 0.8),
                            p_element=np.full(10, 0.9)))  # fmt: skip
    assert tally.calibration_error("p_exists") == pytest.approx(0.3, abs=1e-6)
    # Four of the five right ones are C: said 0.9, true 0.8.
    assert tally.calibration_error("p_element") == pytest.approx(0.1, abs=1e-6)
    fair = Tally()
    fair.add(TRUTH, result(found, element=np.array(["C"] * 10), p_exists=np.full(10, 0.5),
                           p_element=np.ones(10)))  # fmt: skip
    assert fair.calibration_error("p_exists") == pytest.approx(0.0, abs=1e-6)


def test_f1_of_no_positions_is_nan():
    """A mask that leaves no position must not give a perfect score."""
    xy, far = np.array([[2.0, 2.0], [5.0, 5.0]]), np.array([9.0, 9.0])
    assert f1_within(xy, xy, far, 0.5, 0.5) == 1.0
    assert f1_within(xy, xy[:1], far, 0.5, 0.5) == pytest.approx(2 / 3)
    assert f1_within(xy, np.zeros((0, 2)), far, 0.5, 0.5) == 0.0
    nobody = f1_within(xy, xy, far, 0.5, 0.5, keep=lambda p: np.zeros(len(p), dtype=bool))
    assert np.isnan(nobody)
