"""Limits set by counting statistics: Cramér-Rao bound of positions, ideal observer of defects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.interpolate import RectBivariateSpline

from adatom.bench.sets import SPOT_A, SPOT_PX, Scene
from adatom.core import Calibration, LabelledFrame
from adatom.core.arrays import FloatArray

_OUTSIDE_A = 1.0  # Å; atoms up to this far outside the border still contribute and are unknowns
_RIDGE = 1e-6  # of the mean diagonal of the Fisher information, added to its diagonal
_REACH_A = 2.5  # half the edge of the patch around an atom, Å: six probe widths
_MIN_COUNTS = 1e-9  # expected counts are kept above zero in the logarithm


def position_bound(scene: Scene) -> FloatArray:
    """Cramér-Rao bound of every atom's position at a dose of one count per carbon peak.

    The unknowns are positions and amplitudes of all atoms and a constant background; the probe is
    known. The Fisher information of Poisson counts is J^T diag(1 / expected) J, with the Jacobian J
    of the expected counts (Ober, Ram and Ward, Biophys. J. 86, 1185 (2004)). The bound at another
    dose is this one divided by the square root of the dose.

    Parameters
    ----------
    scene
        Scene; `scene.expected` gives the noise and `scene.spot` the probe.

    Returns
    -------
    Least standard deviations along x and y, shape (atom, 2), Å, for `scene.specimen.xy`; NaN for
    atoms outside the border.
    """
    px, shape = scene.pixel_size_A, scene.expected.shape
    axis = (np.arange(SPOT_PX) - (SPOT_PX - 1) / 2) * SPOT_A
    profile = RectBivariateSpline(axis, axis, scene.spot, kx=3, ky=3)
    far = np.asarray(Calibration(px).extent_xy((shape[0], shape[1])))
    xy = scene.specimen.xy
    near = np.all((xy > -_OUTSIDE_A) & (xy < far + _OUTSIDE_A), axis=1)
    brightness = _amplitudes(scene, near)
    reach = int(axis[-1] / px)
    k = np.arange(-reach, reach + 1)
    rows, columns, values = [], [], []
    for atom, (x, y) in enumerate(xy[near]):
        r, c = round(y / px) + k, round(x / px) + k
        r, c = r[(r >= 0) & (r < shape[0])], c[(c >= 0) & (c < shape[1])]
        if not len(r) or not len(c):
            continue
        dy, dx = r * px - y, c * px - x
        a = brightness[atom]
        parts = (-a * profile(dy, dx, dy=1), -a * profile(dy, dx, dx=1), profile(dy, dx))
        pixel = (r[:, None] * shape[1] + c[None, :]).ravel()
        for kind, part in enumerate(parts):
            rows.append(pixel)
            columns.append(np.full(len(pixel), 3 * atom + kind))
            values.append(part.ravel())
    n = int(near.sum())
    size = shape[0] * shape[1]
    rows.append(np.arange(size))
    columns.append(np.full(size, 3 * n))
    values.append(np.ones(size))
    jacobian = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(size, 3 * n + 1),
    )
    weight = sparse.diags(1.0 / np.maximum(scene.expected.ravel(), 1e-3))
    information = (jacobian.T @ weight @ jacobian).toarray()
    # Atoms outside the border have almost no information; the ridge keeps the matrix invertible.
    information[np.diag_indices(len(information))] += (
        _RIDGE * np.trace(information) / len(information)
    )
    variance = np.diag(np.linalg.inv(information))
    out = np.full((len(xy), 2), np.nan)
    out[near] = np.sqrt(np.stack([variance[0 : 3 * n : 3], variance[1 : 3 * n : 3]], axis=1))
    out[~np.all((xy >= 0) & (xy <= far), axis=1)] = np.nan
    return out


def ideal_f1(scenes: list[Scene], frames: list[LabelledFrame], dose: float, kind: str) -> float:
    """F1 of the ideal observer of vacancies or Si.

    The observer tests each site with the exact Poisson likelihood ratio (Neyman and Pearson, 1933).
    It knows the probe, the background and all other atoms, and it uses the threshold that gives
    the best F1. It does not use the displacements of the neighbours of a defect.

    Parameters
    ----------
    scenes, frames
        Scenes, and one frame of each.
    dose
        Counts at the peak of a carbon atom.
    kind
        ``vacancy`` or ``Si``.
    """
    ratios: list[float] = []
    truth: list[bool] = []
    axis = (np.arange(SPOT_PX) - (SPOT_PX - 1) / 2) * SPOT_A
    for scene, frame in zip(scenes, frames, strict=True):
        profile = RectBivariateSpline(axis, axis, dose * scene.spot, kx=3, ky=3)
        carbon, impurity = frame.species == 0, frame.species > 0
        other = frame.vacancies_xy if kind == "vacancy" else frame.xy[impurity]
        sites = np.concatenate([frame.xy[carbon], other])
        is_defect = np.arange(len(sites)) >= carbon.sum()
        for xy, defect in zip(sites, is_defect, strict=True):
            where, spot = _patch(profile, xy, scene)
            expected = np.maximum(scene.expected[where] * dose, _MIN_COUNTS)
            counts = frame.frame.data[where].astype(np.float64)
            # Change of the expected counts when a carbon atom becomes a vacancy or Si.
            step = -spot if kind == "vacancy" else (scene.silicon - 1) * spot
            usual = expected - step if defect else expected
            unusual = np.maximum(usual + step, _MIN_COUNTS)
            usual = np.maximum(usual, _MIN_COUNTS)
            ratios.append(float((counts * np.log(unusual / usual) - (unusual - usual)).sum()))
            truth.append(bool(defect))
    order = np.argsort(-np.array(ratios))
    right = np.cumsum(np.array(truth)[order])
    total = right[-1]
    return float((2 * right / (np.arange(1, len(order) + 1) + total)).max()) if total else 1.0


def _patch(
    profile: RectBivariateSpline, xy: FloatArray, scene: Scene
) -> tuple[tuple[slice, slice], FloatArray]:
    """Give the pixels around an atom, and the image of the atom there."""
    px, shape, reach = scene.pixel_size_A, scene.expected.shape, _REACH_A
    low = np.maximum(np.ceil((xy[::-1] - reach) / px), 0).astype(int)
    high = np.minimum(np.floor((xy[::-1] + reach) / px) + 1, shape).astype(int)
    rows, cols = np.arange(low[0], high[0]) * px, np.arange(low[1], high[1]) * px
    return (slice(low[0], high[0]), slice(low[1], high[1])), profile(rows - xy[1], cols - xy[0])


def _amplitudes(scene: Scene, near: NDArray[np.bool_]) -> FloatArray:
    """Give the brightness of atoms relative to carbon."""
    out: FloatArray = np.where(scene.specimen.species[near] > 0, scene.silicon, 1.0)
    return out
