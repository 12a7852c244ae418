"""Frames with padding, annotation and clipped pixels, and in other units, from both faces."""

import warnings

import numpy as np
import polars as pl
import pytest
from scipy.spatial import cKDTree

import adatom as ad
from adatom.analysis.frame import analyse_frame
from adatom.campaign.warn import pixel_warnings
from adatom.core import GRAPHENE, Frame
from adatom.learning import weights
from artefacts import annotated, padded
from sheets import graphene_frame

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def ensemble():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def truth():
    silicon = [(6.0, 6.0), (11.0, 6.0), (6.0, 11.5)]
    return graphene_frame(
        72, counts=20.0, field=(17, 17), px=0.12, silicon=silicon, missing=[(12, 11)]
    )


def on(mask, xy, px):
    col, row = np.clip(np.round(xy / px).astype(int), 0, mask.shape[0] - 1).T
    return mask[row, col]


def analysed(truth, data, ensemble):
    return analyse_frame(Frame(data, truth.frame.calibration), ensemble, GRAPHENE)


@pytest.fixture(scope="module")
def plain(truth, ensemble):
    return analysed(truth, truth.frame.data, ensemble)


def test_a_border_has_neither_atoms_nor_holes(truth, ensemble):
    data, mask = padded(truth.frame.data, 0.0)
    result = analysed(truth, data, ensemble)
    px = truth.frame.calibration.pixel_size_A
    assert not on(mask, result.atoms.xy, px).any()
    assert sorted(k for k in result.defects.kinds if k.startswith("V")) == ["V1"]
    (told,) = pixel_warnings({0: result.flags})
    assert "constant values at the border" in told
    assert f"{result.flags.masked_share:.1%}" in told
    area = mask.sum() * px**2
    assert result.flags.masked[0][1] == pytest.approx(area, rel=0.1)


@pytest.mark.slow
def test_find_and_find_defects_leave_annotation_alone(truth):
    data, mask = annotated(truth.frame.data, box=0.0)
    px = truth.frame.calibration.pixel_size_A
    with pytest.warns(UserWarning, match="a burnt-in box or bar"):
        atoms = ad.find(data, pixel_size_A=px)
    assert not on(mask, atoms.xy, px).any()
    named = ad.find_defects(data, atoms, pixel_size_A=px)
    bare = ad.find_defects(data, ad.core.AtomTable(atoms.data), pixel_size_A=px)
    for table in (named, bare):
        assert not on(mask, table.xy, px).any()
        assert "V3" not in table.kinds


@pytest.mark.parametrize(
    ("scale", "offset"),
    [(1e-10, -3e-7), pytest.param(1.0, -3000.0, marks=SLOW), pytest.param(1e6, 5e8, marks=SLOW)],
)
def test_tables_do_not_depend_on_the_unit(truth, plain, ensemble, scale, offset):
    other = analysed(truth, scale * truth.frame.data.astype(float) + offset, ensemble)
    for name in ("x_A", "y_A", "sigma_x_A", "sigma_y_A", "p_exists", "p_element", "votes"):
        one, two = plain.atoms.column(name), other.atoms.column(name)
        assert np.abs(one - two).max() < 1e-6, name
    assert plain.atoms.elements.tolist() == other.atoms.elements.tolist()
    ratio = other.atoms.column("amplitude") / plain.atoms.column("amplitude") / scale
    assert np.abs(ratio - 1.0).max() < 1e-5
    assert plain.defects.data.equals(other.defects.data)
    assert other.flags.ood_score == pytest.approx(plain.flags.ood_score, abs=1e-6)


@pytest.mark.parametrize("share", [pytest.param(2.0, marks=SLOW), 5.0])
def test_clipped_silicon_is_not_surely_carbon(truth, ensemble, share):
    data = np.minimum(truth.frame.data, np.percentile(truth.frame.data, 100 - share))
    result = analysed(truth, data, ensemble)
    silicon = truth.xy[truth.species == 1]
    at = cKDTree(result.atoms.xy).query(silicon)[1]
    element, p = result.atoms.elements[at], result.atoms.column("p_element")[at]
    assert (element == "Si").sum() >= 2
    assert not ((element == "C") & (p > 0.8)).any()
    carbon = np.setdiff1d(np.arange(len(result.atoms)), at)
    assert (result.atoms.elements[carbon] == "C").all()
    assert any("saturated" in told for told in pixel_warnings({0: result.flags}))


def test_frames_of_counts_are_analysed_as_before(truth, plain, ensemble):
    assert not plain.flags.masked
    assert plain.flags.clipped_share == (0.0, 0.0)
    assert pixel_warnings({0: plain.flags}) == ()


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("zero_border", ["Si1C3", "Si1C3", "V1"]),
        ("scale_bar_in_black_box", ["Si1C3", "Si1C3", "V1", "V1"]),
        ("base_ok", ["Si1C3", "Si1C3", "V1", "V1"]),
    ],
)
def test_cases_from_python(shared_data, name, kinds):
    path = shared_data.parent / "cases" / f"{name}.npz"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        atoms = ad.find(path)
    assert sorted(ad.find_defects(path, atoms).kinds) == kinds
    told = [str(w.message) for w in caught if "masked" in str(w.message)]
    assert len(told) == (name != "base_ok")


@pytest.mark.realdata
def test_amperes_give_the_table_of_counts(shared_data):
    cases = shared_data.parent / "cases"
    tables = [
        ad.find(cases / f"amperes_1e-10{end}.npz").data.drop("amplitude")
        for end in ("", "_same_in_counts")
    ]
    numbers = [t.select(pl.selectors.float()).to_numpy() for t in tables]
    assert np.abs(numbers[0] - numbers[1]).max() < 1e-6
    assert tables[0]["element"].equals(tables[1]["element"])
