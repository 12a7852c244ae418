"""The rate of atoms that are named in a perfect crystal."""

from __future__ import annotations

from adatom.bench.pristine import pristine_rows


def test_two_elements_of_one_brightness_are_no_antisites():
    (one,) = pristine_rows(1, seed=3, names=("MoSSe",))
    assert one["met"], one["measured"]
    assert one["measured"].startswith("0.00 (0 of ")
