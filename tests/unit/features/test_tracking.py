"""Atoms and defects are followed over frames although the sheet drifts."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from adatom.core import GRAPHENE, AtomTable, DefectTable
from adatom.core.defects import SCHEMA
from adatom.errors import BadInput
from adatom.features import LinkOptions, estimate_drift, link_atoms, link_defects


def sheet(size=16.0):
    i, j, k = (g.ravel() for g in np.meshgrid(range(-12, 13), range(-12, 13), (0, 1)))
    basis = np.array(GRAPHENE.basis)[k]
    xy = (np.stack([i, j], axis=1) + basis) @ GRAPHENE.cell()
    return xy[(np.abs(xy) < size / 2.0 + 4.0).all(axis=1)] + size / 2.0


def movie(*, frames, step, silicon, sigma=0.08, seed=0, size=16.0, missing=0.02):
    rng = np.random.default_rng(seed)
    xy = sheet(size)
    element = np.full(len(xy), "C", dtype="<U2")
    for spot in silicon:
        element[np.argmin(np.hypot(*(xy - spot).T))] = "Si"
    drift = np.vstack([np.zeros(2), np.cumsum(rng.normal(0.0, step, (frames - 1, 2)), axis=0)])
    tables, identity = [], []
    for f in range(frames):
        at = xy + drift[f] + rng.normal(0.0, sigma, xy.shape)
        seen = ((at > 0.0) & (at < size)).all(axis=1) & (rng.random(len(xy)) > missing)
        n = int(seen.sum())
        tables.append(
            AtomTable.build(
                frame=f,
                xy=at[seen],
                covariance=np.tile(np.eye(2) * sigma**2, (n, 1, 1)),
                p_exists=np.ones(n),
                element=element[seen].tolist(),
                p_element=np.ones(n),
                votes=np.ones(n),
                amplitude=np.ones(n),
            )
        )
        identity.append(np.flatnonzero(seen))
    return AtomTable.concat(tables), drift, np.concatenate(identity)


def test_drift_beyond_a_bond_is_found_with_the_help_of_impurities():
    table, drift, _ = movie(frames=12, step=0.9, silicon=[(6.0, 7.0), (11.0, 9.0)])
    assert np.abs(np.diff(drift, axis=0)).max() > 1.42 / 2.0
    found = np.array([estimate_drift(table)[f] for f in range(12)])
    assert np.abs(found - drift).max() < 0.15


def test_small_drift_is_found_in_a_perfect_crystal():
    table, drift, _ = movie(frames=12, step=0.2, silicon=[])
    found = np.array([estimate_drift(table)[f] for f in range(12)])
    assert np.abs(found - drift).max() < 0.15


def test_tracks_follow_atoms_over_gaps():
    table, _, identity = movie(frames=15, step=0.4, silicon=[(6.0, 7.0)])
    linked = link_atoms(table)
    track = linked.column("track").astype(int)
    assert linked.data.drop("track").equals(table.data.drop("track"))
    assert track.min() == 0
    assert sorted(set(track)) == list(range(track.max() + 1))
    right = total = 0
    for atom in np.unique(identity):
        own = track[identity == atom]
        right, total = right + int((own[1:] == own[:-1]).sum()), total + len(own) - 1
    assert right / total > 0.98
    # No track holds two atoms of one frame.
    assert not linked.data.select("frame", "track").is_duplicated().any()


def test_a_silicon_that_hops_keeps_its_track():
    table, _, _ = movie(frames=2, step=0.0, silicon=[(8.0, 8.0)], missing=0.0, sigma=0.02)
    data = table.data
    before = data.filter((pl.col("frame") == 0) & (pl.col("element") == "Si"))
    shift = pl.col("x_A") + pl.when((pl.col("frame") == 1) & (pl.col("element") == "Si")).then(
        0.8
    ).otherwise(0.0)
    linked = link_atoms(AtomTable(data.with_columns(shift)), {0: (0.0, 0.0), 1: (0.0, 0.0)})
    silicon = linked.data.filter(pl.col("element") == "Si")
    assert before.height == 1
    assert silicon["track"].n_unique() == 1


def defects(rows):
    columns = [
        (f, k, kind, float(x), float(y), 0.9, [k], -1, f, "", None, None, "")
        for k, (f, kind, x, y) in enumerate(rows)
    ]
    return DefectTable(pl.DataFrame(columns, schema=SCHEMA, orient="row"))


def test_defects_say_where_they_came_from():
    table = defects(
        [
            (0, "Si1C3", 5.0, 5.0),
            (1, "Si1C3", 5.3, 5.1),
            (1, "V1", 15.0, 5.0),
            (3, "Si1C4", 5.4, 5.0),  # unseen in frame 2
            (4, "Si1C4", 5.2, 5.2),
            (4, "V1", 15.1, 5.0),
        ]
    )
    linked = link_defects(table, dict.fromkeys(range(5), (0.0, 0.0))).data
    assert linked["track"].to_list() == [0, 0, 1, 0, 0, 1]
    assert linked["first_frame"].to_list() == [0, 0, 1, 0, 0, 1]
    assert linked["origin"].to_list() == [
        "first seen",
        "first seen",
        "appeared",
        "from Si1C3",
        "from Si1C3",
        "appeared",
    ]
    assert linked["p_beam_induced"].null_count() == 6
    late = link_defects(table, dict.fromkeys(range(5), (0.0, 0.0)), frames=range(-2, 5)).data
    assert late["origin"][0] == "appeared"


def test_the_gap_and_the_step_limit_a_track():
    still = dict.fromkeys(range(9), (0.0, 0.0))
    apart = defects([(0, "V1", 5.0, 5.0), (1, "V1", 9.0, 5.0)])
    assert link_defects(apart, still).data["track"].to_list() == [0, 1]
    far = LinkOptions(defect_step_A=5.0)
    assert link_defects(apart, still, options=far).data["track"].to_list() == [0, 0]
    late = defects([(0, "V1", 5.0, 5.0), (8, "V1", 5.0, 5.0)])
    assert link_defects(late, still).data["track"].to_list() == [0, 1]


def test_defects_that_move_together_are_drift():
    rows = [(f, k, x + 2.5 * f, y) for f in range(3) for k, x, y in (("V1", 3, 4), ("V2", 9, 12))]
    linked = link_defects(defects(rows), options=LinkOptions(defect_step_A=1.0)).data
    assert linked["track"].to_list() == [0, 1, 0, 1, 0, 1]


def test_missing_drift_is_refused_and_empty_tables_pass():
    table, _, _ = movie(frames=2, step=0.0, silicon=[])
    with pytest.raises(BadInput, match="none for frame 1"):
        link_atoms(table, {0: (0.0, 0.0)})
    assert len(link_atoms(AtomTable.empty())) == 0
    assert len(link_defects(DefectTable.empty())) == 0


def drifting(step, seen, *, frames=6, kind="Si1C3"):
    """A defect that rests in a specimen which moves by `step` Å a frame; seen in some frames."""
    drift = {f: (step * f, 0.0) for f in range(frames)}
    rows = [(f, kind, seen[f] + step * f, 10.0) for f in range(frames) if f in seen]
    return defects(rows), drift


@pytest.mark.parametrize("step", [0.1, 0.5, 3.0])
def test_what_drifts_in_over_the_border_came_into_the_field(step):
    start = 1.4 - step  # in frame 1 still nearer to the border than what is named
    table, drift = drifting(step, dict.fromkeys(range(2, 6), start))
    field = {"extent_xy_A": (20.0, 20.0), "border_A": 1.5, "frames": range(6)}
    linked = link_defects(table, drift, **field).data
    assert set(linked["origin"]) == {"came into the field"}
    # The same place in a specimen that rests was in the field all the time.
    table, still = drifting(0.0, dict.fromkeys(range(2, 6), 6.0))
    assert set(link_defects(table, still, **field).data["origin"]) == {"appeared"}
    # So was a place that came in long before something was seen there.
    table, drift = drifting(1.0, {5: 1.0})
    assert link_defects(table, drift, **field).data["origin"].to_list() == ["appeared"]


def test_a_track_counts_its_hops():
    at = [5.0, 5.2, 6.4, 6.5, 5.1, 5.0]  # there and back, 1.4 Å apart
    table, drift = drifting(0.5, dict(enumerate(at)))
    linked = link_defects(table, drift).data
    assert linked["track"].to_list() == [0] * 6
    assert linked["hops"].to_list() == [0, 0, 1, 1, 2, 2]
    far = LinkOptions(hop_A=2.0)
    assert link_defects(table, drift, options=far).data["hops"].to_list() == [0] * 6


def test_tables_without_hops_are_read():
    old = defects([(0, "V1", 5.0, 5.0)]).data.drop("hops", "alternatives")
    read = DefectTable(old).data
    assert (read["hops"].to_list(), read["alternatives"].to_list()) == ([None], [""])
