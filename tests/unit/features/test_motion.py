"""Hops are hops and drift is drift, on simulated movies whose atoms are known."""

from __future__ import annotations

import numpy as np
import pytest

from adatom.core import GRAPHENE, AtomTable, DefectTable, Vacancy
from adatom.core.defect_kind import Cluster
from adatom.features import LinkOptions, estimate_drift, link_atoms, link_defects
from adatom.frames.simulate.moving_sheet import MotionOptions, atom_table, moving_sheet

EXTENT_A = 20.0
CARELESS = {"sigma_A": 0.1, "missed": 0.02, "mistaken": 0.003}


def movie(seed, *, errors=None, **options):
    """The truth, the table of a finder with known errors, and the true number of each atom."""
    rng = np.random.default_rng(seed)
    truth = moving_sheet(GRAPHENE, MotionOptions(extent_A=EXTENT_A, **options), rng)
    return truth, *atom_table(truth, GRAPHENE, EXTENT_A, rng, **(errors or {}))


def switches(table, identity):
    """Times that an atom goes on in another track."""
    frame, track = table.column("frame"), table.column("track")
    count, last = 0, {}
    for row in np.argsort(frame, kind="stable"):
        count += last.get(identity[row], track[row]) != track[row]
        last[identity[row]] = track[row]
    return count


def drift_errors(truth, table):
    drift = estimate_drift(table)
    return np.array([np.subtract(drift[f.number], f.drift_xy_A) for f in truth.frames])


def test_a_silicon_that_hops_is_not_taken_for_drift():
    """Atoms lie still; one Si steps to a neighbouring site."""
    for seed in range(9):
        truth, table, identity = movie(seed, frames=2, hops=1.0)
        if truth.jumps[1, 0] != 1:
            continue
        drift = estimate_drift(table)
        assert np.hypot(*drift[1]) < 0.05
        linked = link_atoms(table, drift)
        silicon = linked.data.filter(linked.data["element"] == "Si")
        assert silicon["track"].n_unique() == 1
        assert linked.data["track"].n_unique() == len(np.unique(identity))


@pytest.mark.parametrize("errors", [{}, CARELESS], ids=["exact", "careless"])
@pytest.mark.parametrize(
    "options",
    [
        {"hops": 0.1},
        {"hops": 0.3, "drift_A": 0.3, "lost": 0.15},
        {"hops": 0.3, "velocity_xy_A": (0.8, 0.5), "drift_A": 0.1},
        {"foreign": 0, "vacancies": 2, "drift_A": 1.0},
        {"foreign": 2, "hops": 0.3, "drift_A": 0.6},
        {"foreign": 0, "drift_A": 0.5},
    ],
    ids=["hops", "lost frames", "steady drift", "vacancies", "two Si", "pristine"],
)
def test_atoms_keep_their_tracks_while_the_sheet_drifts_and_silicon_hops(options, errors):
    wrong = atoms = whole = one_track = 0
    for seed in range(3):
        truth, table, identity = movie(seed, frames=20, errors=errors, **options)
        off = drift_errors(truth, table)
        assert np.abs(np.diff(off, axis=0)).max() < 0.15
        assert np.abs(off).max() < 0.15  # small errors do not add up
        linked = link_atoms(table)
        wrong, atoms = wrong + switches(linked, identity), atoms + len(table)
        track = linked.column("track")
        for atom in np.unique(identity):
            whole += len(np.unique(track[identity == atom])) == 1
            one_track += 1
    assert wrong <= (2 if errors else 1) * atoms / 1000
    assert whole >= 0.95 * one_track


def test_silicon_that_jumps_every_frame_keeps_its_track():
    for seed in range(4):
        truth, table, identity = movie(seed, frames=24, hops=1.0)
        assert np.abs(np.diff(drift_errors(truth, table), axis=0)).max() < 0.1
        linked = link_atoms(table)
        (silicon,) = np.unique(identity[table.elements == "Si"])
        assert len(np.unique(linked.column("track")[identity == silicon])) == 1


def test_a_defect_that_hops_far_keeps_its_track_and_a_vacancy_does_not():
    still = dict.fromkeys(range(2), (0.0, 0.0))
    for kind, tracks in ((Cluster.of(["Si"], ["C"] * 3), [0, 0]), (Vacancy(1), [0, 1])):
        rows = [(0, 5.0), (1, 9.3)]
        table = DefectTable.concat(
            DefectTable.build(frame=f, kinds=[kind], xy=np.array([[x, 5.0]]), p=[0.9], atoms=[[0]])
            for f, x in rows
        )
        linked = link_defects(table, still, options=LinkOptions()).data
        assert linked["track"].to_list() == tracks


def test_a_vacancy_and_a_silicon_beside_each_other_keep_their_tracks():
    """The Si hops towards the vacancy, so that the other's old place is nearer."""
    kinds = [Cluster.of(["Si"], ["C"] * 3), Vacancy(1)]
    at = [np.array([[5.0, 5.0], [7.5, 5.0]]), np.array([[6.4, 5.0], [7.5, 5.0]])]
    table = DefectTable.concat(
        DefectTable.build(frame=f, kinds=kinds, xy=xy, p=[0.9, 0.9], atoms=[[0], []])
        for f, xy in enumerate(at)
    )
    linked = link_defects(table, dict.fromkeys(range(2), (0.0, 0.0))).data
    assert linked["track"].to_list() == [0, 1, 0, 1]


def test_what_left_the_field_and_returns_is_the_same_atom():
    """An atom is out of view for ten frames, more than the gap; its place stays known."""
    rng = np.random.default_rng(0)
    frames, out = 14, range(2, 12)
    drift = {f: (4.0 if f in out else 0.0, 0.0) for f in range(frames)}
    tables = []
    grid = np.stack(np.meshgrid(np.arange(1.0, 20.0, 2.0), np.arange(1.0, 20.0, 2.0)), -1)
    for f in range(frames):
        xy = grid.reshape(-1, 2) + np.array(drift[f]) + rng.normal(0.0, 0.03, (100, 2))
        xy = xy[xy[:, 0] < 20.0]
        one = np.ones(len(xy))
        tables.append(
            AtomTable.build(
                frame=f, xy=xy, covariance=np.tile(np.eye(2) * 1e-3, (len(xy), 1, 1)),
                p_exists=one, element=["C"] * len(xy), p_element=one, votes=one, amplitude=one,
            )
        )  # fmt: skip
    linked = link_atoms(AtomTable.concat(tables), drift).data
    assert linked["track"].n_unique() == 100
    rested = link_atoms(AtomTable.concat(tables), dict.fromkeys(range(frames), (0.0, 0.0))).data
    assert rested["track"].n_unique() > 100  # the drift is what makes the link
