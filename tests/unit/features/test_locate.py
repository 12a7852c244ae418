"""From every member's maps to sites: made by hand, so that what must come out is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from adatom.core import VACANCY, Calibration, LabelledFrame, Prediction
from adatom.features.candidates.locate import Candidates, LocateOptions, locate
from adatom.learning.train import targets
from sheets import NONE, graphene_frame, inner

PX = Calibration(0.2)
SPOT_A = 0.25
CLASSES = ("C", "Si", VACANCY)


def spots(shape, *groups, spot_A=SPOT_A):
    """Maps (class, row, col): a Gaussian of peak one at each place, x and y in Å, of a group."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    out = np.zeros((len(groups), *shape), dtype=np.float32)
    for k, xy in enumerate(groups):
        for r, c in PX.rc(np.reshape(xy, (-1, 2))):
            spot = np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / (2 * PX.pixels(spot_A) ** 2))
            out[k] = np.maximum(out[k], spot)
    return out


def prediction(*members):
    return Prediction(np.stack(members), CLASSES, PX, spot_A=SPOT_A)


def relabel(labelled: LabelledFrame, shape) -> Candidates:
    maps = targets(labelled, shape, PX, SPOT_A)
    return locate(Prediction(maps[None], CLASSES, PX, spot_A=SPOT_A))


@pytest.mark.parametrize("seed", range(4))
def test_relabelling_moves_nothing_and_swaps_nothing(seed):
    """Maps drawn from positions give the positions back; done twice, what is left would add up."""
    field, shape = (19.0, 14.0), (71, 96)
    assert PX.extent_xy(shape) == pytest.approx(field)
    truth = within(graphene_frame(seed, px=0.1, field=field, missing=[(6, 6)], silicon=[(12, 9)]))
    every = np.concatenate([truth.xy, truth.vacancies_xy])
    kind = np.concatenate([truth.species, [2]])
    for _ in range(3):
        found = relabel(truth, shape)
        assert len(found.xy) == len(every)
        distance, which = cKDTree(every).query(found.xy)
        assert len(np.unique(which)) == len(every)
        assert distance.max() < PX.angstrom(0.02)
        np.testing.assert_array_equal(found.mass.argmax(axis=1), kind[which])
        truth = labels_of(truth, found)


def test_relabelling_keeps_the_atoms_on_the_border():
    for seed in range(4):
        truth = graphene_frame(seed, px=0.1, field=(19.0, 14.0))
        found = relabel(truth, (71, 96))
        assert len(found.xy) == len(truth.xy)
        assert cKDTree(found.xy).query(truth.xy)[0].max() < PX.angstrom(0.1)


def within(truth: LabelledFrame) -> LabelledFrame:
    """Without what lies on the outermost pixels."""
    keep, empty = (inner(truth.frame, xy, 0.11) for xy in (truth.xy, truth.vacancies_xy))
    return replace(
        truth, xy=truth.xy[keep], species=truth.species[keep],
        vacancies_xy=truth.vacancies_xy[empty],
    )  # fmt: skip


def labels_of(truth: LabelledFrame, found: Candidates) -> LabelledFrame:
    kind = found.mass.argmax(axis=1)
    return replace(
        truth, xy=found.xy[kind < 2], species=kind[kind < 2], vacancies_xy=found.xy[kind == 2]
    )


def test_a_place_is_x_along_columns_and_y_down_rows():
    maps = np.zeros((1, 3, 40, 60), dtype=np.float32)
    maps[0, 0] = spots((40, 60), [[9.0, 3.0]])[0]
    assert np.unravel_index(maps[0, 0].argmax(), (40, 60)) == (15, 45)
    np.testing.assert_allclose(locate(Prediction(maps, CLASSES, PX)).xy, [[9.0, 3.0]], atol=1e-4)


def test_peaks_are_read_between_the_pixels_with_votes_and_scatter():
    rng = np.random.default_rng(1)
    xy = np.array([[2.03, 3.11], [4.43, 2.55], [5.0, 6.0], [7.21, 4.07]])
    moves = rng.normal(0.0, 0.04, (6, 4, 2))
    members = []
    for m in range(6):
        at = xy + moves[m]
        carbon = [0, 1] if m < 2 else [0, 1, 2]  # two members miss the third atom
        members.append(spots((60, 66), at[carbon], at[3], NONE))
    found = locate(prediction(*members))
    order = cKDTree(found.xy).query(xy)[1]
    assert len(found.xy) == 4
    seen = [0, 1, 3]
    np.testing.assert_allclose(found.xy[order[seen]], (xy + moves.mean(0))[seen], atol=0.01)
    np.testing.assert_allclose(found.xy[order[2]], (xy + moves[2:].mean(0))[2], atol=0.01)
    np.testing.assert_allclose(found.vote_fraction[order], [1, 1, 4 / 6, 1])
    np.testing.assert_array_equal(found.mass[order].argmax(axis=1), [0, 0, 0, 1])
    true = np.cov(moves[:, 0].T)
    np.testing.assert_allclose(found.scatter[order[0]], true, atol=0.2 * 0.04**2)


def test_an_atom_that_seven_of_ten_members_see_is_kept_with_its_votes():
    there, not_there = spots((50, 50), [[5.0, 4.0], [2.0, 7.0]], NONE, NONE), None
    not_there = spots((50, 50), [[2.0, 7.0]], NONE, NONE)
    found = locate(prediction(*[there] * 7, *[not_there] * 3))
    one, other = cKDTree(found.xy).query([[5.0, 4.0], [2.0, 7.0]])[1]
    assert len(found.xy) == 2
    assert found.vote_fraction[one] == pytest.approx(0.7)
    assert found.vote_fraction[other] == pytest.approx(1.0)
    np.testing.assert_allclose(found.xy[one], [5.0, 4.0], atol=0.005)
    assert found.mass[one, 0] == pytest.approx(0.7, abs=0.1)  # expected number of atoms there
    assert found.peak[one] == pytest.approx(0.7, abs=0.02)
    assert found.disagreement[one] == pytest.approx(0.46, abs=0.06)  # sqrt(0.7 · 0.3)
    assert found.disagreement[other] < 1e-5


def test_the_order_of_members_changes_nothing():
    rng = np.random.default_rng(3)
    members = [spots((50, 50), rng.normal([[5, 4], [2, 7], [7, 7]], 0.05), [7.5, 2], NONE)
               for _ in range(8)]  # fmt: skip
    one, other = locate(prediction(*members)), locate(prediction(*members[::-1]))
    for name in ("xy", "scatter", "peak", "mass", "disagreement", "vote_fraction", "border_A"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)


@pytest.mark.parametrize("distance_A", [1.3, 1.42, 0.95])
@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2])
def test_touching_atoms_stay_two(distance_A, angle):
    silicon = np.array([5.03, 4.96])
    carbon = silicon + distance_A * np.array([np.cos(angle), np.sin(angle)])
    found = locate(prediction(*[spots((50, 54), carbon, silicon, NONE)] * 3))
    assert len(found.xy) == 2
    for place, kind in ((carbon, 0), (silicon, 1)):
        distance, at = cKDTree(found.xy).query(place)
        assert distance < 0.1
        assert found.mass[at].argmax() == kind
        if distance_A > 1:
            assert distance < 0.01
            assert found.mass[at, kind] == pytest.approx(1.0, abs=0.2)


def test_of_two_peaks_on_one_atom_the_higher_stays():
    low, high = np.array([4.0, 4.0]), np.array([4.55, 4.0])
    member = spots((50, 54), high, NONE, NONE, spot_A=0.12)
    member[0] += 0.5 * spots((50, 54), low, spot_A=0.12)[0]
    found = locate(prediction(member))
    assert len(found.xy) == 1
    np.testing.assert_allclose(found.xy[0], high, atol=0.05)
    both = locate(prediction(member), LocateOptions(separation_A=0.4))
    assert len(both.xy) == 2


def test_an_empty_site_is_a_site_without_votes():
    member = spots((50, 54), [[5.0, 4.0]], NONE, [[6.4, 4.0]])
    found = locate(prediction(member, member))
    empty = int(cKDTree(found.xy).query([6.4, 4.0])[1])
    assert len(found.xy) == 2
    assert found.mass[empty, 2] == pytest.approx(1.0, abs=0.15)
    assert found.mass[empty, :2].sum() < 0.01
    assert found.vote_fraction[empty] == 0
    assert found.peak[empty] < 0.01


def test_a_doubtful_element_is_one_site_with_shared_mass():
    carbon, silicon = (
        spots((50, 54), [5.0, 4.0], NONE, NONE),
        spots((50, 54), NONE, [5.0, 4.0], NONE),
    )
    found = locate(prediction(*[carbon] * 3, *[silicon] * 1))
    assert len(found.xy) == 1
    assert found.vote_fraction[0] == 1  # all see an atom
    assert found.mass[0, 0] == pytest.approx(3 * found.mass[0, 1], rel=1e-4)


def test_blank_maps_give_no_site():
    found = locate(prediction(np.zeros((3, 50, 54), dtype=np.float32)))
    assert found.xy.shape == (0, 2)
    assert found.scatter.shape == (0, 2, 2)
    assert found.mass.shape == (0, 3)
    low = locate(prediction(np.full((3, 50, 54), 0.02, dtype=np.float32)))
    assert len(low.xy) == 0


def test_distance_from_the_border():
    xy = np.array([[0.4, 5.0], [5.0, 1.0], [9.9, 5.0], [5.0, 9.0], [5.2, 5.2]])
    found = locate(prediction(spots((50, 54), xy, NONE, NONE)))
    order = cKDTree(found.xy).query(xy)[1]
    np.testing.assert_allclose(found.border_A[order], [0.4, 1.0, 0.7, 0.8, 4.6], atol=0.01)


def test_tiles_give_the_sites_of_the_whole_once():
    truth = graphene_frame(5, px=0.1, field=(19.0, 14.0), missing=[(9.6, 6)], silicon=[(9.2, 9)])
    maps = targets(truth, (71, 96), PX, SPOT_A)[None]
    whole = locate(Prediction(maps, CLASSES, PX, spot_A=SPOT_A))
    parts = []
    for start, stop, own in ((0, 60, (0, 48)), (36, 96, (12, 60))):
        parts.append(
            locate(
                Prediction(
                    maps[..., start:stop], CLASSES, PX, 0, SPOT_A, (0, start), (71, 96),
                    (slice(0, 71), slice(*own)),
                )
            )
        )  # fmt: skip
    joined = Candidates.concat(parts)
    assert len(joined.xy) == len(whole.xy)
    distance, order = cKDTree(joined.xy).query(whole.xy)
    assert len(np.unique(order)) == len(whole.xy)
    assert distance.max() < 1e-9
    for name in ("peak", "mass", "vote_fraction", "border_A"):
        np.testing.assert_allclose(getattr(joined, name)[order], getattr(whole, name), atol=1e-6)
