"""The Cramér-Rao bound of positions against closed formulas."""

import numpy as np

from adatom.bench.bound import position_bound
from adatom.bench.sets import SPOT_A, SPOT_PX, Scene
from adatom.frames.simulate.specimen import Specimen

NONE = np.zeros((0, 2))


def gaussian_scene(places, sigma_A=0.42, *, background, px=0.1, pixels=121):
    places = np.asarray(places, dtype=float).reshape(-1, 2)
    axis = (np.arange(SPOT_PX) - (SPOT_PX - 1) / 2) * SPOT_A
    spot = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * sigma_A**2))
    y, x = np.mgrid[:pixels, :pixels] * px
    image = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma_A**2)) for a, b in places)
    specimen = Specimen(places, np.zeros(len(places), dtype=np.int64), NONE)
    return Scene(image + background, px, specimen, spot)


def test_the_bound_of_one_spot_is_its_width_over_the_root_of_its_counts():
    """Without a background: sigma / sqrt(N), and N is what one count at the peak sums to."""
    counts = 2 * np.pi * (0.42 / 0.1) ** 2
    (bound,) = position_bound(gaussian_scene([[6.03, 5.96]], background=1e-6))
    np.testing.assert_allclose(bound, 0.42 / np.sqrt(counts), rtol=0.03)
    # A bright level: photon noise of the level alone, sqrt(2 B / pi) · px (Ober et al. 2004).
    (bright,) = position_bound(gaussian_scene([[6.03, 5.96]], background=100.0))
    np.testing.assert_allclose(bright, np.sqrt(2 * 100.0 / np.pi) * 0.1, rtol=0.03)


def test_the_bound_of_touching_spots_is_wider_along_their_line():
    alone = position_bound(gaussian_scene([[6.0, 6.0]], background=0.1))[0]
    pair = position_bound(gaussian_scene([[5.4, 6.0], [6.6, 6.0]], background=0.1))
    assert (pair[:, 0] > 1.1 * alone[0]).all()
    assert (pair[:, 0] > 1.1 * pair[:, 1]).all()
    np.testing.assert_allclose(pair[0], pair[1], rtol=0.02)


def test_atoms_outside_the_border_have_no_bound():
    bound = position_bound(gaussian_scene([[6.0, 6.0], [-0.4, 6.0], [30.0, 6.0]], background=0.1))
    assert np.isfinite(bound[0]).all()
    assert np.isnan(bound[1:]).all()
