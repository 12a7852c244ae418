"""Defects that merge and split are told from those that change, end or appear."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from adatom.core import GRAPHENE, DefectTable
from adatom.core.defects import SCHEMA
from adatom.features.histories import SearchedField
from adatom.features.origin import Beam, track_table
from adatom.features.rates import transition_table
from adatom.features.tracking import link_defects

FRAMES = 8
STILL = dict.fromkeys(range(FRAMES), (0.0, 0.0))
FIELD = SearchedField(np.arange(FRAMES), np.zeros((FRAMES, 2)), (30.0, 30.0))


def linked(*rows):
    """Link defects, each frame, kind, x and y in Å."""
    columns = [
        (f, k, kind, float(x), float(y), 0.9, [k], -1, f, "", None, None, "")
        for k, (f, kind, x, y) in enumerate(rows)
    ]
    table = DefectTable(pl.DataFrame(columns, schema=SCHEMA, orient="row"))
    return link_defects(table, STILL, frames=range(FRAMES), extent_xy_A=(30.0, 30.0), border_A=1.5)


def during(kind, frames, x, y=10.0):
    return [(f, kind, x, y) for f in frames]


def rates(table):
    out = transition_table(table, {}, STILL)
    return {(r["from_kind"], r["to_kind"]): r for r in out.iter_rows(named=True)}


def origins(table, kind):
    return sorted(set(table.data.filter(pl.col("kind") == kind)["origin"]))


def test_two_vacancies_merge():
    table = linked(
        *during("V1", range(4), 10.0), *during("V1", range(4), 12.4), *during("V2", range(4, 8), 11)
    )
    assert origins(table, "V2") == ["from V1 + V1"]
    told = rates(table)
    assert set(told) == {("V1 + V1", "V2")}  # not V1 to V2
    one = told["V1 + V1", "V2"]
    assert one["seen"] == pytest.approx(0.9**3)
    assert (one["exposure_frames"], one["tracks"]) == (4.0, 2)


def test_a_divacancy_splits_and_what_made_it_made_its_parts():
    table = linked(
        *during("V2", range(1, 4), 11.0),
        *during("V1", range(4, 8), 10.0),
        *during("V1", range(4, 8), 12.4),
    )
    assert origins(table, "V1") == ["split from V2"]
    assert set(rates(table)) == {("V2", "V1 + V1")}
    beam = Beam("C", np.array([1e-7]), 1e5)
    told = track_table(table, FIELD, GRAPHENE, [beam])
    causes = ["p_before", "p_came_in", "p_beam", "p_unknown"]
    first, second = told.select(causes).rows()
    assert first == second
    assert told["reason"][1].startswith("It split from defect 0: its place was in view")


def test_a_merge_for_two_frames_is_a_merge_and_a_split():
    apart = [f for f in range(FRAMES) if f not in (3, 4)]
    table = linked(
        *during("V1", apart, 10.0), *during("V1", apart, 12.4), *during("V2", (3, 4), 11.0)
    )
    assert table.data["track"].n_unique() == 2
    assert set(rates(table)) == {("V1 + V1", "V2"), ("V2", "V1 + V1")}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("V1", "V2"), "V3"),
        (("Si1C3", "V1"), "Si1C4"),
        (("Si1C3", "Si1C4"), "Si2C5"),
        (("Si1C3", "ad-Si"), "Si2C4"),
    ],
)
def test_what_holds_the_same_atoms_merges(before, after):
    table = linked(
        *during(before[0], range(4), 10.0),
        *during(before[1], range(4), 11.8),
        *during(after, range(4, 8), 11.0),
    )
    assert (" + ".join(sorted(before)), after) in rates(table)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("V1", "V1"), "V3"),  # an atom more is lost
        (("Si1C3", "V1"), "Si1C3"),  # the vacancy healed
        (("Si1C3", "Si1C3"), "Si1C4"),  # an atom left
        (("V1", "Stone-Wales"), "V2"),
    ],
)
def test_what_does_not_add_up_is_no_merge(before, after):
    table = linked(
        *during(before[0], range(4), 10.0),
        *during(before[1], range(4), 11.8),
        *during(after, range(4, 8), 11.0),
    )
    assert not any("+" in kind for ends in rates(table) for kind in ends)


def test_far_defects_do_not_merge_and_the_nearest_does():
    far = [*during("V1", range(4), 20.0), *during("V1", range(4), 10.0)]
    alone = linked(*far, *during("V2", range(4, 8), 10.7))
    assert origins(alone, "V2") == ["from V1"]
    near = linked(
        *far, *during("V1", range(4), 12.4), *during("V1", range(4), 9.0, 12.2),
        *during("V2", range(4, 8), 11.0),
    )  # fmt: skip
    last = near.data.filter((pl.col("frame") == 3) & pl.col("x_A").is_in([9.0, 20.0]))
    assert origins(near, "V2") == ["from V1 + V1"]
    assert set(last["origin"]) == {"first seen"}
