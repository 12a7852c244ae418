"""Which of several candidate crystals do frames show? Lattice, and intensities in its cell.

`screening` asks whether frames may be a material at all, and judges a pattern by its phases alone,
which hold on dirt and in strong aberrations too. Here the frames are known to be one of the
candidates, so amplitudes count as well: the transfer of the probe is fitted, and what is left
belongs to the atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.frames.lattice.windows import (
    EXPONENTS,
    MOST_EVIDENCE,
    SHEAR_SD,
    ComplexArray,
    FoundLattice,
    Window,
    find_lattice,
    triplet_products,
    triplets_of,
    windows_of,
)
from adatom.materials.same_structure import same_structure

SCALE_SD = 0.04  # usual relative error of a pixel size
_FURTHEST = 0.15  # relative error of a pixel size beyond which a lattice is another one
_RINGS = 4  # rings of reflections that are compared
_SEARCHED = 2  # of them, the strongest, in which the lattice is looked for
# Evidence from which a lattice is likelier than none, nats: one in e^3 = 20 frames of noise has it.
_NOISE = 3.0
_PHASE_SD = np.radians(20.0)  # usual error of a sum of three phases, by the probe's aberrations
_AMPLITUDE_SD = (
    0.15  # usual relative error of an amplitude, by vacancies, dirt and the probe's shape
)
_NUMBER = 24.0  # values that a pattern counts for, whatever its number of reflections is
_FAINTEST = 0.03  # of the strongest amplitude: weaker ones are not told from nothing
# Variance of the spot of an atom, Å², its spread, and that of its astigmatism: 0.3 to 0.56 Å.
_SPOT_A2, _SPOT_SD_A2, _ASTIGMATISM_SD_A2 = 0.18, 0.06, 0.03
_APART = 0.6  # share of the windows that do not overlap others


@dataclass(frozen=True, slots=True)
class Candidate:
    """How well a candidate explains frames.

    Parameters
    ----------
    name
        Name of the material.
    probability
        That the frames show it, among the candidates and "no lattice".
    structure_probability
        The same of all candidates with its structure, whatever their elements are
        (`materials.same_structure`).
    pixel_size_A
        Pixel size at which its lattice fits best, Å; within 12 % of the given one.
    """

    name: str
    probability: float
    structure_probability: float
    pixel_size_A: float


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What is seen at the reflections of a lattice."""

    g: FloatArray  # where they lie in the frame, shape (reflection, 2), 1/Å
    log_amplitude: FloatArray  # up to a constant
    variance: FloatArray  # of that
    triplets: NDArray[np.int64]
    products: ComplexArray  # of the amplitudes of each triplet
    phase_variance: FloatArray


def compare_candidates(
    images: Sequence[NDArray[np.float32]],
    pixel_size_A: float,
    materials: Sequence[Material],
    *,
    scale_sd: float = SCALE_SD,
) -> tuple[Candidate, ...]:
    """Compare frames that show one of several crystals with each of them.

    The lattice counts by its scale and strain; the atoms of its cell by the amplitudes of the first
    four rings of reflections, up to a Gaussian transfer that is fitted, and by the phases of
    reflections that add up to zero. Intensities go with the power 1.3 to 2.0 of the atomic number.

    Parameters
    ----------
    images
        Frames of one scale, each of shape (row, col).
    pixel_size_A
        Å.
    materials
        The candidates; those without a lattice cannot be told so and get no probability.
    scale_sd
        Relative standard deviation of the pixel size.

    Returns
    -------
    The candidates, the likeliest first. What is missing to a sum of 1 is the probability that no
    lattice is seen.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import GRAPHENE
    >>> noise = np.random.default_rng(0).poisson(5.0, (128, 128)).astype(np.float32)
    >>> compare_candidates([noise], 0.15, [GRAPHENE])[0].probability < 0.1
    True
    """
    windows = windows_of(images, pixel_size_A)
    found = [_lattice(windows, m) if windows and m.has_lattice else None for m in materials]
    scores = np.array(
        [
            -np.inf if f is None else _score(windows, m, f, scale_sd)
            for m, f in zip(materials, found, strict=True)
        ]
    )
    chance = _chances(scores, max((f.evidence for f in found if f is not None), default=0.0))
    scales = [1.0 if f is None else f.scale for f in found]
    ranked = [
        Candidate(m.name, float(p), _together(m, materials, chance), pixel_size_A * scale)
        for m, p, scale in zip(materials, chance, scales, strict=True)
    ]
    return tuple(sorted(ranked, key=lambda c: (-c.probability, c.name)))


def _chances(scores: FloatArray, evidence: float) -> FloatArray:
    """Probabilities of the candidates by their scores, beside "no lattice"."""
    if not np.isfinite(scores).any():
        return np.zeros(len(scores))
    seen = 1.0 / (1.0 + np.exp(np.clip(_NOISE - evidence, -50.0, 50.0)))
    chance: FloatArray = np.exp(scores - scores.max())
    chance *= seen / chance.sum()
    return chance


def _together(material: Material, materials: Sequence[Material], chance: FloatArray) -> float:
    """Probability of all candidates with the structure of a material."""
    if not material.has_lattice:
        return 0.0
    pairs = zip(materials, chance.tolist(), strict=True)
    return float(sum(p for m, p in pairs if p > 0.0 and same_structure(material, m)))


def _lattice(windows: Sequence[Window], material: Material) -> FoundLattice | None:
    """Find its lattice by one of the two rings that should be the strongest."""
    g, ring = _reflections(material)
    expected = np.abs(np.mean([_structure(material, g, e) for e in EXPONENTS], axis=0))
    expected *= np.exp(-2.0 * np.pi**2 * _SPOT_A2 * (g**2).sum(axis=1))
    weakest = [float(expected[ring == r].min()) for r in range(_RINGS)]
    strongest = np.argsort(-np.array(weakest))[:_SEARCHED]
    tried = (find_lattice(windows, g[ring == r]) for r in strongest)
    near = [f for f in tried if f is not None and abs(np.log(f.scale)) < _FURTHEST]
    return max(near, key=lambda f: f.evidence, default=None)


def _score(
    windows: Sequence[Window], material: Material, found: FoundLattice, scale_sd: float
) -> float:
    score = min(found.evidence, MOST_EVIDENCE)
    score -= 0.5 * float(np.log(found.scale) / scale_sd) ** 2
    score -= float(np.log(found.stretch) / SHEAR_SD) ** 2
    return score + _log_likelihood(windows, material, found)


def _log_likelihood(windows: Sequence[Window], material: Material, found: FoundLattice) -> float:
    """Logarithm of the likelihood of the pattern, the mean over arrangements and exponents.

    How wrong the model of the image is, is not known: a Student distribution takes all errors to be
    larger by a common factor. Lattices have different numbers of reflections, and all count alike.
    """
    ideal, _ = _reflections(material)
    g = ideal @ found.linear.T
    inside = np.linalg.norm(g, axis=1) / windows[0].step < len(windows[0].power) // 2 - 2
    pattern = _pattern(windows, ideal[inside], g[inside])
    free = len(pattern.g) + min(len(pattern.triplets), max(len(pattern.g) - 2, 0))
    chi2 = np.array(
        [
            _misfit(pattern, _structure(each, ideal[inside], exponent))
            for each in material.arrangements()
            for exponent in EXPONENTS
        ]
    )
    log = -0.5 * _NUMBER * np.log1p(chi2 / free)
    best = float(log.max())
    return best + float(np.log(np.mean(np.exp(log - best))))


def _pattern(windows: Sequence[Window], ideal: FloatArray, g: FloatArray) -> _Pattern:
    seen = np.stack([w.at(g) for w in windows])
    noise = np.stack([w.noise_at(g) for w in windows])
    count = max(_APART * len(windows), 1.0)
    power = np.abs(seen) ** 2
    floor = noise.mean(axis=0)
    signal = (power * noise).mean(axis=0) - floor
    sd = np.sqrt((floor**2 + 2.0 * floor * np.maximum(signal, 0.0)) / count)
    signal = np.maximum(signal, 0.7 * sd)
    triplets = triplets_of(ideal)
    over = np.maximum(power.mean(axis=0) - 1.0, 0.05)
    one: FloatArray = (0.5 / over)[np.abs(triplets) - 1].sum(axis=1)
    clear = one < 1.0
    products = triplet_products(seen, triplets[clear]).sum(axis=0)
    # There are more triplets than reflections, so they are not independent.
    shared = max(int(clear.sum()) / max(len(g) - 2, 1), 1.0)
    return _Pattern(
        g, 0.5 * np.log(signal), (0.5 * sd / signal) ** 2 + _AMPLITUDE_SD**2,
        triplets[clear], products, (_PHASE_SD**2 + one[clear] / count) * shared,
    )  # fmt: skip


def _misfit(seen: _Pattern, structure: ComplexArray) -> float:
    """Chi-squared of amplitudes and phases; the transfer of the probe is fitted to logarithms."""
    size = np.abs(structure)
    y = seen.log_amplitude - np.log(np.maximum(size, _FAINTEST * size.max()))
    gx, gy = seen.g.T
    columns = [np.ones(len(gx))]
    columns += [-2 * np.pi**2 * each for each in (gx**2, gy**2, 2 * gx * gy)]
    x = np.stack(columns, axis=1)
    prior = np.array([0.0, _SPOT_A2, _SPOT_A2, 0.0])
    tie = np.diag([1e-6, _SPOT_SD_A2**-2, _SPOT_SD_A2**-2, _ASTIGMATISM_SD_A2**-2])
    weighted = x.T / seen.variance
    fit = np.linalg.solve(weighted @ x + tie, weighted @ y + tie @ prior)
    off = fit - prior
    chi2 = float(((y - x @ fit) ** 2 / seen.variance).sum() + off @ tie @ off)
    wanted = triplet_products(structure[None], seen.triplets)[0]
    # A crystal may lie on either side.
    return chi2 + min(
        float((np.angle(seen.products * each.conj()) ** 2 / seen.phase_variance).sum())
        for each in (wanted, wanted.conj())
    )


def _reflections(material: Material) -> tuple[FloatArray, NDArray[np.int64]]:
    """Half of the first rings of reflections, one of each pair ±g, and the ring of each."""
    reciprocal = np.linalg.inv(material.cell()).T
    h, k = np.meshgrid(np.arange(-4, 5), np.arange(-4, 5), indexing="ij")
    index = np.stack([h.ravel(), k.ravel()], axis=1)
    g = index[np.any(index != 0, axis=1)] @ reciprocal
    g = g[(g[:, 1] > 1e-9) | ((np.abs(g[:, 1]) < 1e-9) & (g[:, 0] > 0))]
    length = np.round(np.linalg.norm(g, axis=1), 3)  # cells are written with three decimals
    rings = np.unique(length)[:_RINGS]
    keep = np.isin(length, rings)
    return g[keep], np.searchsorted(rings, length[keep])


def _structure(material: Material, g: FloatArray, exponent: float) -> ComplexArray:
    """Sum over the atoms of a cell, also those too dim to be columns of the material."""
    if material.crystal is not None:
        xy = material.crystal.positions_A[:, :2]
        weight = np.array([atomic_numbers[s] ** exponent for s in material.crystal.symbols])
    else:
        xy = np.asarray(material.basis) @ material.cell()
        number = {label: k for k, label in enumerate(material.species)}
        weight = material.brightness(exponent)[[number[s] for s in material.site_species]]
    phases = 2.0 * np.pi * (g @ xy.T)
    out: ComplexArray = (np.cos(phases) - 1j * np.sin(phases)) @ weight
    return out
