"""Joint maximum-likelihood refinement of all atoms of a frame, with covariances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from adatom.core import Frame
from adatom.core.arrays import FloatArray
from adatom.features.refinement.binning import Sampled, sample
from adatom.features.refinement.fit import Fit, Optics, RefineOptions
from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.noise import Noise
from adatom.features.refinement.probe_and_noise import START_SIGMA_A, learn

__all__ = ["Optics", "RefineOptions", "Refined", "refine"]

_STATISTICS_PX = 256  # the probe and the noise are learned from a square of this edge
_TILE_PX = 896
_MARGIN_A = 6.0  # around a tile: atoms farther away do not change it


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """Refined atoms and what they share.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å.
    covariance
        Position covariance, shape (atom, 2, 2), Å².
    amplitude, amplitude_sd
        Peak height and its standard deviation, shape (atom,), intensity.
    level
        Background under each atom, shape (atom,), intensity.
    optics
        Probe and noise.
    misfit
        Mean squared residual in units of the noise: 1 where the model explains the frame.
    start_sigma_A
        How far the networks' positions were trusted in this fit, Å (1 sigma).
    """

    xy: FloatArray
    covariance: FloatArray
    amplitude: FloatArray
    amplitude_sd: FloatArray
    level: FloatArray
    optics: Optics
    misfit: float
    start_sigma_A: float


def refine(
    frame: Frame,
    xy: FloatArray,
    options: RefineOptions | None = None,
    outside_xy: FloatArray | None = None,
) -> Refined:
    """Refine positions and amplitudes of all atoms together with one probe.

    Fisher scoring of the Poisson-like likelihood, with the networks' positions as a wide prior:
    where counts are plenty the image decides, where they are few the start stays. The probe and
    the noise are learned once, on a part of the frame; the frame is then refined in tiles, so that
    time goes with its area and memory does not.

    Parameters
    ----------
    frame
        The image.
    xy
        Start, shape (atom, 2), Å.
    options
        See `RefineOptions`.
    outside_xy
        Atoms beyond the border whose tails show, shape (ghost, 2), Å; fitted and not returned.
    """
    with _pools().limit(limits=1, user_api="blas"):
        return _refine(frame, xy, options or RefineOptions(), outside_xy)


@cache
def _pools() -> ThreadpoolController:
    """Thread pools of linear algebra.

    Its vectors are short here: more threads than one save nothing, and wait for each other at full
    speed. Beside other work that costs three times the time.
    """
    return ThreadpoolController()


def _refine(
    frame: Frame, xy: FloatArray, options: RefineOptions, outside_xy: FloatArray | None
) -> Refined:
    view = sample(frame)
    n = len(xy)
    everything = xy if outside_xy is None else np.concatenate([xy, outside_xy])
    start = view.rc(everything)
    px = view.calibration.pixel_size_A
    out = _Result(
        start.copy(), np.full((len(start), 3, 3), np.nan), np.ones(len(start)), np.zeros(len(start))
    )
    if not n:
        return _nothing(view, options)
    square = _busiest(view.data.shape, start)
    inside = _within(start, square, view.data.shape)
    ghost = np.nonzero(inside)[0] >= n
    tiles = [(core, _around(core, view.data.shape, px)) for core in _tiles(view.data.shape)]
    learned = learn(
        view.data[square], start[inside] - _corner(square), ghost, px, options,
        whole=any(tile == square for _, tile in tiles),
    )  # fmt: skip
    optics, level = learned.optics(), float(np.median(learned.level))
    misfit: list[tuple[float, int]] = []
    for core, tile in tiles:
        inside = _within(start, tile, view.data.shape)
        if not (inside & (np.arange(len(start)) < n)).any():
            continue
        if tile == square:
            fit = learned
        else:
            ghost = np.nonzero(inside)[0] >= n
            fit = Fit(view.data[tile], start[inside] - _corner(tile), ghost, optics, options)
            fit.begin(learned.typical(), level)
            fit.run(options.iterations)
        mine = _within(start[inside], core, view.data.shape)
        out.take(np.nonzero(inside)[0][mine].astype(np.int64), fit, mine, _corner(tile))
        misfit.append((fit.misfit(), int(mine.sum())))
    value, weights = np.array(misfit).T
    variance = np.maximum(np.einsum("nii->ni", out.covariance), 0.0)
    return Refined(
        view.xy(out.rc)[:n], out.covariance[:n, 1::-1, 1::-1] * px**2, out.amplitude[:n],
        np.sqrt(variance[:n, 2]), out.level[:n], optics,
        float(np.average(value, weights=np.maximum(weights, 1))), options.start_sigma_A,
    )  # fmt: skip


def _nothing(view: Sampled, options: RefineOptions) -> Refined:
    """Give the fit of a frame without atoms."""
    px, data = view.calibration.pixel_size_A, view.data
    sigma2 = (START_SIGMA_A / px) ** 2
    probe = Probe(np.array([sigma2, 0.0, sigma2]), np.zeros(2))
    noise = Noise(max(float(data.var()), 1e-12), 0.0, 1.0, 1e-12)
    none = np.zeros(0)
    return Refined(
        np.zeros((0, 2)), np.zeros((0, 2, 2)), none, none, none, Optics(probe, noise, px), 1.0,
        options.start_sigma_A,
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class _Result:
    """Atoms of the whole frame, filled tile by tile."""

    rc: FloatArray
    covariance: FloatArray
    amplitude: FloatArray
    level: FloatArray

    def take(
        self,
        chosen: NDArray[np.int64],
        fit: Fit,
        mine: NDArray[np.bool_],
        corner: FloatArray,
    ) -> None:
        self.rc[chosen] = fit.rc[mine] + corner
        self.covariance[chosen] = fit.covariance()[mine]
        self.amplitude[chosen] = fit.amplitude[mine]
        self.level[chosen] = fit.background.at(fit.level, fit.rc)[mine]


def _tiles(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Cores of about `_TILE_PX` that cover the frame, equal within a pixel."""
    along = []
    for size in shape:
        count = max(round(size / _TILE_PX), 1)
        edges = np.round(np.linspace(0, size, count + 1)).astype(int)
        along.append([slice(int(a), int(b)) for a, b in pairwise(edges)])
    return [(r, c) for r in along[0] for c in along[1]]


def _around(core: tuple[slice, slice], shape: tuple[int, ...], px: float) -> tuple[slice, slice]:
    """Give a core with its margin."""
    margin = int(np.ceil(_MARGIN_A / px))
    rows, cols = (
        slice(max(c.start - margin, 0), min(c.stop + margin, n))
        for c, n in zip(core, shape, strict=True)
    )
    return rows, cols


def _within(rc: FloatArray, tile: tuple[slice, ...], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Tell which positions belong to a tile; at the frame's border tiles have no end."""
    nearest = np.round(rc)
    low = np.array([t.start if t.start > 0 else -np.inf for t in tile])
    high = np.array([t.stop if t.stop < n else np.inf for t, n in zip(tile, shape, strict=True)])
    out: NDArray[np.bool_] = np.all((nearest >= low) & (nearest < high), axis=1)
    return out


def _corner(tile: tuple[slice, ...]) -> FloatArray:
    return np.array([t.start for t in tile], dtype=np.float64)


def _busiest(shape: tuple[int, ...], rc: FloatArray) -> tuple[slice, slice]:
    """Square of `_STATISTICS_PX` with the most atoms, of a few that cover the frame."""
    best, most = (slice(0, shape[0]), slice(0, shape[1])), -1
    edge = [min(_STATISTICS_PX, n) for n in shape]
    for r in np.unique(np.linspace(0, shape[0] - edge[0], 5).astype(int)):
        for c in np.unique(np.linspace(0, shape[1] - edge[1], 5).astype(int)):
            tile = (slice(int(r), int(r) + edge[0]), slice(int(c), int(c) + edge[1]))
            count = int(_within(rc, tile, shape).sum())
            if count > most:
                best, most = tile, count
    return best
