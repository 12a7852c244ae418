"""The image as a sum of spots: the likelihood that refinement and vacancy evidence share.

A frame is ``background + sum_i A_i exp(-r_i² / 2 s²)`` with one probe width ``s``, a smooth
background, and noise whose variance grows linearly with the signal. The Fisher matrix of all atoms
together gives every covariance (Cramér-Rao; van Aert et al., J. Struct. Biol. 138, 21 (2002)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, sparse

from adatom.core import Calibration, Frame
from adatom.features.fisher import Information

FloatArray = NDArray[np.float64]
Image = NDArray[np.float32]
_FIT_PIXEL_A = 0.165  # largest pixel that a fit bins to
_KNOT_A = 4.5  # the background's grid


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
    least
        Least variance of a pixel, intensity²: the line is not followed below.
    """

    constant: float
    gain: float
    correlation: float
    least: float

    def deviance(self, data: Image, signal: Image) -> float:
        """Sum over pixels whose slope by the signal is ``-2 (data - signal) / variance``.

        The quasi-likelihood of Wedderburn, Biometrika 61, 439 (1974): Poisson's for counts, least
        squares where the variance is constant.
        """
        if self.gain <= 0:
            square = float(np.vdot(data - signal, data - signal))
            return square / max(self.constant, self.least) / self.correlation
        gain, constant, floor = (np.float32(v) for v in (self.gain, self.constant, self.least))
        # In place throughout: to touch new memory takes longer than to compute.
        edge = gain * signal
        edge += constant  # the variance
        below = edge < floor if edge.min() < floor else None
        np.maximum(edge, floor, out=edge)
        # In units of the usual variance, so that single precision is enough.
        value = edge / floor
        np.log(value, out=value)
        value *= data + constant / gain
        edge -= constant
        edge /= gain  # the signal, or where its variance is least
        np.subtract(edge, value, out=value)
        total = 2.0 / self.gain * float(value.sum(dtype=np.float64))
        if below is not None:
            d, mu, e = data[below], signal[below], edge[below]
            total += float(((d - mu) ** 2 - (d - e) ** 2).sum(dtype=np.float64)) / self.least
        return total / self.correlation

    def variance(self, signal: Image) -> Image:
        """Variance of every pixel, same shape as the signal, correlation included."""
        out = np.multiply(signal, np.float32(self.gain), dtype=np.float32)
        out += np.float32(self.constant)
        np.maximum(out, np.float32(self.least), out=out)
        out *= np.float32(self.correlation)
        return out


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

    data: Image
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
    data = _without_hot_pixels(frame.data)
    px = frame.calibration.pixel_size_A
    b = max(int(_FIT_PIXEL_A / px), 1)
    rows, cols = data.shape[0] // b, data.shape[1] // b
    if b == 1:
        return Sampled(data, frame.calibration, 0.0)
    blocks = data[: rows * b, : cols * b].reshape(rows, b, cols, b)
    return Sampled(blocks.mean(axis=(1, 3)), Calibration(px * b), px * (b - 1) / 2)


class Background:
    """Quadratic B-splines on a coarse grid: a background slower than the lattice.

    Parameters
    ----------
    shape
        Rows and columns of the frame.
    calibration
        Its pixel size.
    """

    def __init__(self, shape: tuple[int, int], calibration: Calibration) -> None:
        self.shape = shape
        self._intervals = [max(round(n * calibration.pixel_size_A / _KNOT_A), 1) for n in shape]
        self._dense = []
        for axis, n in enumerate(shape):
            first, value, _ = self._along(np.arange(n, dtype=np.float64), axis)
            dense = np.zeros((n, self._intervals[axis] + 2), dtype=np.float32)
            for k in range(3):
                dense[np.arange(n), first + k] = value[:, k]
            self._dense.append(dense)
        self._knots = (self._intervals[0] + 2, self._intervals[1] + 2)
        rows, cols = (n / k for n, k in zip(shape, self._intervals, strict=True))
        self.area = rows * cols  # under each spline, pixels
        steps = [_steps(n) for n in self._knots]
        eyes = [sparse.identity(n) for n in self._knots]
        # Sum of squared differences of neighbouring levels: it holds knots that few pixels see.
        self.roughness = sparse.kron(steps[0], eyes[1]) + sparse.kron(eyes[0], steps[1])

    @property
    def count(self) -> int:
        """Number of knots."""
        return self._knots[0] * self._knots[1]

    def image(self, level: FloatArray) -> Image:
        """Background (row, col) of levels (knot,)."""
        rows, cols = self._dense
        grid: Image = level.astype(np.float32).reshape(self._knots)
        return np.asarray((rows @ grid) @ cols.T, dtype=np.float32)

    def gradient(self, image: Image) -> FloatArray:
        """Sum of an image under every knot's spline, shape (knot,)."""
        rows, cols = self._dense
        out: FloatArray = (rows.T @ image @ cols).ravel().astype(np.float64)
        return out

    def around(self, rc: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """Give the nine knots around each position, and their splines there.

        Parameters
        ----------
        rc
            Shape (point, 2), pixels.

        Returns
        -------
        Knots, shape (point, 9); and value, slope along rows, slope along columns of their splines,
        shape (3, point, 9).
        """
        (r, vr, sr), (c, vc, sc) = (self._along(rc[:, axis], axis) for axis in (0, 1))
        k = np.arange(3)
        knot = (r[:, None] + k)[:, :, None] * self._knots[1] + (c[:, None] + k)[:, None, :]
        pairs = ((vr, vc), (sr, vc), (vr, sc))
        splines = np.stack([a[:, :, None] * b[:, None, :] for a, b in pairs])
        return knot.reshape(-1, 9), splines.reshape(3, -1, 9)

    def at(self, level: FloatArray, rc: FloatArray) -> FloatArray:
        """Background at positions (point, 2), pixels; shape (point,)."""
        knot, splines = self.around(rc)
        out: FloatArray = (level[knot] * splines[0]).sum(axis=1)
        return out

    def shared(self, info: Information, rc: FloatArray, amplitude: FloatArray) -> sparse.csr_matrix:
        """Information between (row, column, amplitude) of each atom and the levels.

        Each spline is taken as a plane under a spot, whose moments `info` has.

        Returns
        -------
        Shape (3 atom, knot).
        """
        knot, (h, hr, hc) = self.around(rc)
        value, r, c, rr, mixed, cc = info.level[:, :, None]
        ar, ac = info.spot @ np.stack([hr.ravel(), hc.ravel()])  # the covariance times the slope
        ar, ac = ar.reshape(h.shape), ac.reshape(h.shape)
        a = amplitude[:, None]
        rows = np.stack(
            [
                a * (hr * value + h * r + rr * ar + mixed * ac),
                a * (hc * value + h * c + mixed * ar + cc * ac),
                h * value + ar * r + ac * c,
            ],
            axis=1,
        )
        n = len(rc)
        columns = np.broadcast_to(knot[:, None, :], rows.shape)
        return sparse.csr_matrix(
            (rows.ravel(), columns.ravel(), 9 * np.arange(3 * n + 1)), shape=(3 * n, self.count)
        )

    def information(self, weight: Image) -> sparse.csr_matrix:
        """Fisher information of the levels, shape (knot, knot)."""
        rows, cols = (_products(d) for d in self._dense)
        kr, kc = self._knots
        sums = (rows @ weight @ cols.T).astype(np.float64).reshape(5, kr, 5, kc)
        i, r, j, c = np.indices(sums.shape)
        r2, c2 = r + i - 2, c + j - 2
        real = (r2 >= 0) & (r2 < kr) & (c2 >= 0) & (c2 < kc)
        return sparse.csr_matrix(
            (sums[real], ((r * kc + c)[real], (r2 * kc + c2)[real])), shape=(self.count, self.count)
        )

    def _along(self, x: FloatArray, axis: int) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """First of three knots along an axis, their splines and slopes; shapes (n,), (n, 3)."""
        scale = self._intervals[axis] / max(self.shape[axis] - 1, 1)
        at = np.clip(x * scale, -0.5, self._intervals[axis] + 0.5)
        first = np.clip(np.floor(at).astype(np.int64), 0, self._intervals[axis] - 1)
        f = at - first
        value = np.stack([(1 - f) ** 2 / 2, 0.5 + f * (1 - f), f**2 / 2], axis=1)
        return first, value, scale * np.stack([f - 1, 1 - 2 * f, f], axis=1)


def _steps(n: int) -> sparse.csr_matrix:
    """Matrix of the sum of squared differences along a line of `n`."""
    difference = sparse.diags([-np.ones(n), np.ones(n - 1)], [0, 1], shape=(n - 1, n))
    return (difference.T @ difference).tocsr()


def _products(splines: Image) -> Image:
    """Products of each spline with those up to two away, -2 first, shape (5 knot, pixel)."""
    knots = splines.shape[1]
    padded = np.pad(splines, ((0, 0), (2, 2)))
    return np.concatenate([(splines * padded[:, k : k + knots]).T for k in range(5)])


def estimate_noise(data: Image, model: Image) -> Noise:
    """Fit the noise of a frame to what its model leaves.

    Pixels are sorted by expected signal into groups; the variance of the residual in each group is
    fitted by a line.

    Parameters
    ----------
    data, model
        Shape (row, col), intensity.
    """
    residual = (data - model).astype(np.float64)
    order = np.argsort(model, axis=None)
    sorted_model, sorted_residual = model.ravel()[order], residual.ravel()[order]
    limit = np.percentile(np.abs(residual), 99.9)
    edges = np.linspace(0, len(order), 25).astype(int)[:-1]
    size = np.diff(np.append(edges, len(order)))
    square = np.clip(sorted_residual, -limit, limit) ** 2
    signal = np.add.reduceat(sorted_model.astype(np.float64), edges) / size
    variance = np.add.reduceat(square, edges) / size
    # A variance is known to a share of itself; relative weights also keep misfit, which is largest
    # where the signal is, from passing for noise.
    variance = np.maximum(variance, 1e-6 * max(float(variance.max()), 1e-12))
    weight = variance**-2.0
    center = float(np.average(signal, weights=weight))
    spread = signal - center
    slope = float((weight * spread * variance).sum() / max((weight * spread**2).sum(), 1e-300))
    least, correlation = 0.5 * float(variance.min()), _correlation(residual)
    if slope <= 0:
        return Noise(float(np.mean(variance)), 0.0, correlation, least)
    constant = float(np.average(variance, weights=weight)) - slope * center
    return Noise(constant, slope, correlation, least)


def _correlation(residual: FloatArray, reach: int = 2) -> float:
    """Sum of the residual's autocorrelation up to `reach` pixels; at least one.

    What is still correlated just beyond `reach` is misfit and not noise: it is taken off.
    """
    flat = np.clip(residual, *np.percentile(residual, (0.1, 99.9)))
    spectrum = fft.rfft2((flat - flat.mean()).astype(np.float32))
    lag = fft.irfft2(spectrum.real**2 + spectrum.imag**2, s=flat.shape).astype(np.float64)
    if lag[0, 0] <= 0:
        return 1.0
    lag = lag / lag[0, 0]
    k = np.arange(-reach - 2, reach + 3)
    near = lag[np.ix_(k, k)]
    distance = np.maximum(np.abs(k)[:, None], np.abs(k)[None, :])
    misfit = max(float(near[distance == reach + 2].mean()), 0.0)
    inner = (distance <= reach) & (distance > 0)
    return float(np.clip(1.0 + (near[inner] - misfit).sum(), 1.0, 30.0))


def _without_hot_pixels(data: Image) -> Image:
    """Replace pixels far above their neighbours' median by it.

    Far is what no spot could do: a spot is wider than one pixel, noise is not twelve sigma.
    """
    around = ndimage.uniform_filter(data, 3, mode="nearest")
    difference = (data - around) * np.float32(9 / 8)  # from the mean of the eight neighbours
    spread = float(
        np.sqrt(
            np.mean(np.clip(difference, *np.percentile(difference[::3, ::3], (0.1, 99.9))) ** 2)
        )
    )
    rows, cols = np.nonzero(np.abs(difference) > 9 * max(spread, 1e-30))
    if not len(rows):
        return data
    out = data.copy()
    padded = np.pad(data, 1, mode="edge")
    window = np.stack([padded[rows + i, cols + j] for i in range(3) for j in range(3)])
    median = np.median(window, axis=0)
    hot = np.abs(window[4] - median) > 12 * spread
    out[rows[hot], cols[hot]] = median[hot]
    return out
