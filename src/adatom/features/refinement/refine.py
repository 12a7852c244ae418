"""Joint maximum-likelihood refinement of all atoms of a frame, with covariances."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from adatom.core import Frame
from adatom.core.arrays import FloatArray, Image
from adatom.features.refinement.binning import BinnedFrame, bin_frame
from adatom.features.refinement.fit import Fit
from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.noise import Noise
from adatom.features.refinement.optics import Optics, RefineOptions
from adatom.features.refinement.probe_and_noise import START_SIGMA_A, fit_probe_and_noise
from adatom.features.refinement.used_pixels import UsedPixels

__all__ = ["Optics", "RefineOptions", "Refined", "refine"]

_STATISTICS_PX = 256  # edge of the square to which probe and noise are fitted, binned pixels
TILE_PX = 896  # edge of a tile, binned pixels: bounds the memory of one fit
_MARGIN_A = 6.0  # margin around a tile, Å: atoms farther away do not influence it


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """Refined atoms, and the probe and noise that they share.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å.
    covariance
        Position covariance, shape (atom, 2, 2), Å².
    amplitude, amplitude_sd
        Peak height and its standard deviation, shape (atom,), intensity.
    background
        Background under each atom, shape (atom,), intensity.
    optics
        Probe, noise and jitter.
    reduced_chi2
        Mean squared residual over the variance of the noise: 1 if the model explains the frame.
    start_sigma_A
        Standard deviation of the prior on the positions of the networks, Å.
    restored
        The binned frame with what is expected of clipped pixels beyond their limit, shape (row,
        col); None if no pixel is clipped.
    texture_contrast
        Contrast of each atom to the texture of the support around it, shape (atom,); None if there
        is no support.
    """

    xy: FloatArray
    covariance: FloatArray
    amplitude: FloatArray
    amplitude_sd: FloatArray
    background: FloatArray
    optics: Optics
    reduced_chi2: float
    start_sigma_A: float
    restored: Image | None = None
    texture_contrast: FloatArray | None = None


def refine(
    frame: Frame,
    xy: FloatArray,
    options: RefineOptions | None = None,
    outside_xy: FloatArray | None = None,
    *,
    tile_px: int = TILE_PX,
    settle: bool = False,
) -> Refined:
    """Refine positions and amplitudes of all atoms together with one probe.

    Fisher scoring of the quasi-likelihood (Wedderburn, Biometrika 61, 439 (1974)) with a Gaussian
    prior at the positions of the networks: at a high dose the image determines a position, at a
    low dose it stays at its start. Probe and noise are fitted once, to a part of the frame. The
    frame is then refined in tiles: time grows with its area, memory does not.

    Parameters
    ----------
    frame
        The image.
    xy
        Initial positions, shape (atom, 2), Å.
    options
        See `RefineOptions`.
    outside_xy
        Atoms outside the frame whose tails reach into it, shape (outside, 2), Å; they are fitted
        and not returned.
    tile_px
        Edge of a tile, binned pixels.
    settle
        Search on for a probe that explains the image better, see `settle_probe`.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import Calibration, Frame
    >>> rows, cols = np.mgrid[:60, :60] * 0.1  # Å
    >>> image = 1.0 + 50.0 * np.exp(-((cols - 3.0) ** 2 + (rows - 2.5) ** 2) / (2 * 0.4**2))
    >>> frame = Frame(np.random.default_rng(0).poisson(image), Calibration(0.1))
    >>> refine(frame, np.array([[3.06, 2.45]])).xy.round(1).tolist()
    [[3.0, 2.5]]
    """
    with one_thread():
        return _refine(frame, xy, options or RefineOptions(), outside_xy, tile_px, settle=settle)


def counting_sigma_A(refined: Refined, options: RefineOptions, largest_A: float) -> FloatArray:
    """Position error from counting noise alone, shape (atom,), Å.

    The information of the prior is subtracted from the inverse of the mean variance.

    Parameters
    ----------
    refined
        The fit.
    options
        Options of the fit; they give the prior.
    largest_A
        Upper limit of the error, Å, for atoms about which the image contains no information.
    """
    variance = 0.5 * np.einsum("nii->n", refined.covariance)
    information = 1.0 / np.maximum(variance, 1e-12) - options.start_sigma_A**-2.0
    out: FloatArray = np.maximum(information, largest_A**-2.0) ** -0.5
    return out


def one_thread() -> AbstractContextManager[object]:
    """Hold linear algebra to one thread within the context."""
    held: AbstractContextManager[object] = _pools().limit(limits=1, user_api="blas")
    return held


@cache
def _pools() -> ThreadpoolController:
    """Thread pools of linear algebra.

    The vectors are short, so a second thread saves no time: it waits in a busy loop, and beside
    other work the fit takes three times as long.
    """
    return ThreadpoolController()


def _refine(
    frame: Frame,
    xy: FloatArray,
    options: RefineOptions,
    outside_xy: FloatArray | None,
    tile_px: int,
    *,
    settle: bool,
) -> Refined:
    binned = bin_frame(frame)
    n = len(xy)
    everything = xy if outside_xy is None else np.concatenate([xy, outside_xy])
    start = binned.rc(everything)
    px = binned.calibration.pixel_size_A
    out = _Result(
        start.copy(), np.full((len(start), 3, 3), np.nan), np.ones(len(start)), np.zeros(len(start))
    )
    if not n:
        return _without_atoms(binned, options)
    pixels = UsedPixels(binned.masked, binned.clipped)
    square = _busiest(binned.data.shape, start)
    inside = _within(start, square, binned.data.shape)
    outside = np.nonzero(inside)[0] >= n
    pieces = [
        (core, _around(core, binned.data.shape, px)) for core in tiles(binned.data.shape, tile_px)
    ]
    shared = fit_probe_and_noise(
        binned.data[square], start[inside] - _corner(square), outside, px, options,
        pixels=pixels.cut(square), whole=any(tile == square for _, tile in pieces),
        settle=settle,
    )  # fmt: skip
    optics, background = shared.optics(), float(np.median(shared.coefficients))
    restored = None if binned.clipped is None else binned.data.copy()
    chi2: list[tuple[float, int]] = []
    for core, tile in pieces:
        inside = _within(start, tile, binned.data.shape)
        if not (inside & (np.arange(len(start)) < n)).any():
            continue
        if tile == square:
            fit = shared
        else:
            outside = np.nonzero(inside)[0] >= n
            here = start[inside] - _corner(tile)
            fit = Fit(binned.data[tile], here, outside, optics, options, pixels.cut(tile))
            fit.set_start(shared.typical_amplitude(), background)
            fit.run(options.iterations)
        mine = _within(start[inside], core, binned.data.shape)
        out.store(np.nonzero(inside)[0][mine].astype(np.int64), fit, mine, _corner(tile))
        chi2.append((fit.reduced_chi2(), int(mine.sum())))
        if restored is not None:
            inner = tuple(
                slice(c.start - t.start, c.stop - t.start) for c, t in zip(core, tile, strict=True)
            )
            restored[core] = fit.restored()[inner]
    value, weights = np.array(chi2).T
    variance = np.maximum(np.einsum("nii->ni", out.covariance), 0.0)
    return Refined(
        binned.xy(out.rc)[:n], out.covariance[:n, 1::-1, 1::-1] * px**2, out.amplitude[:n],
        np.sqrt(variance[:n, 2]), out.background[:n], optics,
        float(np.average(value, weights=np.maximum(weights, 1))), options.start_sigma_A, restored,
    )  # fmt: skip


def _without_atoms(binned: BinnedFrame, options: RefineOptions) -> Refined:
    """Give the result for a frame without atoms."""
    px, data = binned.calibration.pixel_size_A, UsedPixels(binned.masked).of(binned.data)
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
    """Atoms of the whole frame; filled tile by tile."""

    rc: FloatArray
    covariance: FloatArray
    amplitude: FloatArray
    background: FloatArray

    def store(
        self,
        chosen: NDArray[np.int64],
        fit: Fit,
        mine: NDArray[np.bool_],
        corner: FloatArray,
    ) -> None:
        self.rc[chosen] = fit.rc[mine] + corner
        self.covariance[chosen] = fit.covariance()[mine]
        self.amplitude[chosen] = fit.amplitude[mine]
        self.background[chosen] = fit.background.value_at(fit.coefficients, fit.rc)[mine]


def tiles(shape: tuple[int, ...], edge_px: int = TILE_PX) -> list[tuple[slice, slice]]:
    """Split a frame into tiles of about `edge_px` whose sizes differ by at most one pixel.

    Examples
    --------
    >>> [(rows.start, rows.stop) for rows, _ in tiles((301, 90), 100)]
    [(0, 100), (100, 201), (201, 301)]
    """
    along = []
    for size in shape:
        count = max(round(size / edge_px), 1)
        edges = np.round(np.linspace(0, size, count + 1)).astype(int)
        along.append([slice(int(a), int(b)) for a, b in pairwise(edges)])
    return [(r, c) for r in along[0] for c in along[1]]


def _around(core: tuple[slice, slice], shape: tuple[int, ...], px: float) -> tuple[slice, slice]:
    """Extend a tile by its margin, inside the frame."""
    margin = int(np.ceil(_MARGIN_A / px))
    rows, cols = (
        slice(max(c.start - margin, 0), min(c.stop + margin, n))
        for c, n in zip(core, shape, strict=True)
    )
    return rows, cols


def _within(rc: FloatArray, tile: tuple[slice, ...], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which positions lie in a tile, shape (atom,); a tile at the border extends to infinity."""
    nearest = np.round(rc)
    low = np.array([t.start if t.start > 0 else -np.inf for t in tile])
    high = np.array([t.stop if t.stop < n else np.inf for t, n in zip(tile, shape, strict=True)])
    out: NDArray[np.bool_] = np.all((nearest >= low) & (nearest < high), axis=1)
    return out


def _corner(tile: tuple[slice, ...]) -> FloatArray:
    return np.array([t.start for t in tile], dtype=np.float64)


def _busiest(shape: tuple[int, ...], rc: FloatArray) -> tuple[slice, slice]:
    """The square of `_STATISTICS_PX` with the most atoms, out of 25 that cover the frame."""
    best, most = (slice(0, shape[0]), slice(0, shape[1])), -1
    edge = [min(_STATISTICS_PX, n) for n in shape]
    for r in np.unique(np.linspace(0, shape[0] - edge[0], 5).astype(int)):
        for c in np.unique(np.linspace(0, shape[1] - edge[1], 5).astype(int)):
            tile = (slice(int(r), int(r) + edge[0]), slice(int(c), int(c) + edge[1]))
            count = int(_within(rc, tile, shape).sum())
            if count > most:
                best, most = tile, count
    return best
