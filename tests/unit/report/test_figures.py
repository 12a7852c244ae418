"""Figures of the report: geometry, scales, and size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adatom.core import AtomTable, Frame
from adatom.report import facts, figures, images, markup
from views import lattice_xy, make_frame, make_structure


def test_two_sigma_ellipses_are_true_to_scale():
    a, b, angle = 0.3, 0.1, 0.5
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    covariance = (turn @ np.diag([a**2, b**2]) @ turn.T)[None]
    table = AtomTable.build(
        frame=0, xy=np.array([[4.0, 7.0]]), covariance=covariance, p_exists=[1.0],
        element=["C"], p_element=[1.0], votes=[1.0], amplitude=[1.0],
    )  # fmt: skip
    (ellipse,) = figures.two_sigma_ellipses(table)
    points = ellipse.get_patch_transform().transform(ellipse.get_path().vertices)
    distance = np.hypot(*(points - (4.0, 7.0)).T)
    assert distance.max() == pytest.approx(2 * a, rel=0.01)
    far = points[np.argmax(distance)] - (4.0, 7.0)
    assert abs(far @ (c, s)) == pytest.approx(2 * a, rel=0.01)


def test_a_sheet_wrapped_at_the_boundary_is_flat():
    folded = make_structure("A", 0).to_ase()
    height = folded.cell.array[2, 2]
    folded.positions[:, 2] = np.where(np.arange(len(folded)) % 2, 0.01, height - 0.01)
    folded.positions[10, 2] = 0.8
    z = facts.heights(folded)
    assert z[10] == pytest.approx(0.8, abs=0.03)
    assert np.abs(np.delete(z, 10)).max() < 0.03


def test_blocks_are_averaged_and_levels_are_stretched():
    image = np.arange(64, dtype=np.float32).reshape(8, 8)
    small = images.shrink(image, 4)
    assert small.shape == (4, 4)
    assert small[0, 0] == image[:2, :2].mean()
    assert images.shrink(image, 8) is image
    grey = images.grey_levels(image, float(image.min()), float(image.max()))
    assert (grey.min(), grey.max()) == (0.0, 1.0)


def test_markup_escapes_text_and_keeps_markup():
    inner = markup.element("b", "1 < 2 & 3")
    outer = markup.element("p", inner, "<i>", title='"')
    assert outer == '<p title="&quot;"><b>1 &lt; 2 &amp; 3</b>\n&lt;i&gt;</p>\n'
    assert markup.number(-12700.5, 1) == "−12\u202f700.5"
    assert markup.number(math.nan) == "–"
    assert markup.listing(["a", "b", "c"]) == "a, b and c"


def test_what_is_masked_does_not_set_the_grey_levels():
    frame = make_frame(0, lattice_xy(), 30)
    data = frame.data.copy()
    data[80:, :40] = 1e4  # a burnt-in bar
    burnt = Frame(data, frame.calibration)
    bar = (0.0, 12.8, 6.2, 15.2)
    plain = images.recorded_picture(frame, 96)
    assert images.recorded_picture(burnt, 96) != plain
    low, high = images.display_limits(burnt.data, burnt, [bar])
    assert (low, high) == pytest.approx(images.percentiles(frame.data), abs=1.0)
