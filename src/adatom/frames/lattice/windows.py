"""Spectra of the parts of frames, and lattices in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from adatom.core.arrays import FloatArray

ComplexArray = NDArray[np.complex128]

_WINDOW_A = 24.0  # Å: edge of a window; a scan's distortion is nearly constant inside
_WINDOWS = 3  # windows along each edge of a frame at most
_MOST_FRAMES = 3  # frames that are looked at
_FINEST_A = 0.5  # Å: reflections of shorter periods are not needed, so frames are binned to half
_PADDED = 2  # zero-padding, in windows
_SCALE_RANGE = 0.12  # largest relative error of a pixel size that is tried
_FEWEST_PERIODS = 4.0  # along a window
SHEAR_SD = 0.05  # usual strain by the scan, beside a change of scale
EXPONENTS = (1.3, 1.65, 2.0)  # exponents of the contrast, from a wide detector to a narrow one
MOST_EVIDENCE = 25.0  # nats: beyond it scale, shape and pattern decide between crystals
_FLAT = 0.1  # determinant below which the reflections have fallen onto one line


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Spectrum of a window, centred.

    Parameters
    ----------
    amplitude
        Fourier transform over the root of the noise's power, complex, shape (row, col). The middle
        of the window is the origin of its phases.
    power
        Its square: exponentially distributed, of mean 1, where nothing but noise is.
    noise
        Power of the noise at each whole radius in pixels of the spectrum, shape (radius,).
    step
        A pixel of the spectrum, 1/Å.
    """

    amplitude: ComplexArray
    power: FloatArray
    noise: FloatArray
    step: float

    def at(self, g: FloatArray) -> ComplexArray:
        """Amplitudes at frequencies of shape (frequency, 2), x and y in 1/Å."""
        place = np.stack([g[:, 1], g[:, 0]]) / self.step + len(self.power) // 2
        real, imaginary = (
            ndimage.map_coordinates(part, place, order=1)
            for part in (self.amplitude.real, self.amplitude.imag)
        )
        out: ComplexArray = real + 1j * imaginary
        return out

    def noise_at(self, g: FloatArray) -> FloatArray:
        """Power of the noise at frequencies of shape (frequency, 2), 1/Å."""
        radius = np.linalg.norm(g, axis=1) / self.step
        out: FloatArray = np.interp(radius, np.arange(len(self.noise)), self.noise)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class FoundLattice:
    """How the reflections of a lattice lie in the spectra.

    Parameters
    ----------
    evidence
        Negative logarithm of the probability that frames without a lattice have such reflections,
        nats.
    linear
        Map from the ideal to the seen reflections, shape (2, 2).
    """

    evidence: float
    linear: FloatArray

    @property
    def scale(self) -> float:
        """Length of the seen reflections over that of the ideal ones."""
        return float(np.sqrt(abs(np.linalg.det(self.linear))))

    @property
    def stretch(self) -> float:
        """Largest stretch at an unchanged area."""
        return float(np.linalg.svd(self.linear / self.scale)[1][0])


def windows_of(images: Sequence[NDArray[np.float32]], pixel_size_A: float) -> list[Window]:
    """Cut at most three frames into windows of 24 Å, and transform them.

    Parameters
    ----------
    images
        Frames of one scale, each of shape (row, col).
    pixel_size_A
        Å.
    """
    out = []
    for image in images[:: max(len(images) // _MOST_FRAMES, 1)][:_MOST_FRAMES]:
        data = np.clip(image, *np.percentile(image, (0.1, 99.9))).astype(np.float64)
        by = max(int(_FINEST_A / 2 / pixel_size_A), 1)
        rows, cols = (n // by for n in data.shape)
        data = data[: rows * by, : cols * by].reshape(rows, by, cols, by).mean(axis=(1, 3))
        side = min(round(_WINDOW_A / (pixel_size_A * by)), rows, cols)
        for r, c in product(_starts(rows, side), _starts(cols, side)):
            part = data[r : r + side, c : c + side]
            if part.std() > 0:
                out.append(_spectrum_of(part, pixel_size_A * by))
    return out


def find_lattice(windows: Sequence[Window], reflections: FloatArray) -> FoundLattice | None:
    """Find the scale, the rotation and the strain at which reflections of one length are seen.

    In noise, the power of a window at a frequency over the mean at its radius is exponentially
    distributed; the evidence is that of the sum over the windows (a gamma distribution), at the
    scale and rotation where it is largest, times the number of these (Bonferroni). Stripes are one
    reflection, and not a lattice.

    Parameters
    ----------
    windows
        See `windows_of`.
    reflections
        Half of a ring, one of each pair ±g, shape (reflection, 2), 1/Å.

    Returns
    -------
    What was found; None where a window holds too few periods, its pixels are too coarse, or there
    are no two directions.
    """
    step = windows[0].step
    length = np.linalg.norm(reflections, axis=1)
    radius = float(length.min()) / step
    furthest = float(length.max()) * (1 + _SCALE_RANGE) / step
    if radius < _FEWEST_PERIODS or furthest > 0.95 * (len(windows[0].power) // 2):
        return None
    angles = np.arange(0.0, np.pi, 0.7 / radius)
    reach = np.log1p(_SCALE_RANGE)
    scales = np.exp(np.linspace(-reach, reach, 2 * int(reach * radius / 0.7) + 1))
    total = _summed(windows, reflections, scales, angles)
    # Of three and more reflections one may be missing (astigmatism); stripes have one alone.
    count = len(reflections)
    rank = count - 1 if count > 2 else count
    weakest = np.sort(total, axis=-1)[..., count - rank]
    i, j = np.unravel_index(int(np.argmax(weakest)), weakest.shape)
    evidence = _evidence(float(weakest[i, j]), len(windows), rank, count)
    evidence = max(evidence - float(np.log(angles.size * scales.size)), 0.0)
    c, s = np.cos(angles[j]), np.sin(angles[j])
    start = scales[i] * np.array([[c, -s], [s, c]])
    linear = _refined(windows, reflections, start)
    return FoundLattice(evidence, linear) if abs(np.linalg.det(linear)) > _FLAT else None


def triplets_of(g: FloatArray) -> NDArray[np.int64]:
    """Find three reflections whose sum is zero.

    The sum of their phases does not depend on the origin (a structure invariant), so windows can be
    added.

    Returns
    -------
    Numbers from 1, negative for the opposite reflection, shape (triplet, 3).
    """
    both = np.concatenate([g, -g])
    number = np.concatenate([np.arange(1, len(g) + 1), -np.arange(1, len(g) + 1)])
    found = [
        (int(number[i]), int(number[j]), int(number[k]))
        for i, j, k in combinations(range(len(both)), 3)
        if i < len(g) and np.abs(both[i] + both[j] + both[k]).max() < 1e-6
    ]
    unique = {tuple(sorted(abs(n) for n in three)): three for three in found}
    return np.array([*unique.values()], dtype=np.int64).reshape(-1, 3)


def triplet_products(amplitude: ComplexArray, triplets: NDArray[np.int64]) -> ComplexArray:
    """Multiply the amplitudes, shape (window, reflection), of each triplet: (window, triplet)."""
    three = amplitude[:, np.abs(triplets) - 1]
    out: ComplexArray = np.where(triplets < 0, three.conj(), three).prod(axis=2)
    return out


def _starts(size: int, side: int) -> NDArray[np.int64]:
    count = min(1 + (size - side) // max(side // 2, 1), _WINDOWS)
    return np.unique(np.linspace(0, size - side, count).astype(np.int64))


def _spectrum_of(part: FloatArray, px: float) -> Window:
    n = len(part)
    taper = np.hanning(n + 2)[1:-1]
    weight = taper[:, None] * taper
    flat = (part - (part * weight).sum() / weight.sum()) * weight
    size = _PADDED * n
    # The middle of the window is the origin of all phases.
    padded = np.zeros((size, size))
    padded[:n, :n] = flat
    amplitude = np.fft.fftshift(np.fft.fft2(np.roll(padded, (-(n // 2), -(n // 2)), axis=(0, 1))))
    power = np.abs(amplitude) ** 2
    radius = np.hypot(*np.indices(power.shape) - size // 2).astype(int)
    count = np.bincount(radius.ravel())
    # The median of exponential variables is ln 2 times their mean; reflections do not raise it.
    order = np.argsort(radius.ravel(), kind="stable")
    groups = np.split(power.ravel()[order], np.cumsum(count)[:-1])
    mean = np.array([np.median(g) for g in groups]) / np.log(2.0)
    mean = np.maximum(ndimage.median_filter(mean, 5, mode="nearest"), 1e-30)
    noise = mean[radius]
    return Window(amplitude / np.sqrt(noise), power / noise, mean, 1.0 / (size * px))


def _evidence(power: float, windows: int, rank: int, reflections: int) -> float:
    """Negative logarithm of the probability that noise has `rank` reflections of this power."""
    one = float(special.gammaincc(windows, power))
    chance = float(special.bdtrc(rank - 1, reflections, one))
    if chance > 0.0:
        return -float(np.log(chance))
    # The tail of the gamma distribution, where it is below the smallest number.
    tail = power - (windows - 1) * np.log(power) + special.gammaln(windows)
    return float(rank * tail)


def _summed(
    windows: Sequence[Window], g: FloatArray, scales: FloatArray, angles: FloatArray
) -> FloatArray:
    """Power of every reflection, summed over the windows, shape (scale, angle, reflection)."""
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    at = np.stack([s * g[:, 0] + c * g[:, 1], c * g[:, 0] - s * g[:, 1]])  # rows, columns
    at = at[:, None] * scales[None, :, None, None]
    out = np.zeros(at.shape[1:])
    for w in windows:
        middle = len(w.power) // 2
        part = ndimage.map_coordinates(w.power, middle + at / w.step, order=1)
        out += np.minimum(part, 30.0)  # no window speaks for all
    return out


def _refined(windows: Sequence[Window], g: FloatArray, linear: FloatArray) -> FloatArray:
    """Refine the map from ideal to seen reflections by the middles of their peaks."""
    for reach in (0.05, 0.03):
        seen, weight = np.empty_like(g), np.empty(len(g))
        for k, ideal in enumerate(g):
            x, y = linear @ ideal
            half = max(reach * float(np.hypot(x, y)), 1.5 * windows[0].step)
            grid = np.linspace(-half, half, 9)
            dy, dx = np.meshgrid(grid, grid, indexing="ij")
            power = np.zeros_like(dx)
            for w in windows:
                at = np.stack([y + dy, x + dx]) / w.step + len(w.power) // 2
                power += ndimage.map_coordinates(w.power, at, order=1)
            power = np.maximum(power - np.percentile(power, 60), 0.0) ** 2
            weight[k] = power.sum()
            total = max(float(weight[k]), 1e-30)
            seen[k] = x + (dx * power).sum() / total, y + (dy * power).sum() / total
        root = np.sqrt(weight / max(float(weight.max()), 1e-30))[:, None]
        root = np.maximum(root, 0.1)
        linear = np.asarray(np.linalg.lstsq(g * root, seen * root, rcond=None)[0].T, np.float64)
    return linear
