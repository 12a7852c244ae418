"""Beam positions are advised only where Si atom and neighbours are certain."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from adatom.core import AtomTable
from adatom.feedback import advise_jumps
from silicon import defect_table, sheet


def test_beam_is_advised_for_every_neighbour_and_only_where_it_is_safe():
    atoms, at = sheet()
    defects = defect_table((0, "Si1C3", at, 0.99, -1))
    advice = advise_jumps(atoms, defects)
    assert len(advice) == 3
    near = atoms.xy[np.argsort(np.linalg.norm(atoms.xy - at, axis=1))[1:4]]
    expected = sorted(map(tuple, at + 0.85 * (near - at)))
    assert sorted(a.target_xy_A for a in advice) == [pytest.approx(e) for e in expected]
    for a in advice:
        assert (a.action, a.gain_unit, a.voltage_kV) == ("place_beam", "probability", 60.0)
        assert 0.3 < a.gain < 0.8
        assert 0 < a.dwell_s <= 10.0
        assert a.dose == pytest.approx(50e-12 / 1.602176634e-19 * a.dwell_s)
    assert [a.gain for a in advice] == sorted((a.gain for a in advice), reverse=True)
    for doubt in (sheet(p=0.8)[0], sheet(p_element=0.8)[0], sheet(sigma=0.6)[0]):
        assert advise_jumps(doubt, defects) == []
    assert advise_jumps(atoms, defect_table((0, "Si1C4", at, 0.99, -1))) == []
    assert advise_jumps(atoms, defects, latest_frame=3) == []  # the Si may be elsewhere by now
    pure, _ = sheet(si=(20, 20))
    carbon = AtomTable(pure.data.with_columns(pl.lit("C").alias("element")))
    assert advise_jumps(carbon, defects) == []
