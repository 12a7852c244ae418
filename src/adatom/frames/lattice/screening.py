"""Which of several materials do frames show? Their lattices, tried at the frames' scale.

The networks of one material find something in a frame of any other. Reflections are cheaper, and
they do not have to be learned: a crystal has them at known places, and their phases tell what
stands in its cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.frames.lattice.spectrum import reflections_of

ComplexArray = NDArray[np.complex128]

_WINDOW_A = 24.0  # Å: edge of a window; a scan's distortion is nearly constant inside
_WINDOWS = 3  # windows along each edge of a frame at most
_MOST_FRAMES = 3  # frames that are looked at
_FINEST_A = 0.5  # Å: reflections of shorter periods are not needed, so frames are binned to half
_PADDED = 2  # zero-padding, in windows
_SCALE_RANGE = 0.12  # largest relative error of a pixel size that is tried
_SCALE_SD = 0.04  # usual relative error of a pixel size
_SHEAR_SD = 0.05  # usual strain by the scan, beside a change of scale
_PHASE_SD = np.radians(25.0)  # usual error of a sum of three phases, by the probe's aberrations
_EXPONENTS = (1.3, 1.65, 2.0)  # exponents of the contrast, from a wide detector to a narrow one
_MOST_EVIDENCE = 25.0  # nats: beyond it scale, shape and pattern decide between materials
# Score, in nats, of "none of them": a lattice needs more. One in e^8 = 3000 frames of noise has it.
_NONE = 8.0
# Where there is a lattice, a material's may be off by so many nats in scale, shape and pattern
# before an unknown crystal is likelier.
_OTHER_CRYSTAL = 4.0
CLEAR = 0.8  # probability from which a material is clearly likely
# Probability below which a material is excluded, and that of the others together.
_UNLIKELY, _CERTAIN = 0.05, 0.9


@dataclass(frozen=True, slots=True)
class Match:
    """How a material's lattice fits frames.

    Parameters
    ----------
    name
        Name of the material.
    probability
        That the frames show it, among the materials and "none of them".
    evidence
        Negative logarithm of the probability that frames without a lattice have such reflections,
        nats.
    pixel_size_A
        Pixel size at which its lattice fits best, Å; within 12 % of the frames'.
    """

    name: str
    probability: float
    evidence: float
    pixel_size_A: float


@dataclass(frozen=True, slots=True)
class Screening:
    """Materials in the order of their probability.

    Parameters
    ----------
    matches
        One for every material with a lattice.
    """

    matches: tuple[Match, ...]

    @property
    def best(self) -> Match | None:
        """The likeliest material."""
        return self.matches[0] if self.matches else None

    @property
    def none(self) -> float:
        """Probability of none of the materials."""
        return 1.0 - sum(m.probability for m in self.matches)

    @property
    def clear(self) -> Match | None:
        """The material that is clearly likely; None if none is."""
        return self.best if self.best and self.best.probability >= CLEAR else None

    def excludes(self, name: str) -> bool:
        """Tell whether other materials are clearly likely in the place of this one."""
        own = next((m.probability for m in self.matches if m.name == name), None)
        return own is not None and own < _UNLIKELY and 1.0 - own - self.none >= _CERTAIN

    def in_words(self) -> str:
        """The likely materials and their probabilities, as in "graphene 97 %, h-BN 2 %"."""
        shown = [m for m in self.matches if m.probability >= 0.01][:4]
        parts = [f"{m.name} {m.probability:.0%}" for m in shown]
        return ", ".join([*parts, f"none of them {self.none:.0%}"])


def screen(
    images: Sequence[NDArray[np.float32]],
    pixel_size_A: float,
    materials: Sequence[Material],
    *,
    prior: Mapping[str, float] | None = None,
) -> Screening:
    """Compare frames with the lattices of materials, at the frames' scale.

    The frames are cut into windows. In noise, the power of a window at a frequency over the mean at
    its radius is exponentially distributed; the evidence for a lattice is the sum over the windows
    at its first reflections (a gamma distribution), at the scale and rotation where it is largest,
    times the number of these (Bonferroni). Stripes are one reflection, and not a lattice. The
    phases of the reflections, compared up to a shift, tell patterns of equal lattices apart.

    Parameters
    ----------
    images
        Frames of one scale, each of shape (row, col).
    pixel_size_A
        Å.
    materials
        Those to choose from; materials without a lattice cannot be told so and are left out.
    prior
        Odds of materials before a frame is seen, by name; 1 for the others.

    Returns
    -------
    Every material with its probability.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import GRAPHENE
    >>> noise = np.random.default_rng(0).poisson(5.0, (128, 128)).astype(np.float32)
    >>> screen([noise], 0.15, [GRAPHENE]).clear is None
    True
    """
    windows = _windows(images[:: max(len(images) // _MOST_FRAMES, 1)][:_MOST_FRAMES], pixel_size_A)
    candidates = [m for m in materials if m.has_lattice] if windows else []
    fits = [_fit(windows, m) for m in candidates]
    evidence = min(max((fit.evidence for fit in fits), default=0.0), _MOST_EVIDENCE)
    none = max(_NONE, evidence - _OTHER_CRYSTAL)
    before = [np.log((prior or {}).get(m.name, 1.0)) for m in candidates]
    scores = np.array([fit.score + p for fit, p in zip(fits, before, strict=True)] + [none])
    chance = np.exp(scores - scores.max())
    chance /= chance.sum()
    matches = [
        Match(m.name, float(p), fit.evidence, pixel_size_A * fit.scale)
        for m, p, fit in zip(candidates, chance[:-1], fits, strict=True)
    ]
    return Screening(tuple(sorted(matches, key=lambda m: (-m.probability, m.name))))


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Spectrum of a window: complex, and its power over the mean at each radius; centred."""

    amplitude: ComplexArray
    power: FloatArray
    step: float  # 1/Å


@dataclass(frozen=True, slots=True)
class _Fitted:
    score: float
    evidence: float
    scale: float


def _windows(images: Sequence[NDArray[np.float32]], px: float) -> list[_Window]:
    out = []
    for image in images:
        data = np.clip(image, *np.percentile(image, (0.1, 99.9))).astype(np.float64)
        by = max(int(_FINEST_A / 2 / px), 1)
        rows, cols = (n // by for n in data.shape)
        data = data[: rows * by, : cols * by].reshape(rows, by, cols, by).mean(axis=(1, 3))
        side = min(round(_WINDOW_A / (px * by)), rows, cols)
        for r, c in product(_starts(rows, side), _starts(cols, side)):
            part = data[r : r + side, c : c + side]
            if part.std() > 0:
                out.append(_spectrum_of(part, px * by))
    return out


def _starts(size: int, side: int) -> NDArray[np.int64]:
    count = min(1 + (size - side) // max(side // 2, 1), _WINDOWS)
    return np.unique(np.linspace(0, size - side, count).astype(np.int64))


def _spectrum_of(part: FloatArray, px: float) -> _Window:
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
    return _Window(amplitude / np.sqrt(noise), power / noise, 1.0 / (size * px))


def _fit(windows: Sequence[_Window], material: Material) -> _Fitted:
    """Fit scale, rotation and strain of a lattice, and judge them and its pattern."""
    reflections, rings = reflections_of(material)
    first = reflections[rings == 0]
    step = windows[0].step
    radius = float(np.linalg.norm(first, axis=1).min()) / step
    edge = len(windows[0].power) // 2
    furthest = float(np.linalg.norm(first, axis=1).max()) * (1 + _SCALE_RANGE) / step
    if radius < 4.0 or furthest > 0.95 * edge:  # too few periods, or pixels too coarse
        return _Fitted(0.0, 0.0, 1.0)
    angles = np.arange(0.0, np.pi, 0.7 / radius)
    reach = np.log1p(_SCALE_RANGE)
    scales = np.exp(np.linspace(-reach, reach, 2 * int(reach * radius / 0.7) + 1))
    total = _summed(windows, first, scales, angles)
    # Of three and more reflections one may be missing (astigmatism); stripes have one alone.
    rank = len(first) - 1 if len(first) > 2 else len(first)
    weakest = np.sort(total, axis=-1)[..., len(first) - rank]
    i, j = np.unravel_index(int(np.argmax(weakest)), weakest.shape)
    evidence = _evidence(float(weakest[i, j]), len(windows), rank, len(first))
    evidence = max(evidence - float(np.log(angles.size * scales.size)), 0.0)
    start = float(scales[i]) * _rotation(float(angles[j]))
    linear = _refined(windows, first, start)
    scale = float(np.sqrt(abs(np.linalg.det(linear))))
    stretch = np.linalg.svd(linear / scale)[1]
    score = min(evidence, _MOST_EVIDENCE)
    score -= 0.5 * (np.log(scale) / _SCALE_SD) ** 2
    score -= (np.log(stretch[0]) / _SHEAR_SD) ** 2
    score -= 0.5 * _misfit(windows, material, linear)
    return _Fitted(score, evidence, scale)


def _evidence(power: float, windows: int, rank: int, reflections: int) -> float:
    """Negative logarithm of the probability that noise has `rank` reflections of this power."""
    one = float(special.gammaincc(windows, power))
    chance = float(special.bdtrc(rank - 1, reflections, one))
    if chance > 0.0:
        return -float(np.log(chance))
    # The tail of the gamma distribution, where it is below the smallest number.
    tail = power - (windows - 1) * np.log(power) + special.gammaln(windows)
    return float(rank * tail)


def _rotation(angle: float) -> FloatArray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def _summed(
    windows: Sequence[_Window], g: FloatArray, scales: FloatArray, angles: FloatArray
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


def _refined(windows: Sequence[_Window], g: FloatArray, linear: FloatArray) -> FloatArray:
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


def _misfit(windows: Sequence[_Window], material: Material, linear: FloatArray) -> float:
    """Chi-squared of the phases of the reflections against the material's patterns.

    The sum of the phases of three reflections whose sum is zero does not depend on the origin (a
    structure invariant), so windows can be added. It is 180 degrees for a honeycomb of one element
    and 0 for a lattice of spots. The best of the arrangements, of both directions of the lattice,
    and of the detector's exponents counts.
    """
    g, rings = reflections_of(material)
    turned = g @ linear.T
    if np.linalg.norm(turned, axis=1).max() / windows[0].step > len(windows[0].power) // 2 - 2:
        g, turned = g[rings == 0], turned[rings == 0]
    triplets = _triplets(g)
    seen = np.stack([_at(w, turned) for w in windows])
    signal = (np.abs(seen) ** 2).mean(axis=0) - 1.0
    noise: FloatArray = (0.5 / np.maximum(signal, 0.05))[np.abs(triplets) - 1].sum(axis=1)
    triplets, noise = triplets[noise < 1.0], noise[noise < 1.0] / len(windows)
    if not len(triplets):
        return 0.0
    total = _products(seen, triplets).sum(axis=0)
    best = np.inf
    for each in material.arrangements():
        for exponent in _EXPONENTS:
            wanted = _products(_structure(each, g, exponent)[None], triplets)[0]
            for pattern in (wanted, wanted.conj()):
                off = np.angle(total * pattern.conj())
                best = min(best, float((off**2 / (_PHASE_SD**2 + noise)).sum()))
    return best


def _triplets(g: FloatArray) -> NDArray[np.int64]:
    """Numbers from 1, negative for the opposite, of three reflections whose sum is zero."""
    both = np.concatenate([g, -g])
    number = np.concatenate([np.arange(1, len(g) + 1), -np.arange(1, len(g) + 1)])
    found = [
        (int(number[i]), int(number[j]), int(number[k]))
        for i, j, k in combinations(range(len(both)), 3)
        if i < len(g) and np.abs(both[i] + both[j] + both[k]).max() < 1e-6
    ]
    unique = {tuple(sorted(abs(n) for n in three)): three for three in found}
    return np.array([*unique.values()], dtype=np.int64).reshape(-1, 3)


def _products(amplitude: ComplexArray, triplets: NDArray[np.int64]) -> ComplexArray:
    """Products of the amplitudes of each triplet, shape (window, triplet)."""
    three = amplitude[:, np.abs(triplets) - 1]
    out: ComplexArray = np.where(triplets < 0, three.conj(), three).prod(axis=2)
    return out


def _at(w: _Window, g: FloatArray) -> ComplexArray:
    """Amplitudes at reflections."""
    at = np.stack([g[:, 1], g[:, 0]]) / w.step + len(w.power) // 2
    real, imaginary = (
        ndimage.map_coordinates(part, at, order=1) for part in (w.amplitude.real, w.amplitude.imag)
    )
    out: ComplexArray = real + 1j * imaginary
    return out


def _structure(material: Material, g: FloatArray, exponent: float) -> ComplexArray:
    number = {s: k for k, s in enumerate(material.species)}
    bright = material.brightness(exponent)[[number[s] for s in material.site_species]]
    xy = np.asarray(material.basis) @ material.cell()
    phases = 2.0 * np.pi * (g @ xy.T)
    out: ComplexArray = np.cos(phases) @ bright - 1j * (np.sin(phases) @ bright)
    return out
