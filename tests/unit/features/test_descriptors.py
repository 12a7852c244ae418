"""Surroundings of atoms as vectors, patches, and their groups."""

import numpy as np
import polars as pl
import pytest

from adatom.core import AtomTable, Calibration, Frame
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput
from adatom.features.descriptors import (
    EnvironmentOptions,
    GroupOptions,
    environments,
    fit_groups,
    group_changes,
    patches,
)

SPREAD_A = 0.05


def honeycomb(cells: int, seed: int, spread_A: float = SPREAD_A) -> FloatArray:
    a = 2.46
    i, j = np.meshgrid(np.arange(cells), np.arange(cells))
    first = np.stack([i * a + (j % 2) * a / 2, j * a * np.sqrt(3) / 2], axis=-1).reshape(-1, 2)
    xy = np.concatenate([first, first + [0.0, a / np.sqrt(3)]])
    return np.asarray(xy + np.random.default_rng(seed).normal(0.0, spread_A, xy.shape))


def table(
    xy: FloatArray, elements: list[str] | None = None, p: FloatArray | None = None
) -> AtomTable:
    n = len(xy)
    return AtomTable.build(
        frame=0, xy=xy, covariance=np.tile(SPREAD_A**2 * np.eye(2), (n, 1, 1)),
        p_exists=np.ones(n) if p is None else p, element=elements or ["C"] * n,
        p_element=np.full(n, 0.99), votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_vectors_do_not_change_when_the_frame_is_turned_or_mirrored(mirror: float) -> None:
    xy = honeycomb(6, 0)
    elements = ["Si" if k % 17 == 0 else "C" for k in range(len(xy))]
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    options = EnvironmentOptions(cutoff_A=3.0)
    one = environments(table(xy, elements), options).vectors
    other = environments(table((xy * [1.0, mirror]) @ turn.T + 40.0, elements), options).vectors
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_noise_alone_makes_one_group_and_vacancies_make_a_second() -> None:
    xy = honeycomb(30, 1)
    whole = environments(table(xy))
    assert fit_groups(whole.vectors[whole.whole], noise=whole.noise).count == 1
    missing = [431, 1202, 1440, 640]
    middle = np.delete(xy, missing, axis=0)
    found = environments(table(middle))
    vectors = found.vectors[found.whole]
    groups = fit_groups(vectors, noise=found.noise)
    gap = np.linalg.norm(middle[:, None] - xy[missing], axis=2).min(axis=1)[found.whole]
    label = groups.labels(vectors)
    assert groups.count == 2
    np.testing.assert_array_equal(label == 1, gap < 1.7)  # the three neighbours of each


def test_atoms_unlike_all_groups_are_odd() -> None:
    found = environments(table(honeycomb(24, 2)))
    vectors = found.vectors[found.whole]
    usual = fit_groups(vectors, noise=found.noise)
    assert 0.3 < np.median(usual.p_odder(vectors)) < 0.7
    xy = honeycomb(24, 3)
    odd = environments(table(np.concatenate([xy, [xy[600] + [0.0, 0.7]]])))
    assert usual.p_odder(odd.vectors[[600]])[0] < 1e-3


def test_an_atom_that_hardly_exists_hardly_counts() -> None:
    xy = honeycomb(8, 4)
    more = np.concatenate([xy, [xy[60] + [0.0, 0.9]]])
    p = np.append(np.ones(len(xy)), 0.0)
    options = EnvironmentOptions(cutoff_A=3.0)
    one, other = (environments(t, options).vectors for t in (table(xy), table(more, p=p)))
    np.testing.assert_allclose(one, other[:-1], atol=1e-12)


def test_frames_do_not_see_each_other() -> None:
    one, two = table(honeycomb(6, 5)), table(honeycomb(6, 6))
    moved = AtomTable(two.data.with_columns(pl.lit(1, dtype=pl.Int32).alias("frame")))
    options = EnvironmentOptions(cutoff_A=3.0)
    both = environments(AtomTable.concat([one, moved]), options).vectors
    np.testing.assert_allclose(both[: len(one)], environments(one, options).vectors)


def test_turned_patches_of_equal_surroundings_are_equal() -> None:
    rows, columns = np.mgrid[:120, :240]
    image = np.zeros((120, 240))
    for centre, angle in (((60, 60), 0.3), ((60, 180), 1.9)):
        for k, height in enumerate((1.0, 0.7, 0.7)):
            way = angle + 2 * np.pi * k / 3
            y, x = centre[0] + 12 * np.sin(way), centre[1] + 12 * np.cos(way)
            image += height * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 3.0**2))
    frame = Frame(image.astype(np.float32), Calibration(0.1), 0)
    centres = np.array([[6.0, 6.0], [18.0, 6.0]])
    upright = patches(frame, centres, width_A=4.0)
    turned = patches(frame, centres, width_A=4.0, align=True)
    inside = np.hypot(*np.mgrid[-1:1:24j, -1:1:24j]) < 0.9
    assert np.abs(upright[0] - upright[1])[inside].max() > 0.5
    assert np.abs(turned[0] - turned[1])[inside].max() < 0.05


def test_patches_beyond_the_border_are_nan() -> None:
    frame = Frame(
        np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32), Calibration(0.1), 0
    )
    cut = patches(frame, np.array([[0.1, 1.5], [1.5, 1.5]]), width_A=1.0)
    assert np.isnan(cut[0]).any()
    assert np.isfinite(cut[1]).all()
    with pytest.raises(BadInput, match="finite"):
        fit_groups(cut)


def test_steps_over_missing_frames_are_no_changes() -> None:
    steps = pl.DataFrame(
        {
            "frame": [0, 1, 3, 0, 1],
            "track": [0, 0, 0, 1, 1],
            "group": ["C1", "C2", "C1", "C1", "C1"],
        }
    )
    found = group_changes(steps)
    assert found.select("from_group", "to_group", "seen").rows() == [
        ("C1", "C1", 1),
        ("C1", "C2", 1),
    ]
    assert all(low < share < high for low, share, high in
               found.select("share_low", "share", "share_high").iter_rows())  # fmt: skip


def test_the_number_of_groups_can_be_given() -> None:
    vectors = np.random.default_rng(7).normal(size=(60, 3))
    assert fit_groups(vectors, GroupOptions(groups=3)).count == 3


def test_a_cutoff_that_reaches_no_neighbour_is_refused():
    xy = 1.42 * np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), axis=-1).reshape(-1, 2)
    n = len(xy)
    atoms = AtomTable.build(
        frame=0, xy=xy, covariance=np.tile(0.01 * np.eye(2), (n, 1, 1)), p_exists=np.ones(n),
        element=["C"] * n, p_element=np.ones(n), votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip
    with pytest.raises(BadInput, match=r"cutoff 0\.6 Å: expected at least .* 1\.42 Å"):
        environments(atoms, EnvironmentOptions(cutoff_A=0.6))
