"""Kinds of defect: each has one name, and the name gives the kind back."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adatom.core import (
    Adatom,
    Antisite,
    Boundary,
    Cluster,
    DefectKind,
    DefectTable,
    Interstitial,
    Other,
    Rings,
    StoneWales,
    Substitution,
    Vacancy,
)
from adatom.core.composition import count_formula
from adatom.core.defect_kind import kind_of_rings
from adatom.errors import BadInput

ELEMENTS = st.sampled_from(["C", "Si", "S", "Mo", "V", "W", "N", "B", "Ti", "O", "Se", "I", "X"])
FORMULAS = st.lists(st.tuples(ELEMENTS, st.integers(1, 12)), min_size=1, max_size=3).map(
    lambda parts: "".join(f"{s}{n if n > 1 else ''}" for s, n in parts)
)
COUNTS = st.dictionaries(ELEMENTS, st.integers(1, 30), min_size=1, max_size=3).map(
    lambda counts: tuple(counts.items())
)
EXCHANGES = st.tuples(FORMULAS, FORMULAS).filter(lambda pair: pair[0] != pair[1])
KINDS = st.one_of(
    st.integers(1, 40).map(Vacancy),
    st.lists(FORMULAS, min_size=1, max_size=4).map(lambda sites: Vacancy.at(*sites)),
    EXCHANGES.map(lambda pair: Substitution(*pair)),
    EXCHANGES.map(lambda pair: Antisite(*pair)),
    st.builds(Adatom, COUNTS, st.sampled_from(["", "hollow", "bridge", "top"])),
    FORMULAS.map(Interstitial),
    st.builds(Cluster, COUNTS, COUNTS),
    st.lists(st.integers(3, 9), min_size=1, max_size=6).map(lambda sizes: Rings(tuple(sizes))),
    st.just(StoneWales()),
    st.just(Boundary()),
    st.from_regex(r"\A[A-Za-z0-9]{1,4}([-_][A-Za-z0-9]{1,4}){0,2}\Z").map(Other),
)


@given(KINDS)
def test_a_name_gives_its_kind_back(kind):
    assert DefectKind.parse(str(kind)) == kind
    assert hash(DefectKind.parse(str(kind))) == hash(kind)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", kind.label)
    assert kind.describe()


@given(KINDS, KINDS)
def test_two_kinds_have_two_names(one, two):
    assert (str(one) == str(two)) == (one == two)
    assert (one.label == two.label) == (one == two)


@given(st.text(max_size=12))
def test_any_text_is_a_name_or_is_refused(text):
    kind = DefectKind.parse_or_none(text)
    if kind is None:
        with pytest.raises(BadInput, match="kind of defect"):
            DefectKind.parse(text)
    else:
        assert str(kind) == text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("V1", Vacancy(1)),
        ("V2-555-777", Vacancy(2, rings=(7, 5, 7, 5, 7, 5))),
        ("vac_Mo", Vacancy.at("Mo")),
        ("V_Mo", Substitution("V", "Mo")),
        ("V1C3", Cluster.of(["V"], ["C"] * 3)),
        ("S_S2", Substitution("S", "S2")),
        ("anti_Te_Cd", Antisite("Te", "Cd")),
        ("ad-C", Adatom.of(["C"])),
        ("ad-Si2", Adatom.of(["Si", "Si"])),
        ("ad-Si-bridge", Adatom.of(["Si"], "bridge")),
        ("Si1C3", Cluster.of(["Si"], ["C"] * 3)),
        ("N1Si2C7", Cluster.of(["Si", "N", "Si"], ["C"] * 7)),
        ("C1-B1N2", Cluster.of(["C"], ["N", "B", "N"])),
        ("rings 5-7", Rings((7, 5))),
        ("rings 55-8", Rings((5, 8, 5))),
        ("Stone-Wales", StoneWales()),
    ],
)
def test_names_are_those_of_the_field(name, kind):
    assert str(kind) == name
    assert DefectKind.parse(name) == kind


@pytest.mark.parametrize(
    "name",
    ["", "V0", "V01", "V2-", "V2-777-555", "vac_", "W_W", "Qq1C3", "Si0C3", "Si1", "Si1 C3",
     "rings 7-5", "rings 57",
     "rings 2", "ad-", "ad-Si1", "ad-SiC", "ad-C-", "ad-C-edge", "vac_S2_Mo",
     "other-", "other-a b", "<b>", "V1\n"],
)  # fmt: skip
def test_what_is_no_name_is_refused(name):
    with pytest.raises(BadInput, match="defect-kinds"):
        DefectKind.parse(name)


def test_a_kind_knows_what_is_missing():
    assert Vacancy.at("S2", "Mo").missing == (("Mo", 1), ("S", 2))
    assert Vacancy(2).missing == ()
    assert Substitution("S", "S2").missing == (("S", 1),)
    assert Substitution("V", "Mo").missing == (("Mo", 1),)
    assert Substitution("Se2", "SSe").missing == (("S", 1),)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Vacancy(0),
        lambda: Vacancy(2, ("Mo",)),
        lambda: Substitution("W", "W"),
        lambda: Adatom(()),
        lambda: Adatom((("C", 0),)),
        lambda: Adatom((("C", 1), ("C", 2))),
        lambda: Cluster.of(["Si"], []),
        lambda: Cluster.of(["Qq"], ["C"]),
        lambda: Rings((2,)),
        lambda: Interstitial("cd"),
        lambda: count_formula("Mo(S)2"),
    ],
)
def test_no_impossible_kind_can_be_made(make):
    with pytest.raises(BadInput):
        make()


def test_two_pentagons_and_two_heptagons_are_a_rotated_bond():
    assert kind_of_rings([7, 5, 7, 5]) == StoneWales()
    assert kind_of_rings([8, 5, 5]) == Rings((5, 5, 8))


def test_a_table_gives_names_and_values():
    kinds = [Vacancy(1), Cluster.of(["Si"], ["C"] * 4)]
    table = DefectTable.build(
        frame=2, kinds=kinds, xy=np.array([[1.0, 2.0], [3.0, 4.0]]), p=[0.5, 0.9], atoms=[[], [4]]
    )
    assert table.kinds == ["V1", "Si1C4"]
    assert table.kind_values == kinds
    assert table.data["frame"].to_list() == [2, 2]
    assert table.data["atoms"].to_list() == [[], [4]]
