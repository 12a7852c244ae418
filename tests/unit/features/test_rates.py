"""Rates of jumps and of changes of kind from a table of linked defects."""

import numpy as np
import polars as pl
import pytest

from adatom.core import GRAPHENE, DefectKind, DefectTable
from adatom.core.transitions import SCHEMA
from adatom.features.rates import Clock, transition_table
from adatom.features.tracking import link_defects
from adatom.frames.simulate.moving_sheet import MotionOptions, moving_sheet
from lattices import make_lattice

LATTICE = make_lattice(stretch=(0.0, 0.0, 0.0))


def table(rows):
    """Linked defects of rows (frame, kind, x, y, p) in a specimen that rests."""
    frames = sorted({row[0] for row in rows})
    parts = []
    for f in frames:
        here = [row for row in rows if row[0] == f]
        parts.append(
            DefectTable.build(
                frame=f, kinds=[DefectKind.parse(row[1]) for row in here],
                xy=np.array([row[2:4] for row in here]), p=[row[4] for row in here],
                atoms=[[]] * len(here),
            )
        )  # fmt: skip
    drift = dict.fromkeys(frames, (0.0, 0.0))
    return link_defects(DefectTable.concat(parts), drift), drift


def site(index):
    return LATTICE.distort(LATTICE.site_xy(np.array([index])))[0]


def test_a_silicon_that_jumps_has_its_rate_per_frame_second_and_dose():
    sites = [site((5, 5, 0))] * 10 + [site((5, 5, 1))] * 11
    defects, drift = table([(f, "Si1C3", *xy, 0.95) for f, xy in enumerate(sites)])
    out = transition_table(defects, {0: LATTICE}, drift, Clock(0.5, 1e5))
    assert out.schema == SCHEMA
    (row,) = out.iter_rows(named=True)
    assert (row["from_kind"], row["to_kind"], row["tracks"]) == ("Si1C3", "Si1C3", 1)
    assert (row["exposure_frames"], row["seen"]) == (20.0, 1.0)
    # One event in twenty frames: quantiles of a gamma distribution with shape 1.5.
    assert row["rate_low_per_frame"] == pytest.approx(0.176 / 20, rel=0.1)
    assert row["rate_per_frame"] == pytest.approx(1.183 / 20, rel=0.1)
    assert row["rate_high_per_frame"] == pytest.approx(3.907 / 20, rel=0.1)
    assert row["rate_per_s"] == pytest.approx(row["rate_per_frame"] / 0.5)
    assert row["cross_section_A2"] == pytest.approx(row["rate_per_frame"] / 1e5)
    assert row["dwell_frames"] == pytest.approx(1 / row["rate_per_frame"])
    trace = row["diffusion_xx_A2"] + row["diffusion_yy_A2"]
    assert trace == pytest.approx(1.42**2 / 2 / 20, rel=0.01)
    bare = transition_table(defects, {0: LATTICE}, drift)
    assert bare["rate_per_s"].null_count() == bare["cross_section_A2"].null_count() == 1


def test_without_a_lattice_there_are_changes_of_kind_alone():
    x, y = site((5, 5, 0))
    rows = [(f, "Si1C3" if f < 20 else "Si1C4", x, y, 0.97) for f in range(40)]
    defects, drift = table(rows)
    out = transition_table(defects, {0: None}, drift)
    changes = {(r["from_kind"], r["to_kind"]): r for r in out.iter_rows(named=True)}
    assert set(changes) == {("Si1C3", "Si1C4"), ("Si1C4", "Si1C3")}
    assert changes["Si1C3", "Si1C4"]["seen"] == pytest.approx(1.0, abs=0.1)
    assert changes["Si1C4", "Si1C3"]["seen"] == pytest.approx(0.0, abs=0.1)
    assert changes["Si1C3", "Si1C4"]["exposure_frames"] == pytest.approx(20, abs=0.6)


def test_a_name_that_is_wrong_now_and_then_is_no_change():
    x, y = site((5, 5, 0))
    rows = [(f, "Si1C4" if f in (7, 19) else "Si1C3", x, y, 0.7) for f in range(40)]
    defects, drift = table(rows)
    out = transition_table(defects, {0: None}, drift)
    assert out["seen"].max() < 0.5


def test_the_rate_of_a_simulated_silicon_is_found_from_its_positions():
    """A movie with truth: drift, hops, and positions with errors."""
    rng = np.random.default_rng(8)
    options = MotionOptions(frames=120, extent_A=40.0, hops=0.5, drift_A=0.1, disorder_A=0.0)
    movie = moving_sheet(GRAPHENE, options, rng)
    parts, drift = [], {}
    for frame in movie.frames:
        at = frame.xy[frame.species == 1] + rng.normal(0.0, 0.1, (1, 2))
        drift[frame.number] = (float(frame.drift_xy_A[0]), float(frame.drift_xy_A[1]))
        parts.append(
            DefectTable.build(
                frame=frame.number, kinds=[DefectKind.parse("Si1C3")], xy=at, p=[0.95], atoms=[[]]
            )
        )
    defects = link_defects(DefectTable.concat(parts), drift)
    assert defects.data["track"].n_unique() == 1
    lattice = lattice_of(movie.frames[0])
    row = transition_table(defects, {0: lattice}, drift).row(0, named=True)
    jumps = movie.jumps.sum()
    assert row["seen"] < jumps  # some jumps lead back between two frames
    assert row["rate_low_per_frame"] < jumps / 119 < row["rate_high_per_frame"]
    assert abs(row["jumps"] - jumps) < 0.25 * jumps


def lattice_of(frame):
    from adatom.frames.lattice.fit import fit_lattice

    inside = ((frame.xy > 0) & (frame.xy < 40.0)).all(axis=1)
    found = fit_lattice(frame.xy[inside], GRAPHENE)
    assert isinstance(found.matched, float)
    return found


def test_an_empty_table_has_no_transitions():
    out = transition_table(DefectTable.empty(), {}, {})
    assert isinstance(out, pl.DataFrame)
    assert out.height == 0
    assert out.schema == SCHEMA
