"""Random samples of a structure have the probabilities and covariances of the table."""

from __future__ import annotations

import numpy as np
import pytest

from adatom.structures import sample_structures
from lattices import (
    CENTER,
    EXTENT,
    build,
    make_lattice,
    nearest,
    rotation,
    sites_of,
    substituted,
    table,
)


def test_of_two_candidates_for_one_atom_the_more_probable_stays():
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    both = np.vstack([xy, xy[middle] + (0.3, 0.1)])
    p = np.ones(len(both))
    p[middle], p[-1] = 0.6, 0.9
    atoms = table(both, ["C"] * len(xy) + ["Si"], p=p)
    cell = build(atoms, lattice, tuple(xy[middle]))
    assert len(cell.atoms) == 98
    assert middle not in cell.source_atom
    assert cell.atoms[int(np.flatnonzero(cell.source_atom == len(xy))[0])].symbol == "Si"
    draws = sample_structures(
        atoms, lattice, EXTENT, center_xy_A=tuple(xy[middle]), kind="x", frame=0, defect=0,
        count=200, rng=np.random.default_rng(5),
    )  # fmt: skip
    assert all(d.atoms.info["left_out"] == 0 for d in draws)
    assert sum(d.atoms.info["rejected"] for d in draws) > 50
    for d in draws:
        assert not {middle, len(xy)} <= set(d.source_atom.tolist())


def test_samples_have_the_probabilities_and_covariances_of_the_table():
    lattice = make_lattice(angle=0.7, bend=1e-4, rms=0.0)
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    si, doubtful = np.argsort(np.linalg.norm(xy - xy[middle], axis=1))[[0, 7]]
    cov = np.tile(np.eye(2) * 1e-6, (len(xy), 1, 1))
    cov[si] = [[0.0100, 0.0040], [0.0040, 0.0050]]
    p = np.ones(len(xy))
    p[doubtful] = 0.7
    q = np.ones(len(xy))
    q[si] = 0.8
    atoms = table(xy, substituted(xy, [si]), covariance=cov, p=p, p_element=q)
    arguments = {"center_xy_A": tuple(xy[si]), "kind": "Si1C3", "frame": 0, "defect": 0}
    n = 1500
    draws = sample_structures(
        atoms, lattice, EXTENT, count=n, rng=np.random.default_rng(1), **arguments
    )
    again = sample_structures(
        atoms, lattice, EXTENT, count=3, rng=np.random.default_rng(1), **arguments
    )
    for a, b in zip(draws, again, strict=False):
        np.testing.assert_array_equal(a.atoms.positions, b.atoms.positions)
    assert [d.draw for d in draws[:3]] == [0, 1, 2]
    assert len({d.name for d in draws}) == n
    assert draws[2].name == "Si1C3-f000-d02"

    exists = np.mean([doubtful in d.source_atom for d in draws])
    assert exists == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / n))
    spots, symbols, z = [], [], []
    for d in draws:
        i = int(np.flatnonzero(d.source_atom == si)[0])
        half = d.atoms.cell.array.sum(axis=0) / 2
        spots.append((d.atoms.positions[i] - half)[:2])
        symbols.append(d.atoms[i].symbol)
        z.append((d.atoms.positions[i] - half)[2])
    share = np.mean(np.array(symbols) == "Si")
    assert share == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / n))
    height = np.array(z)[np.array(symbols) == "Si"]
    assert np.mean(height > 0) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(height)))
    assert np.abs(height).mean() == pytest.approx(1.0, abs=0.05)
    assert np.abs(np.array(z)[np.array(symbols) == "C"]).max() < 0.3

    # By hand: back through the flip and the rotation, then against the measured covariance.
    step = 1e-5
    ex, ey = np.array([[step, 0.0], [0.0, step]])
    slope = np.column_stack(
        [(lattice.undistort((xy[si] + e)[None]) - lattice.undistort((xy[si] - e)[None]))[0]
         / (2 * step) for e in (ex, ey)]
    )  # fmt: skip
    total = np.diag([1, -1]) @ rotation(-lattice.angle_rad) @ slope
    expected = total @ cov[si] @ total.T
    got = np.cov(np.array(spots).T)
    np.testing.assert_allclose(got, expected, atol=4 * 0.01 * np.sqrt(2 / n))
    assert np.linalg.norm(np.mean(spots, axis=0)) < 0.02


def test_a_drawn_element_is_whole_where_the_table_has_one_letter_each():
    """Texts of a table of C alone have one letter: Si was cut to S, sulfur."""
    lattice = make_lattice()
    _, xy = sites_of(lattice)
    middle = nearest(xy, CENTER)
    q = np.ones(len(xy))
    q[middle] = 0.3
    atoms = table(xy, ["C"] * len(xy), p_element=q)
    seen = []

    def explain(exists, labels):
        seen.append(labels)
        return float(exists.sum())

    draws = sample_structures(
        atoms, lattice, EXTENT, center_xy_A=tuple(xy[middle]), kind="x", frame=0, defect=0,
        count=20, rng=np.random.default_rng(2), explain=explain,
    )  # fmt: skip
    assert {s for d in draws for s in d.atoms.symbols} == {"C", "Si"}
    assert {str(s) for labels in seen for s in labels} == {"C", "Si"}
