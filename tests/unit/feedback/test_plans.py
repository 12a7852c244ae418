"""Plans on the sites of graphene with vacancies and other impurity atoms."""

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.feedback.fill import Fill, vacancies_of
from adatom.feedback.matching import assigned
from adatom.feedback.plans import Along, Away, Together
from adatom.feedback.sites import Sites
from adatom.frames.simulate.specimen import lattice_points

BOND_A = GRAPHENE.bond_length_A


@pytest.fixture(scope="module")
def xy():
    return lattice_points(GRAPHENE, (22.0, 22.0), 0.0, 0.2)


def near(xy, place):
    return int(np.argmin(np.linalg.norm(xy - place, axis=1)))


def without(xy, site):
    return Sites.of(np.delete(xy, site, axis=0), BOND_A)


def test_a_way_goes_round_a_vacancy_and_not_along_its_border(xy):
    middle = near(xy, (11.0, 11.0))
    sites = without(xy, middle)
    start, goal = near(sites.xy, xy[middle] - (5.0, 0.0)), near(sites.xy, xy[middle] + (5.0, 0.0))
    plan = Along([tuple(sites.xy[goal] - sites.xy[start])])
    plan.begin(sites, [start], ())
    step = plan.step([start], ())
    assert step.way[0] == start
    assert step.way[-1] == goal
    beside = np.linalg.norm(sites.xy[list(step.way)] - xy[middle], axis=1)
    assert beside.min() > 1.1 * BOND_A
    bonds = np.linalg.norm(np.diff(sites.xy[list(step.way)], axis=0), axis=1)
    np.testing.assert_allclose(bonds, BOND_A, atol=0.01)
    # A goal on the way that is lost is left out, the last one is not.
    goals = [tuple(sites.xy[s] - sites.xy[start]) for s in step.way[1:4]]
    plan = Along(goals)
    plan.begin(sites, [start], ())
    assert plan.step([start], {step.way[1]}).way[-1] == step.way[2]
    with pytest.raises(BadInput):
        plan.step([start], set(step.way[1:4]))
    plan = Along([tuple(sites.xy[goal] - sites.xy[start])])
    plan.begin(sites, [start], ())
    # What is lost on the way is walked round as well, and what was reached is not asked for again.
    other = plan.step([start], {step.way[2]})
    assert step.way[2] not in other.way
    assert plan.step([goal], ()) is None


def test_a_goal_that_is_cut_off_is_refused(xy):
    goal = near(xy, (11.0, 11.0))
    sites = Sites.of(xy, BOND_A)
    start = near(xy, (6.0, 6.0))
    plan = Along([tuple(xy[goal] - xy[start])])
    with pytest.raises(BadInput, match="vacancies or other impurity atoms"):
        plan.begin(sites, [start], sites.neighbours(goal).tolist())


def test_the_goal_that_is_chosen_has_room():
    xy = lattice_points(GRAPHENE, (40.0, 40.0), 0.0, 0.2)  # the border counts as well: it is far
    middle = near(xy, (20.0, 20.0))
    sites = without(xy, middle)
    start = near(sites.xy, xy[middle] + (3.7, 0.0))
    plan = Away(2)
    plan.begin(sites, [start], ())
    goal = plan.step([start], ()).way[-1]
    others = [s for s, n in sites.distances(start).items() if n == 2]
    room = [np.linalg.norm(sites.xy[s] - xy[middle]) for s in others]
    assert np.linalg.norm(sites.xy[goal] - xy[middle]) == pytest.approx(max(room), abs=0.01)


def test_of_three_atoms_the_nearest_two_are_brought_together(xy):
    sites = Sites.of(xy, BOND_A)
    atoms = [near(xy, p) for p in ((11.0, 11.0), (16.0, 11.0), (4.0, 18.0))]
    plan = Together()
    plan.begin(sites, atoms, ())
    hops = 0
    while (step := plan.step(atoms, ())) is not None:
        assert step.hops == len(step.way) - 1
        assert not set(step.way[1:]) & set(atoms)
        atoms[step.atom] = step.way[1]
        hops += 1
    assert hops == sites.distances(near(xy, (11.0, 11.0)))[near(xy, (16.0, 11.0))] - 1
    assert atoms[2] == near(xy, (4.0, 18.0))
    assert np.linalg.norm(xy[atoms[0]] - xy[atoms[1]]) == pytest.approx(BOND_A, abs=0.01)


def test_atoms_are_told_apart_by_their_hops():
    chain = Sites.of(np.array([[BOND_A * n, 0.0] for n in range(30)]), BOND_A)
    steps = [chain.distances(3), chain.distances(9)]
    assert assigned(steps, [True, True], [9, 3]) == ([3, 9], 0.0)
    assert assigned(steps, [True, True], [4, 8]) == ([4, 8], 2.0)
    assert assigned(steps, [True, False], [4]) == ([4, None], 1.0)
    # One is gone, and one that nobody knew is far away: that is no hop over 16 sites.
    assert assigned(steps, [True, True], [3, 25]) == ([3, None], 12.0)


@pytest.mark.parametrize("angle", [0.0, 0.2, 0.37, 0.5])
def test_only_holes_inside_are_vacancies(angle):
    xy = lattice_points(GRAPHENE, (22.0, 22.0), 0.0, angle)
    assert vacancies_of(Sites.of(xy, BOND_A)) == []
    gone = [near(xy, (8.0, 8.0)), near(xy, (15.0, 14.0))]
    shaken = np.delete(xy, gone, axis=0)
    shaken = shaken + np.random.default_rng(0).normal(0.0, 0.04, shaken.shape)
    found = vacancies_of(Sites.of(shaken, BOND_A))
    places = sorted(tuple(place) for place, _ in found)
    assert places == [pytest.approx(tuple(p), abs=0.3) for p in sorted(map(tuple, xy[gone]))]
    assert all(len(rim) == 3 for _, rim in found)


def test_a_vacancy_is_filled_from_its_rim_on_the_shortest_way(xy):
    hole = near(xy, (11.0, 11.0))
    place, sites = xy[hole], without(xy, hole)
    start = sites.closest(place + [7.0, 0.0])
    plan = Fill()
    plan.begin(sites, [start], ())
    way = plan.step([start], ()).way
    assert np.linalg.norm(sites.xy[way[-1]] - place) == pytest.approx(BOND_A, abs=0.01)
    assert len(way) - 1 == min(sites.distances(start)[s] for s in plan.rim)
    assert plan.step([way[-1]], ()) is None
    # Where one atom of the rim is lost, another one is the goal.
    assert plan.step([start], {way[-1]}).way[-1] in set(plan.rim) - {way[-1]}


def test_a_rim_that_gives_way_is_that_of_one_vacancy(xy):
    hole = near(xy, (11.0, 11.0))
    others = np.delete(xy, hole, axis=0)
    away = others - xy[hole]
    rim = np.linalg.norm(away, axis=1) < 1.2 * BOND_A
    for gives in (-0.13, 0.13):
        moved = others + gives * rim[:, None] * away / BOND_A
        (found,) = vacancies_of(Sites.of(moved, BOND_A))
        assert found[0] == pytest.approx(xy[hole], abs=0.05)


def test_a_sheet_without_a_vacancy_has_none_to_fill(xy):
    sites = Sites.of(xy, BOND_A)
    with pytest.raises(BadInput, match="a single vacancy"):
        Fill().begin(sites, [sites.closest(np.array([11.0, 11.0]))], ())
