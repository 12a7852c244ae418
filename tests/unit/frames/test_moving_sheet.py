"""The truth of simulated movies: atoms keep their numbers, jumps exchange neighbours."""

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.frames.simulate.moving_sheet import MotionOptions, atom_table, moving_sheet


def test_a_jump_exchanges_two_neighbours_and_nothing_else_moves():
    options = MotionOptions(frames=12, hops=0.5, velocity_xy_A=(0.3, -0.2))
    movie = moving_sheet(GRAPHENE, options, np.random.default_rng(1))
    for k, (old, new) in enumerate(zip(movie.frames, movie.frames[1:], strict=False), 1):
        assert new.drift_xy_A - old.drift_xy_A == pytest.approx([0.3, -0.2])
        before = dict(zip(old.identity.tolist(), old.xy - old.drift_xy_A, strict=True))
        after = dict(zip(new.identity.tolist(), new.xy - new.drift_xy_A, strict=True))
        moved = [i for i in before if i in after and np.hypot(*(after[i] - before[i])) > 1e-9]
        silicon = int(new.identity[new.species == 1][0])
        way = np.hypot(*(after[silicon] - before[silicon]))
        if movie.jumps[k, 0] == 1:
            assert way == pytest.approx(GRAPHENE.bond_length_A, abs=0.2)
            assert len(moved) == 2
        elif movie.jumps[k, 0] == 0:
            assert moved == []


def test_the_number_of_jumps_is_that_of_a_poisson_process():
    options = MotionOptions(frames=400, hops=0.8, extent_A=30.0)
    jumps = moving_sheet(GRAPHENE, options, np.random.default_rng(2)).jumps[1:, 0]
    assert jumps.mean() == pytest.approx(0.8, abs=3 * np.sqrt(0.8 / 399))
    assert jumps.var() == pytest.approx(0.8, abs=0.25)


def test_vacancies_know_their_cause_and_lost_frames_leave_a_gap():
    options = MotionOptions(frames=60, vacancies=1, knocked_out=0.2, evaporated=0.1, lost=0.3)
    movie = moving_sheet(GRAPHENE, options, np.random.default_rng(3))
    assert movie.causes[0] == "before"
    assert {"beam", "heat"} <= set(movie.causes)
    numbers = [frame.number for frame in movie.frames]
    assert numbers[0] == 0
    assert 25 < len(numbers) < 59
    counts = [len(frame.vacancies) for frame in movie.frames]
    assert counts == sorted(counts)


def test_the_table_of_a_careless_finder_has_its_errors():
    movie = moving_sheet(GRAPHENE, MotionOptions(frames=20), np.random.default_rng(4))
    rng = np.random.default_rng(5)
    table, identity = atom_table(movie, GRAPHENE, 20.0, rng, sigma_A=0.1, missed=0.1, mistaken=0.02)
    whole, _ = atom_table(movie, GRAPHENE, 20.0, np.random.default_rng(5), sigma_A=0.1)
    assert len(table) / len(whole) == pytest.approx(0.9, abs=0.02)
    assert len(identity) == len(table)
    wrong = (table.elements == "Si") & (table.column("p_element") < 0.9)
    assert wrong.mean() == pytest.approx(0.02, abs=0.008)
