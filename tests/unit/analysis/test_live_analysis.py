"""The analysis of the live loop gives the answers of the full one, and knows when it cannot."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.spatial import cKDTree

from adatom.analysis.frame import analyse_frame
from adatom.analysis.live import FAST, FULL, LiveAnalysis, agreement
from adatom.analysis.naming import weigh_again
from adatom.analysis.options import AnalysisOptions
from adatom.campaign.twin import make_twin
from adatom.core import GRAPHENE, DefectTable, ScanRequest
from adatom.instrument import TwinOptions
from adatom.learning.weights import load_shipped


@cache
def ensemble():
    return load_shipped("graphene")


def microscope(seed=1, **options):
    given = {"foreign": 2, "vacancies": 1, "drift_A": 0.1, "field_of_view_A": 22.0, **options}
    return make_twin(TwinOptions(**given), GRAPHENE, seed)


def frame_of(twin, dose=1e5, pixels=240):
    return twin.acquire(ScanRequest(twin.center_xy_A, pixels * 0.11, pixels, dose))


def kinds(result):
    return sorted(result.defects.data["kind"].to_list())


def test_it_agrees_with_the_full_analysis():
    twin, live, off, hows = microscope(), LiveAnalysis(ensemble(), GRAPHENE), [], []
    for _ in range(8):
        frame = frame_of(twin)
        got, how = live.see(frame)
        full = analyse_frame(frame, ensemble(), GRAPHENE)
        likely = full.atoms.is_likely
        away, nearest = cKDTree(got.atoms.xy).query(full.atoms.xy[likely])
        sigma = np.hypot(*(full.atoms.column(f"sigma_{a}_A")[likely] for a in "xy")) / np.sqrt(2)
        off.append(away / sigma)
        hows.append(how)
        assert kinds(got) == kinds(full)
        assert (got.atoms.elements[nearest] == full.atoms.elements[likely]).all()
    assert hows[0] == FULL
    assert hows.count(FAST) >= 6
    assert np.quantile(np.concatenate(off), 0.99) < 0.3


def test_an_atom_that_hops_is_named_at_its_new_place():
    twin, live = microscope(vacancies=0, foreign=1, drift_A=0.0), LiveAnalysis(ensemble(), GRAPHENE)
    for _ in range(3):
        live.see(frame_of(twin))
    (site,) = np.flatnonzero(twin.species)
    away = np.hypot(*(twin.sites_xy - twin.sites_xy[site]).T)
    other = int(np.argsort(away)[1])
    twin.specimen.exchange(int(site), other, 0.0)
    got, how = live.see(frame_of(twin))
    assert how == FAST
    x, y = got.defects.data.select("x_A", "y_A").to_numpy()[0]
    corner = np.asarray(twin.center_xy_A) - 240 * 0.11 / 2
    np.testing.assert_allclose(twin.sites_xy[other] - corner, [x, y], atol=0.4)


def test_a_place_whose_kind_has_changed_is_weighed_with_all_shapes_and_named_anew():
    full = analyse_frame(frame_of(microscope()), ensemble(), GRAPHENE)
    assert full.before is not None
    right = [one.kind for one in full.before.asked]
    assert "V1" in right
    wrong = tuple(replace(one, kind="V2", candidates=()) for one in full.before.asked)
    for asked, changed in ((full.before.asked, False), (wrong, True)):
        before = replace(full.before, asked=asked)
        atoms, defects, anew = weigh_again(
            full.found.frame, before, full.defects, full.found, full.lattice, GRAPHENE,
            AnalysisOptions(),
        )  # fmt: skip
        assert (anew is not None) == changed
        assert anew is None or [one.kind for one in anew.asked] == right
        assert sorted(defects.kinds) == kinds(full)
        np.testing.assert_allclose(atoms.xy, full.atoms.xy, atol=1e-3)


@pytest.mark.parametrize("change", ["probe", "place", "blank part"])
def test_a_frame_that_does_not_resemble_the_last_is_analysed_in_full(change):
    twin, live = microscope(), LiveAnalysis(ensemble(), GRAPHENE)
    for _ in range(2):
        live.see(frame_of(twin))
    frame = frame_of(twin)
    if change == "probe":
        from scipy.ndimage import gaussian_filter

        frame = replace(frame, data=gaussian_filter(frame.data, 3.0))
    if change == "place":
        frame = replace(frame, data=np.ascontiguousarray(np.rot90(frame.data)))
    if change == "blank part":
        data = frame.data.copy()
        data[100:] = 0
        frame = replace(frame, data=data)
    got, how = live.see(frame)
    assert how == FULL
    assert kinds(got) == kinds(analyse_frame(frame, ensemble(), GRAPHENE))


def test_the_full_analysis_checks_every_so_often_and_tells_what_was_missed():
    twin, live = microscope(), LiveAnalysis(ensemble(), GRAPHENE, full_every=3)
    checks = []
    for _ in range(7):
        live.see(frame_of(twin))
        checks.append(live.check())
    due = [k for k, check in enumerate(checks) if check is not None]
    assert due == [3, 6]
    assert all(checks[k]["missed"] == [] and checks[k]["within"] > 0.98 for k in due)
    full = analyse_frame(frame_of(twin), ensemble(), GRAPHENE)
    nothing = replace(full, defects=DefectTable.empty())
    within, missed = agreement(nothing, full)
    assert within.all()
    assert sorted(missed) == kinds(full)


def test_frames_of_two_sizes_in_turn_are_both_fast():
    twin, live = microscope(), LiveAnalysis(ensemble(), GRAPHENE)
    hows = [live.see(frame_of(twin, pixels=p))[1] for p in (240, 120) * 3]
    assert hows[:2] == [FULL, FULL]
    assert hows[2:].count(FAST) >= 3
