"""The image as a sum of spots: the likelihood that refinement and vacancy evidence share.

A frame is ``background + sum_i A_i exp(-r_i² / 2 s²)`` with one probe width ``s``, a smooth
background, and noise whose variance grows linearly with the signal. The Fisher matrix of all atoms
together gives every covariance (Cramér-Rao; van Aert et al., J. Struct. Biol. 138, 21 (2002)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import linalg

from adatom.core import Calibration, Frame

FloatArray = NDArray[np.float64]
_REACH = 3.2  # a spot is cut off at this many widths
_FIT_PIXEL_A = 0.165  # largest pixel that a fit bins to
_KNOT_A = 4.5  # the background's grid
_TAIL = 2.6  # width of the probe's tail in widths of its core


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Variance ``constant + gain * signal`` of a pixel, and how far pixels are correlated.

    Parameters
    ----------
    constant
        Intensity².
    gain
        Intensity per detected quantum.
    correlation
        Sum of the noise's autocorrelation over lags: 1 for independent pixels. Smoothed or
        resampled frames have more, and know less than their pixels seem to say.
    """

    constant: float
    gain: float
    correlation: float

    def variance(self, signal: FloatArray) -> FloatArray:
        """Variance of every pixel, same shape as the signal, correlation included."""
        floor = 0.2 * max(self.constant + self.gain * float(np.median(signal)), 1e-12)
        return np.maximum(self.constant + self.gain * signal, floor) * self.correlation


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """A frame binned to what its probe needs, for fits.

    A probe three pixels wide loses about one per cent of its information to pixels of a third of
    its width; whole-pixel binning keeps counts Poisson and noise white.

    Parameters
    ----------
    data
        Shape (row, col), intensity, hot pixels limited.
    calibration
        Of the binned pixels.
    offset_A
        Centre of the first binned pixel in the frame's own axes, Å, along x and y alike.
    """

    data: FloatArray
    calibration: Calibration
    offset_A: float

    def rc(self, xy: FloatArray) -> FloatArray:
        """Binned row, column (N, 2) of positions in the frame's axes, Å."""
        return self.calibration.rc(np.asarray(xy) - self.offset_A)

    def xy(self, rc: FloatArray) -> FloatArray:
        """Positions (N, 2) in the frame's axes, Å, of binned row, column."""
        return self.calibration.xy(rc) + self.offset_A


def sample(frame: Frame) -> Sampled:
    """Limit hot pixels and bin a frame to pixels of about a third of a probe."""
    data = _without_hot_pixels(frame.data.astype(np.float64))
    px = frame.calibration.pixel_size_A
    b = max(int(_FIT_PIXEL_A / px), 1)
    rows, cols = data.shape[0] // b, data.shape[1] // b
    blocks = data[: rows * b, : cols * b].reshape(rows, b, cols, b)
    return Sampled(blocks.mean(axis=(1, 3)), Calibration(px * b), px * (b - 1) / 2)


def spot_columns(
    shape: tuple[int, int], rc: FloatArray, amplitude: FloatArray, sigma_px: float
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Spots and their derivatives at every pixel.

    Parameters
    ----------
    shape
        Rows and columns of the frame.
    rc
        Centres, shape (atom, 2), pixels.
    amplitude
        Peak heights, shape (atom,).
    sigma_px
        Probe width, pixels.

    Returns
    -------
    Unit spots, shape (pixel, atom); and the model's derivatives, shape (pixel, 3 atom + 1): those
    by row for all atoms, by column, by amplitude, and by the probe width.
    """
    n, half = len(rc), int(np.ceil(_REACH * sigma_px))
    base = np.round(rc).astype(int)
    window = np.arange(-half, half + 1)
    r = base[:, 0, None] + window
    c = base[:, 1, None] + window
    dr, dc = r - rc[:, :1], c - rc[:, 1:]
    gr = np.exp(-0.5 * (dr / sigma_px) ** 2) * ((r >= 0) & (r < shape[0]))
    gc = np.exp(-0.5 * (dc / sigma_px) ** 2) * ((c >= 0) & (c < shape[1]))
    spot = gr[:, :, None] * gc[:, None, :]
    pixel = np.clip(r, 0, shape[0] - 1)[:, :, None] * shape[1]
    pixel = pixel + np.clip(c, 0, shape[1] - 1)[:, None, :]
    atom = np.broadcast_to(np.arange(n)[:, None, None], spot.shape)
    by_row = spot * (dr / sigma_px**2)[:, :, None] * amplitude[:, None, None]
    by_col = spot * (dc / sigma_px**2)[:, None, :] * amplitude[:, None, None]
    radius2 = dr[:, :, None] ** 2 + dc[:, None, :] ** 2
    by_width = spot * radius2 / sigma_px**3 * amplitude[:, None, None]
    size = shape[0] * shape[1]
    p, a = pixel.ravel(), atom.ravel()
    spots = sparse.csr_matrix((spot.ravel(), (p, a)), shape=(size, n))
    values = np.concatenate([by_row.ravel(), by_col.ravel(), spot.ravel(), by_width.ravel()])
    columns = np.concatenate([a, a + n, a + 2 * n, np.full(len(a), 3 * n)])
    derivatives = sparse.csr_matrix((values, (np.tile(p, 4), columns)), shape=(size, 3 * n + 1))
    return spots, derivatives


def background_columns(shape: tuple[int, int], calibration: Calibration) -> sparse.csr_matrix:
    """Bilinear hats on a coarse grid: a background slower than the lattice.

    Parameters
    ----------
    shape
        Rows and columns of the frame.
    calibration
        Its pixel size.

    Returns
    -------
    Each knot's weight at every pixel, shape (pixel, knot); rows sum to one.
    """
    along = []
    for length in shape:
        intervals = max(round(length * calibration.pixel_size_A / _KNOT_A), 1)
        position = np.arange(length) / max(length - 1, 1) * intervals
        left = np.minimum(position.astype(int), intervals - 1)
        part = position - left
        rows = np.tile(np.arange(length), 2)
        values = np.concatenate([1 - part, part])
        along.append(
            sparse.csr_matrix(
                (values, (rows, np.concatenate([left, left + 1]))), shape=(length, intervals + 1)
            )
        )
    return sparse.kron(along[0], along[1]).tocsr()


def solve_normal(matrix: sparse.csc_matrix, right: FloatArray) -> FloatArray:
    """Solve normal equations (symmetric, positive) of any size.

    Conjugate gradients, scaled by the diagonal: the cost grows with the atoms, where a direct
    factorisation fills in through the parameters that all atoms share.
    """
    diagonal = np.maximum(matrix.diagonal(), 1e-300)
    scale = 1.0 / np.sqrt(diagonal)
    scaled = sparse.diags(scale) @ matrix @ sparse.diags(scale)
    solution, _ = linalg.cg(scaled.tocsr(), right * scale, rtol=1e-7, maxiter=2000)
    out: FloatArray = solution * scale
    return out


def tail_image(core: FloatArray, sigma_px: float) -> FloatArray:
    """Spread the spots' image into the probe's wide tail, `_TAIL` times its width.

    Same intensity in all, so its coefficient is the tail's share relative to the core.

    Parameters
    ----------
    core
        The spots alone, shape (row, col), intensity.
    sigma_px
        Probe width, pixels.
    """
    width = sigma_px * np.sqrt(_TAIL**2 - 1.0)
    out: FloatArray = ndimage.gaussian_filter(core, width, mode="nearest", truncate=3.0)
    return out


def estimate_noise(data: FloatArray, model: FloatArray) -> Noise:
    """Fit the noise of a frame to what its model leaves.

    Pixels are sorted by expected signal into groups; the variance of the residual in each group,
    from the median absolute deviation where the counts allow it, is fitted by a line.

    Parameters
    ----------
    data, model
        Shape (row, col), intensity.
    """
    residual = data - model
    order = np.argsort(model.ravel())
    groups = np.array_split(order, 24)
    signal = np.array([model.ravel()[g].mean() for g in groups])
    limit = np.percentile(np.abs(residual), 99.9)
    variance = np.array([np.clip(residual.ravel()[g], -limit, limit).var() for g in groups])
    overall = float(np.mean(variance))
    spread = signal - signal.mean()
    gain = float((spread * variance).sum() / max((spread**2).sum(), 1e-30))
    gain = max(gain, 0.0)
    constant = float(variance.mean() - gain * signal.mean())
    return Noise(constant if gain > 0 else overall, gain, _correlation(residual))


def _correlation(residual: FloatArray, reach: int = 2) -> float:
    """Sum of the residual's autocorrelation up to `reach` pixels; at least one.

    What is still correlated just beyond `reach` is misfit and not noise: it is taken off.
    """
    flat = np.clip(residual, *np.percentile(residual, (0.1, 99.9)))
    power = np.abs(np.fft.rfft2(flat - flat.mean())) ** 2
    lag = np.fft.irfft2(power, s=flat.shape)
    if lag[0, 0] <= 0:
        return 1.0
    lag = lag / lag[0, 0]
    k = np.arange(-reach - 2, reach + 3)
    near = lag[np.ix_(k, k)]
    distance = np.maximum(np.abs(k)[:, None], np.abs(k)[None, :])
    misfit = max(float(near[distance == reach + 2].mean()), 0.0)
    inner = (distance <= reach) & (distance > 0)
    return float(np.clip(1.0 + (near[inner] - misfit).sum(), 1.0, 30.0))


def _without_hot_pixels(data: FloatArray) -> FloatArray:
    """Replace pixels far above their neighbours' median by it.

    Far is what no spot could do: a spot is wider than one pixel, noise is not twelve sigma.
    """
    median = ndimage.median_filter(data, 3, mode="nearest")
    difference = data - median
    spread = 1.4826 * float(np.median(np.abs(difference - np.median(difference))))
    usual = float(np.clip(difference, *np.percentile(difference, (0.1, 99.9))).std())
    # Where most pixels are empty, the median knows nothing of the few electrons that came.
    spread = max(spread, usual if spread == 0 else 0.3 * usual)
    out: FloatArray = np.where(np.abs(difference) > 12 * spread, median, data)
    return out
