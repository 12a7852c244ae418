"""The image as a sum of spots, and what it says of them: written out, and as it is computed."""

import numpy as np
import pytest

from adatom.core import GRAPHENE, Calibration
from adatom.features.refinement.fisher import find_pairs, information
from adatom.features.refinement.image_model import Grid, Probe
from adatom.frames.simulate.specimen import lattice_points

WIDER = (1.0, 1.8, 3.2)  # widths of a probe's parts


def direct(probe: Probe, shape, rc, amplitude):
    """The image of spots, written out."""
    r, c = np.mgrid[: shape[0], : shape[1]]
    inverse, out = np.linalg.inv(probe.matrix()), np.zeros(shape)
    for (y, x), a in zip(rc, amplitude, strict=True):
        d = np.stack([r - y, c - x], axis=-1)
        q = np.einsum("rci,ij,rcj->rc", d, inverse, d)
        out += a * sum(
            w * np.exp(-q / (2 * s**2)) for w, s in zip(probe.weights, WIDER, strict=True)
        )
    return out


def oblique(sigma_px, tails=(0.0, 0.0)):
    return Probe(np.array([1.1, 0.2, 0.9]) * sigma_px**2, np.array(tails))


def scattered(shape, count=12, seed=0):
    """Spots in a frame, over its corner and beyond its border."""
    rng = np.random.default_rng(seed)
    rc = rng.uniform(3, np.asarray(shape) - 4, (count, 2))
    rc = np.concatenate([rc, [[-2.3, 20.2], [shape[0] - 0.3, shape[1] - 1.1], [0, 0]]])
    return rc, rng.uniform(1, 5, len(rc))


# ---------------------------------------------------------------- spots


@pytest.mark.parametrize("tails", [(0.0, 0.0), (0.2, 0.05), (-0.1, 0.03)])
@pytest.mark.parametrize("sigma_px", [1.5, 2.0, 2.6])
def test_an_image_is_the_sum_of_its_spots(sigma_px, tails):
    shape, probe = (41, 52), oblique(sigma_px, tails)
    (rc, amplitude), grid = scattered(shape), Grid(shape)
    image = grid.image(grid.spectrum(rc, amplitude), grid.kernel(probe))
    expected = direct(probe, shape, rc, amplitude)
    # What splines cannot follow falls fast with the width; of a peak, per mille.
    tolerance = {1.5: 4e-3, 2.0: 1.5e-3, 2.6: 3e-4}[sigma_px]
    assert np.abs(image - expected).max() < tolerance * expected.max()


def test_the_slope_along_columns_is_that_of_the_image():
    shape, probe = (41, 52), oblique(2.6, (0.1, 0.0))
    (rc, amplitude), grid, h = scattered(shape), Grid(shape), 0.01
    slope = grid.image(grid.spectrum(rc, amplitude), grid.column_derivative(grid.kernel(probe)))
    right, left = (direct(probe, shape, rc + [0, s], amplitude) for s in (-h, h))
    np.testing.assert_allclose(slope, (right - left) / (2 * h), atol=2e-3 * np.abs(slope).max())


def test_gradients_are_the_adjoint_of_the_image():
    """Exactly, of the image as it is computed: the fit's slope fits its value."""
    shape, probe = (41, 52), oblique(1.5, (0.2, 0.05))
    (rc, _), grid = scattered(shape), Grid(shape)
    data = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    kernel = grid.kernel(probe)
    (coefficients,) = grid.correlate(data, kernel)

    def product(at):
        return np.array(
            [np.vdot(grid.image(grid.spectrum(p[None], np.ones(1)), kernel), data) for p in at]
        )

    value, along_r, along_c = grid.interpolate(coefficients, rc, ("", "r", "c"))
    np.testing.assert_allclose(value, product(rc), atol=1e-4)
    h = 0.02
    for slope, step in ((along_r, (h, 0.0)), (along_c, (0.0, h))):
        inside = np.all((rc > 1) & (rc < np.asarray(shape) - 2), axis=1)
        numeric = (product(rc + step) - product(rc - step)) / (2 * h)
        np.testing.assert_allclose(slope[inside], numeric[inside], atol=5e-3)


def test_values_and_derivatives_at_positions_are_direct_sums():
    shape, probe, h = (41, 52), oblique(2.6, (0.15, 0.03)), 1e-2
    (rc, _), grid = scattered(shape), Grid(shape)
    data = np.random.default_rng(2).normal(size=shape)
    (coefficients,) = grid.correlate(data.astype(np.float32), grid.kernel(probe))
    orders = ("", "r", "c", "rr", "rc", "cc")
    found = dict(zip(orders, grid.interpolate(coefficients, rc, orders), strict=True))

    def value(dr, dc):
        return np.array([(direct(probe, shape, p[None], [1.0]) * data).sum()
                         for p in rc + [dr, dc]])  # fmt: skip

    v = {(i, j): value(i * h, j * h) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    expected = {
        "": v[0, 0],
        "r": (v[1, 0] - v[-1, 0]) / (2 * h),
        "c": (v[0, 1] - v[0, -1]) / (2 * h),
        "rr": (v[1, 0] - 2 * v[0, 0] + v[-1, 0]) / h**2,
        "rc": (v[1, 1] - v[1, -1] - v[-1, 1] + v[-1, -1]) / (4 * h**2),
        "cc": (v[0, 1] - 2 * v[0, 0] + v[0, -1]) / h**2,
    }
    for order in orders:
        tolerance = 0.005 if len(order) < 2 else 0.03
        np.testing.assert_allclose(
            found[order], expected[order], atol=tolerance * np.abs(expected[order]).max(),
            err_msg=order,
        )  # fmt: skip


@pytest.mark.parametrize("tails", [(0.0, 0.0), (0.2, 0.05)])
def test_the_effective_gaussian_carries_the_probes_information(tails):
    probe = oblique(3.0, tails)
    peak, covariance = probe.effective_gaussian()
    axis = np.arange(-60, 61)
    one = direct(probe, (121, 121), np.array([[60.0, 60.0]]), [1.0])
    d = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    gauss = peak * np.exp(-0.5 * np.einsum("rci,ij,rcj->rc", d, np.linalg.inv(covariance), d))
    assert (gauss**2).sum() == pytest.approx((one**2).sum(), rel=1e-3)
    for k in (0, 1):
        slope, true = (np.gradient(p, axis=k) for p in (gauss, one))
        assert (slope**2).sum() == pytest.approx((true**2).sum(), rel=0.02)
    left = one.sum() - gauss.sum()
    assert probe.tail_area() == pytest.approx(left, abs=1e-3 * one.sum())


# ---------------------------------------------------------------- Fisher information


def sheet_and_jacobian(tails):
    """A small sheet, its information, and the same from finite differences of its image."""
    px, n = 0.16, 80
    rng, probe = np.random.default_rng(0), oblique(0.42 / px, tails)
    far = Calibration(px).extent_xy((n, n))
    rc = Calibration(px).rc(lattice_points(GRAPHENE, far, -1.0, 0.3))
    rc = rc + rng.normal(0, 0.2, rc.shape)
    amplitude = rng.uniform(4.0, 6.0, len(rc))
    amplitude[10] *= 4  # a heavy one
    weight = 1.0 / (direct(probe, (n, n), rc, amplitude) + 1.0)
    grid = Grid((n, n))
    info = information(grid, weight.astype(np.float32), rc, amplitude, probe, find_pairs(rc, probe))
    rows, h = [], 1e-3
    for p, a in zip(rc, amplitude, strict=True):
        for step in ((h, 0.0), (0.0, h)):
            up, down = (
                direct(probe, (n, n), (p + s)[None], [a]) for s in (step, np.negative(step))
            )
            rows.append(((up - down) / (2 * h)).ravel())
        rows.append(direct(probe, (n, n), p[None], [1.0]).ravel())
    jacobian = np.array(rows)
    prior = np.zeros((len(rc), 3, 3))
    prior[:, 0, 0] = prior[:, 1, 1] = (px / 0.12) ** 2
    prior[:, 2, 2] = (30 * 5.0) ** -2
    whole = (jacobian * weight.ravel()) @ jacobian.T
    inside = np.all((rc > 1.5 / px) & (rc < n - 1.5 / px), axis=1)
    assert inside.sum() > 20
    return info, whole, prior, inside


def blocks(matrix):
    n = len(matrix) // 3
    return np.stack([matrix[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] for i in range(n)])


# A probe with tails is taken for its effective Gaussian: information is then good to an eighth.
@pytest.mark.parametrize(("tails", "tolerance"), [((0.0, 0.0), 0.01), ((0.15, 0.03), 0.15)])
def test_information_is_that_of_the_numeric_jacobian(tails, tolerance):
    info, whole, prior, _ = sheet_and_jacobian(tails)
    mine = info.matrix(np.zeros_like(prior)).toarray()
    diagonal = np.diag(whole)
    np.testing.assert_allclose(np.diag(mine), diagonal, rtol=tolerance)
    scale = np.sqrt(np.outer(diagonal, diagonal))
    assert np.abs((mine - whole) / scale).max() < 2 * tolerance
    np.testing.assert_allclose(mine, mine.T, atol=1e-6 * diagonal.max())


@pytest.mark.parametrize(("tails", "tolerance"), [((0.0, 0.0), 0.03), ((0.15, 0.03), 0.12)])
def test_covariance_is_that_of_the_whole_inverse(tails, tolerance):
    info, whole, prior, inside = sheet_and_jacobian(tails)
    priors = np.diag(np.einsum("nii->ni", prior).ravel())
    dense = blocks(np.linalg.inv(whole + priors))[inside]
    mine = info.covariance(prior)[inside]
    np.testing.assert_allclose(
        np.einsum("nii->ni", mine), np.einsum("nii->ni", dense), rtol=tolerance
    )
    scale = np.sqrt(np.einsum("ni,nj->nij", *[np.einsum("nii->ni", dense)] * 2))
    assert np.abs((mine - dense) / scale).max() < tolerance
    alone = blocks(whole)[inside] + prior[inside]
    assert (dense[:, 0, 0] > 1.1 / alone[:, 0, 0]).any()  # neighbours matter in this sheet
