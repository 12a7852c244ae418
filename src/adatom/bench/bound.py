"""What physics allows: the numeric Cramér-Rao bound of positions, the ideal observer of defects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.interpolate import RectBivariateSpline

from adatom.bench.sets import SPOT_A, SPOT_PX, Scene
from adatom.core import Calibration, LabelledFrame
from adatom.core.arrays import FloatArray

_BEYOND_A = 1.0  # atoms this far outside still show, and are unknown too


def position_bound(scene: Scene) -> FloatArray:
    """Least standard deviation per axis of every atom's position at one count per carbon peak.

    Positions and amplitudes of all atoms and a level background are unknown, the probe is known.
    Counts are Poisson, so that the bound at another dose is this over its square root.

    Parameters
    ----------
    scene
        What is imaged; `scene.expected` gives the noise and `scene.spot` the probe.

    Returns
    -------
    Shape (atom, 2), x and y, Å, for `scene.specimen.xy`; NaN for atoms beyond the border.
    """
    px, shape = scene.pixel_size_A, scene.expected.shape
    axis = (np.arange(SPOT_PX) - (SPOT_PX - 1) / 2) * SPOT_A
    profile = RectBivariateSpline(axis, axis, scene.spot, kx=3, ky=3)
    far = np.asarray(Calibration(px).extent_xy((shape[0], shape[1])))
    xy = scene.specimen.xy
    near = np.all((xy > -_BEYOND_A) & (xy < far + _BEYOND_A), axis=1)
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
    # Of atoms beyond the border nearly nothing shows; they are on the lattice within an ångström.
    information[np.diag_indices(len(information))] += (
        1e-6 * np.trace(information) / len(information)
    )
    variance = np.diag(np.linalg.inv(information))
    out = np.full((len(xy), 2), np.nan)
    out[near] = np.sqrt(np.stack([variance[0 : 3 * n : 3], variance[1 : 3 * n : 3]], axis=1))
    out[~np.all((xy >= 0) & (xy <= far), axis=1)] = np.nan
    return out


def ideal_f1(scenes: list[Scene], frames: list[LabelledFrame], dose: float, what: str) -> float:
    """F1 of an observer who knows everything of a frame but one atom, and asks of each in turn.

    Is this site empty, or is this atom Si? The observer knows the probe, the background and all
    other atoms exactly, uses the exact Poisson likelihood (Neyman and Pearson, 1933) and the
    threshold that is best in hindsight. It does not ask what a defect does to its neighbours.

    Parameters
    ----------
    scenes, frames
        The scene of each frame.
    dose
        Counts at a carbon peak.
    what
        ``vacancy`` or ``Si``.
    """
    ratios: list[float] = []
    truth: list[bool] = []
    axis = (np.arange(SPOT_PX) - (SPOT_PX - 1) / 2) * SPOT_A
    for scene, frame in zip(scenes, frames, strict=True):
        profile = RectBivariateSpline(axis, axis, dose * scene.spot, kx=3, ky=3)
        carbon, foreign = frame.species == 0, frame.species > 0
        other = frame.vacancies_xy if what == "vacancy" else frame.xy[foreign]
        sites = np.concatenate([frame.xy[carbon], other])
        special = np.arange(len(sites)) >= carbon.sum()
        for xy, is_special in zip(sites, special, strict=True):
            where, spot = _patch(profile, xy, scene)
            expected = np.maximum(scene.expected[where] * dose, 1e-9)
            counts = frame.frame.data[where].astype(np.float64)
            # From a usual carbon atom there, to nothing or to Si.
            step = -spot if what == "vacancy" else (scene.silicon - 1) * spot
            usual = expected - step if is_special else expected
            unusual = np.maximum(usual + step, 1e-9)
            usual = np.maximum(usual, 1e-9)
            ratios.append(float((counts * np.log(unusual / usual) - (unusual - usual)).sum()))
            truth.append(bool(is_special))
    order = np.argsort(-np.array(ratios))
    right = np.cumsum(np.array(truth)[order])
    total = right[-1]
    return float((2 * right / (np.arange(1, len(order) + 1) + total)).max()) if total else 1.0


def _patch(
    profile: RectBivariateSpline, xy: FloatArray, scene: Scene
) -> tuple[tuple[slice, slice], FloatArray]:
    """Pixels around an atom, and its spot there."""
    px, shape, reach = scene.pixel_size_A, scene.expected.shape, 2.5
    low = np.maximum(np.ceil((xy[::-1] - reach) / px), 0).astype(int)
    high = np.minimum(np.floor((xy[::-1] + reach) / px) + 1, shape).astype(int)
    rows, cols = np.arange(low[0], high[0]) * px, np.arange(low[1], high[1]) * px
    return (slice(low[0], high[0]), slice(low[1], high[1])), profile(rows - xy[1], cols - xy[0])


def _amplitudes(scene: Scene, near: NDArray[np.bool_]) -> FloatArray:
    """Brightness of atoms over carbon's."""
    out: FloatArray = np.where(scene.specimen.species[near] > 0, scene.silicon, 1.0)
    return out
